//! What a participant says, and in which order; what it remembers; what its owner allows.
//!
//! Rounds with others, and the lies of coordinators, are tested in `fedveil-simulations` against the real core.

use crate::*;
use chacha20::ChaCha20Rng;
use ed25519_dalek::SigningKey;
use fedveil_aggregation::secagg::IdentityCertificate;
use fedveil_proto::Kind;
use fedveil_proto_plan::{
    Aggregation, Cohort, ExamplePrivacy, Model, Privacy, Server, SignedPlan, TaskPlan, Training, VERSION,
};
use fedveil_provenance::{Checkpoint, Digest, FileEntry, Log, Manifest, Publication, RoundPredicate};
use rand_core::SeedableRng;

const MODEL: &[u8] = b"to a participant, a model is bytes";
/// Seconds until which the certificates of the tests hold.
const NOT_AFTER: u64 = 1_000;

fn authority() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

fn plan() -> TaskPlan {
    TaskPlan {
        version: VERSION,
        task: "test".to_owned(),
        id: Digest::of("test"),
        mode: "secagg".to_owned(),
        rounds: 3,
        phase_seconds: 60,
        model: Model { architecture: "any".to_owned(), parameters: 4 },
        cohort: Cohort { clients: 12, minimum: 10, assumed_malicious: 1, population: None },
        training: Training::sgd(1, 8, 0.1),
        privacy: Privacy {
            placement: "distributed".to_owned(),
            mechanism: "discrete-gaussian".to_owned(),
            clip_norm: 1.0,
            noise_multiplier: 1.5,
            resolution: 64,
            epsilon: 15.0,
            delta: 1e-5,
            correlated_noise: None,
            adaptive_clip: None,
        },
        aggregation: Aggregation {
            protocol: "pairwise-mask".to_owned(),
            group_size: 9,
            degree: 64,
            threshold: 7,
            min_survivors: 8,
            max_missing_reveals: 1,
            masks: "aes-256-ctr".to_owned(),
            break_probability: 0.0,
        },
        server: Server::mean(),
        simulated: false,
    }
}

fn signed() -> SignedPlan {
    SignedPlan::sign(plan(), &signer()).unwrap()
}

fn participant(record: Record) -> Participant {
    let identity = SigningKey::from_bytes(&[3; 32]);
    let public = identity.verifying_key().to_bytes();
    let certificate = IdentityCertificate::issue(&authority(), &public, "alice", NOT_AFTER).unwrap();
    let credentials = Credentials {
        identity,
        certificate,
        authority: authority().verifying_key(),
        signer: signer().verifying_key(),
    };
    Participant::new(credentials, Policy::default(), record)
}

/// The first publication of the task, for a client that knows nothing yet.
fn publication() -> Vec<u8> {
    publication_after(0.0)
}

/// The same, where so much is said to have been spent.
fn publication_after(epsilon_spent: f64) -> Vec<u8> {
    let signed = signed();
    let manifest = Manifest {
        model: Digest::of(MODEL),
        round: RoundPredicate {
            round: 0,
            parent: None,
            task_digest: signed.digest(),
            cohort_commitment: Digest::of(""),
            groups: Vec::new(),
            rejected: Vec::new(),
            rule: "mean".to_owned(),
            privacy: plan().check().unwrap().privacy_claim(&plan(), epsilon_spent),
            software: "test".to_owned(),
            files: vec![FileEntry { path: "model.safetensors".to_owned(), digest: Digest::of(MODEL) }],
        },
    };
    let mut log = Log::new();
    log.append(manifest.sign(&[&signer()]).unwrap());
    let checkpoint = Checkpoint::sign(&signed.origin(), &log.head(), &signer()).unwrap();
    Publication::new(&log, checkpoint, 0, 0).unwrap().to_bytes()
}

fn send_at(
    participant: &mut Participant,
    kind: Kind,
    bytes: impl Into<Vec<u8>>,
    now: u64,
) -> Result<Vec<Effect>, Refusal> {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    participant.handle(Input::Message(kind, bytes.into().into()), now, &mut rng)
}

fn send(
    participant: &mut Participant,
    kind: Kind,
    bytes: impl Into<Vec<u8>>,
) -> Result<Vec<Effect>, Refusal> {
    send_at(participant, kind, bytes, 0)
}

