//! The plots of a run over its rounds, and of what a plan will spend.

use super::STYLE;
use super::chart::{Axis, Chart, Mark, Marker, Point, Series};
use super::words::{byte_unit, bytes, count, epsilon, or_dash, percent, short, status_name};
use crate::record::{ClientAccuracy, GroupRecord, GroupStatus, RoundRecord, Summary};

/// Scores whose largest is this many times the smallest are drawn on a logarithmic axis.
pub(super) const LOGARITHMIC_FROM_RATIO: f64 = 10.0;

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

pub(super) fn accuracy_chart(summary: &Summary, rounds: &[RoundRecord]) -> Chart {
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

pub(super) fn epsilon_chart(summary: &Summary, rounds: &[RoundRecord]) -> Chart {
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
pub(super) fn clients_chart(rounds: &[RoundRecord]) -> Option<Chart> {
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

pub(super) fn bytes_chart(rounds: &[RoundRecord]) -> Chart {
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

pub(super) fn score_chart(rounds: &[RoundRecord]) -> Chart {
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
pub(super) fn beside(round: &RoundRecord, group: &GroupRecord) -> f64 {
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

pub(super) fn first_round(rounds: &[RoundRecord]) -> u32 {
    rounds.first().map_or(0, |round| round.round.saturating_sub(1))
}

pub(super) fn last_round(rounds: &[RoundRecord]) -> u32 {
    rounds.last().map_or(1, |round| round.round)
}

pub(super) fn level(first: u32, last: u32, value: f64) -> Vec<Point> {
    [f64::from(first), f64::from(last) + 0.5]
        .map(|x| Point { x, y: Some(value), title: String::new() })
        .into()
}

/// The greatest finite value, and at least 0.
pub(super) fn greatest(values: impl Iterator<Item = f64>) -> f64 {
    values.filter(|value| value.is_finite()).fold(0.0, f64::max)
}
