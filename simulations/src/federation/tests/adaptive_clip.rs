//! Clip norms that follow the updates.

use super::*;
use fedveil_proto_plan::AdaptiveClipping;

/// Three groups of nine. The indicators' noise is small, so that a step says what was counted.
fn adaptive(quantile: f64) -> Setup {
    let mut setup = groups_of_nine(3);
    setup.plan.rounds = 3;
    setup.plan.privacy.epsilon = 1e3;
    setup.policy = Policy { max_epsilon: 1e3, ..setup.policy };
    setup.plan.privacy.adaptive_clip = Some(AdaptiveClipping {
        quantile,
        learning_rate: 0.5,
        noise_multiplier: 0.5,
        minimum: 0.01,
        maximum: 100.0,
    });
    setup
}

/// The clip norm that each publication states, from round 0 on.
fn clip_norms(events: &[Event]) -> Vec<f64> {
    let norm = |event: &Event| match event {
        Event::Published { clip_norm, .. } => *clip_norm,
        _ => None,
    };
    events.iter().filter_map(norm).collect()
}

/// Every client's update has this norm.
fn updates_of(norm: f32) -> Script {
    let mut update = vec![0.0; PARAMETERS];
    update[3] = norm;
    Script::default().contributing(move |_, _| Ok(Contribution::Update(update.clone())))
}

#[test]
fn the_clip_norm_follows_the_updates() {
    for (norm, quantile, towards) in [(0.1, 0.5, -1.0), (20.0, 0.5, 1.0)] {
        let federation = finished(adaptive(quantile), updates_of(norm));
        let norms = clip_norms(&federation.events());
        assert_eq!(norms.len(), 4, "{norms:?}");
        assert_eq!(norms[0], 1.0, "the plan's");
        for step in norms.windows(2) {
            let moved = (step[1] / step[0]).ln() * towards;
            // All or none are within: |b̃ − γ| is one half but for the noise, which is a quarter of a client in 9.
            assert!(moved > 0.5 * 0.3 && moved <= 0.25 + 1e-9, "{norms:?}");
        }
    }
}

#[test]
fn the_next_round_clips_to_the_published_norm() {
    // Updates are twice the first clip norm, and all are clipped: what enters the sum grows with the clip norm.
    let federation = finished(adaptive(0.5), updates_of(2.0));
    let norms = clip_norms(&federation.events());
    let core = federation.coordinator();
    for (round, before) in (1..=3).zip(&norms) {
        let seed = core.plan().plan().rotation_seed(round, &models(&federation.events())[&round]);
        let (mut sum, mut groups) = (0.0, 0.0);
        for ((_, _), values) in sums(&federation).into_iter().filter(|((of, _), _)| *of == round) {
            let grid =
                core.terms().guarantee.grid.with_clip(fedveil_privacy::ClipNorm::new(*before).unwrap());
            let mut values = grid.to_real(&values[..PARAMETERS]);
            Rotation::new(&seed, PARAMETERS).inverse(&mut values);
            sum += values[3] / 9.0;
            groups += 1.0;
        }
        // Noise in one mean: 1.5 clip norms and a little over 9, in three groups.
        let expected = before.min(2.0);
        assert!(
            (sum / groups - expected).abs() < 0.45 * before,
            "round {round}: {} for {expected}",
            sum / groups
        );
    }
}

#[test]
fn an_adaptive_clip_norm_costs_what_both_releases_cost() {
    let terms = adaptive(0.5).plan.check().unwrap();
    let fixed = groups_of_nine(3).plan.check().unwrap();
    let (vector, indicator) = terms.guarantee.epsilon_apart(2).unwrap();
    assert!((vector / fixed.guarantee.epsilon(2) - 1.0).abs() < 1e-9);
    let both = terms.guarantee.epsilon(2);
    assert!(both > vector.max(indicator) && both < vector + indicator, "{both} of {vector} and {indicator}");
    assert_eq!(terms.guarantee.input_length(), PARAMETERS + 1);
}

#[test]
fn a_hostile_indicator_moves_the_clip_norm_by_its_share_at_most() {
    for lie in [1 << 20, -(1 << 20), i64::from(i32::MAX)] {
        let honest = finished(adaptive(0.5), updates_of(0.1));
        let hostile = move |client: usize, _| {
            let mut update = vec![0.0; PARAMETERS];
            update[3] = 0.1;
            if client != 5 {
                return Ok(Contribution::Update(update));
            }
            let mut values = vec![0; PARAMETERS + 1];
            values[PARAMETERS] = lie;
            Ok(Contribution::DangerUnbounded(values))
        };
        let lied = finished(adaptive(0.5), Script::default().contributing(hostile));
        let (honest, lied) = (clip_norms(&honest.events())[1], clip_norms(&lied.events())[1]);
        // One group of three: a third of η, and the noise of the others.
        assert!((lied / honest).ln().abs() <= 0.5 / 3.0 + 0.05, "{lie}: {lied} beside {honest}");
    }
}

#[test]
fn replaying_gives_the_same_clip_norm() {
    let federation = finished(adaptive(0.7), updates_of(0.1));
    let mut core = Coordinator::new(federation.settings.clone()).unwrap();
    for event in federation.events() {
        let stored = serde_json::to_string(&event).unwrap();
        core.apply(&serde_json::from_str(&stored).unwrap());
    }
    assert_eq!(core.clip(), federation.coordinator().clip());
    assert_eq!(Some(&core.clip().get()), clip_norms(&federation.events()).last());
    assert!(core.clip().get() < 0.95);
    let again = finished(adaptive(0.7), updates_of(0.1));
    assert_eq!(clip_norms(&again.events()), clip_norms(&federation.events()));
}
