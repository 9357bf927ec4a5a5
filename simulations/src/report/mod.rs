//! A run as one self-contained HTML page.
//!
//! The page loads nothing and runs nothing, and says so to the browser in its content security policy: plots are
//! inline SVG, the style is inline, there is no script, font or link. Light and dark follow the reader's scheme.
//! Every string of the records is escaped.

mod chart;
mod compare;
mod decisions;
mod heat_map;
mod split;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::partition::Holdings;
use crate::record::{
    ClientAccuracy, GroupRecord, GroupStatus, RoundOutcome, RoundRecord, Summary, Suspect, Suspicion,
};
use chart::{Axis, Chart, Mark, Marker, Point, Series};

pub use compare::{Compared, comparison_csv, comparison_html};
pub use split::{split_html, split_svg};

const STYLE: &str = include_str!("style.css");

/// Scores whose largest is this many times the smallest are drawn on a logarithmic axis.
const LOGARITHMIC_FROM_RATIO: f64 = 10.0;

/// The report of a run. `notes` are plain sentences for the privacy section, one a point; `split` is who holds what,
/// where that is known.
pub fn html(summary: &Summary, rounds: &[RoundRecord], notes: &[String], split: Option<&Holdings>) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Fedveil run on " (summary.dataset) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Federated run on " (summary.dataset) }
                    p.lead {
                        (count(summary.rounds, "round")) " over " (count(summary.clients, "client"))
                        ", aggregated by " (summary.rule) " in mode " (summary.aggregation_mode)
                        ". Stopped because " (summary.stopped_because) "."
                    }
                }
                main {
                    (headline(summary))
                    section {
                        h2 { "Round by round" }
                        div.plots {
                            (accuracy_chart(summary, rounds).figure())
                            @if summary.epsilon_budget.is_finite() { (epsilon_chart(summary, rounds).figure()) }
                            (bytes_chart(rounds).figure())
                            (score_chart(rounds).figure())
                            @if let Some(chart) = clients_chart(rounds) { (chart.figure()) }
                        }
                    }
                    @if let Some(section) = decisions::section(rounds, row_noun(summary), summary.placement != NO_NOISE) { (section) }
                    (privacy(summary, notes))
                    @if let Some(split) = split { (split::section(split)) }
                    (setting(summary))
                    @if let Some(suspicion) = &summary.suspicion { (suspects(suspicion)) }
                    section {
                        h2 { "Rounds" }
                        p.muted { "Bytes are sums over the clients of the round. A digest shows in full under the pointer." }
                        (round_table(rounds))
                    }
                    (gate_table(rounds))
                    section {
                        h2 { "Groups" }
                        @for round in rounds { (group_table(round)) }
                        @if rounds.is_empty() { p.muted { "No round was run." } }
                    }
                }
                footer { "Fedveil " (summary.version) ". Bytes count protocol messages, before TLS." }
            }
        }
    };
    page.into_string()
}

/// What a plan will spend.
#[derive(Clone, Debug)]
pub struct PlannedLoss {
    /// Numbers of participations, rising, and the ε after each.
    pub spent: Vec<(u32, f64)>,
    /// The most participations that the budget pays for.
    pub affordable: u32,
    /// The ε at which the task stops.
    pub budget: f64,
    /// The δ of it.
    pub delta: f64,
}