/// A participant that holds the initial model, and what it has made durable.
fn ready() -> (Participant, Record) {
    let mut alice = participant(Record::default());
    send(&mut alice, Kind::Plan, signed().bytes()).unwrap();
    send(&mut alice, Kind::Publication, publication()).unwrap();
    let effects = send(&mut alice, Kind::Model, MODEL).unwrap();
    let [Effect::Persist(record), Effect::Adopted { round: 0, model }] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!(model, MODEL);
    let record = Record::clone(record);
    (alice, record)
}

#[test]
fn a_plan_is_answered_with_the_size_of_the_log_that_was_verified() {
    let effects = send(&mut participant(Record::default()), Kind::Plan, signed().bytes()).unwrap();
    assert!(
        matches!(effects.as_slice(), [Effect::Persist(_), Effect::Send(Kind::Join, size)] if *size == [0; 8])
    );

    let (_, record) = ready();
    let effects = send(&mut participant(record), Kind::Plan, signed().bytes()).unwrap();
    let one = 1_u64.to_be_bytes();
    assert!(
        matches!(effects.as_slice(), [Effect::Persist(_), Effect::Send(Kind::Join, size)] if *size == one)
    );
}

#[test]
fn a_round_is_durably_consumed_before_its_first_message() {
    let (mut alice, _) = ready();
    let effects = send(&mut alice, Kind::RoundOpen, 1_u32.to_be_bytes()).unwrap();
    let [Effect::Entered { round: 1 }, Effect::Persist(record), Effect::Send(Kind::Advertise, _)] =
        effects.as_slice()
    else {
        panic!("{effects:?}");
    };
    assert_eq!(record.tasks[&signed().digest()].last_round, 1);

    // After a crash the model it holds is still the verified one, and the round is not entered again.
    let mut alice = participant(Record::clone(record));
    send(&mut alice, Kind::Plan, signed().bytes()).unwrap();
    send(&mut alice, Kind::Model, MODEL).unwrap();
    let refusal = send(&mut alice, Kind::RoundOpen, 1_u32.to_be_bytes()).unwrap_err();
    assert!(refusal.to_string().contains("round 1 is not after round 1"), "{refusal}");
    send(&mut alice, Kind::RoundOpen, 2_u32.to_be_bytes()).unwrap();
}

#[test]
fn a_spent_budget_outlives_a_crash() {
    let (_, mut record) = ready();
    record.tasks.get_mut(&signed().digest()).unwrap().participations = 3;
    let mut alice = participant(record);
    send(&mut alice, Kind::Plan, signed().bytes()).unwrap();
    send(&mut alice, Kind::Model, MODEL).unwrap();
    assert_eq!(alice.epsilon_spent(), plan().check().unwrap().guarantee.epsilon(3));
    let refusal = send(&mut alice, Kind::RoundOpen, 1_u32.to_be_bytes()).unwrap_err();
    assert!(refusal.to_string().contains("would pass the privacy budget epsilon 15"), "{refusal}");
    assert!(!refusal.is_final());
}

#[test]
fn before_a_plan_nothing_is_listened_to() {
    for kind in Kind::ALL {
        let harmless = [Kind::RoundClosed, Kind::TaskClosed, Kind::Reject].contains(&kind);
        match send(&mut participant(Record::default()), kind, *b"{}") {
            Ok(effects) => {
                assert!(harmless, "{kind:?}");
                assert!(
                    !effects.iter().any(|effect| matches!(effect, Effect::Send(..) | Effect::Persist(_)))
                );
            }
            Err(refusal) => assert!(!harmless, "{kind:?}: {refusal}"),
        }
    }
}

#[test]
fn after_a_final_refusal_only_a_plan_is_listened_to() {
    let (mut alice, _) = ready();
    // In the middle of a round, whose secrets go with the refusal.
    send(&mut alice, Kind::RoundOpen, 1_u32.to_be_bytes()).unwrap();
    let refusal = send(&mut alice, Kind::Publication, *b"{}").unwrap_err();
    assert!(refusal.is_final(), "{refusal}");
    assert!(alice.plan().is_none());
    for kind in [Kind::Roster, Kind::Publication, Kind::Model, Kind::RoundOpen] {
        let refusal = send(&mut alice, kind, 1_u32.to_be_bytes()).unwrap_err();
        assert!(matches!(refusal, Refusal::Unexpected { .. }), "{kind:?}: {refusal}");
    }
    send(&mut alice, Kind::Plan, signed().bytes()).unwrap();
}

