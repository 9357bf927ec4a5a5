//! Rows as the rules read them: every pass over the data is one of the few here.
//!
//! Rows are stored in `f64` or `f32`; sums and products are in `f64`, but for the distances of pairs of `f32` rows: their
//! sums begin in `f32`, over a few coordinates, and go on in `f64`. A pass goes through the columns part by part. What
//! it adds up is added up inside a part first, so that the parts are tasks of a [`Runner`] and their number says
//! nothing about the result. Inside a part it works on blocks of columns that fit the cache, so that a rule costs few
//! passes over memory however many rows it compares.

use super::lanes::{self, LANES, Product, SquaredDifference, TILE, Term, Tile, Values};
use super::runner::{self, Runner};
use super::sorting::Sorter;
use super::{MAX_MAGNITUDE, RuleError};
use private::View;
use std::ops::{AddAssign, Mul, Sub};

/// Columns of one part.
const PART: usize = 1 << 13;
/// Columns of one block of a pass that keeps one or two rows in the cache. Divides [`PART`].
const BLOCK: usize = 1 << 10;
/// Numbers of one block of a pass that keeps every row in the cache: 128 KiB of `f64`, half of it of `f32`. What is read
/// again and again is less: the rows of a pair, or the columns of a mean.
const BLOCK_NUMBERS: usize = 1 << 14;
/// Magnitudes of rows whose distances begin in `f32`: no square overflows, and those that vanish are of differences of
/// less than 10⁻¹² of the largest value.
const SINGLE: std::ops::RangeInclusive<f64> = 1e-10..=1e15;

/// A number that rows may be stored in: `f32` or `f64`.
pub trait Scalar:
    Copy
    + Default
    + PartialOrd
    + Into<f64>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Send
    + Sync
    + private::Sealed
{
    #[doc(hidden)]
    fn view(rows: &[Vec<Self>]) -> View<'_>;
    #[doc(hidden)]
    fn largest(values: &[Self]) -> f64;
}

impl Scalar for f64 {
    fn view(rows: &[Vec<Self>]) -> View<'_> {
        View::Double(rows)
    }

    fn largest(values: &[Self]) -> f64 {
        lanes::largest(values)
    }
}

impl Scalar for f32 {
    fn view(rows: &[Vec<Self>]) -> View<'_> {
        View::Single(rows)
    }

    fn largest(values: &[Self]) -> f64 {
        lanes::largest_single(values)
    }
}

