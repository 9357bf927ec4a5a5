//! Labelled examples in memory, checked once, and the shuffle that every seeded choice of rows uses.

use rand_core::Rng;

use crate::LearningError;

/// Labelled examples: a feature table (rows × inputs, row-major) and one class label per row.
///
/// Never empty; every feature is finite; every label is below `classes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    features: Vec<f32>,
    labels: Vec<u32>,
    inputs: usize,
    classes: usize,
}

#[expect(clippy::len_without_is_empty, reason = "a dataset is never empty")]
impl Dataset {
    /// Checks and keeps a table of `labels.len()` rows × `inputs` features, row-major.
    pub fn new(
        features: Vec<f32>,
        labels: Vec<u32>,
        inputs: usize,
        classes: usize,
    ) -> Result<Self, LearningError> {
        let rows = labels.len();
        if rows == 0 {
            return Err(LearningError::NoExamples);
        }
        if inputs == 0 || rows.checked_mul(inputs) != Some(features.len()) {
            return Err(LearningError::FeatureCount { found: features.len(), rows, inputs });
        }
        if let Some(at) = features.iter().position(|value| !value.is_finite()) {
            let (row, column) = (at / inputs, at % inputs);
            return Err(LearningError::NonFiniteFeature { row, column, value: features[at] });
        }
        check_labels(&labels, classes)?;
        Ok(Self { features, labels, inputs, classes })
    }

    /// Number of rows, at least 1.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Features per row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of classes that labels are drawn from, whether or not each occurs.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The feature table, rows × inputs, row-major.
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// One label per row, each in `0..classes`.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The named rows, in the order given; a row may be named more than once.
    pub fn subset(&self, rows: &[usize]) -> Result<Self, LearningError> {
        if rows.is_empty() {
            return Err(LearningError::NoExamples);
        }
        if let Some(&row) = rows.iter().find(|row| **row >= self.len()) {
            return Err(LearningError::NoSuchRow { row, rows: self.len() });
        }
        Ok(Self {
            features: rows.iter().flat_map(|&row| self.row(row)).copied().collect(),
            labels: rows.iter().map(|&row| self.labels[row]).collect(),
            ..*self
        })
    }

    /// The same rows with each label replaced by `new_label(label)`, which must stay below `classes`.
    pub fn relabel(&self, new_label: impl Fn(u32) -> u32) -> Result<Self, LearningError> {
        let labels: Vec<u32> = self.labels.iter().map(|&label| new_label(label)).collect();
        check_labels(&labels, self.classes)?;
        Ok(Self { features: self.features.clone(), labels, ..*self })
    }

    /// Features of one row.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.features[row * self.inputs..][..self.inputs]
    }
}

/// A uniformly random order of `0..length` (Fisher and Yates; Durstenfeld 1964, Algorithm 235).
pub fn permutation(length: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..length).collect();
    for last in (1..length).rev() {
        order.swap(last, below(last as u64 + 1, rng) as usize);
    }
    order
}

/// Uniform in `0..bound`, without the bias of a plain remainder.
fn below(bound: u64, rng: &mut impl Rng) -> u64 {
    // Draws under 2^64 mod bound are thrown away, which leaves a whole number of cycles.
    let excess = bound.wrapping_neg() % bound;
    loop {
        let draw = rng.next_u64();
        if draw >= excess {
            return draw % bound;
        }
    }
}

fn check_labels(labels: &[u32], classes: usize) -> Result<(), LearningError> {
    match labels.iter().position(|label| *label as usize >= classes) {
        Some(row) => Err(LearningError::LabelOutOfRange { row, label: labels[row], classes }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn small() -> Dataset {
        Dataset::new(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], vec![0, 2, 1], 2, 3).unwrap()
    }

    #[test]
    fn refuses_what_is_not_a_table() {
        let cases = [
            (Dataset::new(vec![], vec![], 2, 3), LearningError::NoExamples),
            (
                Dataset::new(vec![1.0; 3], vec![0, 0], 2, 3),
                LearningError::FeatureCount { found: 3, rows: 2, inputs: 2 },
            ),
            (
                Dataset::new(vec![], vec![0], 0, 3),
                LearningError::FeatureCount { found: 0, rows: 1, inputs: 0 },
            ),
            (
                Dataset::new(vec![0.0, 0.0, 0.0, f32::INFINITY], vec![0, 0], 2, 3),
                LearningError::NonFiniteFeature { row: 1, column: 1, value: f32::INFINITY },
            ),
            (
                Dataset::new(vec![0.0; 4], vec![0, 3], 2, 3),
                LearningError::LabelOutOfRange { row: 1, label: 3, classes: 3 },
            ),
            (small().subset(&[]), LearningError::NoExamples),
            (small().subset(&[0, 3]), LearningError::NoSuchRow { row: 3, rows: 3 }),
            (
                small().relabel(|label| label + 1),
                LearningError::LabelOutOfRange { row: 1, label: 3, classes: 3 },
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found.unwrap_err(), expected);
        }
    }

    #[test]
    fn subset_keeps_rows_with_their_labels() {
        let subset = small().subset(&[2, 0, 2]).unwrap();
        assert_eq!(subset.features(), [4.0, 5.0, 0.0, 1.0, 4.0, 5.0]);
        assert_eq!(subset.labels(), [1, 0, 1]);
        assert_eq!((subset.len(), subset.inputs(), subset.classes()), (3, 2, 3));
    }

    #[test]
    fn relabel_leaves_features_alone() {
        let flipped = small().relabel(|label| 2 - label).unwrap();
        assert_eq!(flipped.labels(), [2, 0, 1]);
        assert_eq!(flipped.features(), small().features());
    }

    #[test]
    fn permutation_is_uniform() {
        // 24 orders of 4 things, 24,000 draws: chi-square with 23 degrees of freedom, 70 has probability 1e-6.
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..24_000 {
            *seen.entry(permutation(4, &mut rng)).or_insert(0_u32) += 1;
        }
        assert_eq!(seen.len(), 24);
        let chi_square: f64 = seen.values().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi_square < 70.0, "{chi_square}");
    }

    #[test]
    fn permutation_of_nothing_and_of_one() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        assert!(permutation(0, &mut rng).is_empty());
        assert_eq!(permutation(1, &mut rng), [0]);
    }
}
