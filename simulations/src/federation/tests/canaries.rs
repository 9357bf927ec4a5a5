//! An audit of whole rounds: it says nothing against a mechanism that is right, and convicts one without its noise.

use super::*;
use crate::canary::{Canaries, Canary, CanarySeed, Scored, scores};
use fedveil_privacy::audit::Audit;
use fedveil_privacy::{Delta, Grid, Noise, Rotation, Significance, Variance, clip_l2};

const CANARIES: u32 = 96;

/// 96 clients in eight groups of 12, and so much noise that a client spends an ε of about one.
fn audited(rounds: u32) -> Setup {
    let mut setup = one_group();
    setup.plan.rounds = rounds;
    setup.plan.model = Model { architecture: "softmax:63x10".to_owned(), parameters: 640 };
    setup.plan.cohort.clients = CANARIES;
    setup.plan.cohort.minimum = CANARIES;
    setup.plan.privacy.noise_multiplier = 6.0;
    setup.plan.aggregation.group_size = 12;
    setup.plan.aggregation.threshold = 8;
    setup.plan.aggregation.min_survivors = 10;
    setup.plan.aggregation.max_missing_reveals = 0;
    setup.clients = CANARIES as usize;
    setup
}

/// Samples of noise, in steps.
type OwnNoise = Box<dyn Fn(&mut chacha20::ChaCha20Rng) -> i64 + Send + Sync>;

/// Every client is a canary, with the noise of the plan or with another.
struct Audited {
    grid: Grid,
    /// Noise that each client adds itself, around the participant that would add the plan's.
    own_noise: Option<OwnNoise>,
}

impl Scenario for Audited {
    fn contribute(&self, &Work { client, round, model, plan, .. }: &Work<'_>) -> Result<Trained, String> {
        let mut update = seed().update(client as u32, 640, plan.privacy.clip_norm);
        let Some(noise) = &self.own_noise else { return Ok(Contribution::Update(update).into()) };
        Rotation::new(&plan.rotation_seed(round, &Digest::of(model)), 640).forward(&mut update);
        clip_l2(&mut update, self.grid.clip()).unwrap();
        let mut rng = stream(1, "own noise", client, round);
        let steps = self.grid.round(&update, &mut rng);
        let noised = steps.into_iter().map(|step| i64::from(step) + noise(&mut rng));
        Ok(Contribution::DangerUnbounded(noised.collect()).into())
    }
}

/// Runs the task and audits it. Also the ε that the plan claims.
fn audit(rounds: u32, own_noise: Option<OwnNoise>) -> (Scored, Audit, f64) {
    let setup = audited(rounds);
    let grid = setup.plan.check().unwrap().guarantee.grid;
    let script = Audited { grid, own_noise };
    let mut federation = Federation::new(setup, script).unwrap();
    federation.run();
    let canaries = (0..CANARIES)
        .map(|number| Canary { number, client: federation.devices()[number as usize].id() })
        .collect();
    let canaries = Canaries { seed: seed(), canaries };
    let blob =
        |digest: &Digest| federation.store().blob(digest).map(|b| b.to_vec()).map_err(|e| e.to_string());
    let terms = federation.coordinator().terms();
    let scored = scores(&canaries, &audited(rounds).plan, terms, &federation.events(), blob).unwrap();
    let found = scored.scores.audit(Significance::new(0.05).unwrap(), Delta::new(1e-5).unwrap());
    let claimed = terms.guarantee.epsilon(scored.rounds);
    (scored, found, claimed)
}

fn seed() -> CanarySeed {
    CanarySeed(Digest::of("coins of the audit"))
}

#[test]
fn an_audit_finds_nothing_against_the_noise_of_the_plan() {
    let (scored, found, claimed) = audit(2, None);
    assert_eq!((scored.rounds, scored.unseen, scored.scores.canaries()), (2, 0, CANARIES));
    assert!((0.4..2.0).contains(&claimed), "{claimed}");
    assert!(found.epsilon() < claimed, "{found:?}, claimed is {claimed}");
    assert!(found.reach > 2.0 * claimed, "{found:?}: an audit that could not have found anything");
}

#[test]
fn an_audit_convicts_a_run_without_noise() {
    let (scored, found, claimed) = audit(1, Some(Box::new(|_| 0)));
    assert_eq!(scored.rounds, 1);
    assert!(found.one_run.0 > claimed && found.gaussian.0 > claimed, "{found:?}, claimed is {claimed}");
}

#[test]
fn an_audit_convicts_a_run_with_a_twentieth_of_its_noise() {
    let guarantee = audited(1).plan.check().unwrap().guarantee;
    let noise = Noise::new(guarantee.noise, Variance::new(guarantee.share.get() / 400).unwrap());
    let (_, found, claimed) = audit(1, Some(Box::new(move |rng| noise.sample(rng))));
    assert!(found.epsilon() > claimed, "{found:?}, claimed is {claimed}");
}
