//! Plans that hold, and the reason why each other one does not. Every test starts from a plan of this file.

mod fields;
mod modes;
mod signed;
mod terms;

use ed25519_dalek::SigningKey;
use fedveil_provenance::Digest;

use crate::*;

/// 12 clients in one group.
fn plan() -> TaskPlan {
    TaskPlan {
        version: VERSION,
        task: "test".to_owned(),
        id: Digest::of("test"),
        mode: "secagg".to_owned(),
        rounds: 2,
        phase_seconds: 60,
        model: Model { architecture: "softmax:8x3".to_owned(), parameters: 27 },
        cohort: Cohort { clients: 12, minimum: 10, assumed_malicious: 1, population: None },
        training: Training::sgd(1, 8, 0.1),
        privacy: Privacy {
            placement: "distributed".to_owned(),
            mechanism: "discrete-gaussian".to_owned(),
            clip_norm: 1.0,
            noise_multiplier: 1.5,
            resolution: 1024,
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
            masks: "chacha20".to_owned(),
            break_probability: 0.0,
        },
        server: Server::mean(),
        simulated: false,
    }
}

/// The same 12 clients, whose updates the coordinator sees and adds noise to.
fn plan_in_the_clear() -> TaskPlan {
    let mut plan = plan();
    plan.mode = "insecure_plain".to_owned();
    plan.privacy.placement = "central".to_owned();
    plan.aggregation = Aggregation::none();
    plan
}

/// The plan in the clear, and nobody's noise.
fn plan_without_noise(clip_norm: f64) -> TaskPlan {
    TaskPlan { privacy: Privacy::none(clip_norm), ..plan_in_the_clear() }
}

fn examples() -> ExamplePrivacy {
    ExamplePrivacy { clip_norm: 1.0, noise_multiplier: 1.5, sampling_rate: 0.1, epsilon: 8.0, delta: 1e-5 }
}

fn correlated() -> CorrelatedNoise {
    let matrix = "banded-toeplitz".to_owned();
    CorrelatedNoise { matrix, bands: Some(2), min_separation: 2, max_participations: 1 }
}

fn adaptive_clip() -> AdaptiveClipping {
    AdaptiveClipping { quantile: 0.5, learning_rate: 0.2, noise_multiplier: 6.0, minimum: 0.1, maximum: 10.0 }
}

fn refusal(change: impl FnOnce(&mut TaskPlan)) -> String {
    let mut plan = plan();
    change(&mut plan);
    plan.check().expect_err("the plan was spoilt").to_string()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}
