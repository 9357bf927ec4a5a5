//! Examples in the form in which they take the least memory, and the rows of one client made of them.
//!
//! Pixels stay bytes and characters stay 16-bit tokens; a client's rows become an `f32` [`Dataset`] when that client
//! trains, and are dropped after. 60,000 images of 28 × 28 are 47 MB here and 188 MB as `f32`.

use fedveil_learning::Dataset;

use super::DatasetError;

/// Channels, rows and columns of an image; features are in this order, the column running fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape {
    /// Values of an image.
    pub fn inputs(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// The training or the test part of a set: rows, each with a label or a sequence of tokens, perhaps with an owner.
///
/// Never empty. Labels are below `classes`; features are finite.
#[derive(Clone, Debug)]
pub struct Part {
    values: Values,
    labels: Vec<u32>,
    classes: usize,
    owners: Vec<u32>,
}

#[derive(Clone, Debug)]
enum Values {
    /// Rows × inputs of the shape, and for every channel what each byte stands for.
    Images { bytes: Vec<u8>, shape: Shape, levels: Vec<[f32; 256]> },
    /// Rows × inputs.
    Floats { floats: Vec<f32>, inputs: usize },
    /// Row `i` is the `length` tokens from `starts[i]` on; each is followed by one more, the last target.
    Tokens { stream: Vec<u16>, starts: Vec<u32>, length: usize },
}

impl Part {
    /// Images as bytes, and a table of what each byte stands for in each channel.
    pub(super) fn images(
        bytes: Vec<u8>,
        labels: Vec<u32>,
        shape: Shape,
        classes: usize,
        levels: Vec<[f32; 256]>,
    ) -> Self {
        debug_assert_eq!(bytes.len(), labels.len() * shape.inputs());
        debug_assert_eq!(levels.len(), shape.channels);
        Self { values: Values::Images { bytes, shape, levels }, labels, classes, owners: Vec::new() }
    }

    /// A table of finite features.
    pub(super) fn floats(floats: Vec<f32>, labels: Vec<u32>, inputs: usize, classes: usize) -> Self {
        debug_assert_eq!(floats.len(), labels.len() * inputs);
        Self { values: Values::Floats { floats, inputs }, labels, classes, owners: Vec::new() }
    }

    /// Sequences of `length` tokens of a stream, of `vocabulary` different ones.
    pub(super) fn tokens(stream: Vec<u16>, starts: Vec<u32>, length: usize, vocabulary: usize) -> Self {
        debug_assert!(starts.iter().all(|start| *start as usize + length < stream.len()));
        Self {
            values: Values::Tokens { stream, starts, length },
            labels: Vec::new(),
            classes: vocabulary,
            owners: Vec::new(),
        }
    }

    /// The same with an owner of every row.
    pub(super) fn owned_by(mut self, owners: Vec<u32>) -> Self {
        debug_assert_eq!(owners.len(), self.rows());
        self.owners = owners;
        self
    }

    /// Number of rows, at least 1.
    pub fn rows(&self) -> usize {
        match &self.values {
            Values::Tokens { starts, .. } => starts.len(),
            Values::Images { .. } | Values::Floats { .. } => self.labels.len(),
        }
    }

    /// Features of a row, or tokens of a sequence.
    pub fn inputs(&self) -> usize {
        match &self.values {
            Values::Images { shape, .. } => shape.inputs(),
            Values::Floats { inputs, .. } => *inputs,
            Values::Tokens { length, .. } => *length,
        }
    }

    /// Number of classes that labels are drawn from; of sequences, the number of different tokens.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// One label a row, each below `classes`; empty for sequences.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// One owner a row, by the position of its name in [`Data::clients`](super::Data::clients); empty where nobody
    /// is known to have brought the rows.
    pub fn owners(&self) -> &[u32] {
        &self.owners
    }

    /// The shape of the rows, where they are images.
    pub fn shape(&self) -> Option<Shape> {
        match &self.values {
            Values::Images { shape, .. } => Some(*shape),
            Values::Floats { .. } | Values::Tokens { .. } => None,
        }
    }

    /// Whether rows are sequences of tokens.
    pub fn is_text(&self) -> bool {
        matches!(self.values, Values::Tokens { .. })
    }

    /// The named rows: features and labels, or sequences and what follows each of their tokens. Refuses no rows, and
    /// rows that do not exist.
    pub fn dataset(&self, rows: &[u32]) -> Result<Dataset, DatasetError> {
        let Values::Tokens { stream, starts, length } = &self.values else {
            return self.with_features(self.features(rows)?, rows);
        };
        self.check(rows)?;
        let from = |shift: usize| {
            let sequence = |row: &u32| &stream[starts[*row as usize] as usize + shift..][..*length];
            rows.iter().flat_map(sequence).map(|&token| u32::from(token)).collect()
        };
        Ok(Dataset::sequences(from(0), from(1), *length, self.classes)?)
    }

    /// The named rows, with other features than their own.
    pub(crate) fn with_features(&self, features: Vec<f32>, rows: &[u32]) -> Result<Dataset, DatasetError> {
        let labels = rows.iter().map(|&row| self.labels[row as usize]).collect();
        Ok(Dataset::new(features, labels, self.inputs(), self.classes)?)
    }

    /// The features of the named rows, one row after the other.
    pub(crate) fn features(&self, rows: &[u32]) -> Result<Vec<f32>, DatasetError> {
        self.check(rows)?;
        let inputs = self.inputs();
        let mut features = Vec::with_capacity(rows.len() * inputs);
        match &self.values {
            Values::Images { bytes, shape, levels } => {
                let plane = shape.height * shape.width;
                for &row in rows {
                    let image = &bytes[row as usize * inputs..][..inputs];
                    for (plane, levels) in image.chunks_exact(plane).zip(levels) {
                        features.extend(plane.iter().map(|&byte| levels[usize::from(byte)]));
                    }
                }
            }
            Values::Floats { floats, .. } => {
                for &row in rows {
                    features.extend_from_slice(&floats[row as usize * inputs..][..inputs]);
                }
            }
            Values::Tokens { .. } => return Err(DatasetError::TextHasNoFeatures),
        }
        Ok(features)
    }

    /// The value of a black pixel in each channel; 0 for what is no image.
    pub(crate) fn black(&self) -> Vec<f32> {
        match &self.values {
            Values::Images { levels, .. } => levels.iter().map(|levels| levels[0]).collect(),
            Values::Floats { .. } | Values::Tokens { .. } => vec![0.0],
        }
    }

    fn check(&self, rows: &[u32]) -> Result<(), DatasetError> {
        if rows.is_empty() {
            return Err(DatasetError::NoRows);
        }
        match rows.iter().find(|row| **row as usize >= self.rows()) {
            Some(&row) => Err(DatasetError::NoSuchRow { row, rows: self.rows() }),
            None => Ok(()),
        }
    }
}

/// What each byte stands for: (byte / 255 − `mean`) / `deviation`, in `f32` and in this order, as numpy computes it.
pub(super) fn levels(mean: f32, deviation: f32) -> [f32; 256] {
    std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / deviation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Part {
        let shape = Shape { channels: 2, height: 1, width: 2 };
        let bytes = vec![0, 255, 51, 0, 255, 255, 0, 102];
        Part::images(bytes, vec![1, 0], shape, 3, vec![levels(0.0, 1.0), levels(0.5, 0.5)])
    }

    #[test]
    fn bytes_become_features_channel_by_channel() {
        let data = images().dataset(&[1, 0, 1]).unwrap();
        assert_eq!(data.labels(), [0, 1, 0]);
        assert_eq!(&data.features()[..4], [1.0, 1.0, -1.0, -0.199_999_99]);
        assert_eq!(&data.features()[4..8], [0.0, 1.0, -0.6, -1.0]);
        assert_eq!((data.inputs(), data.classes()), (4, 3));
    }

    #[test]
    fn sequences_come_with_what_follows() {
        let part = Part::tokens(vec![5, 6, 7, 8, 9], vec![0, 2], 2, 10);
        let found = part.dataset(&[1, 0]).unwrap();
        assert_eq!((found.tokens(), found.labels()), (&[7, 8, 5, 6][..], &[8, 9, 6, 7][..]));
        assert_eq!((part.rows(), part.inputs(), found.inputs(), found.classes()), (2, 2, 2, 10));
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let text = Part::tokens(vec![1, 2, 3], vec![0], 2, 4);
        assert_eq!(images().dataset(&[]).unwrap_err(), DatasetError::NoRows);
        assert_eq!(images().dataset(&[0, 2]).unwrap_err(), DatasetError::NoSuchRow { row: 2, rows: 2 });
        assert_eq!(text.features(&[0]).unwrap_err(), DatasetError::TextHasNoFeatures);
        assert_eq!(text.dataset(&[1]).unwrap_err(), DatasetError::NoSuchRow { row: 1, rows: 1 });
        assert_eq!(text.dataset(&[]).unwrap_err(), DatasetError::NoRows);
    }
}
