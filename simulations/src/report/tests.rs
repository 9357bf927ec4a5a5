use super::*;
use crate::record::{GroupRecord, GroupStatus, RoundOutcome, Suspect, Suspicion};
use fedveil_coordinator_core::Evidence;
use fedveil_proto_plan::Measured;
use fedveil_provenance::{Explanation, Influence, NoInfluence};

pub(super) fn summary() -> Summary {
    Summary {
        rounds: 12,
        clients: 200,
        byzantine: 4,
        dropout: 0.05,
        attack: "sign-flip".to_owned(),
        dataset: "digits".to_owned(),
        rule: "multi-krum".to_owned(),
        aggregation_mode: "secagg".to_owned(),
        test_accuracy: Some(0.871),
        initial_accuracy: Some(0.104),
        attack_success: Some(0.125),
        epsilon: 12.96,
        epsilon_budget: 15.0,
        delta: 1e-5,
        unit: "user".to_owned(),
        neighbours: "zero-out".to_owned(),
        accountant: "zcdp".to_owned(),
        sampling: "full".to_owned(),
        placement: "distributed".to_owned(),
        mechanism: "discrete-gaussian".to_owned(),
        noise_multiplier: 1.4,
        clip_norm: 1.0,
        groups_dropped: 41,
        groups_withheld: 3,
        suspicion: Some(suspicion()),
        rounds_aborted: 1,
        rounds_rejected: 1,
        bytes_up_per_client_round: 9_216,
        bytes_down_per_client_round: 21_504,
        model_parameters: 2_410,
        wall_seconds: 75.4,
        seed: 7,
        stopped_because: "all planned rounds were run".to_owned(),
        version: "0.1.0".to_owned(),
        private: true,
    }
}

fn suspicion() -> Suspicion {
    let evidence = Evidence { rounds: 12, suspicious: 11.5, expected: 4.4, p_value: 0.004, p_framed: 0.71 };
    Suspicion {
        false_alarm: 0.01,
        clients: 200,
        fewest_rounds: Some(13),
        suspects: vec![
            Suspect { client: "abcdef0123456789".to_owned(), quarantined: true, evidence: Some(evidence) },
            Suspect { client: "<b>0".to_owned(), quarantined: false, evidence: None },
        ],
        precision: Some(0.5),
        recall: None,
    }
}

fn group(round: u32, index: u32) -> GroupRecord {
    let status = match (round + index) % 11 {
        0..=6 => GroupStatus::Kept,
        7 if round.is_multiple_of(4) => GroupStatus::Withheld,
        _ => GroupStatus::Dropped,
    };
    let noise = f64::from((round * 31 + index * 17) % 23) / 23.0;
    let (score, reason) = match status {
        GroupStatus::Kept => (Some(20.0 + 8.0 * noise), ""),
        GroupStatus::Dropped => {
            (Some(if index < 2 { 400.0 } else { 29.0 } + 9.0 * noise), "score among the f largest")
        }
        GroupStatus::Withheld => (None, "13 clients left, 14 needed"),
    };
    let explanation = score.map(|distance| Explanation {
        distance,
        cosine: (index != 5).then_some(if index < 2 { -0.9 } else { 0.8 - noise }),
        norm: distance + 3.0,
        z_score: (distance - 24.0) / 5.0,
        influence: match index {
            6 => Influence::Unknown(NoInfluence::TooFewRows),
            _ => Influence::Moves(noise),
        },
    });
    let reason = reason.to_owned();
    GroupRecord { index, size: 18, survivors: 17, status, reason, score, explanation }
}

