//! Task plans, as a signed envelope, and as JSON that the pinned key has signed.

use ed25519_dalek::SigningKey;
use fedveil_proto_plan::{Mode, PAYLOAD_TYPE, SignedPlan};
use fedveil_provenance::{Digest, Envelope};

use super::{Seeds, seed};

/// Whether the input is a signed plan whose terms hold, or would be one if the pinned key had signed it.
pub fn run(input: &[u8]) -> bool {
    let signed = Envelope::sign(PAYLOAD_TYPE, input.to_vec(), &[&key()]).to_json();
    verify(input) | verify(&signed)
}

fn verify(bytes: &[u8]) -> bool {
    let silent = SigningKey::from_bytes(&[3; 32]);
    assert!(SignedPlan::verify(bytes, &silent.verifying_key()).is_err(), "this key signed nothing");
    let Ok(signed) = SignedPlan::verify(bytes, &key().verifying_key()) else { return false };
    let again = SignedPlan::sign(signed.plan().clone(), &key()).expect("what was read can be written");
    let again =
        SignedPlan::verify(again.bytes(), &key().verifying_key()).expect("what was written can be read");
    assert_eq!(again.plan(), signed.plan(), "a plan survives its encoding");

    let Ok(terms) = signed.plan().check() else { return false };
    assert!(terms.affordable_rounds <= signed.plan().rounds, "no round is made up");
    assert!(
        terms.guarantee.epsilon(terms.affordable_rounds) <= signed.plan().privacy.epsilon,
        "the budget holds"
    );
    let session = terms.session(&signed, &key().verifying_key(), 1, &Digest::of("model"));
    match terms.mode {
        Mode::Secagg | Mode::InsecureIdeal => {
            assert!(session.is_ok(), "a plan that holds makes a session: {:?}", session.err());
        }
        Mode::InsecurePlain => assert!(session.is_err(), "there is no session in the clear"),
    }
    true
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

/// Twelve clients in one group.
const PLAN: &str = r#"{"version":3,"task":"digits","id":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","mode":"secagg","rounds":2,"phase_seconds":60,"model":{"architecture":"softmax:8x3","parameters":27},"cohort":{"clients":12,"minimum":10,"assumed_malicious":1},"training":{"epochs":1,"batch_size":8,"learning_rate":0.1},"privacy":{"placement":"distributed","mechanism":"discrete-gaussian","clip_norm":1.0,"noise_multiplier":1.5,"resolution":1024,"epsilon":15.0,"delta":0.00001},"aggregation":{"protocol":"pairwise-mask","group_size":9,"degree":64,"threshold":7,"min_survivors":8,"max_missing_reveals":1,"masks":"chacha20","break_probability":0.0},"server":{"rule":"mean","assumed_byzantine":0,"learning_rate":1.0,"momentum":0.0}}"#;

/// The first plan with a gate, and a budget that pays for what clients are asked.
fn gated(bounds: &str) -> String {
    let plan = PLAN.replace("\"epsilon\":15.0", "\"epsilon\":40.0");
    plan.replace("\"momentum\":0.0", &format!("\"momentum\":0.0,\"gate\":{{{bounds}}}"))
}

/// What clients are asked about a new model.
const EVALUATION: &str = r#""evaluation":{"max_accuracy_drop":0.1,"noise_multiplier":2.0,"confidence":1.5}"#;

/// The same clients without groups, and the noise of the coordinator.
fn in_the_clear(population: &str, correlated_noise: &str) -> String {
    let (head, _) = PLAN.split_once("\"aggregation\":").expect("the plan has the section");
    let (_, server) = PLAN.split_once("\"server\":").expect("the plan has the section");
    let aggregation = r#""aggregation":{"protocol":"none","group_size":0,"degree":0,"threshold":0,"min_survivors":0,"max_missing_reveals":0,"masks":"none","break_probability":0.0}"#;
    let head = head
        .replace("secagg", "insecure_plain")
        .replace("distributed", "central")
        .replace("\"assumed_malicious\":1", &format!("\"assumed_malicious\":1{population}"))
        .replace("\"delta\":0.00001", &format!("\"delta\":0.00001{correlated_noise}"));
    format!("{head}{aggregation},\"server\":{server}")
}

/// The same, and nobody's noise.
fn without_noise(clip_norm: &str) -> String {
    let plan = in_the_clear("", "")
        .replace("central", "insecure_none")
        .replace("discrete-gaussian", "none")
        .replace("\"clip_norm\":1.0", &format!("\"clip_norm\":{clip_norm}"));
    let zeros = plan.replace("\"noise_multiplier\":1.5", "\"noise_multiplier\":0.0");
    zeros.replace("\"resolution\":1024", "\"resolution\":0").replace("\"epsilon\":15.0", "\"epsilon\":null")
}

pub fn seeds() -> Seeds {
    let signed = |key: &SigningKey| Envelope::sign(PAYLOAD_TYPE, PLAN.into(), &[key]).to_json();
    let change = |from: &str, to: &str| {
        assert!(PLAN.contains(from), "the plan holds {from}");
        PLAN.replacen(from, to, 1)
    };
    vec![
        seed("accepted-envelope", signed(&key())),
        seed("accepted-plan", PLAN),
        seed("accepted-in-the-clear", in_the_clear("", "")),
        seed("accepted-population", in_the_clear(",\"population\":120", "")),
        seed(
            "accepted-correlated-noise",
            in_the_clear(
                "",
                r#","correlated_noise":{"matrix":"banded-toeplitz","bands":2,"min_separation":1,"max_participations":2}"#,
            ),
        ),
        seed("accepted-gate", gated("\"max_step_norm\":6.0")),
        seed("accepted-evaluation", gated(EVALUATION)),
        seed("refused-gate-without-bounds", gated("\"max_rejections\":3")),
        seed("refused-gate-of-all", gated("\"max_accuracy_drop\":1.0")),
        seed("refused-evaluation-without-noise", gated(&EVALUATION.replace("2.0", "0.0"))),
        seed("accepted-no-noise", without_noise("null")),
        seed("accepted-no-noise-clipped", without_noise("0.5")),
        seed("refused-no-noise-negative-clip", without_noise("-0.5")),
        seed("refused-no-clip-with-noise", change("\"clip_norm\":1.0", "\"clip_norm\":null")),
        seed("refused-no-budget-with-noise", change("\"epsilon\":15.0", "\"epsilon\":null")),
        seed("refused-no-noise-in-groups", change("distributed", "insecure_none")),
        seed("refused-groups-in-the-clear", change("\"mode\":\"secagg\"", "\"mode\":\"insecure_plain\"")),
        seed("accepted-most-parameters", change("\"parameters\":27", "\"parameters\":4194304")),
        seed("accepted-one-client-more", change("\"clients\":12", "\"clients\":13")),
        seed("accepted-other-protocol", change("pairwise-mask", "rlwe-two-layer")),
        seed("accepted-sparse-graph", {
            change("\"break_probability\":0.0", "\"break_probability\":0.5").replacen(
                "\"degree\":64",
                "\"degree\":8",
                1,
            )
        }),
        seed("accepted-other-noise", change("discrete-gaussian", "skellam")),
        seed("accepted-local-noise", change("distributed", "local")),
        seed("accepted-other-masks", change("chacha20", "aes-256-ctr")),
        seed("refused-other-signer", signed(&SigningKey::from_bytes(&[2; 32]))),
        seed("refused-cut-short", &signed(&key())[..400]),
        seed("refused-other-payload", Envelope::sign("text/plain", PLAN.into(), &[&key()]).to_json()),
        seed("refused-version", change("\"version\":3", "\"version\":2")),
        seed("refused-unknown-member", change("\"mode\"", "\"modes\"")),
        seed("refused-member-twice", change("\"rounds\":2", "\"rounds\":2,\"rounds\":2")),
        seed("refused-rule", change("\"rule\":\"mean\"", "\"rule\":\"median of medians\"")),
        seed("refused-no-clients", change("\"clients\":12", "\"clients\":0")),
        seed("refused-odd-degree", change("\"degree\":64", "\"degree\":7")),
        seed("refused-most-neighbours", change("\"degree\":64", "\"degree\":4294967295")),
        seed("refused-threshold", change("\"threshold\":7", "\"threshold\":4")),
        seed("refused-placement", change("distributed", "elsewhere")),
        seed("refused-mechanism", change("discrete-gaussian", "laplace")),
        seed("refused-delta-above-one-in-the-clients", change("\"delta\":0.00001", "\"delta\":0.1")),
        seed("refused-negative-noise", change("\"noise_multiplier\":1.5", "\"noise_multiplier\":-1.5")),
        seed("refused-infinite-clip-norm", change("\"clip_norm\":1.0", "\"clip_norm\":1e999")),
        seed("refused-least-clip-norm", change("\"clip_norm\":1.0", "\"clip_norm\":5e-324")),
        seed("refused-numbers-at-their-ends", {
            change("\"delta\":0.00001", "\"delta\":1e-300")
                .replacen("\"resolution\":1024", "\"resolution\":4294967295", 1)
                .replacen("\"epsilon\":15.0", "\"epsilon\":1e300", 1)
                .replacen("\"rounds\":2", "\"rounds\":100000", 1)
        }),
    ]
}
