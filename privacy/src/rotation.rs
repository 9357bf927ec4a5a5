//! A random rotation that spreads an update evenly over its coordinates, under a seed that everyone knows.
//!
//! Rounding to an integer grid and a ring of few bits cost least when no coordinate stands out. With n the largest power
//! of two that is at most the dimension d, D₁ and D₂ random signs, and H the orthonormal Walsh–Hadamard transform:
//!
//! ```text
//! x₀ ······ x₍d₋n₎ ······ x₍n₎ ······ x₍d₋₁₎
//! └────── H·D₁, first ──────┘
//!           └────── H·D₂, then ─────────┘      (none if d = n)
//! ```
//!
//! Both steps are orthogonal on exactly d coordinates: norms stay, nothing is padded, and the transpose is the inverse.
//! 2n > d, so every coordinate takes part in at least one step.
//!
//! No coordinate stands out ([`Rotation::coordinate_bound`]). What a step leaves in one coordinate is n^-½·Σ ±zⱼ over
//! its n inputs z, with independent fair signs. By Hoeffding's lemma that is sub-Gaussian with variance proxy ‖z‖²/n. The
//! inputs of the first step are part of x; those of the second are part of the rotated x, whatever D₁ was, and D₂ is
//! independent of them. Either way ‖z‖ ≤ ‖x‖, so for each of the d coordinates yᵢ of the result
//!
//! ```text
//! P[|yᵢ| > b·‖x‖] ≤ 2·exp(−b²n/2)          and over all of them at most 2d·exp(−b²n/2)
//! ```
//!
//! Sign i of the first step is bit i of the ChaCha20 key stream (key: the seed; nonce and counter from zero), bits of a
//! byte from the least significant on; sign i of the second step is bit n + i. A set bit is a minus.
//!
//! The bound holds for updates chosen without knowledge of the seed. It is for accuracy: a client that knows the seed can
//! aim at one coordinate, and clipping to the grid's bounds is what limits it.

use std::ops::{Add, Mul, Neg, Sub};

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// The rotation of one seed and dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    dimension: usize,
    /// n, the width of a step.
    width: usize,
    /// Signs of the first step, and of the second if there is one: a bit each, in words.
    signs: Vec<Vec<u32>>,
}

impl Rotation {
    /// The rotation that everyone with this seed computes.
    ///
    /// # Panics
    /// If the dimension is 0.
    pub fn new(seed: &[u8; 32], dimension: usize) -> Self {
        let width = width(dimension);
        let steps = if width == dimension { 1 } else { 2 };
        let mut stream = vec![0; (steps * width).div_ceil(8)];
        ChaCha20Rng::from_seed(*seed).fill_bytes(&mut stream);
        let bit = |i: usize| u32::from(stream[i / 8] >> (i % 8) & 1);
        let word = |from: usize| (0..WORD.min(width)).fold(0, |word, i| word | bit(from + i) << i);
        let signs = (0..steps).map(|step| (0..width).step_by(WORD).map(|i| word(step * width + i)).collect());
        Self { dimension, width, signs: signs.collect() }
    }

    /// Coordinates of a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Rotates in place.
    ///
    /// # Panics
    /// If the vector does not have the rotation's dimension.
    pub fn forward(&self, vector: &mut [f32]) {
        assert_eq!(vector.len(), self.dimension, "the vector has the rotation's dimension");
        let scale = (self.width as f32).sqrt().recip();
        for (step, signs) in self.signs.iter().enumerate() {
            let part = &mut vector[self.range(step)];
            apply_signs(part, signs, scale);
            hadamard(part);
        }
    }

    /// Rotates back, in place.
    ///
    /// # Panics
    /// If the vector does not have the rotation's dimension.
    pub fn inverse(&self, vector: &mut [f64]) {
        assert_eq!(vector.len(), self.dimension, "the vector has the rotation's dimension");
        let scale = (self.width as f64).sqrt().recip();
        for (step, signs) in self.signs.iter().enumerate().rev() {
            let part = &mut vector[self.range(step)];
            hadamard(part);
            apply_signs(part, signs, scale);
        }
    }

    /// A number that, for a vector of L2 norm 1, all coordinates of the rotated vector keep to in magnitude, except with
    /// the given probability over the seed. At most 1, which none can exceed.
    ///
    /// # Panics
    /// If the dimension is 0.
    pub fn coordinate_bound(dimension: usize, probability: f64) -> f64 {
        let bound = (2.0 * (2.0 * dimension as f64 / probability).ln() / width(dimension) as f64).sqrt();
        // Neither a probability of 0 nor one that is no number leaves anything but the trivial bound.
        if bound < 1.0 { bound } else { 1.0 }
    }

    fn range(&self, step: usize) -> std::ops::Range<usize> {
        if step == 0 { 0..self.width } else { self.dimension - self.width..self.dimension }
    }
}

/// Signs in a word.
const WORD: usize = u32::BITS as usize;

