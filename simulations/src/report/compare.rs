//! Several runs beside one another: their curves in one plot, their ends in a table, and what a sweep found at its points.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::STYLE;
use super::chart::{Axis, Chart, Mark, Marker, Point, Series};
use super::charts::greatest;
use super::grid::grids;
use super::words::{bytes, count, epsilon, or_dash, percent, short};
use crate::record::{RoundRecord, Summary};

/// Runs whose curves are drawn: more could not be told apart.
const MOST_CURVES: usize = 12;
const COLOURS: [&str; 4] = ["blue", "orange", "green", "grey"];
const MARKERS: [Marker; 3] = [Marker::Circle, Marker::Triangle, Marker::Cross];

/// A run as it is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// What it is called.
    pub name: String,
    /// Of a sweep's point, each swept key and its value, in the order of the axes.
    pub point: Vec<(String, String)>,
    /// How it ended.
    pub summary: Summary,
    /// Its rounds.
    pub rounds: Vec<RoundRecord>,
}

impl Compared {
    /// Accuracy on the worst tenth of the measured clients, at the last measurement.
    pub fn worst_tenth(&self) -> Option<f64> {
        self.rounds.iter().rev().find_map(|round| Some(round.client_accuracy.as_ref()?.worst_tenth))
    }

    /// The numbers that runs are compared by, with the names of their columns.
    fn numbers(&self) -> [(&'static str, Option<f64>); 9] {
        let summary = &self.summary;
        [
            ("rounds", Some(f64::from(summary.rounds))),
            ("test_accuracy", summary.test_accuracy),
            ("worst_tenth_accuracy", self.worst_tenth()),
            ("test_loss", self.rounds.iter().rev().find_map(|round| round.test_loss)),
            ("epsilon", Some(summary.epsilon)),
            ("attack_success", summary.attack_success),
            ("bytes_up_per_client_round", Some(summary.bytes_up_per_client_round as f64)),
            ("bytes_down_per_client_round", Some(summary.bytes_down_per_client_round as f64)),
            ("rounds_aborted", Some(f64::from(summary.rounds_aborted))),
        ]
    }
}

/// Runs as a CSV table: a line for each, swept keys first. A field that was not measured, or is infinite, is empty.
pub fn comparison_csv(runs: &[Compared]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let Some(first) = runs.first() else { return String::new() };
    let keys = first.point.iter().map(|(key, _)| quoted(key));
    let columns = first.numbers().map(|(name, _)| name.to_owned());
    let mut text = [vec!["run".to_owned()], keys.collect(), columns.to_vec()].concat().join(",") + "\n";
    for run in runs {
        let values = run.point.iter().map(|(_, value)| quoted(value)).collect();
        let number = |(_, value): (_, Option<f64>)| {
            value.filter(|value| value.is_finite()).map_or_else(String::new, |value| value.to_string())
        };
        let fields = [vec![quoted(&run.name)], values, run.numbers().map(number).to_vec()].concat();
        text += &(fields.join(",") + "\n");
    }
    text
}

/// Runs as one page.
pub fn comparison_html(title: &str, runs: &[Compared]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Fedveil: " (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.lead { (count(runs.len() as u32, "run")) " beside one another." }
                }
                main {
                    @for grid in grids(runs) { (grid.section()) }
                    section {
                        h2 { "Round by round" }
                        @if runs.len() > MOST_CURVES {
                            p.muted { "The first " (MOST_CURVES) " of " (runs.len()) " runs." }
                        }
                        div.plots {
                            @for chart in charts(runs) { (chart.figure()) }
                        }
                    }
                    section { h2 { "Runs" } (table(runs)) }
                }
            }
        }
    };
    page.into_string()
}

/// What is drawn of a round.
type Curve = (&'static str, &'static str, fn(&RoundRecord) -> Option<f64>, fn(f64) -> String);

