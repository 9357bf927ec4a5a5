//! Why groups were kept or set aside: the numbers behind the decisions, what each of them means, and their plots.

use fedveil_provenance::{Explanation, Influence, NoInfluence};
use maud::{Markup, html};

use super::chart::{Axis, Chart, Mark, Marker, Point, Series};
use super::charts::{LOGARITHMIC_FROM_RATIO, beside, first_round, greatest, last_round, level};
use super::words::{short, status_name};
use crate::record::{GroupRecord, GroupStatus, RoundRecord};

/// Z-scores beyond this magnitude are drawn on the edge: what lies so far out is not told apart by how far.
const MOST_DEVIATIONS: f64 = 12.0;
/// Fewer deviations than this are ordinary: of normal distances, 1 in 700 lies above.
const ORDINARY_DEVIATIONS: f64 = 3.0;

/// One decision with the numbers behind it, all of them finite.
struct Explained<'a> {
    round: &'a RoundRecord,
    group: &'a GroupRecord,
    numbers: Explanation,
}

/// The section, where there is anything to explain. `noun` is what a row is called, such as "group"; `noised` says whether
/// rows have noise.
pub(super) fn section(rounds: &[RoundRecord], noun: &str, noised: bool) -> Option<Markup> {
    let explained = explained(rounds);
    if explained.is_empty() {
        return None;
    }
    Some(html! {
        section {
            h2 { "Why " (noun) "s were dropped" }
            div.panel {
                ul {
                    li { strong { "Distance" } ": from the " (noun) "'s mean update to the one update that the robust rule made of all." }
                    li {
                        strong { "Deviations" } " (z-score): by how many robust standard deviations that distance is above the median of its round. \
                        Honest " (noun) "s lie around 0; more than " (ORDINARY_DEVIATIONS) " is unusual."
                    }
                    li { strong { "Cosine" } ": 1 where the " (noun) "'s mean points the way of the rule's update, 0 where it has nothing to do with it, −1 where it points back." }
                    li { strong { "Norm" } ": the length of the " (noun) "'s mean, noise included." }
                    li { strong { "Influence" } ": how far the rule's update would have been from where it is, had the " (noun) " not been there." }
                    @if !noised {
                        li { strong { "Not private" } ": these numbers are of updates without noise. They are for who runs the coordinator; no client was sent them." }
                    }
                    li {
                        "A rule that sets aside a fixed number does so whether or not as many are poisoned. A " (noun)
                        " that was dropped with an ordinary z-score came last among equals; that is no evidence against its clients."
                    }
                }
            }
            div.plots {
                (deviations(rounds, &explained, noun).figure())
                (directions(&explained, noun).figure())
                (influences(rounds, &explained, noun).figure())
            }
        }
    })
}

/// The cells of one group in the table of its round, in the order of [`HEADINGS`].
pub(super) fn cells(group: &GroupRecord) -> [String; 5] {
    let none = || "–".to_owned();
    let Some(numbers) = &group.explanation else { return [(); 5].map(|()| none()) };
    [
        short(numbers.distance),
        short(numbers.z_score),
        numbers.cosine.map_or_else(none, short),
        short(numbers.norm),
        influence(numbers.influence),
    ]
}

/// What the columns of [`cells`] are called.
pub(super) const HEADINGS: [&str; 5] = ["Distance", "Deviations", "Cosine", "Norm", "Influence"];

fn explained(rounds: &[RoundRecord]) -> Vec<Explained<'_>> {
    let groups = rounds.iter().flat_map(|round| round.groups.iter().map(move |group| (round, group)));
    let explained = groups.filter_map(|(round, group)| {
        let numbers = group.explanation?;
        let Explanation { distance, cosine, norm, z_score, influence } = numbers;
        let moved = match influence {
            Influence::Moves(distance) => distance,
            Influence::Unknown(_) => 0.0,
        };
        let finite = [distance, cosine.unwrap_or(0.0), norm, z_score, moved].into_iter().all(f64::is_finite);
        finite.then_some(Explained { round, group, numbers })
    });
    explained.collect()
}

