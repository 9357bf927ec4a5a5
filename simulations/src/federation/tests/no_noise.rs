//! Plans without noise: what is sent is what is added up, and nobody is told that it was private.

use super::plain::in_the_clear;
use super::*;
use fedveil_client_core::{PolicyRefusal, Refusal};
use fedveil_proto::Kind::PlainInput;
use fedveil_provenance::Manifest;

/// 12 clients without noise, whose owners allow it.
pub(super) fn without_noise(clip_norm: f64) -> Setup {
    let mut setup = in_the_clear("local");
    setup.plan.privacy = Privacy::none(clip_norm);
    setup.policy = Policy { allow_insecure_plain: true, allow_insecure_no_noise: true, ..Policy::default() };
    setup
}

/// An update whose values spread over twelve orders of magnitude.
fn update(client: usize, round: u32) -> Vec<f32> {
    let value = |at: usize| {
        let exponent = ((at * 5 + client + round as usize) % 13) as i32 - 9;
        let sign = if (at + client).is_multiple_of(2) { 1.0 } else { -1.0 };
        sign * (1.0 + 0.37 * client as f32 + 0.011 * at as f32) * 10_f32.powi(exponent)
    };
    (0..PARAMETERS).map(value).collect()
}

fn updates() -> Script {
    Script::default().contributing(|client, round| Ok(Contribution::Update(update(client, round))))
}

fn parameters_of(federation: &Scripted) -> Vec<Vec<f32>> {
    let models = models(&federation.events());
    let read = |digest| model_file::from_safetensors(&federation.store().blob(digest).unwrap()).unwrap().1;
    models.values().map(read).collect()
}

fn dropped(federation: &Scripted) -> Vec<String> {
    let reason = |event| match event {
        Event::ClientDropped { reason, .. } => Some(reason),
        _ => None,
    };
    federation.events().into_iter().filter_map(reason).collect()
}

#[test]
fn the_model_moves_by_the_mean_to_the_bit() {
    let federation = finished(without_noise(f64::INFINITY), updates());
    assert_eq!(published(&federation.events()), [0, 1, 2]);
    let models = parameters_of(&federation);
    // What a loop without a framework computes, in the order of identities.
    let mut order: Vec<usize> = (0..12).collect();
    order.sort_by_key(|&client| federation.devices()[client].id());
    let mut expected = models[0].clone();
    for (round, found) in [(1, &models[1]), (2, &models[2])] {
        for (at, weight) in expected.iter_mut().enumerate() {
            let sum: f64 = order.iter().map(|&client| f64::from(update(client, round)[at])).sum();
            *weight = (f64::from(*weight) + sum / 12.0) as f32;
        }
        assert_eq!(found, &expected, "round {round}");
    }
}

#[test]
fn a_finite_clip_norm_still_clips() {
    let mut setup = without_noise(0.5);
    setup.plan.rounds = 1;
    let script = Script::default().contributing(|client, _| {
        let mut values = vec![0.0; PARAMETERS];
        values[client] = 8.0;
        Ok(Contribution::Update(values))
    });
    let federation = finished(setup, script);
    let models = parameters_of(&federation);
    for value in &models[1][..12] {
        assert!((value - 0.5 / 12.0).abs() < 1e-7, "{value}");
    }
}

#[test]
fn every_number_that_is_shown_says_that_nothing_is_private() {
    let federation = finished(without_noise(f64::INFINITY), updates());
    assert_eq!(federation.coordinator().epsilon_spent(), f64::INFINITY);
    let device = &federation.devices()[0];
    assert_eq!(device.participant().epsilon_spent(), f64::INFINITY);
    let record = serde_json::to_string(device.record()).unwrap();
    assert_eq!(&serde_json::from_str::<fedveil_client_core::Record>(&record).unwrap(), device.record());
    let [task] = device.record().tasks.values().collect::<Vec<_>>()[..] else { panic!("one task") };
    assert_eq!(task.epsilon(), f64::INFINITY);

    let signer = federation.secrets.signing.verifying_key();
    let newest = federation.coordinator().log().leaf(2).unwrap().to_vec();
    let privacy = Manifest::verify(&newest, &[signer], 1).unwrap().round.privacy;
    assert_eq!((privacy.epsilon_spent, privacy.epsilon_budget), (f64::INFINITY, f64::INFINITY));
    assert_eq!((privacy.placement.as_str(), privacy.mechanism.as_str()), ("insecure_none", "none"));
    assert_eq!(privacy.unit, "none");
}

