//! The tables of a run: its rounds, what the gate measured, groups and suspects.

use maud::{Markup, html};

use self::Column::{Number, Words};
use super::decisions;
use super::words::{bytes, count, digest, epsilon, or_dash, outcome_name, percent, short, status_name};
use crate::record::{RoundRecord, Suspect, Suspicion};

pub(super) fn suspects(suspicion: &Suspicion) -> Markup {
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
    let columns = [
        Number("Client"),
        Words("Status"),
        Number("Rounds"),
        Number("Suspicious"),
        Number("By chance"),
        Number("p, if nobody aims"),
        Number("p, if attackers frame"),
    ];
    let rows = html! {
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
    };
    table("Suspects", &columns, &rows)
}

pub(super) fn round_table(rounds: &[RoundRecord]) -> Markup {
    let columns = [
        Number("Round"),
        Words("Outcome"),
        Number("Clients joined"),
        Number("Clients dropped"),
        Number("Groups kept"),
        Number("Groups dropped"),
        Number("Groups withheld"),
        Number("Test accuracy"),
        Number("Test loss"),
        Number("ε spent"),
        Number("Bytes up"),
        Number("Bytes down"),
        Number("Seconds"),
        Words("Model"),
        Words("Manifest"),
        Number("Log size"),
    ];
    let rows = html! {
        @for round in rounds {
            tr {
                th scope="row" { (round.round) }
                (outcome(round))
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
    };
    table("Rounds", &columns, &rows)
}

/// What the gate measured of every new model, where there was one.
pub(super) fn gate_table(rounds: &[RoundRecord]) -> Markup {
    let measured: Vec<_> = rounds.iter().filter_map(|round| Some((round, round.measured?))).collect();
    if measured.is_empty() {
        return html! {};
    }
    let columns = [
        Number("Round"),
        Words("Outcome"),
        Number("Norm of the step"),
        Number("Accuracy"),
        Number("Best before"),
        Number("Triggers that succeed"),
        Number("Difference that clients see"),
        Number("Its noise"),
    ];
    let rows = html! {
        @for (round, measured) in measured {
            tr {
                th scope="row" { (round.round) }
                (outcome(round))
                td { (short(measured.step_norm)) }
                td { (or_dash(measured.accuracy, percent)) }
                td { (or_dash(measured.best_accuracy, percent)) }
                td { (or_dash(measured.trigger_success, percent)) }
                td { (or_dash(measured.difference, percent)) }
                td { (or_dash(measured.deviation, |deviation| format!("± {}", percent(deviation)))) }
            }
        }
    };
    html! {
        section {
            h2 { "Gate" }
            p.muted {
                "What was measured of each new model before it was published, on examples of the coordinator's own or by clients on theirs."
            }
            (table("Gate", &columns, &rows))
        }
    }
}

pub(super) fn group_table(round: &RoundRecord) -> Markup {
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

/// A column of a table, by its heading.
enum Column {
    Number(&'static str),
    Words(&'static str),
}

/// A table that scrolls in a panel of its own.
fn table(label: &str, columns: &[Column], rows: &Markup) -> Markup {
    html! {
        div.panel.scroll role="region" aria-label=(label) tabindex="0" {
            table {
                thead {
                    tr {
                        @for column in columns {
                            @match column {
                                Number(heading) => { th scope="col" { (heading) } }
                                Words(heading) => { th.words scope="col" { (heading) } }
                            }
                        }
                    }
                }
                tbody { (rows) }
            }
        }
    }
}

fn outcome(round: &RoundRecord) -> Markup {
    let outcome = outcome_name(round.outcome);
    html! {
        td.words.(outcome) {
            (outcome)
            @if let Some(reason) = &round.reason { ": " (reason) }
        }
    }
}