/// ε against participations as an SVG file: the budget, what it pays for, and what would be refused beyond it.
pub fn epsilon_svg(planned: &PlannedLoss) -> String {
    let last = planned.spent.last().map_or(1, |(count, _)| *count);
    let points = |paid: bool| {
        let of_it = planned.spent.iter().filter(|(count, _)| (*count <= planned.affordable) == paid);
        let point = |&(count, spent): &(u32, f64)| Point {
            x: f64::from(count),
            y: Some(spent),
            title: format!("after {}: ε = {}", self::count(count, "participation"), epsilon(spent)),
        };
        of_it.map(point).collect::<Vec<_>>()
    };
    let highest = greatest(planned.spent.iter().map(|(_, spent)| *spent).chain([planned.budget]));
    let most =
        planned.spent.iter().filter(|(count, _)| *count <= planned.affordable).map(|(_, spent)| *spent);
    let chart = Chart {
        title: "Privacy that the plan spends",
        alt: format!(
            "Line plot of epsilon over participations: {} after {}, of a budget of {}.",
            epsilon(greatest(most)),
            count(planned.affordable, "participation"),
            epsilon(planned.budget)
        ),
        x: Axis::counts("participations of a client", 0, last),
        y: Axis::linear(format!("ε at δ = {}", short(planned.delta)), 0.0, 1.06 * highest, short),
        series: vec![
            Series {
                name: "budget".to_owned(),
                class: "orange",
                mark: Mark::Dashes,
                points: level(0, last, planned.budget),
            },
            Series {
                name: "paid for".to_owned(),
                class: "blue",
                mark: Mark::Line(Marker::Circle),
                points: points(true),
            },
            Series {
                name: "refused".to_owned(),
                class: "grey",
                mark: Mark::Scatter(Marker::Cross),
                points: points(false),
            },
        ],
    };
    chart.file(STYLE).into_string()
}

fn headline(summary: &Summary) -> Markup {
    let traffic = summary.bytes_up_per_client_round + summary.bytes_down_per_client_round;
    let cards = [
        (
            "Test accuracy",
            or_dash(summary.test_accuracy, percent),
            format!("initially {}", or_dash(summary.initial_accuracy, percent)),
        ),
        (
            "Privacy spent",
            format!("ε = {}", epsilon(summary.epsilon)),
            if summary.epsilon_budget.is_finite() {
                format!("of {} at δ = {}", epsilon(summary.epsilon_budget), short(summary.delta))
            } else {
                "without noise, nothing is private".to_owned()
            },
        ),
        (
            "Byzantine clients",
            format!("{} of {}", summary.byzantine, summary.clients),
            format!("attack: {}", summary.attack),
        ),
        (
            "Groups dropped",
            summary.groups_dropped.to_string(),
            format!(
                "{} withheld, {} aborted, {} rejected",
                summary.groups_withheld,
                count(summary.rounds_aborted, "round"),
                count(summary.rounds_rejected, "model")
            ),
        ),
        (
            "Traffic of a client",
            bytes(traffic as f64),
            format!(
                "a round: {} up, {} down",
                bytes(summary.bytes_up_per_client_round as f64),
                bytes(summary.bytes_down_per_client_round as f64)
            ),
        ),
        ("Duration", duration(summary.wall_seconds), format!("{} parameters", summary.model_parameters)),
    ];
    html! {
        dl.headline {
            @for (name, value, detail) in cards {
                div { dt { (name) } dd { span.value { (value) } span { (detail) } } }
            }
        }
    }
}

fn accuracy_chart(summary: &Summary, rounds: &[RoundRecord]) -> Chart {
    let first = first_round(rounds);
    let last = last_round(rounds);
    let at = |round: u32, accuracy: f64| Point {
        x: f64::from(round),
        y: Some(accuracy),
        title: format!("after round {round}: {}", percent(accuracy)),
    };
    let mut learned: Vec<Point> =
        summary.initial_accuracy.map(|accuracy| at(first, accuracy)).into_iter().collect();
    learned.extend(rounds.iter().filter_map(|round| Some(at(round.round, round.test_accuracy?))));
    let backdoor = |round: &RoundRecord| {
        let success = round.attack_success?;
        let title = format!("after round {}: {} of the backdoor's examples", round.round, percent(success));
        Some(Point { x: f64::from(round.round), y: Some(success), title })
    };
    let backdoor = Series {
        name: "backdoor succeeds".to_owned(),
        class: "orange",
        mark: Mark::Line(Marker::Triangle),
        points: rounds.iter().filter_map(backdoor).collect(),
    };
    Chart {
        title: "Test accuracy",
        alt: format!(
            "Line plot of test accuracy over {}: {} before the first, {} in the end.",
            count(summary.rounds, "round"),
            or_dash(summary.initial_accuracy, percent),
            or_dash(summary.test_accuracy, percent)
        ),
        x: Axis::counts("round", first, last),
        y: Axis::linear("test accuracy (%)", 0.0, 1.0, |share| format!("{:.0}", 100.0 * share)),
        series: vec![
            Series {
                name: "initial model".to_owned(),
                class: "grey",
                mark: Mark::Dashes,
                points: summary.initial_accuracy.map_or(Vec::new(), |accuracy| level(first, last, accuracy)),
            },
            Series {
                name: "global model".to_owned(),
                class: "blue",
                mark: Mark::Line(Marker::Circle),
                points: learned,
            },
        ]
        .into_iter()
        .chain((!backdoor.points.is_empty()).then_some(backdoor))
        .collect(),
    }
}

