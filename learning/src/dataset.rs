//! Labelled examples in memory, checked once, and the shuffle that every seeded choice of rows uses.

use std::fmt;

use rand_core::Rng;

use crate::LearningError;

/// Labelled examples: a table of features (rows × inputs, row-major) with one class label per row, or sequences of
/// tokens (rows × length), whose labels are the tokens that come next.
///
/// Never empty; every feature is finite; every label and token is below `classes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    values: Values,
    labels: Vec<u32>,
    inputs: usize,
    classes: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    Features(Vec<f32>),
    Tokens(Vec<u32>),
}

#[expect(clippy::len_without_is_empty, reason = "a dataset is never empty")]
impl Dataset {
    /// Checks and keeps a table of `labels.len()` rows × `inputs` features, row-major. An image is a row of channels ×
    /// height × width features, in this order of strides.
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
        Ok(Self { values: Values::Features(features), labels, inputs, classes })
    }

    /// Checks and keeps sequences: tables of rows × `length` tokens to read, and of as many to predict, each at the place
    /// of the token before it. All are below `vocabulary`.
    pub fn sequences(
        tokens: Vec<u32>,
        labels: Vec<u32>,
        length: usize,
        vocabulary: usize,
    ) -> Result<Self, LearningError> {
        if tokens.is_empty() {
            return Err(LearningError::NoExamples);
        }
        if tokens.len() != labels.len() || tokens.len().checked_rem(length) != Some(0) {
            return Err(LearningError::TokenCount { tokens: tokens.len(), labels: labels.len(), length });
        }
        // A label is the token one place later.
        for (table, shift) in [(&tokens, 0), (&labels, 1)] {
            if let Some(at) = table.iter().position(|token| *token as usize >= vocabulary) {
                let (row, place) = (at / length, at % length + shift);
                return Err(LearningError::TokenOutOfRange { row, place, token: table[at], vocabulary });
            }
        }
        Ok(Self { values: Values::Tokens(tokens), labels, inputs: length, classes: vocabulary })
    }

    /// Cuts one text into sequences. Rows share the one token that is predicted last and read first; what is left over
    /// at the end is dropped.
    pub fn text(text: &[u32], length: usize, vocabulary: usize) -> Result<Self, LearningError> {
        let used = text.len().saturating_sub(1).checked_div(length).unwrap_or(0) * length;
        let labels = text.get(1..=used).unwrap_or_default();
        Self::sequences(text[..used].to_vec(), labels.to_vec(), length, vocabulary)
    }

    /// Number of rows, at least 1.
    pub fn len(&self) -> usize {
        self.labels.len() / self.labels_per_row()
    }

    /// Features or tokens per row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of classes that labels are drawn from, whether or not each occurs; the vocabulary of sequences.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Whether rows are sequences of tokens.
    pub fn is_sequences(&self) -> bool {
        matches!(self.values, Values::Tokens(_))
    }

    /// The feature table, rows × inputs, row-major; empty for sequences.
    pub fn features(&self) -> &[f32] {
        match &self.values {
            Values::Features(features) => features,
            Values::Tokens(_) => &[],
        }
    }

    /// The tokens, rows × inputs, row-major; empty for features.
    pub fn tokens(&self) -> &[u32] {
        match &self.values {
            Values::Features(_) => &[],
            Values::Tokens(tokens) => tokens,
        }
    }

    /// The labels, row by row, [`Dataset::labels_per_row`] for each.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// 1 for features, and as many as there are tokens for sequences.
    pub fn labels_per_row(&self) -> usize {
        if self.is_sequences() { self.inputs } else { 1 }
    }

    /// The named rows, in the order given; a row may be named more than once.
    pub fn subset(&self, rows: &[usize]) -> Result<Self, LearningError> {
        if rows.is_empty() {
            return Err(LearningError::NoExamples);
        }
        if let Some(&row) = rows.iter().find(|row| **row >= self.len()) {
            return Err(LearningError::NoSuchRow { row, rows: self.len() });
        }
        let values = match &self.values {
            Values::Features(features) => Values::Features(gather(features, self.inputs, rows)),
            Values::Tokens(tokens) => Values::Tokens(gather(tokens, self.inputs, rows)),
        };
        Ok(Self { values, labels: gather(&self.labels, self.labels_per_row(), rows), ..*self })
    }

    /// The same rows with each label replaced by `new_label(label)`, which must stay below `classes`.
    pub fn relabel(&self, new_label: impl Fn(u32) -> u32) -> Result<Self, LearningError> {
        let labels: Vec<u32> = self.labels.iter().map(|&label| new_label(label)).collect();
        check_labels(&labels, self.classes)?;
        Ok(Self { values: self.values.clone(), labels, ..*self })
    }

    /// Features of one row; expects features.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.features()[row * self.inputs..][..self.inputs]
    }

    /// Labels of the named rows.
    pub(crate) fn labels_of(&self, rows: &[usize]) -> Vec<u32> {
        gather(&self.labels, self.labels_per_row(), rows)
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.values {
            Values::Features(_) => write!(f, "{} inputs and {} classes", self.inputs, self.classes),
            Values::Tokens(_) => {
                write!(f, "sequences of {} tokens from {}", self.inputs, self.classes)
            }
        }
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

/// What the named rows have in a table of so many columns.
pub(crate) fn gather<T: Copy>(table: &[T], columns: usize, rows: &[usize]) -> Vec<T> {
    let mut gathered = Vec::with_capacity(rows.len() * columns);
    for row in rows {
        gathered.extend_from_slice(&table[row * columns..][..columns]);
    }
    gathered
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
    fn a_text_is_cut_into_overlapping_rows() {
        let text = Dataset::text(&[0, 1, 2, 3, 4, 5, 6, 7], 3, 8).unwrap();
        assert_eq!((text.len(), text.inputs(), text.classes(), text.labels_per_row()), (2, 3, 8, 3));
        assert_eq!(text.tokens(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(text.labels(), [1, 2, 3, 4, 5, 6]);
        assert!(text.features().is_empty());
        let last = text.subset(&[1]).unwrap();
        assert_eq!((last.tokens(), last.labels()), ([3, 4, 5].as_slice(), [4, 5, 6].as_slice()));
    }

    #[test]
    fn refuses_what_is_no_sequence() {
        let cases = [
            (Dataset::text(&[1, 2, 3], 3, 4), LearningError::NoExamples),
            (Dataset::text(&[], 3, 4), LearningError::NoExamples),
            (Dataset::text(&[1, 2, 3], 0, 4), LearningError::NoExamples),
            (
                Dataset::text(&[1, 2, 9, 0, 0], 2, 4),
                LearningError::TokenOutOfRange { row: 1, place: 0, token: 9, vocabulary: 4 },
            ),
            (
                Dataset::text(&[1, 2, 9], 2, 4),
                LearningError::TokenOutOfRange { row: 0, place: 2, token: 9, vocabulary: 4 },
            ),
            (
                Dataset::sequences(vec![1; 6], vec![1; 5], 3, 4),
                LearningError::TokenCount { tokens: 6, labels: 5, length: 3 },
            ),
            (
                Dataset::sequences(vec![1; 6], vec![1; 6], 4, 4),
                LearningError::TokenCount { tokens: 6, labels: 6, length: 4 },
            ),
            (
                Dataset::sequences(vec![1; 6], vec![1; 6], 0, 4),
                LearningError::TokenCount { tokens: 6, labels: 6, length: 0 },
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found.unwrap_err(), expected);
        }
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
