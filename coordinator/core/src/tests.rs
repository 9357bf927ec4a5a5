//! What the federation of both cores does not show: a store that fails, jobs that fail, commands out of place.
//!
//! Whole rounds, drop-outs, crashes and hostile peers are tested in `fedveil-simulations`, against real participants.

use crate::*;
use ed25519_dalek::SigningKey;
use fedveil_aggregation::robust::RULES;
use fedveil_proto::Kind;
use fedveil_proto_plan::{
    Aggregation, Cohort, MAX_ROWS, Model, Privacy, Server, SignedPlan, TaskPlan, Training, VERSION,
};
use fedveil_provenance::manifest::MAX_MANIFEST_BYTES;
use fedveil_provenance::{
    Decision, Digest, Explanation, GroupDecision, Influence, Manifest, NoInfluence, RoundPredicate,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn secrets() -> Secrets {
    Secrets { signing: key(), noise: NoiseKey::new(zeroize::Zeroizing::new([7; 32])) }
}

fn core() -> Coordinator {
    let plan = TaskPlan {
        version: VERSION,
        task: "test".to_owned(),
        id: Digest::of("test"),
        mode: "secagg".to_owned(),
        rounds: 2,
        phase_seconds: 60,
        model: Model { architecture: "any".to_owned(), parameters: 4 },
        cohort: Cohort { clients: 4, minimum: 3, assumed_malicious: 0, population: None },
        training: Training::sgd(1, 8, 0.1),
        privacy: Privacy {
            placement: "distributed".to_owned(),
            mechanism: "discrete-gaussian".to_owned(),
            clip_norm: 1.0,
            noise_multiplier: 1.5,
            resolution: 64,
            epsilon: 20.0,
            delta: 1e-5,
            correlated_noise: None,
            adaptive_clip: None,
        },
        aggregation: Aggregation {
            protocol: "pairwise-mask".to_owned(),
            group_size: 3,
            degree: 64,
            threshold: 2,
            min_survivors: 3,
            max_missing_reveals: 0,
            masks: "aes-256-ctr".to_owned(),
            break_probability: 0.0,
        },
        server: Server::mean(),
        simulated: false,
    };
    let plan = SignedPlan::sign(plan, &key()).unwrap();
    Coordinator::new(Settings {
        plan,
        authority: SigningKey::from_bytes(&[4; 32]).verifying_key(),
        hold_out: None,
        quarantine: Quarantine::off(),
    })
    .unwrap()
}

/// A safetensors file with one tensor.
fn model_file(dtype: &str, values: usize) -> Vec<u8> {
    let bytes = values * if dtype == "F16" { 2 } else { 4 };
    let header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":[{values}],"data_offsets":[0,{bytes}]}}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; bytes]].concat()
}

/// A store that can be made to fail.
#[derive(Default)]
struct Fragile {
    inner: MemoryStore,
    broken: AtomicBool,
}

impl Store for Fragile {
    fn append(&self, events: &[Event], blobs: &[Vec<u8>]) -> Result<(), StoreError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(StoreError("disk full".to_owned()));
        }
        self.inner.append(events, blobs)
    }

    fn blob(&self, digest: &Digest) -> Result<Arc<[u8]>, StoreError> {
        self.inner.blob(digest)
    }

    fn events(&self) -> Result<Vec<Event>, StoreError> {
        self.inner.events()
    }
}

/// A driver whose task is open, and the job that signs the initial model.
fn opened(model: Vec<u8>) -> (Driver<Arc<Fragile>>, Arc<Fragile>, Job) {
    let store = Arc::new(Fragile::default());
    let mut driver = Driver::new(core(), store.clone()).unwrap();
    let model = driver.put_blob(model).unwrap();
    let outcomes = driver.handle(vec![Command::Open { model }], Millis(0), [0; 32]).unwrap();
    let job = outcomes.effects.into_iter().find_map(|effect| match effect {
        Effect::Compute(job) => Some(*job),
        _ => None,
    });
    (driver, store, job.expect("opening a task asks for its first signature"))
}

