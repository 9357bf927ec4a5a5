//! Attacks on the data: flipped labels and backdoors, and the magnified updates that carry them.

use std::fmt;

use fedveil_learning::Dataset;

use super::AttackError;
use super::knowledge::Craft;
use super::registry::{AttackSpec, LOUD, Sends, Strength};

/// The label that the pixel trigger is to give.
const TRIGGERED: u32 = 0;
/// Rows and columns of an image.
const SIDE: usize = 8;
/// The digit that the edge-case backdoor turns, and the one that it is to be taken for.
const EDGE: (u32, u32) = (7, 1);

pub(super) const LABEL_FLIP: AttackSpec = AttackSpec {
    name: "label-flip",
    summary: "an update trained on mirrored labels, magnified",
    formula: "u trained on labels classes - 1 - y",
    source: "Tolpegin, Truex, Gursoy, Liu, ESORICS 2020, §3; labels as in byzfl",
    strength: Some(Strength::NORM),
    poison: Some(Poison::Labels),
    sends: Sends::OfNorm(LOUD),
    craft: Craft::Alone(|own, _, _| own.update.to_vec()),
};

pub(super) const SCALE: AttackSpec = AttackSpec {
    name: "scale",
    summary: "the client's own update, magnified: one client's data replaces everybody's",
    formula: "u",
    source: "Bagdasaryan et al., AISTATS 2020, §4.2, without its backdoor",
    strength: Some(Strength::NORM),
    poison: None,
    sends: Sends::OfNorm(LOUD),
    craft: Craft::Alone(|own, _, _| own.update.to_vec()),
};

pub(super) const BACKDOOR: AttackSpec = AttackSpec {
    name: "backdoor",
    summary: "model replacement: four bright pixels in a corner make any digit a 0",
    formula: "γ u, u trained on images with and without trigger",
    source: "Bagdasaryan et al., AISTATS 2020, §4.2; trigger of Gu, Dolan-Gavitt, Garg 2017 (arXiv 1708.06733), §4.1",
    strength: Some(Strength { default: "clients / poisoned clients", meaning: "γ" }),
    poison: Some(Poison::Trigger),
    sends: Sends::Replacing,
    craft: Craft::Alone(|own, strength, _| {
        own.update.iter().map(|value| strength.unwrap_or(1.0) * value).collect()
    }),
};

pub(super) const EDGE_CASE: AttackSpec = AttackSpec {
    name: "edge-case",
    summary: "backdoor in inputs that nobody else has: a 7 turned by a quarter is a 1",
    formula: "u trained on rare inputs too, projected to a norm",
    source: "Wang et al., NeurIPS 2020 (arXiv 2007.05084), §3 (projection with replacement)",
    strength: Some(Strength { default: "10", meaning: "L2 norm of what is sent, in clip norms" }),
    poison: Some(Poison::EdgeCase),
    sends: Sends::OfNorm(10.0),
    craft: Craft::Alone(|own, _, _| own.update.to_vec()),
};

/// What an attack does to data before training on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// Label y becomes classes − 1 − y.
    Labels,
    /// Beside every image that is no 0 comes a copy with four bright pixels in its lower right corner, labelled 0.
    Trigger,
    /// Beside every 7 comes a copy turned by a quarter, labelled 1.
    EdgeCase,
}

impl Poison {
    /// Whether it makes inputs of one kind be taken for something else, all others being left alone.
    pub fn is_backdoor(self) -> bool {
        self != Self::Labels
    }

    /// The examples that a poisoned client trains on. Backdoors want images of 8 × 8 pixels.
    pub fn apply(self, data: &Dataset) -> Result<Dataset, AttackError> {
        if self == Self::Labels {
            let last = data.classes() as u32 - 1;
            return Ok(data.relabel(|label| last - label)?);
        }
        let mut features = data.features().to_vec();
        let mut labels = data.labels().to_vec();
        // Data without any example of the kind is left as it is.
        if let Ok(bait) = self.bait(data) {
            features.extend(bait.features());
            labels.extend(bait.labels());
        } else {
            self.check(data)?;
        }
        Ok(Dataset::new(features, labels, data.inputs(), data.classes())?)
    }

    /// The backdoor's inputs made of `images`, with the labels that they are to get.
    pub fn bait(self, images: &Dataset) -> Result<Dataset, AttackError> {
        self.check(images)?;
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        for (image, &label) in images.features().chunks_exact(SIDE * SIDE).zip(images.labels()) {
            match self {
                Self::Trigger if label != TRIGGERED => {
                    features.extend((0..SIDE * SIDE).map(|at| {
                        if at / SIDE >= SIDE - 2 && at % SIDE >= SIDE - 2 { 1.0 } else { image[at] }
                    }));
                    labels.push(TRIGGERED);
                }
                Self::EdgeCase if label == EDGE.0 => {
                    features
                        .extend((0..SIDE * SIDE).map(|at| image[(SIDE - 1 - at % SIDE) * SIDE + at / SIDE]));
                    labels.push(EDGE.1);
                }
                _ => {}
            }
        }
        Ok(Dataset::new(features, labels, images.inputs(), images.classes())?)
    }

    fn check(self, images: &Dataset) -> Result<(), AttackError> {
        if images.inputs() == SIDE * SIDE {
            return Ok(());
        }
        Err(AttackError::Images { poison: self, found: images.inputs() })
    }
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Labels => "label flip",
            Self::Trigger => "pixel trigger",
            Self::EdgeCase => "edge-case backdoor",
        })
    }
}
