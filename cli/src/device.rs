//! A device that holds a share of a dataset: what `fedveil client` and the demo's clients train on.

use fedveil_client::agent::{Behavior, Contribution};
use fedveil_learning::{Dataset, ModelSpec, NoisedSum, PrivateTraining, permutation, train_private};
use fedveil_privacy::GradientSum;
use fedveil_proto::Kind;
use fedveil_proto_plan::{ExamplePrivacy, TaskPlan};
use fedveil_simulations::attack::{Attack, Conspiracy, Member};
use fedveil_simulations::canary::CanarySeed;
use fedveil_simulations::datasets::DataSpec;
use fedveil_simulations::partition::{Holdings, Partitioner, Split};
use fedveil_simulations::training::{agreed_model, difference, local_update};
use fedveil_simulations::{datasets, partition};
use rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Which part of the digits a device holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// Devices among which the training examples are split.
    pub(crate) clients: u32,
    /// Which of them this is, from 0.
    pub(crate) index: u32,
    /// Concentration of the Dirichlet split: small values give devices few classes.
    pub(crate) alpha: f64,
    /// Seed of the split into training and test examples and over devices.
    pub(crate) seed: u64,
}

/// Share of the images that no device holds which a coordinator's gate looks at.
const HOLD_OUT_SHARE: f64 = 1.0 / 3.0;

/// The images that no device holds: those that a coordinator's gate looks at, and those that accuracy is told of.
pub(crate) fn held_out_images(seed: u64) -> Result<(Dataset, Dataset), String> {
    let (test, hold_out) =
        datasets::split(&split(seed)?.1, HOLD_OUT_SHARE, seed).map_err(|error| error.to_string())?;
    Ok((hold_out, test))
}

/// What the model takes of images.
pub(crate) fn features(images: &Dataset) -> Dataset {
    datasets::spectrum_of(images)
}

/// The share of every device in one go, as images.
pub(crate) fn shares(clients: u32, alpha: f64, seed: u64) -> Result<Vec<Dataset>, String> {
    let (train, _) = split(seed)?;
    let rows = partition::even::dirichlet(train.labels(), train.classes(), clients as usize, alpha, seed)
        .map_err(|error| error.to_string())?;
    rows.iter().map(|rows| train.subset(rows).map_err(|error| error.to_string())).collect()
}

/// What every device of [`shares`] holds, in numbers.
pub(crate) fn holdings(clients: u32, alpha: f64, seed: u64) -> Result<Holdings, String> {
    let spec = DataSpec::Digits { spectrum: false, test_share: datasets::TEST_SHARE };
    // What is inside the program needs no files.
    let data = spec.load(&BTreeMap::new(), seed).map_err(|error| error.to_string())?;
    let split = Split::new(&data.train, &Partitioner::EvenDirichlet { alpha }, clients as usize, seed)
        .map_err(|error| error.to_string())?;
    Ok(Holdings::of(&split, &data.train, &data.class_names))
}

impl Share {
    /// The examples of this device.
    pub(crate) fn load(&self) -> Result<Dataset, String> {
        let mut all = shares(self.clients, self.alpha, self.seed)?;
        let index = self.index as usize;
        if index >= all.len() {
            return Err(format!("data.index is {index}, accepted is 0 to {}", all.len() - 1));
        }
        Ok(features(&all.swap_remove(index)))
    }
}

fn split(seed: u64) -> Result<(Dataset, Dataset), String> {
    datasets::split(&datasets::digits(), datasets::TEST_SHARE, seed).map_err(|error| error.to_string())
}

/// A device that trains honestly.
pub(crate) struct Honest {
    data: Dataset,
    seed: u64,
}

impl Honest {
    pub(crate) fn new(data: Dataset, seed: u64) -> Self {
        Self { data, seed }
    }