fn epsilon_chart(summary: &Summary, rounds: &[RoundRecord]) -> Chart {
    let first = first_round(rounds);
    let last = last_round(rounds);
    let spent: Vec<Point> = rounds
        .iter()
        .map(|round| Point {
            x: f64::from(round.round),
            y: Some(round.epsilon),
            title: format!("after round {}: ε = {}", round.round, epsilon(round.epsilon)),
        })
        .collect();
    let highest = greatest(spent.iter().filter_map(|point| point.y).chain([summary.epsilon_budget]));
    Chart {
        title: "Privacy spent",
        alt: format!(
            "Line plot of the epsilon spent over {}: {} in the end, of a budget of {}.",
            count(summary.rounds, "round"),
            epsilon(summary.epsilon),
            epsilon(summary.epsilon_budget)
        ),
        x: Axis::counts("round", first, last),
        y: Axis::linear(format!("ε at δ = {}", short(summary.delta)), 0.0, 1.06 * highest, short),
        series: vec![
            Series {
                name: "budget".to_owned(),
                class: "orange",
                mark: Mark::Dashes,
                points: level(first, last, summary.epsilon_budget),
            },
            Series {
                name: "spent by the most-charged client".to_owned(),
                class: "blue",
                mark: Mark::Line(Marker::Circle),
                points: spent,
            },
        ],
    }
}

/// How well the model does on the data of single clients; none where that was not measured.
fn clients_chart(rounds: &[RoundRecord]) -> Option<Chart> {
    let measured = || rounds.iter().filter_map(|round| Some((round.round, round.client_accuracy.as_ref()?)));
    let (_, last) = measured().next_back()?;
    let series = |name: &str, class, mark, of: fn(&ClientAccuracy) -> f64| {
        let point = |(round, accuracy): (u32, &ClientAccuracy)| Point {
            x: f64::from(round),
            y: Some(of(accuracy)),
            title: format!("after round {round}, {name}: {}", percent(of(accuracy))),
        };
        Series { name: name.to_owned(), class, mark, points: measured().map(point).collect() }
    };
    Some(Chart {
        title: "Accuracy of single clients",
        alt: format!(
            "Line plot of the accuracy on the clients' own data over rounds: in the end a median of {} and {} on the worst \
             tenth.",
            percent(last.quantiles[2]),
            percent(last.worst_tenth)
        ),
        x: Axis::counts("round", first_round(rounds), last_round(rounds)),
        y: Axis::linear("accuracy on own data (%)", 0.0, 1.0, |share| format!("{:.0}", 100.0 * share)),
        series: vec![
            series("upper quartile", "grey", Mark::Dashes, |accuracy| accuracy.quantiles[3]),
            series("median", "blue", Mark::Line(Marker::Circle), |accuracy| accuracy.quantiles[2]),
            series("lower quartile", "grey", Mark::Dashes, |accuracy| accuracy.quantiles[1]),
            series("worst tenth", "orange", Mark::Line(Marker::Triangle), |accuracy| accuracy.worst_tenth),
        ],
    })
}

