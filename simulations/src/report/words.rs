//! How numbers, digests and outcomes are written for people.

use maud::{Markup, html};

use crate::record::{GroupStatus, RoundOutcome};

pub(super) fn outcome_name(outcome: RoundOutcome) -> &'static str {
    match outcome {
        RoundOutcome::Published => "published",
        RoundOutcome::Aborted => "aborted",
        RoundOutcome::Rejected => "rejected",
    }
}

pub(super) fn status_name(status: GroupStatus) -> &'static str {
    match status {
        GroupStatus::Kept => "kept",
        GroupStatus::Dropped => "dropped",
        GroupStatus::Withheld => "withheld",
    }
}

pub(super) fn or_dash(value: Option<f64>, format: fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), format)
}

pub(super) fn digest(hex: &str) -> Markup {
    html! {
        @if hex.is_empty() { "–" } @else { code title=(hex) { (hex.chars().take(8).collect::<String>()) } }
    }
}

pub(super) fn count(number: u32, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Two decimals, rounded up: a privacy loss is never shown smaller than it is.
pub(super) fn epsilon(value: f64) -> String {
    if value.is_infinite() {
        return "∞".to_owned();
    }
    // The hair keeps a value that is exact in decimals from being rounded up for its binary form; without `abs`
    // it would turn zero into minus zero.
    format!("{:.2}", ((100.0 * value - 1e-6).ceil() / 100.0).abs())
}

/// Three significant digits, in scientific notation where that is shorter.
pub(super) fn short(value: f64) -> String {
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

pub(super) fn byte_unit(bytes: f64) -> (&'static str, f64) {
    let units = [("GiB", 2f64.powi(30)), ("MiB", 2f64.powi(20)), ("KiB", 2f64.powi(10))];
    units.into_iter().find(|(_, size)| bytes >= *size).unwrap_or(("bytes", 1.0))
}

pub(super) fn bytes(number: f64) -> String {
    let (unit, size) = byte_unit(number);
    format!("{} {unit}", short(number / size))
}

pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
