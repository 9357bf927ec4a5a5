//! Rows as the rules read them: every pass over the data is one of the few here.
//!
//! Rows are stored in `f64` or `f32`; sums and products are in `f64`. A pass goes through the columns part by part. What
//! it adds up is added up inside a part first, so that the parts are tasks of a [`Runner`] and their number says
//! nothing about the result. Inside a part it works on blocks of columns that fit the cache, so that a rule costs few
//! passes over memory however many rows it compares.

use super::lanes::{self, LANES, TILE};
use super::runner::{self, Runner};
use super::sorting::Sorter;
use super::{MAX_MAGNITUDE, RuleError};
use private::View;

/// Columns of one part.
const PART: usize = 1 << 13;
/// Columns of one block of a pass that keeps one or two rows in the cache. Divides [`PART`].
const BLOCK: usize = 1 << 10;
/// Numbers of one block of a pass that keeps every row in the cache: 64 KiB.
const BLOCK_NUMBERS: usize = 1 << 13;

/// A number that rows may be stored in: `f32` or `f64`.
pub trait Scalar: Copy + Default + PartialOrd + Into<f64> + Send + Sync + private::Sealed {
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

/// Checked rows: at least one, at least one coordinate, equal dimensions, every value at most [`MAX_MAGNITUDE`]. And who
/// runs the passes over them.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    view: View<'a>,
    count: usize,
    dimension: usize,
    runner: &'a dyn Runner,
}

impl<'a> Rows<'a> {
    /// The rows, if they can be aggregated.
    pub(super) fn check<S: Scalar>(rows: &'a [Vec<S>], runner: &'a dyn Runner) -> Result<Self, RuleError> {
        let dimension = rows.first().ok_or(RuleError::NoRows)?.len();
        if dimension == 0 {
            return Err(RuleError::NoCoordinates);
        }
        if let Some((row, values)) = rows.iter().enumerate().find(|(_, values)| values.len() != dimension) {
            return Err(RuleError::Ragged { row, found: values.len(), expected: dimension });
        }
        let in_range = runner::map(runner, rows.iter().collect(), |_, row: &Vec<S>| {
            row.chunks(BLOCK).all(|values| lanes::all_within(values, MAX_MAGNITUDE))
        });
        if let Some(row) = in_range.iter().position(|in_range| !in_range) {
            let mut values = rows[row].iter().map(|value| -> f64 { (*value).into() }).enumerate();
            let (coordinate, value) = values
                .find(|(_, value)| !lanes::all_within(&[*value], MAX_MAGNITUDE))
                .expect("a value is out of range");
            return Err(RuleError::OutOfRange { row, coordinate, value });
        }
        Ok(Self { view: S::view(rows), count: rows.len(), dimension, runner })
    }