fn charts(runs: &[Compared]) -> Vec<Chart> {
    let curves: [Curve; 6] = [
        ("Test accuracy", "test accuracy (%)", |round| round.test_accuracy.map(|share| 100.0 * share), short),
        ("Test loss", "mean cross-entropy (nats)", |round| round.test_loss, short),
        (
            "Worst tenth of the clients",
            "accuracy on their own data (%)",
            |round| Some(100.0 * round.client_accuracy.as_ref()?.worst_tenth),
            short,
        ),
        ("Privacy spent", "ε", |round| Some(round.epsilon), short),
        (
            "Attack success",
            "backdoored examples (%)",
            |round| round.attack_success.map(|share| 100.0 * share),
            short,
        ),
        (
            "Traffic of a client",
            "KiB up and down in a round",
            |round| {
                Some(
                    (round.bytes_up + round.bytes_down) as f64
                        / f64::from(round.clients_joined.max(1))
                        / 1024.0,
                )
            },
            short,
        ),
    ];
    curves.into_iter().filter_map(|curve| chart(runs, curve)).chain(against(runs)).collect()
}

/// None where nothing of it was measured.
fn chart(runs: &[Compared], (title, label, of, format): Curve) -> Option<Chart> {
    let value = |round: &RoundRecord| of(round).filter(|value| value.is_finite());
    let shown = &runs[..runs.len().min(MOST_CURVES)];
    let series: Vec<Series> = shown
        .iter()
        .enumerate()
        .map(|(at, run)| {
            let point = |round: &RoundRecord| {
                let y = value(round)?;
                let title = format!("{}, round {}: {}", run.name, round.round, format(y));
                Some(Point { x: f64::from(round.round), y: Some(y), title })
            };
            Series {
                name: run.name.clone(),
                class: COLOURS[at % COLOURS.len()],
                mark: Mark::Line(MARKERS[(at / COLOURS.len() + at) % MARKERS.len()]),
                points: run.rounds.iter().filter_map(point).collect(),
            }
        })
        .filter(|series| !series.points.is_empty())
        .collect();
    let all = || series.iter().flat_map(|series| &series.points);
    let (least, most) = (
        all().filter_map(|point| point.y).fold(f64::INFINITY, f64::min),
        greatest(all().filter_map(|point| point.y)),
    );
    let last = shown.iter().filter_map(|run| run.rounds.last()).map(|round| round.round).max()?;
    all().next()?;
    let ends: Vec<String> = series
        .iter()
        .filter_map(|series| Some(format!("{} {}", series.name, format(series.points.last()?.y?))))
        .collect();
    Some(Chart {
        title,
        alt: format!("Line plot over rounds, in the end: {}.", ends.join(", ")),
        x: Axis::counts("round", 0, last),
        y: Axis::linear(
            label,
            if least > 0.8 * most { 0.9 * least } else { least.min(0.0) },
            1.04 * most,
            short,
        ),
        series,
    })
}

/// The accuracy at the end against the one key that a sweep goes through, where its values are numbers.
fn against(runs: &[Compared]) -> Option<Chart> {
    let [(key, _)] = runs.first()?.point.as_slice() else { return None };
    let number = |run: &Compared| match run.point.as_slice() {
        [(_, value)] => value.parse::<f64>().ok().filter(|value| value.is_finite()),
        _ => None,
    };
    let points: Vec<Point> = runs
        .iter()
        .filter_map(|run| {
            let (x, y) = (number(run)?, run.summary.test_accuracy?);
            Some(Point { x, y: Some(100.0 * y), title: format!("{key} = {x}: {}", percent(y)) })
        })
        .collect();
    if points.len() < 2 {
        return None;
    }
    let (low, high) = points
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| (low.min(point.x), high.max(point.x)));
    let x = if low > 0.0 && high > 20.0 * low {
        Axis::logarithmic(key.clone(), low, high, short)
    } else {
        Axis::linear(key.clone(), low.min(0.0), high, short)
    };
    Some(Chart {
        title: "Accuracy over the sweep",
        alt: format!("Line plot of the test accuracy at the end against {key}."),
        x,
        y: Axis::linear("test accuracy (%)", 0.0, 100.0, short),
        series: vec![Series {
            name: "test accuracy at the end".to_owned(),
            class: "blue",
            mark: Mark::Line(Marker::Circle),
            points,
        }],
    })
}