fn bytes_chart(rounds: &[RoundRecord]) -> Chart {
    let per_client = |round: &RoundRecord, bytes: u64| bytes as f64 / f64::from(round.clients_joined.max(1));
    let most = greatest(rounds.iter().map(|round| per_client(round, round.bytes_up.max(round.bytes_down))));
    let (unit, factor) = byte_unit(most);
    let series = |name: &str, class, shape, of: fn(&RoundRecord) -> u64| Series {
        name: name.to_owned(),
        class,
        mark: Mark::Line(shape),
        points: rounds
            .iter()
            .map(|round| {
                let value = per_client(round, of(round));
                Point {
                    x: f64::from(round.round),
                    y: Some(value / factor),
                    title: format!("round {}: {} {name}", round.round, bytes(value)),
                }
            })
            .collect(),
    };
    Chart {
        title: "Traffic of a client",
        alt: format!(
            "Line plot of the bytes that a client sent and received in a round, on average over its clients: \
             at most {}.",
            bytes(most)
        ),
        x: Axis::counts("round", first_round(rounds), last_round(rounds)),
        y: Axis::linear(format!("{unit} per client and round"), 0.0, 1.1 * most / factor, short),
        series: vec![
            series("up", "green", Marker::Triangle, |round| round.bytes_up),
            series("down", "blue", Marker::Circle, |round| round.bytes_down),
        ],
    }
}

fn score_chart(rounds: &[RoundRecord]) -> Chart {
    let with_status = |status| {
        let groups = rounds.iter().flat_map(|round| round.groups.iter().map(move |group| (round, group)));
        groups.filter(move |(_, group)| group.status == status)
    };
    let series = |status, class, shape| {
        let points: Vec<Point> =
            with_status(status).map(|(round, group)| score_point(round, group)).collect();
        let name = format!("{} ({})", status_name(status), points.len());
        Series { name, class, mark: Mark::Scatter(shape), points }
    };
    let groups = || rounds.iter().flat_map(|round| &round.groups);
    let scores = || groups().filter_map(|group| group.score).filter(|score| score.is_finite());
    let (least, most) = (scores().fold(f64::INFINITY, f64::min), greatest(scores()));
    let label = "score (larger is more suspicious)";
    let y = if least > 0.0 && most > LOGARITHMIC_FROM_RATIO * least {
        Axis::logarithmic(label, least, most, short)
    } else {
        Axis::linear(label, least.min(0.0), 1.08 * most, short)
    };
    let unscored = if groups().any(|group| group.score.is_none()) {
        " (markers on the bottom edge: no score)"
    } else {
        ""
    };
    Chart {
        title: "Group scores",
        alt: format!(
            "Scatter plot of the robust rule's score of every group in every round: {} kept, {} dropped, {} \
             withheld.",
            with_status(GroupStatus::Kept).count(),
            with_status(GroupStatus::Dropped).count(),
            with_status(GroupStatus::Withheld).count()
        ),
        x: Axis::counts(format!("round{unscored}"), first_round(rounds), last_round(rounds)),
        y,
        series: vec![
            series(GroupStatus::Kept, "blue", Marker::Circle),
            series(GroupStatus::Dropped, "orange", Marker::Cross),
            series(GroupStatus::Withheld, "grey", Marker::Triangle),
        ],
    }
}

/// Where a group stands on an axis of rounds: beside those of the same round, in the order of the groups.
fn beside(round: &RoundRecord, group: &GroupRecord) -> f64 {
    let place = (f64::from(group.index) + 0.5) / round.groups.len() as f64;
    f64::from(round.round) + 0.7 * (place - 0.5)
}

fn score_point(round: &RoundRecord, group: &GroupRecord) -> Point {
    let score = group.score.map_or("not scored".to_owned(), |score| format!("score {}", short(score)));
    Point {
        x: beside(round, group),
        y: group.score,
        title: format!(
            "round {}, group {}: {}, {score}",
            round.round,
            group.index,
            status_name(group.status)
        ),
    }
}

