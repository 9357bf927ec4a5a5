//! Heavy work, as values: run on any thread, result back as `Command::Computed`. Pure but for the blobs it reads.

use crate::command::{Closed, Computed, Outcome};
use crate::coordinator::Coordinator;
use crate::driver::{Store, StoreError};
use crate::model_file::{ModelFileError, parameters, with_parameters};
use ed25519_dalek::SigningKey;
use fedveil_aggregation::optimizer::ServerOptimizer;
use fedveil_aggregation::robust::{Rule, RuleError};
use fedveil_aggregation::secagg::{Accumulator, Unmasking};
use fedveil_privacy::{Grid, Rotation};
use fedveil_provenance::{
    Checkpoint, CheckpointError, Decision, Digest, FileEntry, GroupDecision, Log, Manifest, ManifestError,
    PrivacyClaim, RoundPredicate, manifest::MODEL_FILE,
};

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
    /// Apply the robust rule and the server optimiser, then sign the new model.
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
    /// The new parameters are not finite.
    #[error("the new model has parameters that are not finite")]
    NonFinite,
    /// The manifest cannot be made.
    #[error("manifest: {0}")]
    Manifest(#[from] ManifestError),
    /// The checkpoint cannot be made.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
}

impl Job {
    /// Does the work. `key` signs manifests and checkpoints.
    pub fn run(self, store: &dyn Store, key: &SigningKey) -> Computed {
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
            Self::Close(job) => {
                let round = job.round;
                match job.close(store, key) {
                    Ok((closed, blobs)) => {
                        Computed { outcome: Outcome::Closed { round, result: Ok(closed) }, blobs }
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
    momentum: Option<Digest>,
    /// Every group in order; `sum` is there if it was unmasked.
    groups: Vec<GroupResult>,
    rule: Rule,
    byzantine: usize,
    optimizer: ServerOptimizer,
    grid: Grid,
    rotation_seed: [u8; 32],
    planned_group_size: u32,
    cohort_commitment: Digest,
    task_digest: Digest,
    privacy: PrivacyClaim,
    origin: String,
    log: Log,
}

/// What became of one group.
#[derive(Debug, Clone)]
pub(crate) struct GroupResult {
    pub(crate) members: u32,
    pub(crate) survivors: u32,
    /// The digest of the sum, or why there is none.
    pub(crate) sum: Result<Digest, String>,
}

/// A new model, before it is signed.
struct Step {
    file: Vec<u8>,
    momentum: Vec<u8>,
    groups: Vec<GroupDecision>,
}

impl CloseJob {
    /// Signs the initial model as round 0.
    pub(crate) fn initial(coordinator: &Coordinator, model: Digest) -> Box<Self> {
        Self::new(coordinator, 0, model, Vec::new(), Digest::of(b""))
    }

    pub(crate) fn new(
        coordinator: &Coordinator,
        round: u32,
        model: Digest,
        groups: Vec<GroupResult>,
        cohort_commitment: Digest,
    ) -> Box<Self> {
        let plan = coordinator.plan().plan();
        let terms = coordinator.terms();
        Box::new(Self {
            round,
            model,
            parameters: plan.model.parameters as usize,
            momentum: coordinator.momentum(),
            groups,
            rule: terms.rule.clone(),
            byzantine: plan.server.assumed_byzantine as usize,
            optimizer: terms.optimizer,
            grid: terms.guarantee.grid.clone(),
            rotation_seed: plan.rotation_seed(round, &model),
            planned_group_size: plan.aggregation.group_size,
            cohort_commitment,
            task_digest: coordinator.plan().digest(),
            privacy: terms.privacy_claim(plan, coordinator.epsilon_spent()),
            origin: coordinator.plan().origin(),
            log: coordinator.log().clone(),
        })
    }

    fn close(mut self, store: &dyn Store, key: &SigningKey) -> Result<(Closed, Vec<Vec<u8>>), JobError> {
        let old_file = store.blob(&self.model)?;
        let mut blobs = Vec::new();
        let (model, momentum, groups) = if self.round == 0 {
            let found = parameters(&old_file)?.len();
            if found != self.parameters {
                return Err(ModelFileError::Length { found, expected: self.parameters }.into());
            }
            (self.model, None, Vec::new())
        } else {
            let Step { file, momentum, groups } = self.step(&old_file, store)?;
            let digests = (Digest::of(&file), Some(Digest::of(&momentum)));
            blobs.extend([file, momentum]);
            (digests.0, digests.1, groups)
        };
        let manifest = self.manifest(model, groups.clone()).sign(&[key])?;
        self.log.append(manifest.clone());
        let checkpoint = Checkpoint::sign(&self.origin, &self.log.head(), key)?;
        Ok((Closed { model, momentum, manifest, checkpoint, groups }, blobs))
    }

    /// Group sums → rotated back → group means → robust rule → server optimiser.
    fn step(&self, old_file: &[u8], store: &dyn Store) -> Result<Step, JobError> {
        let rotation = Rotation::new(&self.rotation_seed, self.parameters);
        let mut rows = Vec::new();
        for group in &self.groups {
            if let Ok(sum) = &group.sum {
                let mut mean = self.grid.to_real(&decode_steps(&store.blob(sum)?));
                rotation.inverse(&mut mean);
                // Division is by the planned size, never by a number that depends on who answered.
                for value in &mut mean {
                    *value /= f64::from(self.planned_group_size);
                }
                rows.push(mean);
            }
        }
        let aggregate = self.rule.aggregate(&rows, self.byzantine)?;
        let mut model = parameters(old_file)?;
        let mut momentum = match &self.momentum {
            Some(digest) => decode_reals(&store.blob(digest)?),
            None => vec![0.0; model.len()],
        };
        self.optimizer.step(&mut momentum, &mut model, &aggregate.vector);
        if model.iter().any(|value| !value.is_finite()) {
            return Err(JobError::NonFinite);
        }
        let file = with_parameters(old_file, &model)?;
        let groups = self.decisions(&aggregate.kept, &aggregate.scores);
        Ok(Step { file, momentum: encode_reals(&momentum), groups })
    }

    fn decisions(&self, kept: &[usize], scores: &[f64]) -> Vec<GroupDecision> {
        let mut row = 0;
        let name = self.rule.name();
        let mut decide = |(index, group): (usize, &GroupResult)| {
            let mut score = None;
            let (decision, reason) = if let Err(reason) = &group.sum {
                (Decision::Withheld, reason.clone())
            } else {
                score = scores.get(row).copied().filter(|score| score.is_finite());
                let is_kept = kept.contains(&row);
                row += 1;
                if is_kept {
                    (Decision::Kept, format!("{name}: among the rows it keeps"))
                } else {
                    (Decision::Dropped, format!("{name}: too far from the other groups"))
                }
            };
            let (members, survivors) = (group.members, group.survivors);
            GroupDecision { index: index as u32, members, survivors, decision, reason, score }
        };
        self.groups.iter().enumerate().map(&mut decide).collect()
    }

    fn manifest(&self, model: Digest, groups: Vec<GroupDecision>) -> Manifest {
        let parent = self.log.size().checked_sub(1).and_then(|last| self.log.leaf(last).ok()).map(Digest::of);
        Manifest {
            model,
            round: RoundPredicate {
                round: self.round,
                parent,
                task_digest: self.task_digest,
                cohort_commitment: self.cohort_commitment,
                groups,
                rule: self.rule.name().to_owned(),
                privacy: self.privacy.clone(),
                software: concat!("fedveil ", env!("CARGO_PKG_VERSION")).to_owned(),
                files: vec![FileEntry { path: MODEL_FILE.to_owned(), digest: model }],
            },
        }
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
