//! Loops over numbers side by side, in a form that the compiler makes vector instructions of: lengths that it knows,
//! no branch inside, and a fixed number of partial sums, so that any processor gives the same bits.
//!
//! [`wide`] runs a loop in the widest instructions of the processor at hand. They round each operation as the narrow ones
//! do, and multiplications and additions are never contracted.

#![expect(
    clippy::inline_always,
    reason = "what is not inlined into a wide function is compiled for narrow vectors"
)]

use super::rows::Scalar;
pub(super) use pulp::NullaryFnOnce as Work;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Partial sums of a sum, and numbers in one unit of a padded row.
pub(super) const LANES: usize = 8;
/// Columns that are sorted side by side.
pub(super) const TILE: usize = 32;

/// Numbers of a row in columns that are sorted side by side; aligned, so that no vector of them lies in two cache lines.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Tile<S>(pub(super) [S; TILE]);

impl<S> Deref for Tile<S> {
    type Target = [S; TILE];

    #[inline]
    fn deref(&self) -> &[S; TILE] {
        &self.0
    }
}

impl<S> DerefMut for Tile<S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [S; TILE] {
        &mut self.0
    }
}

/// Runs `work` in vector instructions that are chosen at run time. It must be inlined whole: a short closure is, and a
/// long loop is a [`Work`] whose `call` asks for it.
#[inline(always)]
pub(super) fn wide<W: Work>(work: W) -> W::Output {
    pulp::Arch::new().dispatch(work)
}

/// The largest magnitude; infinite or NaN where some value is.
pub(super) fn largest(values: &[f64]) -> f64 {
    // Without their sign, the bits of numbers have their order, and those of NaN come last.
    f64::from_bits(values.iter().fold(0, |most, value| most.max(value.to_bits() & (u64::MAX >> 1))))
}

/// The same of `f32`.
pub(super) fn largest_single(values: &[f32]) -> f64 {
    f64::from(wide(Largest(values)))
}

struct Largest<'a>(&'a [f32]);

impl Work for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        let bits = |value: f32| value.to_bits() & (u32::MAX >> 1);
        let (units, rest) = self.0.as_chunks::<{ 4 * LANES }>();
        let mut most = [0; 4 * LANES];
        for unit in units {
            for lane in 0..4 * LANES {
                most[lane] = most[lane].max(bits(unit[lane]));
            }
        }
        f32::from_bits(most.into_iter().chain(rest.iter().map(|&value| bits(value))).fold(0, u32::max))
    }
}

/// Some values of a row, as they are stored.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    Double(&'a [f64]),
    Single(&'a [f32]),
}

/// `to = from`
pub(super) fn set(to: &mut [f64], from: Values) {
    each(to, from, |to, from| *to = from);
}

/// `to = from`; `to` may be longer.
pub(super) fn widen(from: &[f32], to: &mut [f64]) {
    each(to, Values::Single(from), |to, from| *to = from);
}

/// `to += from`
pub(super) fn add(to: &mut [f64], from: Values) {
    each(to, from, |to, from| *to += from);
}

/// `to += weight · from`
pub(super) fn add_scaled(to: &mut [f64], from: Values, weight: f64) {
    each(to, from, |to, from| *to += weight * from);
}

/// `to += sign(from)`, the sign of zero being zero.
pub(super) fn add_signs(to: &mut [f64], from: Values) {
    let one_if = |holds| f64::from(u8::from(holds));
    each(to, from, |to, from| *to += one_if(from > 0.0) - one_if(from < 0.0));
}

/// `to += weight · (from − point)`
pub(super) fn add_scaled_difference(to: &mut [f64], from: Values, point: &[f64], weight: f64) {
    fn of<S: Scalar>(to: &mut [f64], from: &[S], point: &[f64], weight: f64) {
        wide(|| {
            for ((to, &from), &point) in to.iter_mut().zip(from).zip(point) {
                *to += weight * (from.into() - point);
            }
        });
    }
    match from {
        Values::Double(from) => of(to, from, point, weight),
        Values::Single(from) => of(to, from, point, weight),
    }
}