fn privacy(summary: &Summary, notes: &[String]) -> Markup {
    html! {
        section {
            h2 { "Privacy" }
            div.panel {
                ul {
                    @if summary.epsilon_budget.is_infinite() {
                        li { "Nobody added noise: ε is infinite, and nothing of this run is private." }
                    } @else { li {
                        "The client that was charged most spent ε = " (epsilon(summary.epsilon)) " of "
                        (epsilon(summary.epsilon_budget)) " at δ = " (short(summary.delta)) "."
                    } }
                    @for note in notes { li { (note) } }
                }
            }
        }
    }
}

fn setting(summary: &Summary) -> Markup {
    let facts = [
        ("Data", summary.dataset.clone()),
        ("Aggregation mode", summary.aggregation_mode.clone()),
        ("Robust rule", summary.rule.clone()),
        ("Clients", summary.clients.to_string()),
        ("Byzantine clients", summary.byzantine.to_string()),
        ("Attack", summary.attack.clone()),
        ("Clients made to drop out", percent(summary.dropout)),
        ("Privacy unit", summary.unit.clone()),
        ("Neighbours", summary.neighbours.clone()),
        ("Accountant", summary.accountant.clone()),
        ("Sampling credited", summary.sampling.clone()),
        ("Noise", format!("{}, {}", summary.mechanism, summary.placement)),
        ("Noise multiplier, on a group sum", short(summary.noise_multiplier)),
        (
            "Clip norm",
            if summary.clip_norm.is_finite() { short(summary.clip_norm) } else { "none".to_owned() },
        ),
        ("Model parameters", summary.model_parameters.to_string()),
        ("Rounds aborted", summary.rounds_aborted.to_string()),
        ("Models rejected by the gate", summary.rounds_rejected.to_string()),
        ("Seed", summary.seed.to_string()),
    ];
    let backdoor = summary.attack_success.map(|share| ("Backdoor success", percent(share)));
    html! {
        section {
            h2 { "Setting" }
            div.panel {
                dl.facts {
                    @for (name, value) in facts.into_iter().chain(backdoor) {
                        div { dt { (name) } dd { (value) } }
                    }
                }
            }
        }
    }
}

fn suspects(suspicion: &Suspicion) -> Markup {
    let of_all = format!(
        "Groups are drawn anew in every round, and who is in suspicious ones too often to be there by chance is named: \
         among {} clients at a false-alarm rate of {}.",
        suspicion.clients,
        short(suspicion.false_alarm)
    );
    let fewest = suspicion.fewest_rounds.map_or_else(
        || "In groups of these sizes that is never.".to_owned(),
        |rounds| format!("That takes {} or more.", count(rounds, "round")),
    );
    html! {
        section {
            h2 { "Suspects" }
            p.muted {
                (of_all) " " (fewest)
                @if let Some(precision) = suspicion.precision { " Of the named, " (percent(precision)) " were poisoned." }
                @if let Some(recall) = suspicion.recall { " Of the poisoned, " (percent(recall)) " are named." }
            }
            @if suspicion.suspects.is_empty() {
                p { "No client stands out." }
            } @else {
                (suspect_table(&suspicion.suspects))
            }
        }
    }
}

fn suspect_table(suspects: &[Suspect]) -> Markup {
    let number = |value: fn(&fedveil_coordinator_core::Evidence) -> f64| {
        move |suspect: &Suspect| or_dash(suspect.evidence.as_ref().map(value), short)
    };
    let (suspicious, expected) =
        (number(|evidence| evidence.suspicious), number(|evidence| evidence.expected));
    let (p_value, p_framed) = (number(|evidence| evidence.p_value), number(|evidence| evidence.p_framed));
    html! {
        div.panel.scroll role="region" aria-label="Suspects" tabindex="0" {
            table {
                thead {
                    tr {
                        th scope="col" { "Client" }
                        th.words scope="col" { "Status" }
                        th scope="col" { "Rounds" }
                        th scope="col" { "Suspicious" }
                        th scope="col" { "By chance" }
                        th scope="col" { "p, if nobody aims" }
                        th scope="col" { "p, if attackers frame" }
                    }
                }
                tbody {
                    @for suspect in suspects {
                        tr {
                            th scope="row" { (digest(&suspect.client)) }
                            td.words { @if suspect.quarantined { "in quarantine" } @else { "named" } }
                            td { (suspect.evidence.map_or(0, |evidence| evidence.rounds)) }
                            td { (suspicious(suspect)) }
                            td { (expected(suspect)) }
                            td { (p_value(suspect)) }
                            td { (p_framed(suspect)) }
                        }
                    }
                }
            }
        }
    }
}

