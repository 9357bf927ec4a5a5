//! What a person sees while a task runs: a live line on a terminal, one plain line a round elsewhere.

use fedveil_simulations::record::{RoundOutcome, RoundRecord};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Least time from one line of a fast simulation to the next.
const QUIET: Duration = Duration::from_secs(1);

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
    /// Lines on standard error, of some of the rounds where there are many, with what is left to do.
    Paced(Pace),
}

/// How fast rounds go by.
pub(crate) struct Pace {
    rounds: u32,
    started: Instant,
    said: Cell<Option<Instant>>,
    /// Rounds that an earlier process ran.
    before: u32,
}

impl Pace {
    fn new(rounds: u32, before: u32) -> Self {
        Self { rounds, started: Instant::now(), said: Cell::new(None), before }
    }

    /// Whether it is time for a line.
    fn is_due(&self, round: u32) -> bool {
        let due = round == self.rounds || self.said.get().is_none_or(|said| said.elapsed() >= QUIET);
        if due {
            self.said.set(Some(Instant::now()));
        }
        due
    }

    /// Rounds in a second, and what is left at that rate.
    fn rate(&self, round: u32) -> String {
        let rate = f64::from(round - self.before.min(round)) / self.started.elapsed().as_secs_f64().max(1e-3);
        let left = f64::from(self.rounds.saturating_sub(round)) / rate.max(1e-9);
        format!("  {rate:.1} rounds/s, {} left", HumanDuration(Duration::from_secs_f64(left.min(1e9))))
    }
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
        Self::live(rounds, "{spinner} [{bar:24}] {msg}  {elapsed_precise}")
    }

    /// The same for rounds of a simulation, of which `before` were run by an earlier process.
    pub(crate) fn paced(silent: bool, rounds: u32, before: u32) -> Self {
        if silent {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Paced(Pace::new(rounds, before));
        }
        let live = Self::live(rounds, "{spinner} [{bar:24}] {msg}  {per_sec}, {eta} left");
        if let Self::Live(bar) = &live {
            bar.set_position(u64::from(before));
            bar.reset_eta();
        }
        live
    }

    fn live(rounds: u32, template: &str) -> Self {
        let bar = ProgressBar::new(u64::from(rounds));
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self::Live(bar)
    }

    /// Says something once.
    pub(crate) fn say(&self, text: &str) {
        match self {
            Self::Silent => {}
            Self::Live(bar) => bar.suspend(|| eprintln!("{text}")),
            Self::Plain | Self::Paced(_) => eprintln!("{text}"),
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
        match self {
            Self::Paced(pace) if !pace.is_due(record.round) => {}
            Self::Paced(pace) => self.say(&(round_line(record, standing) + &pace.rate(record.round))),
            _ => self.say(&round_line(record, standing)),
        }
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