    /// Rows that were made of these, with the same runner.
    pub(super) fn made<'b>(&self, rows: &'b [Vec<f64>]) -> Rows<'b>
    where
        'a: 'b,
    {
        let (count, dimension) = (rows.len(), rows[0].len());
        Rows { view: View::Double(rows), count, dimension, runner: self.runner }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn dimension(&self) -> usize {
        self.dimension
    }

    /// The values of a row from column `start`, at most [`BLOCK`]; `scratch` holds them where they need converting.
    fn slice<'b>(&'b self, row: usize, start: usize, scratch: &'b mut [f64; BLOCK]) -> &'b [f64] {
        let end = (start + BLOCK).min(self.dimension);
        match self.view {
            View::Double(rows) => &rows[row][start..end],
            View::Single(rows) => {
                let values = &rows[row][start..end];
                lanes::widen(values, scratch);
                &scratch[..values.len()]
            }
        }
    }

    /// What `work` makes of each part of the columns and an item for it, in order. It gets the range of the columns.
    fn parts<I: Send, T: Send>(
        &self,
        items: impl Iterator<Item = I>,
        work: impl Fn(std::ops::Range<usize>, I) -> T + Sync,
    ) -> Vec<T> {
        runner::map(self.runner, items.collect(), |part, item| {
            work(part * PART..((part + 1) * PART).min(self.dimension), item)
        })
    }

    /// A vector that `fill` fills block by block: it gets the column that a block starts at, and the block.
    fn filled(&self, fill: impl Fn(usize, &mut [f64]) + Sync) -> Vec<f64> {
        let mut result = vec![0.0; self.dimension];
        self.parts(result.chunks_mut(PART), |columns, part| {
            for (start, block) in columns.step_by(BLOCK).zip(part.chunks_mut(BLOCK)) {
                fill(start, block);
            }
        });
        result
    }

    /// For each row the sum of what `term` makes of its blocks, which it gets with the column that they start at.
    pub(super) fn sums<const N: usize>(
        &self,
        term: impl Fn(usize, &[f64]) -> [f64; N] + Sync,
    ) -> Vec<[f64; N]> {
        let nothing = std::iter::repeat_n((), self.dimension.div_ceil(PART));
        let parts = self.parts(nothing, |columns, ()| {
            let mut scratch = [0.0; BLOCK];
            let mut sums = vec![[0.0; N]; self.count];
            for start in columns.step_by(BLOCK) {
                for (row, sum) in sums.iter_mut().enumerate() {
                    add(sum, &term(start, self.slice(row, start, &mut scratch)));
                }
            }
            sums
        });
        let mut sums = vec![[0.0; N]; self.count];
        for part in &parts {
            for (sum, part) in sums.iter_mut().zip(part) {
                add(sum, part);
            }
        }
        sums
    }

    /// `Σ weight · row`, summed in the order given.
    pub(super) fn combine(&self, weights: &[(usize, f64)]) -> Vec<f64> {
        self.filled(|start, totals| {
            let mut scratch = [0.0; BLOCK];
            for &(row, weight) in weights {
                lanes::add_scaled(totals, self.slice(row, start, &mut scratch), weight);
            }
        })
    }

    /// `Σ weight · (row − point)`, summed in the order given.
    pub(super) fn combine_differences(&self, weights: &[(usize, f64)], point: &[f64]) -> Vec<f64> {
        self.filled(|start, totals| {
            let mut scratch = [0.0; BLOCK];
            for &(row, weight) in weights {
                lanes::add_scaled_difference(
                    totals,
                    self.slice(row, start, &mut scratch),
                    &point[start..],
                    weight,
                );
            }
        })
    }

    /// For each coordinate, how many rows are positive there less how many are negative.
    pub(super) fn sign_sums(&self) -> Vec<f64> {
        self.filled(|start, totals| {
            let mut scratch = [0.0; BLOCK];
            for row in 0..self.count {
                lanes::add_signs(totals, self.slice(row, start, &mut scratch));
            }
        })
    }

    /// Mean of the rows at `indices`, which must not be empty.
    pub(super) fn mean(&self, indices: &[usize]) -> Vec<f64> {
        let (&first, others) = indices.split_first().expect("a mean is of some rows");
        let count = indices.len() as f64;
        self.filled(|start, mean| {
            let mut scratch = [0.0; BLOCK];
            mean.copy_from_slice(self.slice(first, start, &mut scratch));
            for &row in others {
                lanes::add(mean, self.slice(row, start, &mut scratch));
            }
            lanes::divide(mean, count);
        })
    }

    /// Mean of the rows at each of several sets of indices, none of them empty.
    pub(super) fn means(&self, sets: &[impl AsRef<[usize]> + Sync]) -> Vec<Vec<f64>> {
        let mut means = vec![vec![0.0; self.dimension]; sets.len()];
        let mut chunks: Vec<_> = means.iter_mut().map(|mean| mean.chunks_mut(PART)).collect();
        let parts = (0..self.dimension.div_ceil(PART))
            .map(|_| chunks.iter_mut().map(|chunks| chunks.next().expect("a part has columns")).collect());
        self.parts(parts.collect::<Vec<Vec<&mut [f64]>>>().into_iter(), |columns, mut means| {
            let mut block = Block::new(self.count);
            for start in columns.clone().step_by(block.width()) {
                self.load(&mut block, start, columns.end);
                for (mean, set) in means.iter_mut().zip(sets) {
                    let mean = &mut mean[start - columns.start..];
                    let width = mean.len().min(block.width());
                    lanes::mean_of(&block.units, block.stride, set.as_ref(), &mut mean[..width]);
                }
            }
        });
        means
    }

    /// Euclidean distance of each row to `point`.
    pub(super) fn distances_to(&self, point: &[f64]) -> Vec<f64> {
        self.sums(|start, values| [lanes::sum_of(values, &point[start..], squared_difference)])
            .into_iter()
            .map(|[sum]| sum.sqrt())
            .collect()
    }

    /// Scalar product of each row with `vector`.
    pub(super) fn products_with(&self, vector: &[f64]) -> Vec<f64> {
        let sums = self.sums(|start, values| [lanes::sum_of(values, &vector[start..], product)]);
        sums.into_iter().map(|[sum]| sum).collect()
    }

    /// Euclidean norm of each row.
    pub(super) fn norms(&self) -> Vec<f64> {
        let squares = self.sums(|_, values| [lanes::sum_of(values, values, product)]);
        squares.into_iter().map(|[sum]| sum.sqrt()).collect()
    }

    /// Squared distances of every pair of rows.
    ///
    /// They are sums of squared differences. A Gram matrix would take two operations a coordinate where this takes
    /// three, but rows that are long and near one another would lose the digits by which they are told apart.
    pub(super) fn distances(&self) -> Distances {
        Distances { n: self.count, squared: self.pairs(squared_difference) }
    }

    /// Scalar products of every pair of rows, by rows.
    pub(super) fn products(&self) -> Vec<f64> {
        self.pairs(product)
    }

    /// `Σ term(a, b)` over the coordinates of every pair of rows, by rows; `term` is symmetric, and zero of zeros.
    fn pairs(&self, term: impl Fn(f64, f64) -> f64 + Copy + Sync) -> Vec<f64> {
        let n = self.count;
        let nothing = std::iter::repeat_n((), self.dimension.div_ceil(PART));
        let parts = self.parts(nothing, |columns, ()| {
            let mut block = Block::new(n);
            let mut sums = vec![0.0; block.rows * block.rows];
            for start in columns.clone().step_by(block.width()) {
                self.load(&mut block, start, columns.end);
                lanes::add_pairs(&block.units, block.stride, &mut sums, term);
            }
            sums
        });
        let padded = Block::padded(n);
        let sum = |(i, j): (usize, usize)| parts.iter().map(|part| part[i * padded + j]).sum();
        // Below the diagonal of its tile a sum is not made.
        (0..n * n).map(|at| (at / n, at % n)).map(|(i, j)| sum((i.min(j), i.max(j)))).collect()
    }

    /// Fills a block with the columns from `start` up to `end`, or as many as it holds, and zeros.
    fn load(&self, block: &mut Block, start: usize, end: usize) {
        let end = end.min(start + block.width());
        for (row, units) in block.units.chunks_exact_mut(block.stride).take(self.count).enumerate() {
            let to = units.as_flattened_mut();
            let (to, rest) = to.split_at_mut(end - start);
            match self.view {
                View::Double(rows) => to.copy_from_slice(&rows[row][start..end]),
                View::Single(rows) => lanes::widen(&rows[row][start..end], to),
            }
            rest.fill(0.0);
        }
    }

    /// One number for each column, made by `statistic` of its values in ascending order.
    pub(super) fn per_column(&self, statistic: &impl Statistic) -> Vec<f64> {
        self.sorted_columns(statistic, false).0
    }

    /// The same, and the distance of each row to the vector of these numbers.
    pub(super) fn per_column_with_distances(&self, statistic: &impl Statistic) -> (Vec<f64>, Vec<f64>) {
        self.sorted_columns(statistic, true)
    }

    fn sorted_columns(&self, statistic: &impl Statistic, with_distances: bool) -> (Vec<f64>, Vec<f64>) {
        let sorter = Sorter::new(self.count, statistic.needed());
        let mut result = vec![0.0; self.dimension];
        let parts = self.parts(result.chunks_mut(PART), |columns, result| {
            let mut sums = vec![0.0; self.count];
            let mut scratch = [0.0; BLOCK];
            for (start, result) in columns.step_by(BLOCK).zip(result.chunks_mut(BLOCK)) {
                match self.view {
                    View::Double(rows) => sort_block(rows, &sorter, statistic, start, result),
                    View::Single(rows) => sort_block(rows, &sorter, statistic, start, result),
                }
                // The block is in the cache still.
                if with_distances {
                    for (row, sum) in sums.iter_mut().enumerate() {
                        let values = self.slice(row, start, &mut scratch);
                        *sum += lanes::sum_of(values, result, squared_difference);
                    }
                }
            }
            sums
        });
        let distance = |row: usize| parts.iter().map(|part| part[row]).sum::<f64>().sqrt();
        let distances = (0..self.count).map(distance).collect();
        (result, distances)
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

/// One number made of the sorted values of a column.
pub(super) trait Statistic: Sync {
    /// The positions that are sorted, and the only ones to be read.
    fn needed(&self) -> std::ops::RangeInclusive<usize>;

    /// Makes the numbers of several columns side by side: `sorted` has the values at each position.
    fn of<S: Scalar>(&self, sorted: &[[S; TILE]]) -> [f64; TILE];
}

/// Sorts the columns from `start` on, as many as `result` has, and fills it.
fn sort_block<S: Scalar>(
    rows: &[Vec<S>],
    sorter: &Sorter,
    statistic: &impl Statistic,
    start: usize,
    result: &mut [f64],
) {
    let mut tile = vec![[S::default(); TILE]; rows.len()];
    for (start, result) in (start..).step_by(TILE).zip(result.chunks_mut(TILE)) {
        for (row, values) in rows.iter().zip(&mut tile) {
            match row[start..].first_chunk() {
                Some(whole) => *values = *whole,
                None => values[..result.len()].copy_from_slice(&row[start..]),
            }
        }
        sorter.sort(&mut tile);
        result.copy_from_slice(&statistic.of(&tile)[..result.len()]);
    }
}

/// Some columns of all rows in `f64`, each row padded with zeros to whole units, and rows of zeros after them.
struct Block {
    rows: usize,
    /// Units of a row.
    stride: usize,
    units: Vec<[f64; LANES]>,
}

impl Block {
    fn new(rows: usize) -> Self {
        let rows = Self::padded(rows);
        let stride = (BLOCK_NUMBERS / rows).clamp(LANES, PART) / LANES;
        Self { rows, stride, units: vec![[0.0; LANES]; rows * stride] }
    }

    /// Rows are compared two by two.
    fn padded(rows: usize) -> usize {
        rows.next_multiple_of(2)
    }

    fn width(&self) -> usize {
        self.stride * LANES
    }
}

fn squared_difference(a: f64, b: f64) -> f64 {
    (a - b) * (a - b)
}

fn product(a: f64, b: f64) -> f64 {
    a * b
}

fn add<const N: usize>(sum: &mut [f64; N], more: &[f64; N]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
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