/// `to /= divisor`
pub(super) fn divide(to: &mut [f64], divisor: f64) {
    wide(|| {
        for to in to {
            *to /= divisor;
        }
    });
}

fn each(to: &mut [f64], from: Values, step: impl Fn(&mut f64, f64)) {
    #[inline(always)]
    fn of<S: Scalar>(to: &mut [f64], from: &[S], step: impl Fn(&mut f64, f64)) {
        wide(|| {
            for (to, &from) in to.iter_mut().zip(from) {
                step(to, from.into());
            }
        });
    }
    match from {
        Values::Double(from) => of(to, from, step),
        Values::Single(from) => of(to, from, step),
    }
}

/// `Σ term(a, b)`; `b` may be longer.
pub(super) fn sum_of(a: Values, b: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    match a {
        Values::Double(a) => wide(SumOf { a, b: &b[..a.len()], term }),
        Values::Single(a) => wide(SumOf { a, b: &b[..a.len()], term }),
    }
}

/// `Σ term(value)`
pub(super) fn sum_of_each(values: Values, term: impl Fn(f64) -> f64) -> f64 {
    match values {
        Values::Double(a) => wide(SumOf { a, b: a, term: |value, _| term(value) }),
        Values::Single(a) => wide(SumOf { a, b: a, term: |value, _| term(value) }),
    }
}

struct SumOf<'a, A, B, F> {
    a: &'a [A],
    b: &'a [B],
    term: F,
}

impl<A: Scalar, B: Scalar, F: Fn(f64, f64) -> f64> Work for SumOf<'_, A, B, F> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut partial = [0.0; LANES];
        let (a_units, a_rest) = self.a.as_chunks::<LANES>();
        let (b_units, b_rest) = self.b.as_chunks::<LANES>();
        for (a, b) in a_units.iter().zip(b_units) {
            for lane in 0..LANES {
                partial[lane] += (self.term)(a[lane].into(), b[lane].into());
            }
        }
        for (lane, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
            partial[lane] += (self.term)(a.into(), b.into());
        }
        total(partial)
    }
}

/// Adds to the partial sums of each row the squares of what the values of `tile` differ by from `point`. A tile has the
/// columns that are sorted side by side, of all rows.
pub(super) fn add_squared_differences<S: Scalar>(
    sums: &mut [[f64; LANES]],
    tile: &[Tile<S>],
    point: &[f64; TILE],
) {
    wide(AddSquaredDifferences { sums, tile, point });
}

struct AddSquaredDifferences<'a, S> {
    sums: &'a mut [[f64; LANES]],
    tile: &'a [Tile<S>],
    point: &'a [f64; TILE],
}

impl<S: Scalar> Work for AddSquaredDifferences<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (sums, values) in self.sums.iter_mut().zip(self.tile) {
            for (values, point) in values.as_chunks::<LANES>().0.iter().zip(self.point.as_chunks::<LANES>().0)
            {
                for lane in 0..LANES {
                    let difference = values[lane].into() - point[lane];
                    sums[lane] += difference * difference;
                }
            }
        }
    }
}

/// The sum of each row's partial sums.
pub(super) fn totals(sums: &[[f64; LANES]]) -> Vec<f64> {
    sums.iter().copied().map(total).collect()
}

/// The mean of the rows of `units` at the indices of `set`, added in their order; a row has `stride` units, an even
/// number.
pub(super) fn mean_of(units: &[[f64; LANES]], stride: usize, set: &[usize], mean: &mut [f64]) {
    let (first, others) = set.split_first().expect("a mean is of some rows");
    wide(MeanOf { units: units.as_chunks().0, stride: stride / 2, first: *first, others, mean });
}

struct MeanOf<'a> {
    /// Two units are added side by side.
    units: &'a [[[f64; LANES]; 2]],
    stride: usize,
    first: usize,
    others: &'a [usize],
    mean: &'a mut [f64],
}