    fn update(&self, round: u32, model: &[u8], plan: &TaskPlan) -> Result<Vec<f32>, String> {
        if let Some(section) = &plan.training.example_privacy {
            let (spec, old) = agreed_model(&self.data, model, plan).map_err(|error| error.to_string())?;
            let new = train_examples(&spec, &old, &self.data, plan, section)?;
            return Ok(new.iter().zip(&old).map(|(new, old)| new - old).collect());
        }
        let seed = self.seed.wrapping_add(u64::from(round));
        local_update(&self.data, model, plan, seed).map_err(|error| error.to_string())
    }
}

/// Trains with noise for every example. Rows and noise are drawn from the operating system's randomness: they are
/// secrets, which a seed of a demonstration must not give away.
fn train_examples(
    spec: &ModelSpec,
    old: &[f32],
    data: &Dataset,
    plan: &TaskPlan,
    section: &ExamplePrivacy,
) -> Result<Vec<f32>, String> {
    let terms = plan.check().map_err(|error| error.to_string())?;
    let example = terms.example.ok_or("the plan has no terms for examples")?;
    let training = PrivateTraining {
        steps: example.steps_per_round,
        sampling_rate: section.sampling_rate,
        batch_size: plan.training.batch_size,
        clip_norm: section.clip_norm,
        learning_rate: plan.training.learning_rate as f32,
    };
    let mut sum = Noised(example.guarantee.sum(secret_stream()?));
    train_private(spec, old, data, &training, &mut secret_stream()?, &mut sum)
        .map_err(|error| error.to_string())
}

fn secret_stream() -> Result<chacha20::ChaCha20Rng, String> {
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut())
        .map_err(|error| format!("no randomness from the operating system: {error}"))?;
    Ok(chacha20::ChaCha20Rng::from_seed(*seed))
}

/// The sum that learning adds to and privacy noises.
struct Noised(GradientSum<chacha20::ChaCha20Rng>);

impl NoisedSum for Noised {
    fn add(&mut self, clipped: &[f32]) {
        self.0.add(clipped);
    }

    fn release(&mut self) -> Vec<f64> {
        self.0.release()
    }
}

impl Behavior for Honest {
    fn contribute(&mut self, round: u32, model: &[u8], plan: &TaskPlan) -> Result<Contribution, String> {
        self.update(round, model, plan).map(Contribution::Update)
    }

    /// On the examples that it trains on: a device has no others, and both models had the benefit of them.
    fn judge(&mut self, _round: u32, model: &[u8], new: &[u8], plan: &TaskPlan) -> Result<f64, String> {
        difference(&self.data, model, new, plan).map_err(|error| error.to_string())
    }
}

/// What a demo makes of a device, besides its data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Role {
    /// Seed of the demo: it fixes who is poisoned and who drops out when.
    pub(crate) seed: u64,
    /// All devices of the demo.
    pub(crate) clients: u32,
    /// Which one this is, from 0.
    pub(crate) index: u32,
    /// How many are poisoned.
    pub(crate) byzantine: u32,
    /// How many honest ones drop out in each round.
    pub(crate) dropouts: u32,
    /// How many are canaries.
    pub(crate) canaries: u32,
    /// Source of the canaries' coins and directions.
    pub(crate) canary_seed: CanarySeed,
}

impl Role {
    /// Whether this device is a canary. None is poisoned.
    pub(crate) fn is_canary(&self) -> bool {
        let (poisoned, canaries) = (self.byzantine as usize, self.canaries as usize);
        let order = self.order();
        order.iter().skip(poisoned).take(canaries).any(|&index| index == self.index as usize)
    }

    /// The message before which this device vanishes from the round, if it does. The poisoned stay.
    pub(crate) fn vanishes_before(&self, round: u32) -> Option<Kind> {
        let poisoned = self.poisoned();
        let mut order = permutation(self.clients as usize, &mut self.rng("drop out", round));
        order.retain(|index| !poisoned.contains(index));
        let place = order.iter().position(|&index| index == self.index as usize)?;
        let moments = [Kind::Shares, Kind::Input, Kind::Consistency, Kind::Unmask];
        (place < self.dropouts as usize).then(|| moments[place % moments.len()])
    }

    fn training_seed(&self) -> u64 {
        self.rng("training", self.index).next_u64()
    }