/// Checked rows: at least one, at least one coordinate, equal dimensions, every value at most [`MAX_MAGNITUDE`]. And who
/// runs the passes over them.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    view: View<'a>,
    count: usize,
    dimension: usize,
    /// The largest magnitude of a value.
    largest: f64,
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
        let largest = runner::map(runner, rows.iter().collect(), |_, row: &Vec<S>| S::largest(row));
        if let Some(row) = largest.iter().position(|&largest| !is_in_range(largest)) {
            let mut values = rows[row].iter().map(|value| -> f64 { (*value).into() }).enumerate();
            let (coordinate, value) =
                values.find(|(_, value)| !is_in_range(*value)).expect("a value is out of range");
            return Err(RuleError::OutOfRange { row, coordinate, value });
        }
        let largest = largest.into_iter().fold(0.0, f64::max);
        Ok(Self { view: S::view(rows), count: rows.len(), dimension, largest, runner })
    }

    /// Rows that were made of these, with the same runner.
    pub(super) fn made<'b>(&self, rows: &'b [Vec<f64>]) -> Rows<'b>
    where
        'a: 'b,
    {
        let (count, dimension) = (rows.len(), rows[0].len());
        Rows { view: View::Double(rows), count, dimension, largest: self.largest, runner: self.runner }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn dimension(&self) -> usize {
        self.dimension
    }

    /// The values of a row from column `start`, at most [`BLOCK`].
    fn slice(&self, row: usize, start: usize) -> Values<'a> {
        let end = (start + BLOCK).min(self.dimension);
        match self.view {
            View::Double(rows) => Values::Double(&rows[row][start..end]),
            View::Single(rows) => Values::Single(&rows[row][start..end]),
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
        term: impl Fn(usize, Values) -> [f64; N] + Sync,
    ) -> Vec<[f64; N]> {
        let nothing = std::iter::repeat_n((), self.dimension.div_ceil(PART));
        let parts = self.parts(nothing, |columns, ()| {
            let mut sums = vec![[0.0; N]; self.count];
            for start in columns.step_by(BLOCK) {
                for (row, sum) in sums.iter_mut().enumerate() {
                    add(sum, &term(start, self.slice(row, start)));
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
            for &(row, weight) in weights {
                lanes::add_scaled(totals, self.slice(row, start), weight);
            }
        })
    }

    /// `Σ weight · (row − point)`, summed in the order given.
    pub(super) fn combine_differences(&self, weights: &[(usize, f64)], point: &[f64]) -> Vec<f64> {
        self.filled(|start, totals| {
            for &(row, weight) in weights {
                lanes::add_scaled_difference(totals, self.slice(row, start), &point[start..], weight);
            }
        })
    }

    /// For each coordinate, how many rows are positive there less how many are negative.
    pub(super) fn sign_sums(&self) -> Vec<f64> {
        self.filled(|start, totals| {
            for row in 0..self.count {
                lanes::add_signs(totals, self.slice(row, start));
            }
        })
    }

    /// Mean of the rows at `indices`, which must not be empty.
    pub(super) fn mean(&self, indices: &[usize]) -> Vec<f64> {
        let (&first, others) = indices.split_first().expect("a mean is of some rows");
        let count = indices.len() as f64;
        self.filled(|start, mean| {
            lanes::set(mean, self.slice(first, start));
            for &row in others {
                lanes::add(mean, self.slice(row, start));
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
        let squares = self.sums(|_, values| [lanes::sum_of_each(values, |value| value * value)]);
        squares.into_iter().map(|[sum]| sum.sqrt()).collect()
    }

    /// Squared distances of every pair of rows.
    ///
    /// They are sums of squared differences. A Gram matrix would take two operations a coordinate where this takes
    /// three, but rows that are long and near one another would lose the digits by which they are told apart.
    pub(super) fn distances(&self) -> Distances {
        let squared = match self.view {
            View::Single(rows) if SINGLE.contains(&self.largest) => self.pairs::<_, SquaredDifference>(rows),
            _ => self.pairs_in_double::<SquaredDifference>(),
        };
        Distances { n: self.count, squared }
    }

    /// Scalar products of every pair of rows, by rows.
    pub(super) fn products(&self) -> Vec<f64> {
        self.pairs_in_double::<Product>()
    }

    fn pairs_in_double<T: Term>(&self) -> Vec<f64> {
        match self.view {
            View::Double(rows) => self.pairs::<_, T>(rows),
            View::Single(_) => self.pair_sums::<f64, T>(|block, start, end| self.load(block, start, end)),
        }
    }

    /// Sums of terms of every pair of rows, by rows.
    fn pairs<S: Scalar, T: Term>(&self, rows: &[Vec<S>]) -> Vec<f64> {
        self.pair_sums::<S, T>(|block, start, end| {
            block.fill(start, end, |row, start, to| to.copy_from_slice(&rows[row][start..start + to.len()]));
        })
    }

    /// The same, of the blocks that `load` fills.
    fn pair_sums<S: Scalar, T: Term>(&self, load: impl Fn(&mut Block<S>, usize, usize) + Sync) -> Vec<f64> {
        let n = self.count;
        let nothing = std::iter::repeat_n((), self.dimension.div_ceil(PART));
        let parts = self.parts(nothing, |columns, ()| {
            let mut block = Block::new(n);
            let mut sums = vec![0.0; block.rows * block.rows];
            for start in columns.clone().step_by(block.width()) {
                load(&mut block, start, columns.end);
                lanes::add_pairs::<S, T>(&block.units, block.stride, &mut sums);
            }
            sums
        });
        let padded = Block::<S>::padded(n);
        let sum = |(i, j): (usize, usize)| parts.iter().map(|part| part[i * padded + j]).sum();
        // Below the diagonal of its tile a sum is not made.
        (0..n * n).map(|at| (at / n, at % n)).map(|(i, j)| sum((i.min(j), i.max(j)))).collect()
    }

    /// Fills a block with the columns from `start` up to `end`, or as many as it holds, and zeros.
    fn load(&self, block: &mut Block<f64>, start: usize, end: usize) {
        block.fill(start, end, |row, start, to| match self.view {
            View::Double(rows) => to.copy_from_slice(&rows[row][start..start + to.len()]),
            View::Single(rows) => lanes::widen(&rows[row][start..start + to.len()], to),
        });
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
        let parts = self.parts(result.chunks_mut(PART), |columns, result| match self.view {
            View::Double(rows) => sort_part(rows, &sorter, statistic, columns.start, result, with_distances),
            View::Single(rows) => sort_part(rows, &sorter, statistic, columns.start, result, with_distances),
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
    fn of<S: Scalar>(&self, sorted: &[Tile<S>]) -> [f64; TILE];
}

/// Sorts the columns from `start` on, as many as `result` has, and fills it. Gives the squared distance of each row to
/// it, where that is asked for.
fn sort_part<S: Scalar>(
    rows: &[Vec<S>],
    sorter: &Sorter,
    statistic: &impl Statistic,
    start: usize,
    result: &mut [f64],
    with_distances: bool,
) -> Vec<f64> {
    let mut tile = vec![Tile::<S>::default(); rows.len()];
    let mut sorted = tile.clone();
    let mut squares = vec![[0.0; LANES]; rows.len()];
    for (start, result) in (start..).step_by(TILE).zip(result.chunks_mut(TILE)) {
        for (row, values) in rows.iter().zip(&mut tile) {
            if let Some(whole) = row[start..].first_chunk() {
                values.0 = *whole;
            } else {
                let (to, rest) = values.split_at_mut(result.len());
                to.copy_from_slice(&row[start..]);
                rest.fill(S::default());
            }
        }
        sorted.copy_from_slice(&tile);
        sorter.sort(&mut sorted);
        // Where there are no columns, every row is zero, and so is what is made of it.
        let numbers = lanes::wide(Of { statistic, sorted: &sorted });
        if with_distances {
            lanes::add_squared_differences(&mut squares, &tile, &numbers);
        }
        result.copy_from_slice(&numbers[..result.len()]);
    }
    lanes::totals(&squares)
}

struct Of<'a, T, S> {
    statistic: &'a T,
    sorted: &'a [Tile<S>],
}

impl<T: Statistic, S: Scalar> lanes::Work for Of<'_, T, S> {
    type Output = [f64; TILE];

    #[expect(clippy::inline_always, reason = "wide is only what is inlined")]
    #[inline(always)]
    fn call(self) -> [f64; TILE] {
        self.statistic.of(self.sorted)
    }
}

/// Some columns of all rows, each row padded with zeros to whole units, and rows of zeros after them.
struct Block<S> {
    count: usize,
    rows: usize,
    /// Units of a row.
    stride: usize,
    units: Vec<[S; LANES]>,
}

impl<S: Scalar> Block<S> {
    fn new(count: usize) -> Self {
        let rows = Self::padded(count);
        let stride = (BLOCK_NUMBERS / rows / LANES).next_multiple_of(2).clamp(2, PART / LANES);
        Self { count, rows, stride, units: vec![[S::default(); LANES]; rows * stride] }
    }

    /// Rows are compared two by two.
    fn padded(rows: usize) -> usize {
        rows.next_multiple_of(2)
    }

    fn width(&self) -> usize {
        self.stride * LANES
    }

    /// Fills each row with what `read` puts there of the columns from `start` up to `end`, or as many as there is place
    /// for, and the rest with zeros.
    fn fill(&mut self, start: usize, end: usize, read: impl Fn(usize, usize, &mut [S])) {
        let end = end.min(start + self.width());
        for (row, units) in self.units.chunks_exact_mut(self.stride).take(self.count).enumerate() {
            let (to, rest) = units.as_flattened_mut().split_at_mut(end - start);
            read(row, start, to);
            rest.fill(S::default());
        }
    }
}

/// Neither beyond [`MAX_MAGNITUDE`] nor NaN, which no comparison holds for.
fn is_in_range(value: f64) -> bool {
    value.abs() <= MAX_MAGNITUDE
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