#[test]
fn a_model_that_came_before_its_session_ended_is_not_waited_for() {
    let mut alice = participant(Record::default());
    send(&mut alice, Kind::Plan, signed().bytes()).unwrap();
    send(&mut alice, Kind::Publication, publication()).unwrap();
    alice.disconnected();
    let refusal = send(&mut alice, Kind::Model, MODEL).unwrap_err();
    assert!(matches!(refusal, Refusal::Unexpected { kind: Kind::Model, .. }), "{refusal}");
}

#[test]
fn an_expired_certificate_keeps_the_client_out_of_rounds() {
    let (mut alice, _) = ready();
    let refusal = send_at(&mut alice, Kind::RoundOpen, 1_u32.to_be_bytes(), NOT_AFTER + 1).unwrap_err();
    assert!(refusal.to_string().contains("expired at 1000, the time is 1001"), "{refusal}");
    send_at(&mut alice, Kind::RoundOpen, 1_u32.to_be_bytes(), NOT_AFTER).unwrap();
}

#[test]
fn a_result_of_training_that_nobody_waits_for_changes_nothing() {
    let (mut alice, _) = ready();
    send(&mut alice, Kind::RoundOpen, 1_u32.to_be_bytes()).unwrap();
    for input in [
        Input::Trained(vec![0.0; 4]),
        Input::TrainingFailed("late".to_owned()),
        Input::DangerUnbounded(vec![0; 4]),
    ] {
        assert!(alice.handle(input, 0, &mut ChaCha20Rng::from_seed([9; 32])).unwrap().is_empty());
    }
    // The session still waits for its roster, and judges it.
    let refusal = send(&mut alice, Kind::Roster, *b"no roster").unwrap_err();
    assert!(matches!(refusal, Refusal::Session(_)), "{refusal}");
    let refusal = send(&mut alice, Kind::Roster, *b"no roster").unwrap_err();
    assert_eq!(refusal.to_string(), "unexpected Roster message outside of a round");
}

#[test]
fn the_default_policy_takes_a_sound_plan_and_each_limit_can_refuse_it() {
    let plan = plan();
    let terms = plan.check().unwrap();
    let policy = Policy::default();
    policy.check(&plan, &terms).unwrap();
    let epsilon = terms.guarantee.epsilon(3);
    let cases = [
        (Policy { max_epsilon: epsilon, max_delta: 1e-5, ..policy.clone() }, None),
        (Policy { max_break_probability: 0.0, min_colluders_to_break: 3, ..policy.clone() }, None),
        (Policy { max_epsilon: epsilon * 0.999, ..policy.clone() }, Some(("max_epsilon", epsilon))),
        (Policy { max_delta: 0.9e-5, ..policy.clone() }, Some(("max_delta", 1e-5))),
        (Policy { min_survivors: 9, ..policy.clone() }, Some(("min_survivors", 8.0))),
        (Policy { min_colluders_to_break: 4, ..policy.clone() }, Some(("min_colluders_to_break", 3.0))),
        (
            Policy { max_example_epsilon: 100.0, ..policy.clone() },
            Some(("max_example_epsilon", f64::INFINITY)),
        ),
        (Policy { max_epsilon: f64::NAN, ..policy.clone() }, Some(("max_epsilon", epsilon))),
        (Policy { max_break_probability: f64::NAN, ..policy }, Some(("max_break_probability", 0.0))),
    ];
    for (policy, expected) in cases {
        let refusal = policy.check(&plan, &terms).err().map(|refusal| match refusal {
            PolicyRefusal::Limit { limit, found, .. } => (limit, found),
            PolicyRefusal::InsecurePlain | PolicyRefusal::InsecureIdeal => {
                panic!("the plan is of mode secagg")
            }
            PolicyRefusal::InsecureNoNoise => panic!("the plan has noise"),
            PolicyRefusal::InsecureSimulated => panic!("the plan is no simulation"),
        });
        assert_eq!(refusal, expected, "{policy:?}");
    }
}