fn round_table(rounds: &[RoundRecord]) -> Markup {
    html! {
        div.panel.scroll role="region" aria-label="Rounds" tabindex="0" {
            table {
                thead {
                    tr {
                        th scope="col" { "Round" }
                        th.words scope="col" { "Outcome" }
                        th scope="col" { "Clients joined" }
                        th scope="col" { "Clients dropped" }
                        th scope="col" { "Groups kept" }
                        th scope="col" { "Groups dropped" }
                        th scope="col" { "Groups withheld" }
                        th scope="col" { "Test accuracy" }
                        th scope="col" { "Test loss" }
                        th scope="col" { "ε spent" }
                        th scope="col" { "Bytes up" }
                        th scope="col" { "Bytes down" }
                        th scope="col" { "Seconds" }
                        th.words scope="col" { "Model" }
                        th.words scope="col" { "Manifest" }
                        th scope="col" { "Log size" }
                    }
                }
                tbody {
                    @for round in rounds {
                        @let outcome = outcome_name(round.outcome);
                        tr {
                            th scope="row" { (round.round) }
                            td.words.(outcome) {
                                (outcome)
                                @if let Some(reason) = &round.reason { ": " (reason) }
                            }
                            td { (round.clients_joined) }
                            td { (round.clients_dropped) }
                            td { (round.groups_kept) }
                            td { (round.groups_dropped) }
                            td { (round.groups_withheld) }
                            td { (or_dash(round.test_accuracy, percent)) }
                            td { (or_dash(round.test_loss, |loss| format!("{loss:.3}"))) }
                            td { (epsilon(round.epsilon)) }
                            td { (bytes(round.bytes_up as f64)) }
                            td { (bytes(round.bytes_down as f64)) }
                            td { (format!("{:.1}", round.seconds)) }
                            td.words { (digest(&round.model_digest)) }
                            td.words { (digest(&round.manifest_digest)) }
                            td { (round.log_size) }
                        }
                    }
                    @if rounds.is_empty() { tr { td.words colspan="16" { "No round was run." } } }
                }
            }
        }
    }
}