fn deviations(rounds: &[RoundRecord], explained: &[Explained<'_>], noun: &str) -> Chart {
    let cut = |group: &Explained<'_>| group.numbers.z_score.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS);
    let point = |group: &Explained<'_>| {
        let Explanation { distance, z_score, .. } = group.numbers;
        let title =
            format!("{}: {} deviations, distance {}", group.name(noun), short(z_score), short(distance));
        Some(Point { x: beside(group.round, group.group), y: Some(cut(group)), title })
    };
    let (first, last) = (first_round(rounds), last_round(rounds));
    let values = || explained.iter().map(cut);
    let beyond = explained.iter().any(|group| group.numbers.z_score.abs() > MOST_DEVIATIONS);
    let at_the_edge = if beyond { " (markers on an edge: farther out)" } else { "" };
    let mut series = series(explained, point);
    series.push(Series {
        name: format!("{ORDINARY_DEVIATIONS} deviations"),
        class: "grey",
        mark: Mark::Dashes,
        points: level(first, last, ORDINARY_DEVIATIONS),
    });
    Chart {
        title: "How unusual the distances were",
        alt: format!(
            "Scatter plot of the deviations of every {noun} from the median distance, by round: from {} to {}.",
            short(values().fold(f64::INFINITY, f64::min)),
            short(values().fold(f64::NEG_INFINITY, f64::max))
        ),
        x: Axis::counts(format!("round{at_the_edge}"), first, last),
        y: Axis::linear(
            "deviations above the median distance",
            values().fold(-2.0, f64::min),
            values().fold(ORDINARY_DEVIATIONS + 1.0, f64::max),
            short,
        ),
        series,
    }
}

fn directions(explained: &[Explained<'_>], noun: &str) -> Chart {
    let point = |group: &Explained<'_>| {
        let Explanation { norm, cosine, .. } = group.numbers;
        let cosine = cosine?;
        let title = format!("{}: cosine {}, norm {}", group.name(noun), short(cosine), short(norm));
        Some(Point { x: norm, y: Some(cosine), title })
    };
    let norms = || explained.iter().map(|group| group.numbers.norm);
    Chart {
        title: "Direction and length",
        alt: format!(
            "Scatter plot of the cosine of every {noun}'s mean with the rule's update against its norm, which is at most {}.",
            short(greatest(norms()))
        ),
        x: lengths(format!("norm of the {noun}'s mean"), norms),
        y: Axis::linear("cosine with the rule's update", -1.0, 1.0, short),
        series: series(explained, point),
    }
}

fn influences(rounds: &[RoundRecord], explained: &[Explained<'_>], noun: &str) -> Chart {
    let moved = |group: &Explained<'_>| match group.numbers.influence {
        Influence::Moves(distance) => Some(distance),
        Influence::Unknown(_) => None,
    };
    let point = |group: &Explained<'_>| {
        let title = format!("{}: influence {}", group.name(noun), influence(group.numbers.influence));
        Some(Point { x: beside(group.round, group.group), y: moved(group), title })
    };
    let values = || explained.iter().filter_map(moved);
    let unknown = explained.iter().any(|group| moved(group).is_none());
    let at_the_bottom = if unknown { " (markers on the bottom edge: not computed)" } else { "" };
    Chart {
        title: "Influence",
        alt: format!(
            "Scatter plot of how far the rule's update would have been without each {noun}, by round: at most {}.",
            short(greatest(values()))
        ),
        x: Axis::counts(format!("round{at_the_bottom}"), first_round(rounds), last_round(rounds)),
        y: lengths("distance that it moved the rule's update", values),
        series: series(explained, point),
    }
}

/// An axis for lengths: from zero, or logarithmic where they are of unlike size.
fn lengths<I: Iterator<Item = f64>>(label: impl Into<String>, values: impl Fn() -> I) -> Axis {
    let (least, most) = (values().fold(f64::INFINITY, f64::min), greatest(values()));
    if least > 0.0 && most > LOGARITHMIC_FROM_RATIO * least {
        Axis::logarithmic(label, least, most, short)
    } else {
        Axis::linear(label, 0.0, 1.08 * most, short)
    }
}

fn series(explained: &[Explained<'_>], point: impl Fn(&Explained<'_>) -> Option<Point>) -> Vec<Series> {
    let of = |status, class, marker| {
        let groups = explained.iter().filter(|group| group.group.status == status);
        let points: Vec<Point> = groups.filter_map(&point).collect();
        let name = format!("{} ({})", status_name(status), points.len());
        Series { name, class, mark: Mark::Scatter(marker), points }
    };
    vec![of(GroupStatus::Kept, "blue", Marker::Circle), of(GroupStatus::Dropped, "orange", Marker::Cross)]
}

fn influence(influence: Influence) -> String {
    match influence {
        Influence::Moves(distance) => short(distance),
        Influence::Unknown(NoInfluence::TooFewRows) => "unknown: too few rows without it".to_owned(),
        Influence::Unknown(NoInfluence::TooCostly) => "unknown: too costly".to_owned(),
        Influence::Unknown(NoInfluence::RowsByIndex) => "unknown: rows are named by index".to_owned(),
    }
}

impl Explained<'_> {
    fn name(&self, noun: &str) -> String {
        format!("round {}, {noun} {}: {}", self.round.round, self.group.index, status_name(self.group.status))
    }
}