/// A driver whose initial model is published, at time 0.
fn started() -> (Driver<Arc<Fragile>>, Arc<Fragile>) {
    let (mut driver, store, job) = opened(model_file("F32", 4));
    let computed = job.run(&store, &secrets());
    driver.handle(vec![Command::Computed(computed)], Millis(0), [0; 32]).unwrap();
    assert_eq!(driver.core().log().size(), 1);
    (driver, store)
}

fn client(number: u8) -> Client {
    Digest([number; 32])
}

fn joins(numbers: std::ops::Range<u8>) -> Vec<Command> {
    let join = |number| {
        let client = client(number);
        [
            Command::Connect { client },
            Command::Message { client, kind: Kind::Join, bytes: 0_u64.to_be_bytes().to_vec() },
        ]
    };
    numbers.flat_map(join).collect()
}

#[test]
fn what_the_store_did_not_take_is_neither_sent_nor_tried_again() {
    let (mut driver, store) = started();
    store.broken.store(true, Ordering::Relaxed);
    let error = driver.handle(joins(0..1), Millis(0), [0; 32]).err().unwrap();
    assert_eq!(error.to_string(), "store: disk full");
    let durable = store.events().unwrap();

    // Even a store that works again gets nothing from this driver: its state is ahead of what is durable.
    store.broken.store(false, Ordering::Relaxed);
    for commands in [joins(1..2), vec![Command::Tick]] {
        let error = driver.handle(commands, Millis(9_000), [0; 32]).err().unwrap();
        assert!(error.to_string().contains("start again from the store"), "{error}");
    }
    assert_eq!(store.events().unwrap(), durable);

    let mut driver = Driver::new(core(), store).unwrap();
    let outcomes = driver.handle(joins(0..1), Millis(0), [0; 32]).unwrap();
    assert!(outcomes.rejects.is_empty() && !outcomes.effects.is_empty(), "a new driver takes the client in");
}

#[test]
fn the_initial_model_is_signed_after_a_crash_too() {
    let (driver, store, _lost) = opened(model_file("F32", 4));
    drop(driver);
    let mut driver = Driver::new(core(), store.clone()).unwrap();
    let outcomes = driver.handle(vec![Command::Recover], Millis(5), [0; 32]).unwrap();
    let [Effect::Compute(_)] = outcomes.effects.as_slice() else { panic!("one job, and nothing else") };
    let Some(Effect::Compute(job)) = outcomes.effects.into_iter().next() else { unreachable!() };
    driver.handle(vec![Command::Computed(job.run(&store, &secrets()))], Millis(6), [0; 32]).unwrap();
    assert_eq!(driver.core().log().size(), 1);
}

#[test]
fn a_job_that_comes_back_twice_or_too_late_counts_once_or_never() {
    let (mut driver, store, job) = opened(model_file("F32", 4));
    let other = opened(model_file("F32", 4)).2;
    driver.handle(vec![Command::Computed(job.run(&store, &secrets()))], Millis(0), [0; 32]).unwrap();
    let again =
        driver.handle(vec![Command::Computed(other.run(&store, &secrets()))], Millis(0), [0; 32]).unwrap();
    assert!(again.events.is_empty());
    assert_eq!(driver.core().log().size(), 1);
}

#[test]
fn an_initial_model_that_is_none_closes_the_task_with_the_reason() {
    let cases = [
        (model_file("F32", 5), "model file has 5 parameters, expected are 4"),
        (model_file("F16", 4), "model file: tensor `w` is F16, accepted is F32"),
        (b"no model".to_vec(), "model file is not safetensors"),
        (Vec::new(), "model file is not safetensors"),
        ([model_file("F32", 4), vec![0]].concat(), "model file"),
    ];
    for (file, expected) in cases {
        let (mut driver, store, job) = opened(file);
        driver.handle(vec![Command::Computed(job.run(&store, &secrets()))], Millis(0), [0; 32]).unwrap();
        let reason = driver.core().closed().unwrap();
        assert!(reason.contains(expected), "{reason}, expected: {expected}");
    }
}

#[test]
fn a_job_without_its_blob_says_which_one() {
    let (mut driver, _, job) = opened(model_file("F32", 4));
    let empty = MemoryStore::default();
    driver.handle(vec![Command::Computed(job.run(&empty, &secrets()))], Millis(0), [0; 32]).unwrap();
    let digest = Digest::of(model_file("F32", 4));
    assert_eq!(driver.core().closed(), Some(format!("store: no blob {digest}").as_str()));
}

