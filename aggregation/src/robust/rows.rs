//! Rows as the rules read them: every pass over the data is one of the few here.
//!
//! Rows are stored in `f64` or `f32`; all arithmetic is in `f64`. A pass works on blocks of columns that fit the
//! cache, so that a rule costs few passes over memory however many rows it compares.

use super::{MAX_MAGNITUDE, RuleError, sorting};
use private::View;

/// Columns of one block of a pass that keeps one or two rows in the cache.
const BLOCK: usize = 1024;
/// Numbers of one block of a pass that keeps every row in the cache: 128 KiB.
const BLOCK_NUMBERS: usize = 1 << 14;

/// A number that rows may be stored in: `f32` or `f64`.
pub trait Scalar: Copy + Sized + private::Sealed {
    #[doc(hidden)]
    fn view(rows: &[Vec<Self>]) -> View<'_>;
}

impl Scalar for f64 {
    fn view(rows: &[Vec<Self>]) -> View<'_> {
        View::Double(rows)
    }
}

impl Scalar for f32 {
    fn view(rows: &[Vec<Self>]) -> View<'_> {
        View::Single(rows)
    }
}

/// Checked rows: at least one, at least one coordinate, equal dimensions, every value at most [`MAX_MAGNITUDE`].
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    view: View<'a>,
    count: usize,
    dimension: usize,
}

impl<'a> Rows<'a> {
    /// The rows, if they can be aggregated.
    pub(super) fn check<S: Scalar>(rows: &'a [Vec<S>]) -> Result<Self, RuleError> {
        let dimension = rows.first().ok_or(RuleError::NoRows)?.len();
        if dimension == 0 {
            return Err(RuleError::NoCoordinates);
        }
        if let Some((row, values)) = rows.iter().enumerate().find(|(_, values)| values.len() != dimension) {
            return Err(RuleError::Ragged { row, found: values.len(), expected: dimension });
        }
        let rows = Self { view: S::view(rows), count: rows.len(), dimension };
        let mut scratch = [0.0; BLOCK];
        for row in 0..rows.count {
            for start in (0..dimension).step_by(BLOCK) {
                let values = rows.slice(row, start, BLOCK, &mut scratch);
                // The comparison is false for NaN, so that NaN counts as out of range.
                let in_range = |value: &f64| value.abs() <= MAX_MAGNITUDE;
                if let Some(at) = values.iter().position(|value| !in_range(value)) {
                    return Err(RuleError::OutOfRange { row, coordinate: start + at, value: values[at] });
                }
            }
        }
        Ok(rows)
    }

    /// Rows that a pre-aggregator made of checked ones.
    pub(super) fn made(rows: &'a [Vec<f64>]) -> Self {
        Self { view: View::Double(rows), count: rows.len(), dimension: rows[0].len() }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn dimension(&self) -> usize {
        self.dimension
    }

    /// At most `width` values of a row from column `start`; `scratch` holds them where they need converting.
    fn slice<'b>(&'b self, row: usize, start: usize, width: usize, scratch: &'b mut [f64]) -> &'b [f64] {
        let end = (start + width).min(self.dimension);
        match self.view {
            View::Double(rows) => &rows[row][start..end],
            View::Single(rows) => {
                let values = &rows[row][start..end];
                for (to, from) in scratch.iter_mut().zip(values) {
                    *to = f64::from(*from);
                }
                &scratch[..values.len()]
            }
        }
    }

    /// The same of every row; `scratch` has room for `width` values of each.
    fn block<'b>(&'b self, start: usize, width: usize, scratch: &'b mut [f64]) -> Vec<&'b [f64]> {
        let scratch = scratch.chunks_mut(width).enumerate();
        scratch.map(|(row, scratch)| self.slice(row, start, width, scratch)).collect()
    }

    /// `Σ weight · row`, summed in the order given.
    pub(super) fn combine(&self, weights: &[(usize, f64)]) -> Vec<f64> {
        let mut sum = vec![0.0; self.dimension];
        let mut scratch = [0.0; BLOCK];
        for (block, totals) in sum.chunks_mut(BLOCK).enumerate() {
            for &(row, weight) in weights {
                let values = self.slice(row, block * BLOCK, BLOCK, &mut scratch);
                for (total, value) in totals.iter_mut().zip(values) {
                    *total += weight * value;
                }
            }
        }
        sum
    }

    /// `Σ weight · (row − point)`, summed in the order given.
    pub(super) fn combine_differences(&self, weights: &[(usize, f64)], point: &[f64]) -> Vec<f64> {
        let mut sum = vec![0.0; self.dimension];
        let mut scratch = [0.0; BLOCK];
        for (block, (totals, point)) in sum.chunks_mut(BLOCK).zip(point.chunks(BLOCK)).enumerate() {
            for &(row, weight) in weights {
                let values = self.slice(row, block * BLOCK, BLOCK, &mut scratch);
                for ((total, value), point) in totals.iter_mut().zip(values).zip(point) {
                    *total += weight * (value - point);
                }
            }
        }
        sum
    }

    /// For each coordinate, how many rows are positive there less how many are negative.
    pub(super) fn sign_sums(&self) -> Vec<i64> {
        let mut sums = vec![0; self.dimension];
        let mut scratch = [0.0; BLOCK];
        for row in 0..self.count {
            for (block, sums) in sums.chunks_mut(BLOCK).enumerate() {
                let values = self.slice(row, block * BLOCK, BLOCK, &mut scratch);
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += i64::from(*value > 0.0) - i64::from(*value < 0.0);
                }
            }
        }
        sums
    }