#[test]
fn a_break_that_chance_decides_is_the_owners_to_accept() {
    // Five groups of twenty; one that holds all seven colluders falls.
    let mut plan = plan();
    plan.cohort = Cohort { clients: 100, minimum: 100, assumed_malicious: 7, population: None };
    plan.aggregation = Aggregation {
        group_size: 20,
        threshold: 13,
        min_survivors: 16,
        max_missing_reveals: 0,
        break_probability: 0.5,
        ..plan.aggregation
    };
    let terms = plan.check().unwrap();
    let found = terms.break_probability_log2.exp2();
    assert!(found > 1e-6, "{found}");
    let check = |max_break_probability| {
        let policy = Policy { max_break_probability, min_colluders_to_break: 1, ..Policy::default() };
        policy.check(&plan, &terms)
    };
    assert_eq!(check(found), Ok(()));
    let refusal = check(found * 0.99).unwrap_err();
    let limit = "max_break_probability";
    assert_eq!(refusal, PolicyRefusal::Limit { limit, allowed: found * 0.99, found });
    assert!(check(Policy::default().max_break_probability).is_err(), "by default it is not accepted");
}

/// The record of a client that took part in this task before, so many times.
fn after(other: &str, participations: u32) -> Record {
    let mut record = Record::default();
    let task = TaskRecord {
        name: other.to_owned(),
        delta: 1e-5,
        loss: plan().check().unwrap().guarantee.task_loss(),
        last_round: participations,
        last_update: 0,
        last_judged: 0,
        participations,
        contributions: (1..=participations)
            .map(|round| Contribution { round, at: 10, judged: false })
            .collect(),
        head: None,
        model: None,
    };
    record.tasks.insert(Digest::of(other), task);
    record
}

#[test]
fn all_tasks_together_stay_within_what_the_owner_allows() {
    let delta = fedveil_privacy::Delta::new(1e-5).unwrap();
    let limit = after("all", 9).epsilon(delta);
    let offer = |record: Record, max_total_epsilon| {
        let mut alice = participant(record);
        alice.policy.max_total_epsilon = max_total_epsilon;
        send(&mut alice, Kind::Plan, signed().bytes())
    };
    // Three rounds of this plan and six of others are nine alike.
    assert!((offer(after("before", 6), limit * 1.000_001)).is_ok());
    let refusal = offer(after("before", 6), limit * 0.999_999).unwrap_err();
    assert!(refusal.is_final());
    let Refusal::Total(exceeded) = &refusal else { panic!("{refusal}") };
    assert!((exceeded.after / limit - 1.0).abs() < 1e-9 && exceeded.rounds == 3, "{exceeded:?}");
    assert!((exceeded.spent / after("all", 6).epsilon(delta) - 1.0).abs() < 1e-9, "{exceeded:?}");
    let text = refusal.to_string();
    assert!(text.contains(&format!("{:.4} is spent, and 3 more rounds", exceeded.spent)), "{text}");
    assert!(text.contains(&format!("allows max_total_epsilon {}", exceeded.allowed)), "{text}");

    // What was refused is not remembered as joined; what this very task has spent is counted once.
    let mut own = after("before", 6);
    let task = own.tasks.remove(&Digest::of("before")).unwrap();
    own.tasks.insert(signed().digest(), TaskRecord { participations: 2, last_round: 2, ..task });
    assert!(offer(own, after("all", 3).epsilon(delta) * 1.000_001).is_ok());

    for nonsense in [f64::NAN, -1.0, 0.0] {
        assert!(matches!(offer(Record::default(), nonsense), Err(Refusal::Total(_))), "{nonsense}");
    }
}

#[test]
fn a_round_that_would_pass_the_total_is_declined() {
    let delta = fedveil_privacy::Delta::new(1e-5).unwrap();
    let mut alice = participant(Record::default());
    send(&mut alice, Kind::Plan, signed().bytes()).unwrap();
    send(&mut alice, Kind::Publication, publication()).unwrap();
    send(&mut alice, Kind::Model, MODEL).unwrap();
    // The owner thinks again while the client runs.
    alice.policy.max_total_epsilon = after("all", 1).epsilon(delta) * 0.999;
    let refusal = send(&mut alice, Kind::RoundOpen, 1_u32.to_be_bytes()).unwrap_err();
    assert!(matches!(refusal, Refusal::Round(_)) && !refusal.is_final(), "{refusal}");
    assert!(refusal.to_string().contains("over all tasks; 0.0000 is spent, and 1 more rounds"), "{refusal}");
    alice.policy.max_total_epsilon = after("all", 1).epsilon(delta) * 1.001;
    send(&mut alice, Kind::RoundOpen, 1_u32.to_be_bytes()).unwrap();
}

