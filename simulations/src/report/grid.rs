//! What a sweep found at its points, as tables: its last axis across, the others down, and the worst of each row.
//!
//! Runs that differ in their seed alone are one cell, their mean.

use maud::{Markup, html};
use serde::Serialize;

use super::Compared;
use super::words::{count, or_dash, percent};

/// The axis over which means are taken.
const SEED: &str = "seed";

/// One number of every point of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grid {
    /// Which number, as in comparison.csv.
    pub measure: &'static str,
    /// The keys that go down.
    pub down: Vec<String>,
    /// The key that goes across.
    pub across: String,
    /// Its values.
    pub columns: Vec<String>,
    /// Runs behind a cell, at most.
    pub runs: usize,
    /// The rows.
    pub rows: Vec<GridRow>,
    #[serde(skip)]
    title: &'static str,
    #[serde(skip)]
    worst_is: &'static str,
}

/// One row of a [`Grid`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GridRow {
    /// The values of the keys that go down.
    pub values: Vec<String>,
    /// A number for each column; none where nothing was measured.
    pub cells: Vec<Option<f64>>,
    /// The worst of them.
    pub worst: Option<f64>,
}

/// A measure, what its title is, how it is read from a run, and which of two values is worse.
struct Measure {
    name: &'static str,
    title: &'static str,
    of: fn(&Compared) -> Option<f64>,
    worst: fn(f64, f64) -> f64,
    worst_is: &'static str,
}

const MEASURES: [Measure; 3] = [
    Measure {
        name: "test_accuracy",
        title: "Test accuracy at the end",
        of: |run| run.summary.test_accuracy,
        worst: f64::min,
        worst_is: "least",
    },
    Measure {
        name: "worst_tenth_accuracy",
        title: "Accuracy on the worst tenth of the clients",
        of: Compared::worst_tenth,
        worst: f64::min,
        worst_is: "least",
    },
    Measure {
        name: "attack_success",
        title: "Attack success",
        of: |run| run.summary.attack_success,
        worst: f64::max,
        worst_is: "greatest",
    },
];

/// The grids of a sweep with two axes or more besides the seed, one for each number that was measured.
pub fn grids(runs: &[Compared]) -> Vec<Grid> {
    let Some(first) = runs.first() else { return Vec::new() };
    let keys = |run: &Compared| -> Vec<String> { axes(run).map(|(key, _)| key.clone()).collect() };
    let axes = keys(first);
    if axes.len() < 2 || runs.iter().any(|run| keys(run) != axes) {
        return Vec::new();
    }
    let measured = |measure: &&Measure| runs.iter().any(|run| (measure.of)(run).is_some());
    MEASURES.iter().filter(measured).map(|measure| grid(runs, axes.clone(), measure)).collect()
}

/// Swept keys but for the seed, with their values.
fn axes(run: &Compared) -> impl Iterator<Item = &(String, String)> {
    run.point.iter().filter(|(key, _)| key != SEED)
}