pub(super) fn round(round: u32) -> RoundRecord {
    let groups: Vec<GroupRecord> = (0..11).map(|index| group(round, index)).collect();
    let with = |status| groups.iter().filter(|group| group.status == status).count() as u32;
    let aborted = round == 5;
    RoundRecord {
        round,
        outcome: match round {
            5 => RoundOutcome::Aborted,
            7 => RoundOutcome::Rejected,
            _ => RoundOutcome::Published,
        },
        reason: match round {
            5 => Some("6 groups left, 11 needed".to_owned()),
            7 => Some("its step has norm 9.0000, accepted is up to 6".to_owned()),
            _ => None,
        },
        clients_joined: 198,
        clients_dropped: 9,
        groups_kept: with(GroupStatus::Kept),
        groups_dropped: with(GroupStatus::Dropped),
        groups_withheld: with(GroupStatus::Withheld),
        clients: Vec::new(),
        groups,
        measured: (!aborted).then(|| Measured {
            step_norm: if round == 7 { 9.0 } else { 2.5 },
            accuracy: Some(0.86),
            best_accuracy: Some(0.88),
            trigger_success: Some(0.117),
            difference: Some(-0.021),
            deviation: Some(0.057),
        }),
        test_accuracy: (!aborted).then(|| 0.88 - 0.77 * (-f64::from(round) / 3.0).exp()),
        test_loss: (!aborted).then(|| 0.4 + 1.9 * (-f64::from(round) / 3.0).exp()),
        client_accuracy: None,
        attack_success: None,
        epsilon: 13.0 * (f64::from(round) / 12.0).sqrt(),
        bytes_up: 198 * (9_000 + u64::from(round * 37 % 5) * 90),
        bytes_down: 198 * (21_000 + u64::from(round * 17 % 7) * 80),
        seconds: 5.9,
        model_digest: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
        manifest_digest: "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752".to_owned(),
        log_size: u64::from(round) + 1,
        private: true,
    }
}

fn rounds(number: u32) -> Vec<RoundRecord> {
    (1..=number).map(round).collect()
}

#[test]
fn shows_plots_numbers_tables_and_notes() {
    let notes = ["The coordinator sees sums of groups only.".to_owned()];
    let page = html(&summary(), &rounds(12), &notes, None);
    assert_eq!(page.matches("role=\"img\"").count(), 7);
    for title in [
        "Test accuracy",
        "Privacy spent",
        "Traffic of a client",
        "Group scores",
        "How unusual the distances were",
        "Direction and length",
        "Influence",
    ] {
        assert!(page.contains(&format!("<figcaption><strong>{title}</strong>")), "no plot {title}");
    }
    for text in [
        "87.1 %",
        "initially 10.4 %",
        "ε = 12.96",
        "of 15.00 at δ = 1e-5",
        "4 of 200",
        "30 KiB",
        "1 min 15 s",
        "<dt>Privacy unit</dt><dd>user</dd>",
        "<dt>Neighbours</dt><dd>zero-out</dd>",
        "<dt>Accountant</dt><dd>zcdp</dd>",
        "<dt>Sampling credited</dt><dd>full</dd>",
        "<dt>Noise</dt><dd>discrete-gaussian, distributed</dd>",
        "KiB per client and round",
        "aborted: 6 groups left, 11 needed",
        "rejected: its step has norm 9.0000, accepted is up to 6",
        "Triggers that succeed",
        "11.7 %",
        "± 5.7 %",
        "13 clients left, 14 needed",
        "<li>The coordinator sees sums of groups only.</li>",
        "round 1, group 0: kept, score 22.8",
        "among 200 clients at a false-alarm rate of 0.01",
        "<td>11.5</td><td>4.4</td><td>0.004</td><td>0.71</td>",
        "in quarantine",
        "&lt;b&gt;0",
    ] {
        assert!(page.contains(text), "the page lacks {text:?}");
    }
    assert_eq!(page.matches("<details>").count(), 12);
    assert_eq!(page.matches("<tr><th scope=\"row\">").count(), 12 + 11 + 12 * 11 + 2);
}

#[test]
fn every_group_is_a_marker_with_its_status() {
    let rounds = rounds(12);
    let chart = score_chart(&rounds);
    let drawn: Vec<usize> = chart.series.iter().map(|series| series.points.len()).collect();
    let counted = |of: fn(&RoundRecord) -> u32| rounds.iter().map(of).sum::<u32>() as usize;
    assert_eq!(
        drawn,
        [counted(|r| r.groups_kept), counted(|r| r.groups_dropped), counted(|r| r.groups_withheld)]
    );
    assert!(drawn.iter().all(|&number| number > 0));
    assert!(chart.series[2].points.iter().all(|point| point.y.is_none()));
}