fn table(runs: &[Compared]) -> Markup {
    html! {
        div.panel.scroll role="region" aria-label="Runs" tabindex="0" {
            table {
                thead {
                    tr {
                        th.words scope="col" { "Run" }
                        th scope="col" { "Rounds" }
                        th scope="col" { "Test accuracy" }
                        th scope="col" { "Worst tenth" }
                        th scope="col" { "ε spent" }
                        th scope="col" { "Attack success" }
                        th.words scope="col" { "Rule" }
                        th.words scope="col" { "Mode" }
                        th scope="col" { "Up a round" }
                        th scope="col" { "Down a round" }
                        th.words scope="col" { "Ended" }
                    }
                }
                tbody {
                    @for run in runs {
                        @let summary = &run.summary;
                        tr {
                            th.words scope="row" { (run.name) }
                            td { (summary.rounds) }
                            td { (or_dash(summary.test_accuracy, percent)) }
                            td { (or_dash(run.worst_tenth(), percent)) }
                            td { (epsilon(summary.epsilon)) }
                            td { (or_dash(summary.attack_success, percent)) }
                            td.words { (summary.rule) }
                            td.words { (summary.aggregation_mode) }
                            td { (bytes(summary.bytes_up_per_client_round as f64)) }
                            td { (bytes(summary.bytes_down_per_client_round as f64)) }
                            td.words { (summary.stopped_because) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{round, summary};

    fn run(name: &str, point: &[(&str, &str)], accuracy: f64) -> Compared {
        Compared {
            name: name.to_owned(),
            point: point.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            summary: Summary { test_accuracy: Some(accuracy), ..summary() },
            rounds: (1..=3).map(round).collect(),
        }
    }

    #[test]
    fn a_page_has_every_run_and_runs_nothing() {
        let page = comparison_html("a & b", &[run("<one>", &[], 0.5), run("two", &[], 0.75)]);
        assert!(
            page.contains("a &amp; b") && page.contains("&lt;one&gt;") && page.contains("75.0 %"),
            "{page}"
        );
        assert!(!page.contains("<script") && page.contains("default-src 'none'"));
        assert!(page.contains("Test accuracy") && page.contains("Privacy spent"));
        assert!(!page.contains("Worst tenth of the clients"), "what nobody measured is not drawn");
        assert!(!page.contains("Accuracy over the sweep"));
    }

    #[test]
    fn one_numeric_axis_is_a_curve_and_two_axes_are_a_map() {
        let runs: Vec<Compared> = [("1", 0.2), ("8", 0.6)]
            .map(|(value, accuracy)| run(value, &[("privacy.epsilon", value)], accuracy))
            .into();
        assert!(comparison_html("", &runs).contains("Accuracy over the sweep"));
        let mut runs = Vec::new();
        for (rule, worse) in [("mean", 0.3), ("median", 0.0)] {
            for (attack, accuracy) in [("none", 0.9), ("alie", 0.8)] {
                runs.push(run(attack, &[("rule", rule), ("attack", attack)], accuracy - worse));
            }
        }
        let page = comparison_html("", &runs);
        // The least of the row of the mean, and of the median.
        assert!(
            page.contains("var(--blue) 30%") && page.contains("50.0 %") && page.contains("80.0 %"),
            "{page}"
        );
        assert!(!page.contains("Accuracy over the sweep"));
    }

    #[test]
    fn tables_have_swept_keys_as_columns() {
        let mut endless = run("a, \"b\"", &[("privacy.epsilon", "infinite")], 0.5);
        endless.summary.epsilon = f64::INFINITY;
        let text = comparison_csv(&[endless]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("run,\"privacy.epsilon\",rounds,test_accuracy,"), "{text}");
        assert!(lines[1].starts_with("\"a, \"\"b\"\"\",\"infinite\",12,0.5,,"), "{text}");
        assert!(lines[1].contains(",,0.125,9216,21504,1"), "{text}");
        assert_eq!(comparison_csv(&[]), "");
    }
}