/// What the gate measured of every new model, where there was one.
fn gate_table(rounds: &[RoundRecord]) -> Markup {
    let measured: Vec<_> = rounds.iter().filter_map(|round| Some((round, round.measured?))).collect();
    if measured.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Gate" }
            p.muted {
                "What was measured of each new model before it was published, on examples of the coordinator's own or by clients on theirs."
            }
            div.panel.scroll role="region" aria-label="Gate" tabindex="0" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Round" }
                            th.words scope="col" { "Outcome" }
                            th scope="col" { "Norm of the step" }
                            th scope="col" { "Accuracy" }
                            th scope="col" { "Best before" }
                            th scope="col" { "Triggers that succeed" }
                            th scope="col" { "Difference that clients see" }
                            th scope="col" { "Its noise" }
                        }
                    }
                    tbody {
                        @for (round, measured) in measured {
                            @let outcome = outcome_name(round.outcome);
                            tr {
                                th scope="row" { (round.round) }
                                td.words.(outcome) {
                                    (outcome)
                                    @if let Some(reason) = &round.reason { ": " (reason) }
                                }
                                td { (short(measured.step_norm)) }
                                td { (or_dash(measured.accuracy, percent)) }
                                td { (or_dash(measured.best_accuracy, percent)) }
                                td { (or_dash(measured.trigger_success, percent)) }
                                td { (or_dash(measured.difference, percent)) }
                                td { (or_dash(measured.deviation, |deviation| format!("± {}", percent(deviation)))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn outcome_name(outcome: RoundOutcome) -> &'static str {
    match outcome {
        RoundOutcome::Published => "published",
        RoundOutcome::Aborted => "aborted",
        RoundOutcome::Rejected => "rejected",
    }
}

fn group_table(round: &RoundRecord) -> Markup {
    html! {
        details {
            summary {
                "Round " (round.round) ": " (round.groups_kept) " kept, " (round.groups_dropped) " dropped, "
                (round.groups_withheld) " withheld"
            }
            div.scroll {
                table {
                    thead {
                        tr {
                            th scope="col" { "Group" }
                            th.words scope="col" { "Status" }
                            th scope="col" { "Clients" }
                            th scope="col" { "Survivors" }
                            th scope="col" { "Score" }
                            @for heading in decisions::HEADINGS { th scope="col" { (heading) } }
                            th.words scope="col" { "Reason" }
                        }
                    }
                    tbody {
                        @for group in &round.groups {
                            tr {
                                th scope="row" { (group.index) }
                                td.words.(status_name(group.status)) { (status_name(group.status)) }
                                td { (group.size) }
                                td { (group.survivors) }
                                td { (or_dash(group.score, short)) }
                                @for cell in decisions::cells(group) { td { (cell) } }
                                td.words { (group.reason) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The placement of plans in which nobody adds noise.
const NO_NOISE: &str = "insecure_none";

/// What the robust rule decides about.
fn row_noun(summary: &Summary) -> &'static str {
    if summary.aggregation_mode == "insecure_plain" { "client" } else { "group" }
}

fn first_round(rounds: &[RoundRecord]) -> u32 {
    rounds.first().map_or(0, |round| round.round.saturating_sub(1))
}

fn last_round(rounds: &[RoundRecord]) -> u32 {
    rounds.last().map_or(1, |round| round.round)
}

fn level(first: u32, last: u32, value: f64) -> Vec<Point> {
    [f64::from(first), f64::from(last) + 0.5]
        .map(|x| Point { x, y: Some(value), title: String::new() })
        .into()
}

/// The greatest finite value, and at least 0.
fn greatest(values: impl Iterator<Item = f64>) -> f64 {
    values.filter(|value| value.is_finite()).fold(0.0, f64::max)
}

fn status_name(status: GroupStatus) -> &'static str {
    match status {
        GroupStatus::Kept => "kept",
        GroupStatus::Dropped => "dropped",
        GroupStatus::Withheld => "withheld",
    }
}

fn or_dash(value: Option<f64>, format: fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), format)
}

fn digest(hex: &str) -> Markup {
    html! {
        @if hex.is_empty() { "–" } @else { code title=(hex) { (hex.chars().take(8).collect::<String>()) } }
    }
}

fn count(number: u32, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Two decimals, rounded up: a privacy loss is never shown smaller than it is.
fn epsilon(value: f64) -> String {
    if value.is_infinite() {
        return "∞".to_owned();
    }
    // The hair keeps a value that is exact in decimals from being rounded up for its binary form; without `abs`
    // it would turn zero into minus zero.
    format!("{:.2}", ((100.0 * value - 1e-6).ceil() / 100.0).abs())
}

/// Three significant digits, in scientific notation where that is shorter.
fn short(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-3..1e4).contains(&magnitude) {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let decimals = if magnitude >= 100.0 {
        0
    } else if magnitude >= 10.0 {
        1
    } else if magnitude >= 1.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn byte_unit(bytes: f64) -> (&'static str, f64) {
    let units = [("GiB", 2f64.powi(30)), ("MiB", 2f64.powi(20)), ("KiB", 2f64.powi(10))];
    units.into_iter().find(|(_, size)| bytes >= *size).unwrap_or(("bytes", 1.0))
}

fn bytes(number: f64) -> String {
    let (unit, size) = byte_unit(number);
    format!("{} {unit}", short(number / size))
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests;
