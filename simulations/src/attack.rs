//! What poisoned clients send.
//!
//! The threat: a poisoned client follows the protocol (it has keys, shares secrets, masks) but sends the update it
//! likes. It ignores the clip and adds no noise. Inside secure aggregation nobody sees that single update, so the
//! attacks here are as loud as the ring allows: an L2 norm of [`BOOST`] clip norms.
//!
//! Absent on purpose: attackers that know the rule and stay just below its threshold, or that collude on one
//! direction (A Little Is Enough, inner-product manipulation, optimised attacks).

use std::fmt;
use std::str::FromStr;

use fedveil_learning::Dataset;
use rand_core::Rng;

use crate::sampling::standard_normal;

/// L2 norm of a forged update, in clip norms: one attacker outweighs that many honest clients of its group.
///
/// At 40, four clients of 200 that flip signs or labels take a plain mean from 0.9 accuracy on the digits to about
/// 0.5. The caller clamps what does not fit the ring of the aggregation.
pub const BOOST: f64 = 40.0;

/// How poisoned clients forge their update. Written `sign-flip`, `gaussian`, `scale`, `label-flip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// The client's honest update, reversed: undoes what the others learn.
    SignFlip,
    /// A uniformly random direction. Independent draws average out, so a plain mean bears it at this strength.
    Gaussian,
    /// The client's honest update, magnified: one client's data replaces everybody's (Bagdasaryan et al. 2020,
    /// arXiv:1807.00459). Under a plain mean it skews the model more than it destroys it.
    Scale,
    /// An update trained on [`poisoned_labels`], magnified.
    LabelFlip,
}

/// A text that names no attack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown attack {found:?}: expected sign-flip, gaussian, scale or label-flip")]
pub struct UnknownAttack {
    /// The text.
    pub found: String,
}

impl Attack {
    /// Every attack.
    pub const ALL: [Self; 4] = [Self::SignFlip, Self::Gaussian, Self::Scale, Self::LabelFlip];

    /// Whether the client trains on [`poisoned_labels`] of its data before it forges.
    pub fn flips_labels(self) -> bool {
        self == Self::LabelFlip
    }

    /// The update that a poisoned client sends instead of `update`, of L2 norm `BOOST × clip_norm`.
    ///
    /// `update` is what it trained, unclipped: on its own labels, or on flipped ones where
    /// [`flips_labels`](Self::flips_labels) says so. An update of norm zero, or one that is not finite, has no
    /// direction and gets a random one.
    pub fn forge(self, update: &[f32], clip_norm: f64, rng: &mut impl Rng) -> Vec<f32> {
        let norm = BOOST * clip_norm;
        let update: Vec<f64> = update.iter().map(|&value| f64::from(value)).collect();
        let direction = match self {
            Self::SignFlip => update.iter().map(|value| -value).collect(),
            Self::Scale | Self::LabelFlip => update.clone(),
            Self::Gaussian => random_direction(update.len(), rng),
        };
        let forged = with_norm(&direction, norm)
            .or_else(|| with_norm(&random_direction(update.len(), rng), norm))
            .unwrap_or(direction);
        forged.iter().map(|&value| value as f32).collect()
    }
}

/// The data of a client that mislabels: label y becomes classes − 1 − y.
pub fn poisoned_labels(data: &Dataset) -> Dataset {
    let last = data.classes() as u32 - 1;
    data.relabel(|label| last - label).expect("a mirrored label is a label")
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SignFlip => "sign-flip",
            Self::Gaussian => "gaussian",
            Self::Scale => "scale",
            Self::LabelFlip => "label-flip",
        })
    }
}

impl FromStr for Attack {
    type Err = UnknownAttack;

    fn from_str(text: &str) -> Result<Self, UnknownAttack> {
        Self::ALL
            .into_iter()
            .find(|attack| attack.to_string() == text)
            .ok_or_else(|| UnknownAttack { found: text.to_owned() })
    }
}

/// A vector of independent standard Gaussians: every direction is equally likely.
fn random_direction(length: usize, rng: &mut impl Rng) -> Vec<f64> {
    (0..length).map(|_| standard_normal(rng)).collect()
}

/// `direction` scaled to an L2 norm, if it has a direction.
fn with_norm(direction: &[f64], norm: f64) -> Option<Vec<f64>> {
    let length = direction.iter().map(|value| value * value).sum::<f64>().sqrt();
    (length.is_finite() && length > 0.0)
        .then(|| direction.iter().map(|value| value * (norm / length)).collect())
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const CLIP: f64 = 0.5;

    fn forge(attack: Attack, update: &[f32]) -> Vec<f32> {
        attack.forge(update, CLIP, &mut ChaCha20Rng::seed_from_u64(2))
    }

    fn norm(vector: &[f32]) -> f64 {
        vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
    }

    fn cosine(one: &[f32], two: &[f32]) -> f64 {
        let dot: f64 = one.iter().zip(two).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        dot / norm(one) / norm(two)
    }

    #[test]
    fn every_forgery_has_the_boosted_norm() {
        let update: Vec<f32> = (0..650).map(|i| (i as f32).sin() * 0.01).collect();
        for attack in Attack::ALL {
            let found = norm(&forge(attack, &update));
            assert!((found / (BOOST * CLIP) - 1.0).abs() < 1e-6, "{attack}: {found}");
        }
    }

    #[test]
    fn directions_are_as_named() {
        let update: Vec<f32> = (0..650).map(|i| (i as f32).sin()).collect();
        let cosine_of = |attack| cosine(&forge(attack, &update), &update);
        assert!((cosine_of(Attack::SignFlip) + 1.0).abs() < 1e-6);
        assert!((cosine_of(Attack::Scale) - 1.0).abs() < 1e-6);
        assert!((cosine_of(Attack::LabelFlip) - 1.0).abs() < 1e-6);
        // The cosine of two independent directions in 650 dimensions has standard deviation 1/√650 = 0.04.
        assert!(cosine_of(Attack::Gaussian).abs() < 0.2);
    }

    #[test]
    fn gaussian_ignores_the_update_and_follows_the_rng() {
        let [one, two] = [[1.0_f32; 8], [-3.0; 8]].map(|update| forge(Attack::Gaussian, &update));
        assert_eq!(one, two);
        let other = Attack::Gaussian.forge(&[1.0; 8], CLIP, &mut ChaCha20Rng::seed_from_u64(3));
        assert_ne!(one, other);
    }

    #[test]
    fn updates_without_a_direction_still_do_harm() {
        for update in [[0.0_f32; 4], [f32::NAN; 4], [f32::INFINITY; 4]] {
            for attack in Attack::ALL {
                let found = norm(&forge(attack, &update));
                assert!((found / (BOOST * CLIP) - 1.0).abs() < 1e-6, "{attack} of {update:?}: {found}");
            }
        }
        assert!(Attack::ALL.into_iter().all(|attack| forge(attack, &[]).is_empty()));
    }

    #[test]
    fn labels_are_mirrored() {
        let data = Dataset::new(vec![0.0; 4], vec![0, 3, 9, 5], 1, 10).unwrap();
        assert_eq!(poisoned_labels(&data).labels(), [9, 6, 0, 4]);
        assert_eq!(poisoned_labels(&poisoned_labels(&data)), data);
    }

    #[test]
    fn text_form_round_trips() {
        for attack in Attack::ALL {
            assert_eq!(attack.to_string().parse(), Ok(attack));
        }
        let error = "Sign-Flip".parse::<Attack>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown attack \"Sign-Flip\": expected sign-flip, gaussian, scale or label-flip"
        );
    }
}
