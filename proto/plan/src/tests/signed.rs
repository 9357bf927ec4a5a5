//! Signed plans, and the sessions that are bound to them.

use fedveil_provenance::Envelope;

use super::*;

#[test]
fn a_signed_plan_comes_back_as_it_was_signed() {
    let signed = SignedPlan::sign(plan(), &key()).unwrap();
    let read = SignedPlan::verify(signed.bytes(), &key().verifying_key()).unwrap();
    assert_eq!(read.plan(), &plan());
    assert_eq!((read.bytes(), read.digest()), (signed.bytes(), Digest::of(signed.bytes())));
    assert_eq!(read.origin(), format!("fedveil/{}", signed.digest()));
}

#[test]
fn a_plan_by_another_signer_or_altered_is_refused() {
    let signed = SignedPlan::sign(plan(), &key()).unwrap();
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
    assert!(matches!(SignedPlan::verify(signed.bytes(), &other), Err(PlanError::Signature(_))));
    for position in 0..signed.bytes().len() {
        let mut bytes = signed.bytes().to_vec();
        bytes[position] ^= 1;
        assert!(SignedPlan::verify(&bytes, &key().verifying_key()).is_err(), "byte {position}");
    }
}

#[test]
fn an_envelope_of_another_type_is_no_plan() {
    let payload = serde_json::to_vec(&plan()).unwrap();
    let bytes = Envelope::sign("application/vnd.fedveil.round.v1+json", payload, &[&key()]).to_json();
    assert!(matches!(SignedPlan::verify(&bytes, &key().verifying_key()), Err(PlanError::Signature(_))));
}

#[test]
fn a_signed_payload_that_is_no_plan_is_refused() {
    let mut unknown = serde_json::to_value(plan()).unwrap();
    unknown["surprise"] = 1.into();
    let mut missing = serde_json::to_value(plan()).unwrap();
    missing.as_object_mut().unwrap().remove("privacy");
    for (payload, expected) in [
        (serde_json::to_vec(&unknown).unwrap(), "unknown field `surprise`"),
        (serde_json::to_vec(&missing).unwrap(), "missing field `privacy`"),
        (b"{".to_vec(), "EOF"),
    ] {
        let bytes = Envelope::sign(PAYLOAD_TYPE, payload, &[&key()]).to_json();
        let error = SignedPlan::verify(&bytes, &key().verifying_key()).unwrap_err();
        assert!(matches!(&error, PlanError::Malformed(reason) if reason.contains(expected)), "{error}");
    }
}

#[test]
fn an_oversized_plan_is_not_even_read() {
    let error = SignedPlan::verify(&vec![b'{'; MAX_BYTES + 1], &key().verifying_key()).unwrap_err();
    assert_eq!(error.to_string(), "task plan: 65537 bytes, accepted are up to 65536");
}

#[test]
fn sessions_differ_by_plan_round_and_model() {
    let authority = key().verifying_key();
    let signed = SignedPlan::sign(plan(), &key()).unwrap();
    let other = SignedPlan::sign(TaskPlan { id: Digest::of("another"), ..plan() }, &key()).unwrap();
    let terms = plan().check().unwrap();
    let model = Digest::of("model");
    let context = |plan: &SignedPlan, round, model: &Digest| {
        let session = terms.session(plan, &authority, round, model).unwrap();
        session.parameters().context
    };
    let first = context(&signed, 1, &model);
    assert_eq!(first, context(&signed, 1, &model));
    assert_ne!(first, context(&signed, 2, &model));
    assert_ne!(first, context(&signed, 1, &Digest::of("another model")));
    assert_ne!(first, context(&other, 1, &model));
}

#[test]
fn rotations_differ_by_task_round_and_model() {
    let model = Digest::of("model");
    let first = plan().rotation_seed(1, &model);
    assert_eq!(first, plan().rotation_seed(1, &model));
    assert_ne!(first, plan().rotation_seed(2, &model));
    assert_ne!(first, plan().rotation_seed(1, &Digest::of("another model")));
    assert_ne!(first, TaskPlan { id: Digest::of("another"), ..plan() }.rotation_seed(1, &model));
}

#[test]
fn a_checked_plan_always_makes_a_session() {
    // Every small shape: whatever `check` lets pass, both sides can run.
    let authority = key().verifying_key();
    let mut sessions = 0;
    for (clients, minimum, group_size) in (3..15)
        .flat_map(|n| (3..=n).flat_map(move |minimum| (3..=minimum).map(move |size| (n, minimum, size))))
    {
        for min_survivors in 3..=group_size {
            for threshold in 2..min_survivors {
                let mut plan = plan();
                plan.cohort = Cohort { clients, minimum, assumed_malicious: 0, population: None };
                plan.aggregation = Aggregation {
                    protocol: "pairwise-mask".to_owned(),
                    group_size,
                    degree: 64,
                    threshold,
                    min_survivors,
                    max_missing_reveals: minimum / 10,
                    masks: "aes-256-ctr".to_owned(),
                    break_probability: 0.0,
                };
                let Ok(terms) = plan.check() else { continue };
                let signed = SignedPlan::sign(plan, &key()).unwrap();
                let session = terms.session(&signed, &authority, 1, &Digest::of("model")).unwrap();
                assert_eq!(session.max_group_len(), terms.largest_group as usize);
                sessions += 1;
            }
        }
    }
    assert!(sessions > 100, "{sessions}");
}