fn grid(runs: &[Compared], mut down: Vec<String>, measure: &Measure) -> Grid {
    let across = down.pop().expect("a grid has two axes");
    let place = |run: &Compared| {
        let mut values: Vec<String> = axes(run).map(|(_, value)| value.clone()).collect();
        (values.pop().unwrap_or_default(), values)
    };
    let (mut columns, mut rows): (Vec<String>, Vec<Vec<String>>) = (Vec::new(), Vec::new());
    for (column, row) in runs.iter().map(place) {
        if !columns.contains(&column) {
            columns.push(column);
        }
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let mut most = 0;
    let mut cell = |row: &Vec<String>, column: &String| {
        let here = runs.iter().filter(|run| place(run) == (column.clone(), row.clone()));
        let found: Vec<f64> = here.filter_map(measure.of).collect();
        most = most.max(found.len());
        (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
    };
    let rows = rows.into_iter().map(|values| {
        let cells: Vec<Option<f64>> = columns.iter().map(|column| cell(&values, column)).collect();
        let worst = cells.iter().flatten().copied().reduce(measure.worst);
        GridRow { values, cells, worst }
    });
    let rows = rows.collect();
    let Measure { name, title, worst_is, .. } = *measure;
    Grid { measure: name, down, across, columns, runs: most, rows, title, worst_is }
}

impl Grid {
    /// As a section of a page.
    pub(super) fn section(&self) -> Markup {
        html! {
            section {
                h2 { (self.title) }
                p.muted {
                    "Across: " (self.across) ". The " (self.worst_is) " of a row stands at its end."
                    @if self.runs > 1 { " Each cell is the mean of " (count(self.runs as u32, "run")) "." }
                }
                div.panel.scroll role="region" aria-label=(self.title) tabindex="0" {
                    table {
                        thead {
                            tr {
                                @for key in &self.down { th.words scope="col" { (key) } }
                                @for column in &self.columns { th scope="col" { (column) } }
                                th scope="col" { (self.worst_is) }
                            }
                        }
                        tbody {
                            @for GridRow { values, cells, worst } in &self.rows {
                                tr {
                                    @for value in values { th.words scope="row" { (value) } }
                                    @for cell in cells.iter().chain([worst]) {
                                        td style=[cell.map(shade)] { (or_dash(*cell, percent)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Grids as CSV: a table for each, an empty line between two.
pub fn grids_csv(grids: &[Grid]) -> String {
    let quoted = |text: &String| format!("\"{}\"", text.replace('"', "\"\""));
    let number = |value: &Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let tables = grids.iter().map(|grid| {
        let mut head = vec!["measure".to_owned()];
        head.extend(grid.down.iter().chain(&grid.columns).map(quoted));
        head.push("worst".to_owned());
        let rows = grid.rows.iter().map(|GridRow { values, cells, worst }| {
            let mut fields = vec![grid.measure.to_owned()];
            fields.extend(values.iter().map(quoted));
            fields.extend(cells.iter().chain([worst]).map(number));
            fields.join(",") + "\n"
        });
        head.join(",") + "\n" + &rows.collect::<String>()
    });
    tables.collect::<Vec<String>>().join("\n")
}

/// The background of a share.
fn shade(share: f64) -> String {
    format!("background: color-mix(in srgb, var(--blue) {:.0}%, transparent)", 60.0 * share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Summary;
    use crate::report::tests::summary;

    fn run(rule: &str, seed: &str, threat: &str, accuracy: Option<f64>) -> Compared {
        let point = [("rule", rule), ("seed", seed), ("threat", threat)];
        Compared {
            name: String::new(),
            point: point.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            summary: Summary { test_accuracy: accuracy, attack_success: accuracy, ..summary() },
            rounds: Vec::new(),
        }
    }

    #[test]
    fn seeds_are_averaged_and_the_worst_is_that_of_the_means() {
        let runs = [
            run("mean", "1", "ipm", Some(0.5)),
            run("mean", "2", "ipm", Some(0.75)),
            run("mean", "1", "alie", Some(0.5)),
            run("mean", "2", "alie", Some(0.5)),
            run("a \"b\"", "1", "ipm", Some(0.25)),
            run("a \"b\"", "1", "alie", None),
        ];
        let grids = grids(&runs);
        let [accuracy, success] = grids.as_slice() else { panic!("{grids:?}") };
        assert_eq!((accuracy.across.as_str(), accuracy.runs), ("threat", 2));
        assert_eq!(
            (accuracy.down.as_slice(), &accuracy.columns[..]),
            (["rule".to_owned()].as_slice(), ["ipm".to_owned(), "alie".to_owned()].as_slice())
        );
        assert_eq!(accuracy.rows[0].cells, [Some(0.625), Some(0.5)]);
        assert_eq!((accuracy.rows[0].worst, success.rows[0].worst), (Some(0.5), Some(0.625)));
        assert_eq!((accuracy.rows[1].cells[1], accuracy.rows[1].worst), (None, Some(0.25)));
        let csv = grids_csv(&grids[..1]);
        let expected = "measure,\"rule\",\"ipm\",\"alie\",worst\n\
                        test_accuracy,\"mean\",0.625,0.5,0.5\n\
                        test_accuracy,\"a \"\"b\"\"\",0.25,,0.25\n";
        assert_eq!(csv, expected);
        let page = accuracy.section().into_string();
        assert!(page.contains("62.5 %") && page.contains("the mean of 2 runs"), "{page}");
    }

    #[test]
    fn one_axis_beside_the_seed_is_no_grid() {
        let mut one = run("mean", "1", "ipm", Some(0.5));
        one.point.remove(0);
        assert_eq!(grids(&[one.clone()]), []);
        assert_eq!(grids(&[run("mean", "1", "ipm", Some(0.5)), one]), [], "axes of different sweeps");
    }
}