    /// Mean of the rows at `indices`, which must not be empty.
    pub(super) fn mean(&self, indices: &[usize]) -> Vec<f64> {
        self.means(&[indices]).pop().expect("one set has one mean")
    }

    /// Mean of the rows at each of several sets of indices, none of them empty.
    pub(super) fn means(&self, sets: &[impl AsRef<[usize]>]) -> Vec<Vec<f64>> {
        let mut means = vec![Vec::with_capacity(self.dimension); sets.len()];
        let width = block_width(self.count);
        let mut scratch = vec![0.0; self.count * width];
        for start in (0..self.dimension).step_by(width) {
            let block = self.block(start, width, &mut scratch);
            for (mean, set) in means.iter_mut().zip(sets) {
                let (set, at) = (set.as_ref(), mean.len());
                mean.extend_from_slice(block[set[0]]);
                let mean = &mut mean[at..];
                for &row in &set[1..] {
                    for (sum, value) in mean.iter_mut().zip(block[row]) {
                        *sum += value;
                    }
                }
                let count = set.len() as f64;
                for sum in mean {
                    *sum /= count;
                }
            }
        }
        means
    }

    /// Euclidean distance of each row to `point`.
    pub(super) fn distances_to(&self, point: &[f64]) -> Vec<f64> {
        self.fold_each(|start, values, sum| {
            let point = &point[start..];
            *sum += sum_of(values, point, |value, at| (value - at) * (value - at));
        })
        .into_iter()
        .map(f64::sqrt)
        .collect()
    }

    /// Scalar product of each row with `vector`.
    pub(super) fn products_with(&self, vector: &[f64]) -> Vec<f64> {
        self.fold_each(|start, values, sum| *sum += sum_of(values, &vector[start..], |a, b| a * b))
    }

    /// Euclidean norm of each row.
    pub(super) fn norms(&self) -> Vec<f64> {
        let squares = self.fold_each(|_, values, sum: &mut f64| *sum += sum_of(values, values, |a, b| a * b));
        squares.into_iter().map(f64::sqrt).collect()
    }

    /// What `step` makes of each row's blocks, which it gets in order with the column that they start at.
    pub(super) fn fold_each<T: Default>(&self, mut step: impl FnMut(usize, &[f64], &mut T)) -> Vec<T> {
        let mut scratch = [0.0; BLOCK];
        let mut fold = |row| {
            let mut folded = T::default();
            for start in (0..self.dimension).step_by(BLOCK) {
                step(start, self.slice(row, start, BLOCK, &mut scratch), &mut folded);
            }
            folded
        };
        (0..self.count).map(&mut fold).collect()
    }

    /// Squared distances of every pair of rows.
    ///
    /// They are sums of squared differences. A Gram matrix would take half the arithmetic, but one outlier far away
    /// would cancel the digits by which near rows are told apart.
    pub(super) fn distances(&self) -> Distances {
        let n = self.count;
        let mut squared = vec![0.0; n * n];
        let width = block_width(n);
        let mut scratch = vec![0.0; n * width];
        for start in (0..self.dimension).step_by(width) {
            let block = self.block(start, width, &mut scratch);
            for i in 0..n {
                for j in i + 1..n {
                    squared[i * n + j] += sum_of(block[i], block[j], |a, b| (a - b) * (a - b));
                }
            }
        }
        for i in 0..n {
            for j in 0..i {
                squared[i * n + j] = squared[j * n + i];
            }
        }
        Distances { n, squared }
    }

