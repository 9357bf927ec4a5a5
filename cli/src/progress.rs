//! What a person sees while a task runs: a live line on a terminal, one plain line a round elsewhere.

use fedveil_simulations::record::{RoundOutcome, RoundRecord};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// The state of the task, as far as it is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    pub(crate) rounds: u32,
    pub(crate) round: u32,
    pub(crate) phase: &'static str,
    /// Clients connected and ready.
    pub(crate) connected: u32,
    /// Clients of the round.
    pub(crate) clients: u32,
    pub(crate) dropped: u32,
    pub(crate) groups: u32,
    pub(crate) withheld: u32,
    pub(crate) accuracy: Option<f64>,
    pub(crate) epsilon: f64,
    pub(crate) epsilon_budget: f64,
    /// Message bytes up and down so far.
    pub(crate) bytes: (u64, u64),
}

/// Where progress goes.
pub(crate) enum Progress {
    /// Nowhere.
    Silent,
    /// A terminal.
    Live(ProgressBar),
    /// Lines on standard error.
    Plain,
}

impl Progress {
    /// The display that fits: silent if asked for, live on a terminal, plain lines otherwise.
    pub(crate) fn new(silent: bool, rounds: u32) -> Self {
        if silent {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Plain;
        }
        let bar = ProgressBar::new(u64::from(rounds));
        let style = ProgressStyle::with_template("{spinner} [{bar:24}] {msg}  {elapsed_precise}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
        Self::Live(bar)
    }

    /// Says something once.
    pub(crate) fn say(&self, text: &str) {
        match self {
            Self::Silent => {}
            Self::Live(bar) => bar.suspend(|| eprintln!("{text}")),
            Self::Plain => eprintln!("{text}"),
        }
    }

    /// Shows where the task stands.
    pub(crate) fn show(&self, standing: &Standing) {
        if let Self::Live(bar) = self {
            bar.set_message(live_line(standing));
        }
    }

    /// Notes a finished round.
    pub(crate) fn round(&self, record: &RoundRecord, standing: &Standing) {
        if let Self::Live(bar) = self {
            bar.set_position(u64::from(record.round));
        }
        self.say(&round_line(record, standing));
    }

    /// Takes the display away.
    pub(crate) fn finish(&self) {
        if let Self::Live(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn live_line(standing: &Standing) -> String {
    if standing.round == 0 {
        return format!("{} clients connected", standing.connected);
    }
    format!(
        "round {}/{} {:<11} {} clients, {} dropped  {} groups, {} withheld{}  epsilon {:.2}/{}  up {} down {}",
        standing.round,
        standing.rounds,
        standing.phase,
        standing.clients,
        standing.dropped,
        standing.groups,
        standing.withheld,
        accuracy(standing.accuracy),
        standing.epsilon,
        standing.epsilon_budget,
        HumanBytes(standing.bytes.0),
        HumanBytes(standing.bytes.1),
    )
}

fn round_line(record: &RoundRecord, standing: &Standing) -> String {
    let start = format!(
        "round {:>2}/{}  {} clients, {} dropped  groups: {} kept, {} dropped, {} withheld",
        record.round,
        standing.rounds,
        record.clients_joined,
        record.clients_dropped,
        record.groups_kept,
        record.groups_dropped,
        record.groups_withheld,
    );
    let end = format!(
        "  epsilon {:.2}/{}  up {} down {}  {:.1} s",
        record.epsilon,
        standing.epsilon_budget,
        HumanBytes(record.bytes_up),
        HumanBytes(record.bytes_down),
        record.seconds
    );
    match record.outcome {
        RoundOutcome::Published => format!("{start}{}{end}", accuracy(record.test_accuracy)),
        RoundOutcome::Aborted => {
            format!("{start}  aborted: {}{end}", record.reason.as_deref().unwrap_or("no reason"))
        }
        RoundOutcome::Rejected => {
            format!("{start}  model rejected: {}{end}", record.reason.as_deref().unwrap_or("no reason"))
        }
    }
}

fn accuracy(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("  accuracy {value:.3}"))
}
