//! Rounds for other programs: CSV and TensorBoard, beside `rounds.jsonl`, which has everything.

mod tensorboard;

use std::fmt::Write;

use crate::record::{RoundOutcome, RoundRecord};

pub use tensorboard::tensorboard;

/// The numbers of a round, by the names that they have in TensorBoard. What was not measured is left out, as is what has
/// no finite value.
fn numbers(round: &RoundRecord) -> Vec<(&'static str, f64)> {
    let clients = f64::from(round.clients_joined.max(1));
    let of_clients = round.client_accuracy.as_ref();
    let all = [
        ("test/accuracy", round.test_accuracy),
        ("test/loss", round.test_loss),
        ("clients/mean_accuracy", of_clients.map(|accuracy| accuracy.mean)),
        ("clients/worst_tenth_accuracy", of_clients.map(|accuracy| accuracy.worst_tenth)),
        ("attack/success", round.attack_success),
        ("privacy/epsilon", Some(round.epsilon)),
        ("round/published", Some(f64::from(u8::from(round.outcome == RoundOutcome::Published)))),
        ("round/clients_joined", Some(f64::from(round.clients_joined))),
        ("round/clients_dropped", Some(f64::from(round.clients_dropped))),
        ("round/groups_kept", Some(f64::from(round.groups_kept))),
        ("round/groups_dropped", Some(f64::from(round.groups_dropped))),
        ("round/groups_withheld", Some(f64::from(round.groups_withheld))),
        ("round/virtual_seconds", Some(round.seconds)),
        ("traffic/up_bytes_per_client", Some(round.bytes_up as f64 / clients)),
        ("traffic/down_bytes_per_client", Some(round.bytes_down as f64 / clients)),
        ("private", Some(f64::from(u8::from(round.private)))),
    ];
    let finite = |(name, value): (_, Option<f64>)| Some((name, value.filter(|value| value.is_finite())?));
    all.into_iter().filter_map(finite).collect()
}

/// The names of all [`numbers`], in their order.
const COLUMNS: [&str; 16] = [
    "test/accuracy",
    "test/loss",
    "clients/mean_accuracy",
    "clients/worst_tenth_accuracy",
    "attack/success",
    "privacy/epsilon",
    "round/published",
    "round/clients_joined",
    "round/clients_dropped",
    "round/groups_kept",
    "round/groups_dropped",
    "round/groups_withheld",
    "round/virtual_seconds",
    "traffic/up_bytes_per_client",
    "traffic/down_bytes_per_client",
    "private",
];

/// Rounds as a table: the names of [`tensorboard`]'s values, a line for each round, an empty field for what was not
/// measured.
pub fn csv(rounds: &[RoundRecord]) -> String {
    let mut text = format!("round,{}\n", COLUMNS.join(","));
    for round in rounds {
        let numbers = numbers(round);
        let field = |column: &&str| {
            let found = numbers.iter().find(|(name, _)| name == column);
            found.map_or_else(String::new, |(_, value)| value.to_string())
        };
        let fields: Vec<String> = COLUMNS.iter().map(field).collect();
        writeln!(text, "{},{}", round.round, fields.join(",")).expect("a string can be written to");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ClientAccuracy;

    /// Two rounds, of which only the second was measured.
    pub(super) fn rounds() -> Vec<RoundRecord> {
        let round = |round: u32| RoundRecord {
            round,
            outcome: RoundOutcome::Published,
            reason: None,
            clients_joined: 4,
            clients_dropped: 1,
            groups: Vec::new(),
            groups_kept: 2,
            groups_dropped: 1,
            groups_withheld: 0,
            measured: None,
            clients: Vec::new(),
            test_accuracy: (round == 2).then_some(0.5),
            test_loss: (round == 2).then_some(f64::INFINITY),
            client_accuracy: if round == 2 { ClientAccuracy::of(&[0.25, 0.75]) } else { None },
            attack_success: None,
            epsilon: f64::from(round),
            bytes_up: 40,
            bytes_down: 80,
            seconds: 1.5,
            model_digest: String::new(),
            manifest_digest: String::new(),
            log_size: 1,
            private: false,
        };
        vec![round(1), round(2)]
    }

    #[test]
    fn a_table_has_a_column_for_every_number() {
        let rounds = rounds();
        let all =
            numbers(&RoundRecord { test_loss: Some(1.0), attack_success: Some(0.0), ..rounds[1].clone() });
        assert_eq!(all.iter().map(|(name, _)| *name).collect::<Vec<_>>(), COLUMNS);
        assert_eq!(
            csv(&rounds).lines().skip(1).collect::<Vec<_>>(),
            ["1,,,,,,1,1,4,1,2,1,0,1.5,10,20,0", "2,0.5,,0.5,0.25,,2,1,4,1,2,1,0,1.5,10,20,0"]
        );
    }
}