/// Values that fit the fastest cache together with what else is there, f64 too.
const BLOCK: usize = 1 << 11;

/// The largest power of two that is at most the dimension.
fn width(dimension: usize) -> usize {
    assert!(dimension > 0, "there is a coordinate to rotate");
    1 << dimension.ilog2()
}

/// Multiplies by ±scale.
fn apply_signs<T: Copy + Mul<Output = T> + Neg<Output = T>>(values: &mut [T], signs: &[u32], scale: T) {
    let factors = [scale, -scale];
    for (values, word) in values.chunks_mut(WORD).zip(signs) {
        for (i, value) in values.iter_mut().enumerate() {
            *value = *value * factors[(word >> i & 1) as usize];
        }
    }
}

/// The Walsh–Hadamard transform without its factor, in natural order. The length is a power of two.
///
/// Outer stages come first, two at a time, so that each half, quarter, … is finished while it is in a cache.
fn hadamard<T: Copy + Add<Output = T> + Sub<Output = T>>(values: &mut [T]) {
    let n = values.len();
    if n <= BLOCK {
        return hadamard_in_cache(values);
    }
    let (low, high) = values.split_at_mut(n / 2);
    let ((a, b), (c, d)) = (low.split_at_mut(n / 4), high.split_at_mut(n / 4));
    butterfly_of_four(a, b, c, d);
    for quarter in [a, b, c, d] {
        hadamard(quarter);
    }
}

fn hadamard_in_cache<T: Copy + Add<Output = T> + Sub<Output = T>>(values: &mut [T]) {
    let mut length = values.len();
    while length >= 4 {
        for part in values.chunks_exact_mut(length) {
            let (low, high) = part.split_at_mut(length / 2);
            let ((a, b), (c, d)) = (low.split_at_mut(length / 4), high.split_at_mut(length / 4));
            butterfly_of_four(a, b, c, d);
        }
        length /= 4;
    }
    if length == 2 {
        for pair in values.chunks_exact_mut(2) {
            (pair[0], pair[1]) = (pair[0] + pair[1], pair[0] - pair[1]);
        }
    }
}