/// What makes a number of an explanation unfit for a plot.
const EXPLANATION_CHANGES: [fn(&mut Explanation); 4] = [
    |e| e.z_score = f64::NAN,
    |e| e.norm = f64::INFINITY,
    |e| e.cosine = Some(f64::NAN),
    |e| e.influence = Influence::Moves(f64::INFINITY),
];

#[test]
fn decisions_are_plotted_with_their_numbers_and_what_they_mean() {
    let rounds = rounds(12);
    let page = html(&summary(), &rounds, &[], None);
    for text in [
        "Why groups were dropped",
        ": dropped: 7",
        "(markers on an edge: farther out)",
        "(markers on the bottom edge: not computed)",
        "cosine -0.9, norm ",
        "influence unknown: too few rows without it",
        "<th scope=\"col\">Deviations</th>",
        "no evidence against its clients",
        ">dropped (",
    ] {
        assert!(page.contains(text), "the page lacks {text:?}");
    }
    let plain = Summary { aggregation_mode: "insecure_plain".to_owned(), ..summary() };
    assert!(html(&plain, &rounds, &[], None).contains("Why clients were dropped"));
    let bare = Summary { placement: "insecure_none".to_owned(), ..summary() };
    for (summary, told) in [(summary(), false), (bare, true)] {
        assert_eq!(html(&summary, &rounds, &[], None).contains("<strong>Not private</strong>"), told);
    }
    let mut unexplained = rounds;
    for group in unexplained.iter_mut().flat_map(|round| &mut round.groups) {
        group.explanation = None;
    }
    assert!(!html(&summary(), &unexplained, &[], None).contains("were dropped</h2>"));
}