#[test]
fn a_manifest_states_what_the_plan_can_have_spent() {
    let offer = |epsilon_spent| {
        let mut alice = participant(Record::default());
        send(&mut alice, Kind::Plan, signed().bytes()).unwrap();
        send(&mut alice, Kind::Publication, publication_after(epsilon_spent))
    };
    let refusal = offer(plan().check().unwrap().guarantee.epsilon(1)).unwrap_err();
    assert!(matches!(refusal, Refusal::Spent { round: 0, .. }) && refusal.is_final(), "{refusal}");
    assert!(offer(1e-9).unwrap_err().to_string().contains("epsilon 0.000000001 was spent by round 0"));
    assert!(offer(0.0).is_ok());
}

#[test]
fn an_owner_may_demand_privacy_for_every_example() {
    let mut plan = plan();
    let section = ExamplePrivacy {
        clip_norm: 1.0,
        noise_multiplier: 2.0,
        sampling_rate: 0.1,
        epsilon: 8.0,
        delta: 1e-5,
    };
    plan.training.example_privacy = Some(section);
    let terms = plan.check().unwrap();
    let epsilon = terms.example.as_ref().unwrap().epsilon;
    Policy { max_example_epsilon: epsilon, ..Policy::default() }.check(&plan, &terms).unwrap();
    let strict = Policy { max_example_epsilon: epsilon * 0.999, ..Policy::default() };
    let refusal = strict.check(&plan, &terms).unwrap_err();
    assert!(refusal.to_string().contains("max_example_epsilon"), "{refusal}");
}

#[test]
fn a_policy_file_has_defaults_and_no_unknown_keys() {
    let policy: Policy = serde_json::from_str(r#"{"max_epsilon": 2}"#).unwrap();
    assert_eq!(policy, Policy { max_epsilon: 2.0, ..Policy::default() });
    assert!(serde_json::from_str::<Policy>(r#"{"max_epsilom": 2}"#).is_err());
}

#[test]
fn a_record_reads_as_it_was_written() {
    // The format of the record file, version 2: a change here needs another version.
    let (_, record) = ready();
    let json = serde_json::to_value(&record).unwrap();
    let task = &json["tasks"][signed().digest().to_string()];
    assert_eq!(json["version"], 2);
    assert_eq!(task["name"], "test");
    assert_eq!(task["delta"], 1e-5);
    assert_eq!(task["loss"]["failure"], 0.0);
    assert!(task["loss"]["participation"].as_array().unwrap().len() > 100);
    assert_eq!(task["contributions"], serde_json::json!([]));
    assert_eq!(task["last_round"], 0);
    assert_eq!(task["participations"], 0);
    assert_eq!(task["model"], Digest::of(MODEL).to_string());
    assert_eq!(task["head"]["round"], 0);
    assert_eq!(task["head"]["log"]["size"], 1);
    assert_eq!(task["head"]["epsilon_spent"], 0.0);
    assert_eq!(serde_json::from_value::<Record>(json.clone()).unwrap(), record);

    let mut unknown = json;
    unknown["surprise"] = true.into();
    assert!(serde_json::from_value::<Record>(unknown).is_err());
}

#[test]
fn a_transport_reads_no_more_than_the_client_has_use_for() {
    let mut alice = participant(Record::default());
    assert!(alice.message_limits().is_none());
    for kind in Kind::ALL {
        let limit = MessageLimits::before_plan(kind);
        assert_eq!(limit > 0, [Kind::Plan, Kind::TaskClosed, Kind::Reject].contains(&kind), "{kind:?}");
    }
    send(&mut alice, Kind::Plan, signed().bytes()).unwrap();
    let limits = alice.message_limits().unwrap();
    for kind in Kind::ALL {
        assert_eq!(limits.of(kind) > 0, !kind.is_from_client(), "{kind:?}");
    }
    assert!(limits.of(Kind::Model) < 100_000);
}