/// Two stages at once.
fn butterfly_of_four<T: Copy + Add<Output = T> + Sub<Output = T>>(
    a: &mut [T],
    b: &mut [T],
    c: &mut [T],
    d: &mut [T],
) {
    for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
        let (p, q, r, s) = (*a + *c, *b + *d, *a - *c, *b - *d);
        (*a, *b, *c, *d) = (p + q, p - q, r + s, r - s);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seed(number: u64) -> [u8; 32] {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        seed
    }

    fn norm(vector: impl IntoIterator<Item = f64>) -> f64 {
        vector.into_iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    #[test]
    #[expect(clippy::approx_constant, reason = "multiples of 1/√8 are bound to look familiar")]
    fn the_format_is_fixed() {
        // Computed from the module's documentation with another implementation of ChaCha20 and the transform by its
        // definition; the vector is 1, 2, 3, … and the seed 0, 1, 2, ….
        let expected: [&[f64]; 4] = [
            &[-1.0],
            &[0.707_107, -3.621_320, 0.621_320],
            &[1.414_214, 1.414_214, -8.485_281, -2.828_427, -1.414_214, 1.414_214, 9.899_495, -4.242_641],
            &[
                -31.466_252,
                -7.424_621,
                -14.495_689,
                -1.767_767,
                -8.131_728,
                -1.060_660,
                31.466_252,
                -40.658_640,
                36.415_999,
                37.830_213,
                -22.980_970,
                1.060_660,
                10.249_369,
                9.620_689,
                -24.852_922,
                25.052_670,
                4.043_525,
                38.326_533,
                8.852_922,
                -26.466_883,
                19.956_475,
                -40.912_320,
                10.354_185,
                -42.637_193,
                -18.249_369,
                0.965_097,
                21.645_815,
                44.051_407,
                -22.499_369,
                -19.370_689,
                9.602_922,
                0.197_330,
                22.206_475,
                -41.576_533,
                -7.602_922,
                22.216_883,
                -14.206_475,
                36.162_320,
                43.395_815,
                49.887_193,
                -1.500_631,
                32.784_903,
                6.604_185,
                -30.301_407,
            ],
        ];
        for expected in expected {
            let mut vector: Vec<f32> = (1..=expected.len()).map(|i| i as f32).collect();
            Rotation::new(&std::array::from_fn(|i| i as u8), expected.len()).forward(&mut vector);
            for (&found, &expected) in vector.iter().zip(expected) {
                assert!((f64::from(found) - expected).abs() < 2e-5, "{found} for {expected}");
            }
        }
    }

    #[test]
    fn long_vectors_too_are_transformed_by_the_definition() {
        // One-hot in, signs of the Walsh function of that index out; longer than the block that is done in cache.
        let d = 4 * BLOCK;
        for at in [0, 1, 77, BLOCK, d - 1] {
            let mut vector = vec![0.0f64; d];
            vector[at] = 1.0;
            hadamard(&mut vector);
            for (i, &value) in vector.iter().enumerate() {
                assert_eq!(value, if (i & at).count_ones() % 2 == 0 { 1.0 } else { -1.0 });
            }
        }
    }

    #[test]
    fn a_single_coordinate_is_spread_wherever_it_stands() {
        for d in [5, 31, 32, 33, 48, 100, 127] {
            let rotation = Rotation::new(&seed(d as u64), d);
            for at in 0..d {
                let mut vector = vec![0.0; d];
                vector[at] = 1.0f32;
                rotation.forward(&mut vector);
                let largest = vector.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                assert!(f64::from(largest) <= Rotation::coordinate_bound(d, 1e-6), "{at} of {d}: {largest}");
                assert!(d < 16 || largest < 0.8, "{at} of {d}: {largest}");
                let touched = vector.iter().filter(|x| **x != 0.0).count();
                assert!(touched >= d / 4, "{at} of {d}: {touched} coordinates");
            }
        }
    }

    #[test]
    fn the_tail_bound_holds_over_seeds() {
        // Vectors for which the sum of signs is coarse, even, and mixed.
        for d in [64usize, 96, 1_000] {
            let even = vec![1.0f32; d];
            let one: Vec<f32> = (0..d).map(|i| if i == d / 2 { 1.0 } else { 0.0 }).collect();
            let mixed: Vec<f32> = (0..d).map(|i| 1.0 / (1.0 + i as f32)).collect();
            for vector in [even, one, mixed] {
                let length = norm(vector.iter().map(|&x| f64::from(x)));
                for probability in [0.5, 0.05] {
                    let bound = Rotation::coordinate_bound(d, probability) * length;
                    let draws = 2_000;
                    let exceeded = (0..draws).filter(|&draw| {
                        let mut rotated = vector.clone();
                        Rotation::new(&seed(draw), d).forward(&mut rotated);
                        rotated.iter().any(|&x| f64::from(x.abs()) > bound)
                    });
                    let limit = probability * draws as f64;
                    assert!((exceeded.count() as f64) <= limit + 4.0 * limit.sqrt(), "{d}, {probability}");
                }
            }
        }
    }

    #[test]
    fn the_bound_is_the_stated_one() {
        // √(2·ln(2·2^20/2^-20)/2^20) = √(2·41·ln 2/2^20).
        let bound = Rotation::coordinate_bound(1 << 20, 1.0 / f64::from(1 << 20));
        assert!((bound - (82.0 * std::f64::consts::LN_2).sqrt() / 1_024.0).abs() < 1e-15);
        assert_eq!(
            Rotation::coordinate_bound((1 << 20) + 1, 0.1),
            (2.0 * (20.0 * f64::from((1 << 20) + 1)).ln()).sqrt() / 1_024.0
        );
        for (dimension, probability) in [(1, 0.5), (3, 1e-9), (100, 0.0), (100, f64::NAN), (100, -1.0)] {
            assert_eq!(Rotation::coordinate_bound(dimension, probability), 1.0, "{dimension} {probability}");
        }
    }

    #[test]
    fn seeds_and_dimensions_matter() {
        assert_eq!(Rotation::new(&seed(1), 100), Rotation::new(&seed(1), 100));
        assert_ne!(Rotation::new(&seed(1), 100), Rotation::new(&seed(2), 100));
        assert_ne!(Rotation::new(&seed(1), 100), Rotation::new(&seed(1), 101));
    }

    proptest! {
        #[test]
        fn norms_stay_and_the_inverse_undoes(
            vector in prop::collection::vec(-1e3..1e3f32, 1..5_000),
            number in any::<u64>(),
        ) {
            let rotation = Rotation::new(&seed(number), vector.len());
            let mut rotated = vector.clone();
            rotation.forward(&mut rotated);
            let before = norm(vector.iter().map(|&x| f64::from(x)));
            let after = norm(rotated.iter().map(|&x| f64::from(x)));
            prop_assert!((after - before).abs() <= 1e-6 * before, "{after} for {before}");
            let mut back: Vec<f64> = rotated.into_iter().map(f64::from).collect();
            rotation.inverse(&mut back);
            let off = norm(back.iter().zip(&vector).map(|(&x, &y)| x - f64::from(y)));
            prop_assert!(off <= 1e-6 * before, "{off} for {before}");
        }

        #[test]
        fn inner_products_stay(
            pairs in prop::collection::vec((-1.0..1.0f32, -1.0..1.0f32), 1..300),
            number in any::<u64>(),
        ) {
            let rotation = Rotation::new(&seed(number), pairs.len());
            let (mut left, mut right): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let product = |left: &[f32], right: &[f32]| -> f64 {
                left.iter().zip(right).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
            };
            let before = product(&left, &right);
            rotation.forward(&mut left);
            rotation.forward(&mut right);
            prop_assert!((product(&left, &right) - before).abs() < 1e-4);
        }
    }
}
