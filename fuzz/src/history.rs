//! One short history under one key: what the targets for manifests, checkpoints and publications start from.

use ed25519_dalek::SigningKey;
use fedveil_provenance::{
    Checkpoint, Decision, Digest, Explanation, GroupDecision, Influence, Log, Manifest, NoInfluence,
    PrivacyClaim, RoundPredicate,
};

pub const ORIGIN: &str = "fedveil.example/digits";

/// What signs everything.
pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

/// Somebody else's key.
pub fn other_key() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

pub fn task() -> Digest {
    Digest::of("task")
}

pub fn model(round: u32) -> Vec<u8> {
    format!("model of round {round}").into_bytes()
}

/// What the task's manifests say about privacy, once so much is spent.
pub fn claim(epsilon_spent: f64) -> PrivacyClaim {
    PrivacyClaim {
        epsilon_spent,
        epsilon_budget: 15.0,
        delta: 1e-5,
        unit: "user".to_owned(),
        neighbours: "zero-out".to_owned(),
        accountant: "zcdp".to_owned(),
        sampling: "full".to_owned(),
        placement: "distributed".to_owned(),
        mechanism: "discrete-gaussian".to_owned(),
        noise_multiplier: 1.12,
        clip_norm: 0.5,
        adaptive_clip: false,
        private: true,
    }
}

/// The manifest of `round` after `parent`.
pub fn manifest(round: u32, parent: Option<Digest>) -> Manifest {
    let kept = GroupDecision {
        index: 0,
        members: 18,
        survivors: 16,
        decision: Decision::Kept,
        reason: String::new(),
        score: Some(0.1),
        explanation: Some(Explanation {
            distance: 0.1,
            cosine: Some(0.5),
            norm: 0.7,
            z_score: -0.3,
            influence: Influence::Unknown(NoInfluence::TooFewRows),
        }),
    };
    Manifest {
        model: Digest::of(model(round)),
        round: RoundPredicate {
            round,
            parent,
            task_digest: task(),
            cohort_commitment: Digest::of("cohort"),
            groups: if round == 0 { vec![] } else { vec![kept] },
            rejected: Vec::new(),
            rule: "mda".to_owned(),
            privacy: claim(f64::from(round) * 0.7),
            software: "fedveil 0.1.0".to_owned(),
            files: vec![],
        },
    }
}

/// The logs of rounds 0, 0 to 1, and so on until `rounds`; each with the checkpoint that is its head.
pub fn logs(rounds: u32) -> Vec<(Log, String)> {
    let mut log = Log::new();
    let mut parent = None;
    let mut logs = Vec::new();
    for round in 0..=rounds {
        let envelope = manifest(round, parent).sign(&[&key()]).expect("the manifest is one that verifies");
        parent = Some(Digest::of(&envelope));
        log.append(envelope);
        let checkpoint =
            Checkpoint::sign(ORIGIN, &log.head(), &key()).expect("the origin is one that names a log");
        logs.push((log.clone(), checkpoint));
    }
    logs
}