#[test]
fn loads_and_runs_nothing() {
    let page = html(&summary(), &rounds(12), &[], None);
    for forbidden in ["http://", "https://", "<script", "<link", "<img", "<iframe", "url(", "@import", "src="]
    {
        assert!(!page.contains(forbidden), "the page has {forbidden:?}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn strings_are_escaped() {
    let evil = "</style><script>alert(\"1\")</script>&'".to_owned();
    let mut summary = summary();
    for field in [
        &mut summary.attack,
        &mut summary.dataset,
        &mut summary.rule,
        &mut summary.aggregation_mode,
        &mut summary.stopped_because,
        &mut summary.version,
    ] {
        field.clone_from(&evil);
    }
    let mut round = round(5);
    round.reason = Some(evil.clone());
    round.model_digest.clone_from(&evil);
    round.manifest_digest.clone_from(&evil);
    round.groups[0].reason.clone_from(&evil);
    let page = html(&summary, &[round], &[evil], None);
    assert!(!page.contains("<script"), "a script got through");
    assert!(!page.contains("alert(\""), "an attribute can be left");
    assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;"));
}

#[test]
fn runs_of_no_and_of_one_round_are_drawn() {
    for number in [0, 1] {
        let page = html(&summary(), &rounds(number), &[], None);
        assert_eq!(page.matches("role=\"img\"").count(), if number == 0 { 4 } else { 7 });
        let numbers = page.replace("nfluence", "");
        assert!(!numbers.contains("NaN") && !numbers.contains("inf"), "{number} rounds");
        assert_eq!(page.contains("No round was run."), number == 0);
    }
}

#[test]
fn a_run_without_test_data_shows_dashes() {
    let summary = Summary { test_accuracy: None, initial_accuracy: None, ..summary() };
    let mut rounds = rounds(3);
    for round in &mut rounds {
        round.test_accuracy = None;
    }
    assert!(accuracy_chart(&summary, &rounds).series.iter().all(|series| series.points.is_empty()));
    assert!(html(&summary, &rounds, &[], None).contains("initially –"));
}

#[test]
fn values_that_are_not_finite_do_not_reach_a_plot() {
    let mut summary = summary();
    summary.epsilon_budget = f64::INFINITY;
    let mut rounds = rounds(3);
    rounds[1].test_accuracy = Some(f64::NAN);
    rounds[1].epsilon = f64::INFINITY;
    rounds[1].clients_joined = 0;
    rounds[1].groups[0].score = Some(f64::NAN);
    rounds[2].groups[0].score = Some(1e250);
    rounds[2].groups[1].score = Some(-1e250);
    for (index, change) in EXPLANATION_CHANGES.into_iter().enumerate() {
        change(rounds[0].groups[index].explanation.as_mut().unwrap());
    }
    let page = html(&summary, &rounds, &[], None);
    assert!(!page.contains("NaN,") && !page.contains("MNaN") && !page.contains("Minf"));
    let explained = page.matches("round 1, group").count() - rounds[0].groups.len();
    let scored = rounds[0].groups.iter().filter(|group| group.explanation.is_some()).count();
    assert_eq!(explained, 3 * (scored - EXPLANATION_CHANGES.len()) - 1, "and one group has no cosine");
    for chart in [
        accuracy_chart(&summary, &rounds),
        epsilon_chart(&summary, &rounds),
        bytes_chart(&rounds),
        score_chart(&rounds),
    ] {
        let drawn = chart.figure().into_string();
        for attribute in [" d=\"", " points=\"", " x=\"", " y=\""] {
            for rest in drawn.split(attribute).skip(1) {
                let value = rest.split('"').next().unwrap();
                assert!(!value.contains("NaN") && !value.contains("inf"), "{attribute}{value}");
            }
        }
    }
}

#[test]
fn suspicious_scores_far_off_get_a_logarithmic_axis() {
    let ticks = |rounds: &[RoundRecord]| score_chart(rounds).figure().into_string();
    let mut rounds = rounds(2);
    for group in rounds.iter_mut().flat_map(|round| &mut round.groups) {
        group.score = Some(25.0);
    }
    assert!(!ticks(&rounds).contains(">100<") && !ticks(&rounds).contains(">1e6<"));
    rounds[0].groups[0].score = Some(2e6);
    assert!(ticks(&rounds).contains(">1e6<") && ticks(&rounds).contains(">100<"));
}

#[test]
fn numbers_are_short() {
    let shorts = [0.0, 1e-5, 1.25e-7, 0.0421, 0.5, 1.0, 1.4, 12.96, 128.4, 9_999.0, 2e6, -3.25];
    assert_eq!(
        shorts.map(short),
        ["0", "1e-5", "1.2e-7", "0.042", "0.5", "1", "1.4", "13", "128", "9999", "2e6", "-3.25"]
    );
    assert_eq!([12.96, 15.0, 0.001, 3.1234, 0.0].map(epsilon), ["12.96", "15.00", "0.01", "3.13", "0.00"]);
    assert_eq!([12.0, 2048.0, 3.5 * 1024.0 * 1024.0].map(bytes), ["12 bytes", "2 KiB", "3.5 MiB"]);
    assert_eq!([2.34, 75.4, 7_500.0].map(duration), ["2.3 s", "1 min 15 s", "2 h 5 min"]);
}

#[test]
fn records_read_back_and_name_states_in_words() {
    let line = serde_json::to_string(&round(5)).unwrap();
    assert!(line.contains("\"outcome\":\"aborted\"") && line.contains("\"status\":\"kept\""), "{line}");
    assert_eq!(serde_json::from_str::<RoundRecord>(&line).unwrap(), round(5));
    let text = serde_json::to_string(&summary()).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary());
}

#[test]
fn a_planned_loss_is_drawn_as_a_file_of_its_own() {
    let planned = PlannedLoss {
        spent: (1..=10).map(|count| (count, f64::from(count) * 1.5)).collect(),
        affordable: 8,
        budget: 12.0,
        delta: 1e-5,
    };
    let svg = epsilon_svg(&planned);
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>"));
    // Eight circles and the legend's, two crosses and the legend's.
    assert_eq!((svg.matches("a3.5 3.5").count(), svg.matches("l8 8m0 -8l-8 8").count()), (2 * 9, 3));
    assert!(svg.contains("after 8 participations: ε = 12.00") && svg.contains("ε at δ = 1e-5"));
    let nothing = PlannedLoss { spent: vec![(1, f64::INFINITY)], affordable: 0, ..planned };
    assert!(!epsilon_svg(&nothing).contains("NaN") && !epsilon_svg(&nothing).contains("inf"));
}