impl Work for MeanOf<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let count = (1 + self.others.len()) as f64;
        for (at, mean) in self.mean.chunks_mut(2 * LANES).enumerate() {
            let row = |row: usize| self.units[row * self.stride + at].as_flattened();
            let mut sums = self.units[self.first * self.stride + at];
            for &other in self.others {
                for (sum, value) in sums.as_flattened_mut().iter_mut().zip(row(other)) {
                    *sum += value;
                }
            }
            for (mean, sum) in mean.iter_mut().zip(sums.as_flattened()) {
                *mean = sum / count;
            }
        }
    }
}

/// A symmetric term of two numbers, zero of zeros, whose sums over coordinates compare two rows.
pub(super) trait Term: Sync {
    fn of<S: Scalar>(a: S, b: S) -> S;
}

/// Makes squared distances.
pub(super) struct SquaredDifference;

impl Term for SquaredDifference {
    #[inline(always)]
    fn of<S: Scalar>(a: S, b: S) -> S {
        (a - b) * (a - b)
    }
}

/// Makes scalar products.
pub(super) struct Product;

impl Term for Product {
    #[inline(always)]
    fn of<S: Scalar>(a: S, b: S) -> S {
        a * b
    }
}

/// Adds the sums of terms of every pair of rows of `units` to the square matrix `sums`, on and above the diagonal. There
/// are an even number of rows of `stride` units each.
pub(super) fn add_pairs<S: Scalar, T: Term>(units: &[[S; LANES]], stride: usize, sums: &mut [f64]) {
    wide(AddPairs { units, stride, sums, term: PhantomData::<T> });
}

struct AddPairs<'a, S, T> {
    units: &'a [[S; LANES]],
    stride: usize,
    sums: &'a mut [f64],
    term: PhantomData<T>,
}

impl<S: Scalar, T: Term> Work for AddPairs<'_, S, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let n = self.units.len() / self.stride;
        let row = |row: usize| &self.units[row * self.stride..][..self.stride];
        for i in (0..n).step_by(2) {
            for j in (i..n).step_by(2) {
                let [aa, ab, ba, bb] = tile::<S, T>([row(i), row(i + 1)], [row(j), row(j + 1)]);
                self.sums[i * n + j] += aa;
                self.sums[i * n + j + 1] += ab;
                self.sums[(i + 1) * n + j] += ba;
                self.sums[(i + 1) * n + j + 1] += bb;
            }
        }
    }
}

/// The sums of two rows with two others, which are read once.
#[inline(always)]
fn tile<S: Scalar, T: Term>(a: [&[[S; LANES]]; 2], b: [&[[S; LANES]]; 2]) -> [f64; 4] {
    let mut sums = [[S::default(); LANES]; 4];
    let (rows, others) = (a[0].iter().zip(a[1]), b[0].iter().zip(b[1]));
    for ((a0, a1), (b0, b1)) in rows.zip(others) {
        add_terms::<S, T>(&mut sums[0], a0, b0);
        add_terms::<S, T>(&mut sums[1], a0, b1);
        add_terms::<S, T>(&mut sums[2], a1, b0);
        add_terms::<S, T>(&mut sums[3], a1, b1);
    }
    let [aa, ab, ba, bb] = sums;
    [total(aa), total(ab), total(ba), total(bb)]
}

/// The sum of partial sums. Not inlined: the compiler would shuffle the loop before it to suit these few additions.
#[inline(never)]
fn total<S: Scalar>(partial: [S; LANES]) -> f64 {
    partial.iter().map(|&value| value.into()).sum()
}

/// A loop for each sum, which the compiler makes vector operations of.
#[inline(always)]
fn add_terms<S: Scalar, T: Term>(sum: &mut [S; LANES], a: &[S; LANES], b: &[S; LANES]) {
    for lane in 0..LANES {
        sum[lane] += T::of(a[lane], b[lane]);
    }
}