#[test]
fn a_client_refuses_a_simulation_that_its_owner_did_not_allow_by_name_and_manifests_say_that_it_is_one() {
    let mut setup = without_noise(f64::INFINITY);
    setup.plan.simulated = true;
    let mut federation = finished(setup.clone(), updates());
    assert_eq!(published(&federation.events()), [0], "nobody takes part");
    for client in 0..12 {
        let refusals = federation.devices()[client].refusals();
        assert!(matches!(refusals, [Refusal::Policy(PolicyRefusal::InsecureSimulated)]), "{refusals:?}");
        assert_eq!(sent_by(&mut federation, client, PlainInput), 0);
    }
    setup.policy.allow_insecure_simulated = true;
    let federation = finished(setup, updates());
    assert!(published(&federation.events()).len() > 1);
    let signer = federation.secrets.signing.verifying_key();
    let newest = federation.coordinator().log().leaf(2).unwrap().to_vec();
    assert!(!Manifest::verify(&newest, &[signer], 1).unwrap().round.privacy.private);
}

#[test]
fn a_client_refuses_a_plan_without_noise_that_its_owner_did_not_allow_by_name() {
    let mut setup = without_noise(f64::INFINITY);
    setup.policy.allow_insecure_no_noise = false;
    // Neither a mode nor a number stands for the name.
    (setup.policy.max_epsilon, setup.policy.max_total_epsilon) = (f64::INFINITY, f64::INFINITY);
    let mut federation = finished(setup, updates());
    assert_eq!(published(&federation.events()), [0], "nobody takes part");
    for client in 0..12 {
        let device = &federation.devices()[client];
        let refusals = device.refusals();
        assert!(matches!(refusals, [Refusal::Policy(PolicyRefusal::InsecureNoNoise)]), "{refusals:?}");
        assert!(device.finished().unwrap().contains("allow_insecure_no_noise = false"));
        assert_eq!(sent_by(&mut federation, client, PlainInput), 0);
    }
    let mut setup = without_noise(f64::INFINITY);
    setup.policy.allow_insecure_plain = false;
    let federation = finished(setup, updates());
    let refusals = federation.devices()[0].refusals();
    assert!(matches!(refusals, [Refusal::Policy(PolicyRefusal::InsecurePlain)]), "{refusals:?}");
}

/// The coordinator, who sees the updates, keeps the numbers behind its decisions; the others get the decisions.
#[test]
fn numbers_about_updates_without_noise_stay_with_the_coordinator() {
    let mut setup = without_noise(f64::INFINITY);
    setup.plan.server.rule = "multi-krum".to_owned();
    setup.plan.server.assumed_byzantine = 2;
    let federation = finished(setup, updates());
    let kept = federation.events().into_iter().filter_map(|event| match event {
        Event::Published { round: 1.., groups, .. } => Some(groups),
        _ => None,
    });
    let told = manifests(&federation).into_iter().skip(1).map(|manifest| manifest.round.groups);
    assert_eq!(told.len(), 2);
    for (told, kept) in told.zip(kept) {
        assert_eq!(told.len(), 12);
        for (told, kept) in told.into_iter().zip(kept) {
            assert_eq!((told.index, told.decision), (kept.index, kept.decision));
            assert_eq!((told.score, told.explanation), (None, None));
            assert!(["", "set aside by the rule"].contains(&told.reason.as_str()), "{told:?}");
            assert!(kept.score.is_some() && kept.explanation.is_some(), "{kept:?}");
        }
    }
}

#[test]
fn an_update_that_is_no_number_or_longer_than_the_clip_norm_is_in_no_sum() {
    for (clip_norm, value, reason) in [
        (f64::INFINITY, f32::NAN, "the update's norm is NaN, beyond any number"),
        (f64::INFINITY, f32::INFINITY, "the update's norm is inf, beyond any number"),
        (0.5, 3.0, "the update's norm is 3, beyond 0.5"),
    ] {
        let mut setup = without_noise(clip_norm);
        setup.plan.rounds = 1;
        let alter = move |bytes: &mut Vec<u8>| {
            bytes[4..].fill(0);
            bytes[4..8].copy_from_slice(&value.to_le_bytes());
        };
        let script = Script::default().altering(0, PlainInput, alter);
        let federation = finished(setup, script);
        assert_eq!(dropped(&federation), [reason]);
        let models = parameters_of(&federation);
        assert!((models[1][0] - 0.01).abs() < 1e-6, "{}", models[1][0]);
    }
}
