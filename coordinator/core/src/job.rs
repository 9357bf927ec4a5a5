//! Heavy work, as values: run on any thread, result back as `Command::Computed`. Pure but for the blobs it reads.

use crate::command::{Closed, Computed, Outcome, Rejected};
use crate::coordinator::Coordinator;
use crate::driver::{Store, StoreError};
use crate::event::Client;
use crate::event::Hex;
use crate::gate::{HoldOut, Proposed, measure};
use crate::model_file::{ModelFileError, parameters, with_parameters};
use crate::noise::NoiseKey;
use crate::updates::{Total, Updates};
use ed25519_dalek::SigningKey;
use fedveil_aggregation::optimizer::ServerStep;
use fedveil_aggregation::plain::Values;
use fedveil_aggregation::robust::{self, Aggregate, Rule, RuleError};
use fedveil_aggregation::secagg::{Accumulator, Unmasking};
use fedveil_privacy::{ClipNorm, Guarantee, Noise, Placement, Rotation, Sampling};
use fedveil_proto_plan::{Gate, Measured};
use fedveil_provenance::{
    Candidate, Checkpoint, CheckpointError, Decision, Digest, Explanation, FileEntry, Frontier,
    GroupDecision, Influence, Manifest, ManifestError, NoInfluence, PrivacyClaim, RejectedRound,
    RoundPredicate, manifest::MODEL_FILE,
};
use rand_core::Rng;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What a job may use and nobody may see.
pub struct Secrets {
    /// Signs manifests and checkpoints.
    pub signing: SigningKey,
    /// The noise of placement `central`.
    pub noise: NoiseKey,
}

/// One piece of heavy work.
pub enum Job {
    /// Remove the masks from a group's sum.
    Unmask {
        /// The round.
        round: u32,
        /// Index of the group.
        group: u32,
        /// The group's answers.
        unmasking: Box<Unmasking>,
        /// The masked sum.
        sum: Accumulator,
        /// Width of the ring.
        ring_bits: u32,
    },
    /// Make a group's sum known where nothing was masked.
    Sum {
        /// The round.
        round: u32,
        /// Index of the group.
        group: u32,
        /// Sums of steps.
        sum: Vec<i64>,
        /// Width of the ring in which they are known.
        ring_bits: u32,
    },
    /// Apply the robust rule and the server optimiser, then sign the new model if it passes the gate.
    Close(Box<CloseJob>),
}