    /// One number for each column, from its values in ascending order. Those at the positions `needed` are sorted,
    /// and the only ones to be read.
    ///
    /// `statistic` gets a block of columns side by side, the values at one position in each, and the numbers to fill.
    pub(super) fn per_column(
        &self,
        needed: std::ops::RangeInclusive<usize>,
        mut statistic: impl FnMut(&Columns, &mut [f64]),
    ) -> Vec<f64> {
        let width = block_width(self.count);
        let mut result = vec![0.0; self.dimension];
        let mut values = vec![0.0; self.count * width];
        let mut scratch = vec![0.0; width];
        let sorter = sorting::Sorter::new(self.count, needed);
        for (block, result) in result.chunks_mut(width).enumerate() {
            let width_here = result.len();
            let columns = &mut values[..self.count * width_here];
            for (row, to) in columns.chunks_mut(width_here).enumerate() {
                to.copy_from_slice(self.slice(row, block * width, width_here, &mut scratch));
            }
            sorter.sort(columns, width_here);
            statistic(&Columns { values: columns, width: width_here }, result);
        }
        result
    }

    /// The rows at `indices`, copied.
    pub(super) fn select(&self, indices: &[usize]) -> Vec<Vec<f64>> {
        indices.iter().map(|&row| self.mean(&[row])).collect()
    }

    /// The rows with the coordinates at `columns` alone.
    pub(super) fn project(&self, columns: &[usize]) -> Vec<Vec<f64>> {
        (0..self.count)
            .map(|row| match self.view {
                View::Double(rows) => columns.iter().map(|&column| rows[row][column]).collect(),
                View::Single(rows) => columns.iter().map(|&column| f64::from(rows[row][column])).collect(),
            })
            .collect()
    }
}

/// Columns for `rows` rows in one block.
fn block_width(rows: usize) -> usize {
    (BLOCK_NUMBERS / rows).clamp(16, BLOCK)
}

/// `Σ term(a, b)` in eight interleaved partial sums, which the compiler keeps in vector registers.
fn sum_of(a: &[f64], b: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut partial = [0.0; 8];
    let b = &b[..a.len()];
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..8 {
            partial[lane] += term(a[lane], b[lane]);
        }
    }
    for (lane, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        partial[lane] += term(a, b);
    }
    partial.iter().sum()
}

/// A block of columns, each sorted at the positions asked for.
pub(super) struct Columns<'a> {
    values: &'a [f64],
    width: usize,
}

impl Columns<'_> {
    /// The values at one position of each column.
    pub(super) fn at(&self, position: usize) -> &[f64] {
        &self.values[position * self.width..][..self.width]
    }

    /// Copies one column, by its place in the block.
    pub(super) fn column(&self, column: usize, into: &mut Vec<f64>) {
        into.clear();
        into.extend(self.values[column..].iter().step_by(self.width));
    }
}

/// Squared distances of every pair of rows.
pub(super) struct Distances {
    n: usize,
    squared: Vec<f64>,
}

impl Distances {
    pub(super) fn count(&self) -> usize {
        self.n
    }

    /// The squared distance of two rows.
    pub(super) fn squared(&self, i: usize, j: usize) -> f64 {
        self.squared[i * self.n + j]
    }

    /// The `count` rows that are nearest to `row`, itself the first of equals, then by index.
    pub(super) fn nearest(&self, row: usize, count: usize) -> Vec<usize> {
        let mut others: Vec<usize> = (0..self.n).filter(|&other| other != row).collect();
        others.sort_by(|&a, &b| self.squared(row, a).total_cmp(&self.squared(row, b)));
        others.truncate(count - 1);
        others.push(row);
        others.sort_unstable();
        others
    }
}

/// Indices, ascending, of the `count` least scores; equal ones are taken in the order of the rows.
pub(super) fn least(scores: &[f64], count: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..scores.len()).collect();
    indices.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    indices.truncate(count);
    indices.sort_unstable();
    indices
}

/// What keeps [`Scalar`] to the two types that a view has.
mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}

    #[derive(Clone, Copy)]
    pub enum View<'a> {
        Double(&'a [Vec<f64>]),
        Single(&'a [Vec<f32>]),
    }
}
