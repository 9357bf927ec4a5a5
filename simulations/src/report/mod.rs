//! A run as one self-contained HTML page.
//!
//! The page loads nothing and runs nothing, and says so to the browser in its content security policy: plots are
//! inline SVG, the style is inline, there is no script, font or link. Light and dark follow the reader's scheme.
//! Every string of the records is escaped.

mod chart;
mod charts;
mod compare;
mod decisions;
mod grid;
mod heat_map;
mod split;
mod tables;
mod words;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::partition::Holdings;
use crate::record::{RoundRecord, Summary};
use charts::{accuracy_chart, bytes_chart, clients_chart, epsilon_chart, score_chart};
use tables::{gate_table, group_table, round_table, suspects};
use words::{bytes, count, duration, epsilon, or_dash, percent, short};

pub use charts::{PlannedLoss, epsilon_svg};
pub use compare::{Compared, comparison_csv, comparison_html};
pub use grid::{Grid, GridRow, grids, grids_csv};
pub use split::{split_html, split_svg};

const STYLE: &str = include_str!("style.css");

/// The report of a run. `notes` are plain sentences for the privacy section, one a point; `split` is who holds what,
/// where that is known.
pub fn html(summary: &Summary, rounds: &[RoundRecord], notes: &[String], split: Option<&Holdings>) -> String {
    let body = html! {
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
    };
    page(&format!("Fedveil run on {}", summary.dataset), &body)
}

/// A page that loads and runs nothing, which it tells the browser.
fn page(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
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

/// The placement of plans in which nobody adds noise.
const NO_NOISE: &str = "insecure_none";

/// What the robust rule decides about.
fn row_noun(summary: &Summary) -> &'static str {
    if summary.aggregation_mode == "insecure_plain" { "client" } else { "group" }
}

#[cfg(test)]
mod tests;