/// Why a job ended without a result. The round it worked for is aborted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// A blob is missing or damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The model file cannot be used.
    #[error(transparent)]
    Model(#[from] ModelFileError),
    /// The robust rule refuses the group means.
    #[error("robust rule: {0}")]
    Rule(#[from] RuleError),
    /// The noise that the plan asks for has no next round.
    #[error("there is no correlated noise for this round")]
    CorrelatedNoise,
    /// There is no model that the round could start from.
    #[error("there is no model before it")]
    NoModel,
    /// A stored vector is not of the plan's model.
    #[error("{what} has {found} bytes, expected {expected}")]
    Length {
        /// Which vector.
        what: &'static str,
        /// Bytes that it has.
        found: usize,
        /// Bytes of one for the plan's model.
        expected: usize,
    },
    /// The new parameters are not finite.
    #[error("the new model has parameters that are not finite")]
    NonFinite,
    /// The gate cannot measure the new model.
    #[error("hold-out: {0}")]
    HoldOut(String),
    /// The manifest cannot be made.
    #[error("manifest: {0}")]
    Manifest(#[from] ManifestError),
    /// The checkpoint cannot be made.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
}

impl Job {
    /// Does the work.
    pub fn run(self, store: &dyn Store, secrets: &Secrets) -> Computed {
        match self {
            Self::Unmask { round, group, unmasking, sum, ring_bits } => {
                let (sum, blobs, blamed) = match unmasking.sum(&sum) {
                    Ok(sum) => {
                        let bytes = encode_steps(&sum.values, ring_bits);
                        let blamed = sum.blamed.iter().map(|id| Digest(id.0)).collect();
                        (Ok(Digest::of(&bytes)), vec![bytes], blamed)
                    }
                    Err(abort) => (Err(abort.to_string()), Vec::new(), Vec::new()),
                };
                Computed { outcome: Outcome::Summed { round, group, sum, blamed }, blobs }
            }
            Self::Sum { round, group, sum, ring_bits } => {
                let ring: Vec<u32> = sum.iter().map(|&steps| steps as u32).collect();
                let bytes = encode_steps(&ring, ring_bits);
                let outcome =
                    Outcome::Summed { round, group, sum: Ok(Digest::of(&bytes)), blamed: Vec::new() };
                Computed { outcome, blobs: vec![bytes] }
            }
            Self::Close(job) => {
                let round = job.round;
                match job.close(store, secrets) {
                    Ok((Verdict::Passed(closed), blobs)) => {
                        Computed { outcome: Outcome::Closed { round, result: Ok(closed) }, blobs }
                    }
                    Ok((Verdict::Open(proposed), blobs)) => {
                        Computed { outcome: Outcome::Proposed { round, proposed }, blobs }
                    }
                    Ok((Verdict::Failed(rejected), blobs)) => {
                        Computed { outcome: Outcome::Rejected { round, rejected }, blobs }
                    }
                    Err(error) => {
                        let result = Err(error.to_string());
                        Computed { outcome: Outcome::Closed { round, result }, blobs: Vec::new() }
                    }
                }
            }
        }
    }
}

/// What the end of a round needs.
pub struct CloseJob {
    round: u32,
    model: Digest,
    /// Parameters of the plan's model.
    parameters: usize,
    /// What the round before left: see [`Memory`].
    momentum: Option<Digest>,
    given: Given,
    /// The new model has been made, and clients were asked about it.
    answers: Option<Answers>,
    gate: Option<Gate>,
    hold_out: Option<Arc<dyn HoldOut>>,
    /// The model that accuracies are compared with.
    best: Digest,
    /// What is said of the new model to clients that judge it, but for its digest.
    candidate: Candidate,
    /// Since the last model that was published.
    rejected: Vec<RejectedRound>,
    rule: Rule,
    byzantine: usize,
    influence_work: u64,
    optimizer: Arc<dyn ServerStep>,
    guarantee: Guarantee,
    /// The clip norm of the next round: the guarantee's, until the indicators of this one say otherwise.
    clip: ClipNorm,
    planned_cohort: u32,
    cohort_commitment: Digest,
    task_digest: Digest,
    privacy: PrivacyClaim,
    origin: String,
    /// The newest leaf of the log.
    parent: Option<Digest>,
    frontier: Frontier,
}

/// What the new model is made of.
pub(crate) enum Given {
    /// Every group in order, its sum to be rotated back and divided by its planned size.
    Groups { results: Vec<GroupResult>, planned_size: u32, rotation_seed: [u8; 32] },
    /// Updates of clients out of this cohort.
    Clients { cohort: Vec<Client>, updates: Updates },
}

/// What clients said of a new model.
pub(crate) struct Answers {
    pub(crate) proposed: Box<Proposed>,
    /// Sums of the groups that gave one.
    pub(crate) sums: Vec<Digest>,
    pub(crate) planned_size: u32,
}

impl Given {
    /// These groups of a round that started from `model`.
    pub(crate) fn groups(
        coordinator: &Coordinator,
        round: u32,
        model: &Digest,
        results: Vec<GroupResult>,
    ) -> Self {
        let plan = coordinator.plan().plan();
        let planned_size = plan.aggregation.group_size;
        Self::Groups { results, planned_size, rotation_seed: plan.rotation_seed(round, model) }
    }
}

impl Default for Given {
    fn default() -> Self {
        Self::Groups { results: Vec::new(), planned_size: 1, rotation_seed: [0; 32] }
    }
}

/// What became of one group.
#[derive(Debug, Clone)]
pub(crate) struct GroupResult {
    pub(crate) members: u32,
    pub(crate) survivors: u32,
    /// The digest of the sum, or why there is none.
    pub(crate) sum: Result<Digest, String>,
}

/// What the gate says of a new model.
enum Verdict {
    Passed(Closed),
    Failed(Rejected),
    Open(Box<Proposed>),
}

/// What closing a round again gives, to be compared with what was published.
pub(crate) struct Replayed {
    pub(crate) model: Digest,
    pub(crate) momentum: Option<Digest>,
    pub(crate) clip_norm: Option<f64>,
    pub(crate) groups: Vec<GroupDecision>,
}

/// A new model, before it is signed.
struct Step {
    file: Vec<u8>,
    /// L2 norm of the step from the model before.
    norm: f64,
    momentum: Vec<u8>,
    groups: Vec<GroupDecision>,
}

impl CloseJob {
    /// Signs the initial model as round 0.
    pub(crate) fn initial(coordinator: &Coordinator, model: Digest) -> Box<Self> {
        Self::new(coordinator, 0, model, Given::default(), Digest::of(b""))
    }

    /// `cohort_commitment` is that of the groups' roster; updates of clients have one that the job makes.
    pub(crate) fn new(
        coordinator: &Coordinator,
        round: u32,
        model: Digest,
        given: Given,
        cohort_commitment: Digest,
    ) -> Box<Self> {
        let plan = coordinator.plan().plan();
        let terms = coordinator.terms();
        let mut guarantee = terms.guarantee.clone();
        guarantee.grid = guarantee.grid.with_clip(coordinator.clip());
        Box::new(Self {
            round,
            model,
            parameters: plan.model.parameters as usize,
            momentum: coordinator.momentum(),
            given,
            answers: None,
            gate: plan.server.gate.clone(),
            hold_out: coordinator.hold_out(),
            best: coordinator.best().unwrap_or(model),
            candidate: coordinator.candidate(round, model),
            rejected: coordinator.rejected().to_vec(),
            rule: terms.rule.clone(),
            byzantine: plan.server.assumed_byzantine as usize,
            influence_work: coordinator.influence_work(),
            optimizer: coordinator.server_step(),
            guarantee,
            clip: coordinator.clip(),
            planned_cohort: plan.cohort.clients,
            cohort_commitment,
            task_digest: coordinator.plan().digest(),
            privacy: terms.privacy_claim(plan, coordinator.epsilon_spent()),
            origin: coordinator.plan().origin(),
            parent: coordinator.newest_leaf(),
            frontier: coordinator.log().frontier(),
        })
    }

    /// Judges a round's new model by what clients say of it, and signs it.
    pub(crate) fn judge(coordinator: &Coordinator, round: u32, model: Digest, answers: Answers) -> Box<Self> {
        let commitment = answers.proposed.cohort_commitment;
        let mut job = Self::new(coordinator, round, model, Given::default(), commitment);
        job.answers = Some(answers);
        job
    }

    /// The job of a round whose groups are known already, with the model and the memory that `coordinator` has.
    pub(crate) fn of_groups_again(
        coordinator: &Coordinator,
        round: u32,
        results: Vec<GroupResult>,
        root: Digest,
    ) -> Option<Box<Self>> {
        let model = coordinator.model()?;
        Some(Self::new(coordinator, round, model, Given::groups(coordinator, round, &model, results), root))
    }

    /// What the round gives, unsigned. Only groups can be replayed: no single update is kept, and the noise that a
    /// coordinator adds is its secret.
    pub(crate) fn replay(mut self, store: &dyn Store) -> Result<Replayed, JobError> {
        let old_file = store.blob(&self.model)?;
        let no_key = NoiseKey::new(Zeroizing::new([0; 32]));
        let Step { file, momentum, groups, .. } = self.step(&old_file, store, &no_key)?;
        let clip_norm = self.guarantee.indicator.as_ref().map(|_| self.clip.get());
        let (model, momentum) = (Digest::of(&file), Some(Digest::of(&momentum)));
        Ok(Replayed { model, momentum, clip_norm, groups })
    }

    fn close(mut self, store: &dyn Store, secrets: &Secrets) -> Result<(Verdict, Vec<Vec<u8>>), JobError> {
        let key = &secrets.signing;
        let old_file = store.blob(&self.model)?;
        let mut blobs = Vec::new();
        let (model, momentum, groups, measured) = if self.round == 0 {
            let found = parameters(&old_file)?.len();
            if found != self.parameters {
                return Err(ModelFileError::Length { found, expected: self.parameters }.into());
            }
            (self.model, None, Vec::new(), None)
        } else if let Some(answers) = self.answers.take() {
            match self.judge_answers(answers, store)? {
                Ok(proposed) => {
                    let Proposed { model, momentum, groups, measured, .. } = proposed;
                    (model, Some(momentum), groups, Some(measured))
                }
                Err(rejected) => return Ok((Verdict::Failed(rejected), Vec::new())),
            }
        } else {
            let Step { file, norm, momentum, groups } = self.step(&old_file, store, &secrets.noise)?;
            let model = Digest::of(&file);
            let measured = self.measure(norm, &file, store)?;
            if let (Some(gate), Some(measured)) = (&self.gate, measured)
                && let Err(reason) = gate.judge(&measured)
            {
                return Ok((Verdict::Failed(Rejected { model, reason, measured, groups }), Vec::new()));
            }
            let momentum_digest = Digest::of(&momentum);
            blobs.extend([file, momentum]);
            if let (Some(_), Some(measured)) = (&self.guarantee.evaluation, measured) {
                let statement = Hex(Candidate { model, ..self.candidate }.sign(key));
                let (momentum, cohort_commitment) = (momentum_digest, self.cohort_commitment);
                let clip_norm = self.guarantee.indicator.as_ref().map(|_| self.clip.get());
                let proposed =
                    Proposed { model, momentum, clip_norm, measured, groups, cohort_commitment, statement };
                return Ok((Verdict::Open(Box::new(proposed)), blobs));
            }
            (model, Some(momentum_digest), groups, measured)
        };
        self.privacy.clip_norm = self.clip.get();
        let clip_norm = self.guarantee.indicator.as_ref().map(|_| self.clip.get());
        let manifest = self.manifest(model, self.told(&groups)).sign(&[key])?;
        let checkpoint = Checkpoint::sign(&self.origin, &self.frontier.head_with(&manifest), key)?;
        let closed = Closed { model, momentum, clip_norm, manifest, checkpoint, groups, measured };
        Ok((Verdict::Passed(closed), blobs))
    }

    /// What clients say of a new model, and whether that passes.
    fn judge_answers(
        &mut self,
        answers: Answers,
        store: &dyn Store,
    ) -> Result<Result<Proposed, Rejected>, JobError> {
        let Answers { mut proposed, sums, planned_size } = answers;
        let sums = sums.iter().map(|sum| Ok(decode_steps(&store.blob(sum)?)));
        let sums = sums.collect::<Result<Vec<_>, JobError>>()?.concat();
        let evaluation = self.guarantee.evaluation.as_ref();
        let estimate = evaluation.and_then(|evaluation| evaluation.estimate(&sums, planned_size));
        proposed.measured.difference = estimate.map(|estimate| estimate.difference);
        proposed.measured.deviation = estimate.map(|estimate| estimate.deviation);
        self.clip = proposed.clip_norm.and_then(|norm| ClipNorm::new(norm).ok()).unwrap_or(self.clip);
        let verdict = self.gate.as_ref().map_or(Ok(()), |gate| gate.judge_answers(estimate));
        Ok(match verdict {
            Ok(()) => Ok(*proposed),
            Err(reason) => {
                let Proposed { model, measured, groups, .. } = *proposed;
                Err(Rejected { model, reason, measured, groups })
            }
        })
    }

    /// What the gate wants to know of a new model, where there is one.
    fn measure(&self, step_norm: f64, file: &[u8], store: &dyn Store) -> Result<Option<Measured>, JobError> {
        let Some(gate) = &self.gate else { return Ok(None) };
        let hold_out = self.hold_out.as_deref().filter(|_| gate.needs_hold_out());
        let Some(hold_out) = hold_out else { return Ok(Some(Measured { step_norm, ..Measured::default() })) };
        let best = store.blob(&self.best)?;
        measure(hold_out, step_norm, file, &best).map(Some).map_err(JobError::HoldOut)
    }

    /// Group means or single updates → robust rule → server optimiser.
    fn step(&mut self, old_file: &[u8], store: &dyn Store, noise: &NoiseKey) -> Result<Step, JobError> {
        let old = parameters(old_file)?;
        if old.len() != self.parameters {
            let (found, expected) = (old.len(), self.parameters);
            return Err(ModelFileError::Length { found, expected }.into());
        }
        let mut model = old.clone();
        let mut memory = match &self.momentum {
            Some(digest) => {
                let state = self.optimizer.slots() * model.len();
                Memory::decode(&store.blob(digest)?, state, self.rule.remembers().then_some(model.len()))?
            }
            None => Memory { momentum: Vec::new(), aggregate: None },
        };
        let (update, groups) = match std::mem::take(&mut self.given) {
            Given::Groups { results, planned_size, rotation_seed } => {
                let rotation = Rotation::new(&rotation_seed, self.parameters);
                let rule = self.rule_of_round(&memory);
                self.of_groups(&rule, &results, planned_size, &rotation, store)?
            }
            Given::Clients { cohort, updates } => {
                self.cohort_commitment = self.commit(&cohort, noise);
                let members = cohort.len() as u32;
                let survivors = updates.clients().count() as u32;
                let (mut sums, rows) = updates.into_parts();
                let total = sums.remove(&0).unwrap_or_else(|| Total::Steps(vec![0; self.parameters]));
                match (self.central_noise(noise)?, total) {
                    (Some(noise), Total::Steps(total)) => self.with_noise(members, survivors, total, &noise),
                    (_, total) if self.rule.is_mean() => self.mean(members, survivors, &total),
                    _ => self.of_clients(&self.rule_of_round(&memory), &rows)?,
                }
            }
        };
        self.optimizer.step(&mut memory.momentum, &mut model, &update);
        if model.iter().any(|value| !value.is_finite()) {
            return Err(JobError::NonFinite);
        }
        let squares = model.iter().zip(&old).map(|(new, old)| (f64::from(*new) - f64::from(*old)).powi(2));
        let norm = squares.sum::<f64>().sqrt();
        let file = with_parameters(old_file, &model)?;
        memory.aggregate = self.rule.remembers().then_some(update);
        Ok(Step { file, norm, momentum: memory.encode(), groups })
    }

    /// The rule of this round, which starts where it ended, and draws from the task, the round and the commitment to its
    /// cohort. That follows from fresh keys of every client, or in mode `insecure_plain` from a secret of the coordinator's,
    /// so that no client knows the seed when it is drawn; a replay draws the same.
    fn rule_of_round(&self, memory: &Memory) -> Rule {
        let mut text = b"fedveil/rule/v1".to_vec();
        text.extend(self.task_digest.0);
        text.extend(self.round.to_le_bytes());
        text.extend(self.cohort_commitment.0);
        let Digest(digest) = Digest::of(&text);
        let seed = u64::from_le_bytes(*digest.first_chunk().expect("a digest has 32 bytes"));
        self.rule.in_round(seed, memory.aggregate.as_deref())
    }

    fn of_groups(
        &mut self,
        rule: &Rule,
        results: &[GroupResult],
        planned_size: u32,
        rotation: &Rotation,
        store: &dyn Store,
    ) -> Result<(Vec<f64>, Vec<GroupDecision>), JobError> {
        let (mut rows, mut indicators) = (Vec::new(), Vec::new());
        for sum in results.iter().filter_map(|group| group.sum.as_ref().ok()) {
            let bytes = store.blob(sum)?;
            check_length(&bytes, 8 * self.guarantee.input_length(), "a group's sum")?;
            let mut steps = decode_steps(&bytes);
            // Where there is an indicator it is behind the update.
            indicators.extend(steps.drain(self.parameters.min(steps.len())..));
            let mut mean = self.guarantee.grid.to_real(&steps);
            rotation.inverse(&mut mean);
            // Division is by the planned size, never by a number that depends on who answered.
            for value in &mut mean {
                *value /= f64::from(planned_size);
            }
            rows.push(mean);
        }
        let Decided { vector, kept, rows } = self.decide(rule, rows, "groups")?;
        if let Some(indicator) = &self.guarantee.indicator {
            let kept: Vec<i64> = kept.iter().filter_map(|&row| indicators.get(row)).copied().collect();
            let fraction = indicator.clip.fraction(&kept, planned_size);
            self.clip = indicator.clip.next(self.clip, fraction);
        }
        let mut rows = rows.into_iter();
        let decisions = results.iter().enumerate().map(|(index, group)| {
            let decision = match &group.sum {
                Ok(_) => rows.next().expect("there is a row for every sum"),
                Err(reason) => decided(Decision::Withheld, reason.clone()),
            };
            let (members, survivors) = (group.members, group.survivors);
            GroupDecision { index: index as u32, members, survivors, ..decision }
        });
        Ok((vector, decisions.collect()))
    }

    /// What the rule makes of the rows, which are called `noun`, and what it decides about each.
    fn decide(&self, rule: &Rule, rows: Vec<Vec<f64>>, noun: &str) -> Result<Decided, JobError> {
        let count = rows.len();
        let aggregate = rule.aggregate(&rows, self.byzantine)?;
        let explanations = rule.explain_within(rows, self.byzantine, &aggregate, self.influence_work)?;
        let Aggregate { vector, kept, scores } = aggregate;
        let decide = |(row, explanation): (usize, robust::Explanation)| {
            let (decision, reason) = if kept.binary_search(&row).is_ok() {
                (Decision::Kept, String::new())
            } else {
                (Decision::Dropped, explanation.reason(count, noun))
            };
            let score = scores.get(row).copied().filter(|score| score.is_finite());
            let explanation = Some(signed(explanation));
            GroupDecision { score, explanation, ..decided(decision, reason) }
        };
        let rows = explanations.into_iter().enumerate().map(decide).collect();
        Ok(Decided { vector, kept, rows })
    }

    /// A mean has one decision, about all clients together.
    fn mean(&self, members: u32, survivors: u32, total: &Total) -> (Vec<f64>, Vec<GroupDecision>) {
        let mut mean = self.to_real(total);
        for value in &mut mean {
            *value /= f64::from(survivors);
        }
        (mean, vec![all_kept(members, survivors)])
    }

    /// Another rule has a decision for each row, so that a plan bounds their number (`fedveil_proto_plan::MAX_ROWS`).
    fn of_clients(&self, rule: &Rule, rows: &[Values]) -> Result<(Vec<f64>, Vec<GroupDecision>), JobError> {
        let rows: Vec<Vec<f64>> = rows.iter().map(|row| self.to_real(&Total::of(row))).collect();
        let Decided { vector, rows, .. } = self.decide(rule, rows, "clients")?;
        let numbered = (0..).zip(rows).map(|(index, decision)| GroupDecision { index, ..decision });
        Ok((vector, numbered.collect()))
    }

    /// A sum of updates in model units.
    fn to_real(&self, total: &Total) -> Vec<f64> {
        match total {
            Total::Steps(steps) => self.guarantee.grid.to_real(steps),
            Total::Reals(reals) => reals.clone(),
        }
    }

    /// The noise of this round's sum, where it is the coordinator who adds it.
    fn central_noise(&self, key: &NoiseKey) -> Result<Option<Vec<i64>>, JobError> {
        let stream = |round| key.stream(&self.task_digest, round, "update");
        Ok(match self.guarantee.placement {
            Placement::Central { .. } => {
                let (noise, mut stream) =
                    (Noise::new(self.guarantee.noise, self.guarantee.share), stream(self.round));
                Some((0..self.parameters).map(|_| noise.sample(&mut stream)).collect())
            }
            Placement::Correlated { .. } => {
                // The noise of earlier rounds is drawn again: nothing of it is kept.
                let mut noise = self.guarantee.matrix_noise().ok_or(JobError::CorrelatedNoise)?;
                let rounds = (1..=self.round).map(|round| noise.next_round(&mut stream(round)));
                Some(rounds.last().flatten().ok_or(JobError::CorrelatedNoise)?)
            }
            _ => None,
        })
    }

    /// The sum of all updates and the noise that it is charged for, over the planned cohort. Where cohorts are drawn by
    /// coins, a manifest has no decision: how many were drawn would tell who.
    fn with_noise(
        &self,
        members: u32,
        survivors: u32,
        mut total: Vec<i64>,
        noise: &[i64],
    ) -> (Vec<f64>, Vec<GroupDecision>) {
        for (total, noise) in total.iter_mut().zip(noise) {
            *total += noise;
        }
        let mut mean = self.guarantee.grid.to_real(&total);
        for value in &mut mean {
            *value /= f64::from(self.planned_cohort);
        }
        let by_coins =
            matches!(self.guarantee.placement, Placement::Central { sampling: Sampling::Poisson(_) });
        let all = (!by_coins).then(|| all_kept(members, survivors));
        (mean, all.into_iter().collect())
    }

    /// Names the clients that were asked for an update, to whoever has the key: without it, no guess can be tried.
    fn commit(&self, cohort: &[Client], key: &NoiseKey) -> Digest {
        let mut salt = [0; 32];
        key.stream(&self.task_digest, self.round, "cohort").fill_bytes(&mut salt);
        let mut bytes = [b"fedveil/cohort/v1".as_slice(), &salt].concat();
        for client in cohort {
            bytes.extend_from_slice(&client.0);
        }
        Digest::of(&bytes)
    }

    /// What clients are told of the decisions. Of updates without noise a number would be one that no ledger has: it stays
    /// with the coordinator, who sees them anyway.
    fn told(&self, groups: &[GroupDecision]) -> Vec<GroupDecision> {
        let tell = |group: &GroupDecision| match group.decision {
            _ if self.guarantee.has_noise() => group.clone(),
            Decision::Dropped => {
                let reason = "set aside by the rule".to_owned();
                GroupDecision { reason, score: None, explanation: None, ..group.clone() }
            }
            _ => GroupDecision { score: None, explanation: None, ..group.clone() },
        };
        groups.iter().map(tell).collect()
    }

    fn manifest(&self, model: Digest, groups: Vec<GroupDecision>) -> Manifest {
        Manifest {
            model,
            round: RoundPredicate {
                round: self.round,
                parent: self.parent,
                task_digest: self.task_digest,
                cohort_commitment: self.cohort_commitment,
                groups,
                rejected: self.rejected.clone(),
                rule: self.rule.to_string(),
                privacy: self.privacy.clone(),
                software: concat!("fedveil ", env!("CARGO_PKG_VERSION")).to_owned(),
                files: vec![FileEntry { path: MODEL_FILE.to_owned(), digest: model }],
            },
        }
    }
}

/// What a rule made of its rows, and what it decided about each of them.
struct Decided {
    vector: Vec<f64>,
    /// Indices of the rows that were kept, ascending.
    kept: Vec<usize>,
    rows: Vec<GroupDecision>,
}

/// A decision about one client, or about a group whose number and size are to be filled in.
fn decided(decision: Decision, reason: String) -> GroupDecision {
    GroupDecision { index: 0, members: 1, survivors: 1, decision, reason, score: None, explanation: None }
}

/// One decision about all updates together. It has no number about any of them: where the coordinator adds the noise,
/// that is in their sum alone.
fn all_kept(members: u32, survivors: u32) -> GroupDecision {
    GroupDecision { members, survivors, ..decided(Decision::Kept, String::new()) }
}

/// An explanation as manifests have it.
fn signed(explanation: robust::Explanation) -> Explanation {
    let robust::Explanation { distance, cosine, norm, z_score, influence } = explanation;
    let influence = match influence {
        Ok(distance) => Influence::Moves(distance),
        Err(robust::NoInfluence::RowsByIndex) => Influence::Unknown(NoInfluence::RowsByIndex),
        Err(robust::NoInfluence::TooFewRows) => Influence::Unknown(NoInfluence::TooFewRows),
        Err(_) => Influence::Unknown(NoInfluence::TooCostly),
    };
    Explanation { distance, cosine, norm, z_score, influence }.rounded()
}

/// What one round leaves to the next, as one blob: the state of the optimiser (its momentum, say) and, after it, the
/// aggregate if the rule starts from that.
struct Memory {
    /// Empty before the first step.
    momentum: Vec<f64>,
    aggregate: Option<Vec<f64>>,
}

impl Memory {
    /// `aggregate`: its length, if there is one.
    fn decode(bytes: &[u8], state: usize, aggregate: Option<usize>) -> Result<Self, JobError> {
        check_length(bytes, 8 * (state + aggregate.unwrap_or(0)), "the memory of the round before")?;
        let mut momentum = decode_reals(bytes);
        let rest = momentum.split_off(state);
        Ok(Self { momentum, aggregate: aggregate.map(|_| rest) })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = encode_reals(&self.momentum);
        bytes.extend(self.aggregate.iter().flat_map(|aggregate| encode_reals(aggregate)));
        bytes
    }
}

/// What comes from a store may have been changed there.
fn check_length(bytes: &[u8], expected: usize, what: &'static str) -> Result<(), JobError> {
    match bytes.len() {
        found if found == expected => Ok(()),
        found => Err(JobError::Length { what, found, expected }),
    }
}

/// Residues modulo 2^bits as the signed numbers nearest to zero.
fn encode_steps(ring: &[u32], bits: u32) -> Vec<u8> {
    let shift = 32 - bits;
    ring.iter().flat_map(|&value| i64::from((value << shift) as i32 >> shift).to_le_bytes()).collect()
}

fn decode_steps(bytes: &[u8]) -> Vec<i64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| i64::from_le_bytes(*word)).collect()
}

fn encode_reals(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn decode_reals(bytes: &[u8]) -> Vec<f64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| f64::from_le_bytes(*word)).collect()
}