#[test]
fn a_round_waits_for_the_full_cohort_or_the_end_of_the_join_window() {
    let (mut driver, _) = started();
    let end = driver.poll_timeout().unwrap();
    assert!(end > Millis(0));
    driver.handle(joins(0..3), Millis(1), [0; 32]).unwrap();
    assert_eq!(driver.core().phase(), None, "three are enough, but a fourth may come");
    assert_eq!(driver.poll_timeout(), Some(end));
    driver.handle(vec![Command::Tick], end, [0; 32]).unwrap();
    assert_eq!(driver.core().phase(), Some((1, "keys")));

    let (mut driver, _) = started();
    driver.handle(joins(0..4), Millis(1), [0; 32]).unwrap();
    assert_eq!(driver.core().phase(), Some((1, "keys")), "there is nobody left to wait for");

    let (mut driver, _) = started();
    driver.handle(joins(0..2), Millis(1), [0; 32]).unwrap();
    driver.handle(vec![Command::Tick], end, [0; 32]).unwrap();
    assert_eq!(driver.core().phase(), None, "two are too few at any time");
    assert_eq!(driver.poll_timeout(), None);
    driver.handle(joins(2..3), Millis(end.0 + 1), [0; 32]).unwrap();
    assert_eq!(driver.core().phase(), Some((1, "keys")));
}

#[test]
fn a_cohort_is_drawn_by_the_seed_from_everyone_who_is_ready() {
    let cohort = |seed: u8| {
        let (mut driver, store, job) = opened(model_file("F32", 4));
        driver.handle(joins(0..10), Millis(0), [0; 32]).unwrap();
        let computed = Command::Computed(job.run(&store, &secrets()));
        let outcomes = driver.handle(vec![computed], Millis(0), [seed; 32]).unwrap();
        let cohort = outcomes.events.into_iter().find_map(|event| match event {
            Event::RoundOpened { cohort, .. } => Some(cohort),
            _ => None,
        });
        cohort.expect("ten are more than a full cohort")
    };
    assert_eq!(cohort(1), cohort(1));
    let mut drawn = BTreeMap::new();
    for seed in 0..100 {
        let cohort = cohort(seed);
        assert!(cohort.len() == 4 && cohort.is_sorted_by(|one, other| one < other), "{cohort:?}");
        for client in cohort {
            *drawn.entry(client).or_insert(0) += 1;
        }
    }
    // Each is drawn with probability 0.4: 40 times, give or take 4.9.
    assert!(drawn.len() == 10 && drawn.values().all(|times| (20..=60).contains(times)), "{drawn:?}");
}

#[test]
fn stopping_aborts_the_round_and_sends_everybody_home() {
    let (mut driver, _) = started();
    driver.handle(joins(0..4), Millis(0), [0; 32]).unwrap();
    let stop = || vec![Command::Stop { reason: "interrupted".to_owned() }];
    let outcomes = driver.handle(stop(), Millis(7), [0; 32]).unwrap();
    assert!(matches!(
        outcomes.events.as_slice(),
        [Event::RoundAborted { round: 1, at: Millis(7), .. }, Event::TaskClosed { reason }] if reason == "interrupted"
    ));
    let told = |kind| {
        let is_it = |effect: &&Effect| matches!(effect, Effect::Send { kind: sent, .. } if *sent == kind);
        outcomes.effects.iter().filter(is_it).count()
    };
    assert_eq!((told(Kind::RoundClosed), told(Kind::TaskClosed)), (4, 4));
    assert_eq!(outcomes.effects.iter().filter(|effect| matches!(effect, Effect::Close { .. })).count(), 4);
    assert_eq!(driver.poll_timeout(), None);

    assert!(driver.handle(stop(), Millis(8), [0; 32]).unwrap().events.is_empty(), "a task closes once");
    let late = driver.handle(joins(5..6), Millis(9), [0; 32]).unwrap();
    assert_eq!(late.rejects[0].1.reason, "the task is closed");
    assert!(late.events.is_empty());
}