    /// The poisoned devices.
    pub(crate) fn poisoned(&self) -> Vec<usize> {
        let mut order = self.order();
        order.truncate(self.byzantine as usize);
        order
    }

    /// All devices: the poisoned, then the canaries, then the others.
    fn order(&self) -> Vec<usize> {
        permutation(self.clients as usize, &mut self.rng("poisoned", 0))
    }

    fn rng(&self, purpose: &str, round: u32) -> chacha20::ChaCha20Rng {
        let mut hash = Sha256::new_with_prefix(purpose.as_bytes());
        hash.update(self.seed.to_be_bytes());
        hash.update(round.to_be_bytes());
        chacha20::ChaCha20Rng::from_seed(hash.finalize().into())
    }
}

/// A device of the demo: honest, poisoned or a canary, and now and then gone.
pub(crate) struct Staged {
    role: Role,
    conduct: Conduct,
}

enum Conduct {
    Honest(Honest),
    Canary,
    /// One of the poisoned, and its number among them.
    Poisoned(Box<Conspiracy>, usize),
}

impl Staged {
    /// `shares` are the images of every device; an honest one looks at its own alone, a poisoned one at those of its
    /// fellows too.
    pub(crate) fn new(shares: &[Dataset], role: Role, attack: Attack) -> Self {
        let poisoned = role.poisoned();
        let conduct = match poisoned.iter().position(|&index| index == role.index as usize) {
            None if role.is_canary() => Conduct::Canary,
            None => {
                Conduct::Honest(Honest::new(features(&shares[role.index as usize]), role.training_seed()))
            }
            Some(member) => {
                let fellow = |index: usize| Member {
                    data: shares[index].clone(),
                    seed: Role { index: index as u32, ..role }.training_seed(),
                };
                let fellows = poisoned.into_iter().map(fellow).collect();
                let seed = role.rng("attack", 0).next_u64();
                Conduct::Poisoned(Box::new(Conspiracy::new(attack, fellows, features, seed)), member)
            }
        };
        Self { role, conduct }
    }

    /// Which device of the demo this is.
    pub(crate) fn index(&self) -> u32 {
        self.role.index
    }
}

impl Behavior for Staged {
    fn contribute(&mut self, round: u32, model: &[u8], plan: &TaskPlan) -> Result<Contribution, String> {
        match &mut self.conduct {
            Conduct::Honest(honest) => honest.contribute(round, model, plan),
            Conduct::Canary => {
                let (length, clip_norm) = (plan.model.parameters as usize, plan.privacy.clip_norm);
                let update = self.role.canary_seed.update(self.role.index, length, clip_norm);
                Ok(Contribution::Update(update))
            }
            Conduct::Poisoned(conspiracy, member) => conspiracy
                .contribute(*member, round, model, plan)
                .map(Contribution::DangerUnbounded)
                .map_err(|error| error.to_string()),
        }
    }

    /// Poisoned devices praise every model; canaries have no examples.
    fn judge(&mut self, round: u32, model: &[u8], new: &[u8], plan: &TaskPlan) -> Result<f64, String> {
        match &mut self.conduct {
            Conduct::Honest(honest) => honest.judge(round, model, new, plan),
            Conduct::Canary => Ok(0.0),
            Conduct::Poisoned(..) => Ok(1.0),
        }
    }