#[test]
fn a_plan_whose_terms_do_not_hold_makes_no_coordinator() {
    let mut plan = core().plan().plan().clone();
    plan.aggregation.threshold = 3;
    let plan = SignedPlan::sign(plan, &key()).unwrap();
    let settings =
        Settings { plan, authority: key().verifying_key(), hold_out: None, quarantine: Quarantine::off() };
    let error = Coordinator::new(settings).err().unwrap();
    assert!(error.to_string().contains("aggregation.threshold is 3"), "{error}");
}

#[test]
fn stored_events_read_as_they_were_written() {
    // The format of the stored events: a change here is a change of the format.
    let client = Digest([0xab; 32]);
    let id = "ab".repeat(32);
    let cases = [
        (
            Event::ClientJoined { client, log_size: 3 },
            format!(r#"{{"event":"client-joined","client":"{id}","log_size":3}}"#),
        ),
        (
            Event::ClientBlamed { group: 1, client },
            format!(r#"{{"event":"client-blamed","group":1,"client":"{id}"}}"#),
        ),
        (
            Event::GroupAdvanced { group: 1, stage: GroupStage::Unmasking, deadline: Millis(5) },
            r#"{"event":"group-advanced","group":1,"stage":"unmasking","deadline":5}"#.to_owned(),
        ),
        (
            Event::Shared { client, message: Hex(vec![0, 255]) },
            format!(r#"{{"event":"shared","client":"{id}","message":"00ff"}}"#),
        ),
        (
            Event::PrivacyCharged { group: 0, clients: vec![client] },
            format!(r#"{{"event":"privacy-charged","group":0,"clients":["{id}"]}}"#),
        ),
        (Event::AggregationStarted, r#"{"event":"aggregation-started"}"#.to_owned()),
    ];
    for (event, json) in cases {
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
    for bad in [
        r#"{"event":"surprise"}"#,
        r#"{"event":"client-left","client":"zz"}"#,
        r#"{"event":"unmask-started","group":0,"extra":1}"#,
    ] {
        assert!(serde_json::from_str::<Event>(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_manifest_has_room_for_a_decision_about_every_update() {
    let core = core();
    let longest = RULES.iter().map(|rule| rule.about.name).max_by_key(|name| name.len()).unwrap();
    let decision = |index| GroupDecision {
        index,
        members: 1,
        survivors: 1,
        decision: Decision::Dropped,
        reason: format!("distance 1.2e-100 is 1.2e-100 deviations below the median of {MAX_ROWS} clients"),
        score: Some(-1.234_567_890_123_456_7e-300),
        explanation: Some(
            Explanation {
                distance: 1.234_567e-100,
                cosine: Some(-1.234_567e-100),
                norm: 1.234_567e-100,
                z_score: -1.234_567e-100,
                influence: Influence::Unknown(NoInfluence::RowsByIndex),
            }
            .rounded(),
        ),
    };
    let manifest = Manifest {
        model: Digest::of("model"),
        round: RoundPredicate {
            round: u32::MAX,
            parent: Some(Digest::of("parent")),
            task_digest: Digest::of("task"),
            cohort_commitment: Digest::of("cohort"),
            groups: (0..MAX_ROWS).map(decision).collect(),
            rejected: Vec::new(),
            rule: longest.to_owned(),
            privacy: core.terms().privacy_claim(core.plan().plan(), 1.0),
            software: "test".to_owned(),
            files: Vec::new(),
        },
    };
    let envelope = manifest.sign(&[&key()]).unwrap();
    assert!(envelope.len() < MAX_MANIFEST_BYTES);
}

#[test]
fn a_model_file_keeps_its_header_and_takes_other_parameters() {
    let file = model_file("F32", 3);
    let written = with_parameters(&file, &[1.0, -2.0, 0.5]).unwrap();
    assert_eq!(parameters(&written).unwrap(), [1.0, -2.0, 0.5]);
    assert_eq!(written[..written.len() - 12], file[..file.len() - 12]);
    assert_eq!(with_parameters(&file, &[1.0]).unwrap_err(), ModelFileError::Length { found: 1, expected: 3 });
    for length in 0..file.len() {
        assert!(parameters(&file[..length]).is_err(), "{length} bytes");
    }
}