    fn vanishes(&mut self, round: u32, before: Kind) -> bool {
        self.role.vanishes_before(round) == Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedveil_learning::model_file;
    use fedveil_provenance::Digest;

    fn roles(byzantine: u32, dropouts: u32) -> impl Iterator<Item = Role> {
        let canary_seed = CanarySeed(Digest::of("canaries"));
        (0..200).map(move |index| Role {
            seed: 7,
            clients: 200,
            index,
            byzantine,
            dropouts,
            canaries: 0,
            canary_seed,
        })
    }

    fn is_poisoned(role: &Role) -> bool {
        role.poisoned().contains(&(role.index as usize))
    }

    #[test]
    fn exactly_as_many_are_poisoned_and_drop_out_as_asked() {
        assert_eq!(roles(4, 10).filter(is_poisoned).count(), 4);
        for round in 1..6 {
            let gone: Vec<Role> = roles(4, 10).filter(|role| role.vanishes_before(round).is_some()).collect();
            assert_eq!(gone.len(), 10);
            assert!(!gone.iter().any(is_poisoned));
        }
        assert_eq!(roles(0, 0).filter(|role| role.vanishes_before(1).is_some()).count(), 0);
    }

    #[test]
    fn canaries_are_as_many_as_asked_and_change_nothing_about_the_others() {
        let with = |canaries| roles(4, 10).map(move |role| Role { canaries, ..role });
        assert_eq!(with(60).filter(Role::is_canary).count(), 60);
        assert_eq!(with(0).filter(Role::is_canary).count(), 0);
        assert!(!with(196).any(|role| role.is_canary() && is_poisoned(&role)));
        for (role, same) in with(60).zip(roles(4, 10)) {
            assert_eq!(is_poisoned(&role), is_poisoned(&same));
            assert_eq!(role.vanishes_before(3), same.vanishes_before(3));
        }
    }

    #[test]
    fn holdings_are_those_of_the_shares() {
        let (shares, holdings) = (shares(30, 1.0, 7).unwrap(), holdings(30, 1.0, 7).unwrap());
        for (share, held) in shares.iter().zip(&holdings.shown) {
            let count = |class| share.labels().iter().filter(|label| **label == class).count() as u64;
            assert_eq!(held.of_class, (0..10).map(count).collect::<Vec<_>>());
        }
        assert_eq!(holdings.shown.len(), 30);
    }

    #[test]
    fn the_seed_decides_who() {
        let poisoned = |seed| -> Vec<u32> {
            roles(4, 0).map(|role| Role { seed, ..role }).filter(is_poisoned).map(|role| role.index).collect()
        };
        assert_eq!(poisoned(1), poisoned(1));
        assert_ne!(poisoned(1), poisoned(2));
    }

    /// Three rounds of ten devices without any noise but that of their examples; the accuracy afterwards.
    fn accuracy_after_training(example_privacy: Option<ExamplePrivacy>) -> f64 {
        let config = crate::config::CoordinatorConfig::default();
        let spec: ModelSpec = config.model.architecture.parse().unwrap();
        let mut plan = config.plan(Digest::of("examples"), spec.parameters() as u32);
        plan.training.example_privacy = example_privacy;
        let mut devices: Vec<Honest> =
            shares(10, 1.0, 3).unwrap().iter().map(|images| Honest::new(features(images), 5)).collect();
        let mut parameters = spec.initial(1);
        for round in 1..=3 {
            let model = model_file::to_safetensors(&spec, &parameters).unwrap();
            for device in &mut devices {
                let Contribution::Update(update) = device.contribute(round, &model, &plan).unwrap() else {
                    panic!("an honest device contributes an update");
                };
                for (parameter, change) in parameters.iter_mut().zip(update) {
                    *parameter += change / 10.0;
                }
            }
        }
        fedveil_learning::evaluate(&spec, &parameters, &features(&held_out_images(3).unwrap().1))
            .unwrap()
            .accuracy
    }

    #[test]
    fn devices_learn_with_privacy_for_their_examples() {
        let section = ExamplePrivacy {
            clip_norm: 1.0,
            noise_multiplier: 1.0,
            sampling_rate: 0.3,
            epsilon: 60.0,
            delta: 1e-5,
        };
        let private = accuracy_after_training(Some(section.clone()));
        assert!(private > 0.6, "{private}");
        // Noise that drowns ten devices' examples: the section is not for show.
        let drowned = accuracy_after_training(Some(ExamplePrivacy { noise_multiplier: 200.0, ..section }));
        assert!(drowned < private - 0.2, "{drowned}, {private}");
    }

    #[test]
    fn a_share_out_of_range_is_refused() {
        let share = Share { clients: 10, index: 10, alpha: 1.0, seed: 1 };
        assert!(share.load().unwrap_err().contains("data.index is 10, accepted is 0 to 9"));
    }
}
