//! Samples from the discrete Gaussian over the integers, P(x) ∝ exp(−x²/(2σ²)); σ is the standard deviation.
//!
//! Inversion of the distribution of |x|, thresholds being 128-bit fractions, and an independent sign: |x| is the number
//! of thresholds that a uniform 128-bit fraction reaches. Of that fraction the first 15 bits almost always decide, so the
//! rest is drawn only when they are those of a threshold. Thresholds are computed at compile time in 122-bit fixed point
//! and right to within 2^-100; support ends where less than 2^-107 is left. So a sample is within 2^-93 of the
//! distribution (statistical distance; at most 78 thresholds).
//!
//! All samples take the same steps: every threshold is compared with, without branches or look-ups. The one exception
//! is the rare second draw (1 of 1,000 samples). Its timing tells that a sample's first bits are those of *some*
//! threshold; which one, and the sign, it does not tell, and each of the (about 30) candidates below the last has the
//! same 2^-15, so that |x| is then *less* predictable than it is without.
//!
//! Sample i takes bytes 2i and 2i+1 of the key's ChaCha20 stream with nonce 0 (little-endian; the low bit is the sign);
//! the second draws take 16 bytes each, in order, from the stream with nonce 1, and use the upper 113 bits.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use zeroize::{Zeroize, Zeroizing};

/// Largest absolute value of a key's coefficient: 12.2 standard deviations.
pub(super) const KEY_TAIL: usize = 55;

/// Largest absolute value of an error: 12.3 standard deviations.
pub(super) const ERROR_TAIL: usize = 78;

/// σ = 4.5, σ² = 81/4.
pub(super) static KEYS: DiscreteGaussian<KEY_TAIL> = DiscreteGaussian::new(2);

/// σ = √2 · 4.5, σ² = 81/2.
pub(super) static ERRORS: DiscreteGaussian<ERROR_TAIL> = DiscreteGaussian::new(1);

/// Bits of a fraction that are drawn for every sample, besides the sign.
const FIRST_BITS: u32 = 15;

/// Samples that are compared side by side, in as many 16-bit lanes.
const LANES: usize = 32;

/// Samples whose first bits are drawn at once.
const CHUNK: usize = 1024;

/// One, in the fixed point that thresholds are computed in.
const ONE: u128 = 1 << 122;

/// The table of a distribution with support [−TAIL, TAIL].
pub(super) struct DiscreteGaussian<const TAIL: usize> {
    /// P(|x| ≤ k) · 2^128, rounded down, for k < TAIL.
    thresholds: [u128; TAIL],
    /// Their first bits.
    first: [i16; TAIL],
    /// How many of these are not the largest possible, which nothing exceeds.
    below_top: usize,
}

impl<const TAIL: usize> DiscreteGaussian<TAIL> {
    /// σ² = 81 / (2 · `scale`), that is weights r^(scale·k²) with r = exp(−1/81).
    const fn new(scale: u32) -> Self {
        let mut step = ONE;
        let mut i = 0;
        while i < scale {
            step = multiply(step, exp_minus_one_over(81));
            i += 1;
        }
        // cumulative[k] = ρ(0) + 2·Σ_{1 ≤ j ≤ k} ρ(j), with ρ(j) = ρ(j−1) · step^(2j−1)
        let mut cumulative = [ONE; TAIL];
        let (mut weight, mut odd_power, mut total) = (ONE, step, ONE);
        let mut k = 1;
        while k <= TAIL {
            weight = multiply(weight, odd_power);
            odd_power = multiply(odd_power, multiply(step, step));
            total += 2 * weight;
            if k < TAIL {
                cumulative[k] = total;
            }
            k += 1;
        }
        let mut table = Self { thresholds: [0; TAIL], first: [0; TAIL], below_top: 0 };
        let mut k = 0;
        while k < TAIL {
            table.thresholds[k] = fraction(cumulative[k], total);
            table.first[k] = (table.thresholds[k] >> (128 - FIRST_BITS)) as i16;
            if table.first[k] < i16::MAX {
                table.below_top += 1;
            }
            k += 1;
        }
        table
    }

    /// Fills `samples` from streams of `key`, which is for nothing else.
    pub(super) fn sample(&self, key: &[u8; 32], samples: &mut [i16]) {
        let mut first_draws = ChaCha20::new(key.into(), &[0; 12].into());
        let mut second_draws = ChaCha20::new(key.into(), &second_nonce().into());
        let mut stream = Zeroizing::new([0; 2 * CHUNK]);
        for samples in samples.chunks_mut(CHUNK) {
            let stream = &mut stream[..2 * samples.len()];
            first_draws.write_keystream(stream);
            for (samples, bytes) in samples.chunks_mut(LANES).zip(stream.chunks(2 * LANES)) {
                self.sample_lanes(samples, bytes.as_chunks().0, &mut second_draws);
            }
        }
    }

    fn sample_lanes(&self, samples: &mut [i16], words: &[[u8; 2]], second_draws: &mut ChaCha20) {
        let (mut drawn, mut sign) = ([0; LANES], [0; LANES]);
        for ((drawn, sign), word) in drawn.iter_mut().zip(&mut sign).zip(words) {
            let word = u16::from_le_bytes(*word);
            *drawn = (word >> 1) as i16;
            *sign = -((word & 1) as i16);
        }
        let (mut reached, mut undecided) = ([0; LANES], [0; LANES]);
        for &first in &self.first[..self.below_top] {
            for ((&drawn, reached), undecided) in drawn.iter().zip(&mut reached).zip(&mut undecided) {
                *reached += i16::from(drawn > first);
                *undecided |= -i16::from(drawn == first);
            }
        }
        for (&drawn, undecided) in drawn.iter().zip(&mut undecided) {
            *undecided |= -i16::from(drawn == i16::MAX);
        }
        if undecided != [0; LANES] {
            for ((&drawn, reached), &undecided) in
                drawn.iter().zip(&mut reached).zip(&undecided).take(samples.len())
            {
                if undecided != 0 {
                    *reached = self.second_draw(drawn, second_draws);
                }
            }
        }
        for ((sample, &reached), &sign) in samples.iter_mut().zip(&reached).zip(&sign) {
            *sample = (reached ^ sign) - sign;
        }
        drawn.zeroize();
        sign.zeroize();
        reached.zeroize();
    }

    fn second_draw(&self, first: i16, stream: &mut ChaCha20) -> i16 {
        let mut bytes = Zeroizing::new([0; 16]);
        stream.write_keystream(bytes.as_mut());
        let fraction = u128::from_le_bytes(*bytes) >> FIRST_BITS | (first as u128) << (128 - FIRST_BITS);
        self.thresholds.iter().map(|threshold| i16::from(*threshold <= fraction)).sum()
    }
}

fn second_nonce() -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[0] = 1;
    nonce
}

/// Product of two numbers of at most one, rounded down by less than 4 units.
const fn multiply(a: u128, b: u128) -> u128 {
    const HALF: u32 = 61;
    const MASK: u128 = (1 << HALF) - 1;
    let (a1, a0, b1, b0) = (a >> HALF, a & MASK, b >> HALF, b & MASK);
    a1 * b1 + ((a1 * b0) >> HALF) + ((a0 * b1) >> HALF)
}

/// exp(−1/n) = Σ (−1/n)^i / i!, for n ≥ 2.
const fn exp_minus_one_over(n: u128) -> u128 {
    let (mut sum, mut term, mut i) = (ONE, ONE / n, 1);
    while term > 0 {
        if i % 2 == 1 {
            sum -= term;
        } else {
            sum += term;
        }
        i += 1;
        term /= n * i;
    }
    sum
}

/// ⌊part / whole · 2^128⌋ for part < whole < 2^127.
const fn fraction(part: u128, whole: u128) -> u128 {
    let (mut remainder, mut quotient, mut bit) = (part, 0, 0);
    while bit < 128 {
        remainder *= 2;
        quotient *= 2;
        if remainder >= whole {
            remainder -= whole;
            quotient += 1;
        }
        bit += 1;
    }
    quotient
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = 1 << 20;

    fn draw<const TAIL: usize>(distribution: &DiscreteGaussian<TAIL>, key: u8, count: usize) -> Vec<i16> {
        let mut samples = vec![0; count];
        distribution.sample(&[key; 32], &mut samples);
        samples
    }

    /// P(x) for |x| ≤ tail, straight from the definition.
    fn probability(x: i64, variance: f64, tail: usize) -> f64 {
        let weight = |x: i64| (-(x * x) as f64 / (2.0 * variance)).exp();
        weight(x) / (-(tail as i64)..=tail as i64).map(weight).sum::<f64>()
    }

    /// From mpmath with 400 bits: ⌊P(|x| ≤ k) · 2^128⌋.
    #[test]
    fn thresholds_are_right_to_100_bits() {
        let keys = [
            (0, 0x16b2_049f_d913_d5d2_b8b4_a763_9898_83a0),
            (1, 0x42fa_a724_6ba1_4363_659b_3a8f_1984_64ac),
            (4, 0xaf06_2f89_6453_fcae_4183_7685_13e0_a249),
            (9, 0xf732_32f9_4f3b_d0d1_c914_bd20_4c5a_d321),
            (20, 0xffff_ac27_90c0_3d18_2941_0e3d_ddbf_2d61),
            (KEY_TAIL - 1, 0xffff_ffff_ffff_ffff_ffff_ffff_fffc_a46d_u128),
        ];
        let errors = [
            (0, 0x100c_4d9c_acfb_ef2c_2917_9d9c_6155_3654),
            (1, 0x2fc0_17f1_c1f5_2365_ac4a_ba53_61f9_0bc6),
            (4, 0x855d_28af_e05b_d036_6ce9_5feb_6efe_12f5),
            (9, 0xdd6a_99a1_0b59_f027_234c_b12f_bcf3_0515),
            (20, 0xffad_5224_d310_e222_d7c0_a767_cfbf_c96e),
            (ERROR_TAIL - 1, 0xffff_ffff_ffff_ffff_ffff_ffff_ffe7_08a0_u128),
        ];
        for (k, wanted) in keys {
            assert!(KEYS.thresholds[k].abs_diff(wanted) < 1 << 28, "keys, threshold {k}");
        }
        for (k, wanted) in errors {
            assert!(ERRORS.thresholds[k].abs_diff(wanted) < 1 << 28, "errors, threshold {k}");
        }
    }

    fn thresholds_agree_with_floats<const TAIL: usize>(distribution: &DiscreteGaussian<TAIL>, variance: f64) {
        let mut cumulative = 0.0;
        for (k, &threshold) in distribution.thresholds.iter().enumerate() {
            cumulative += probability(k as i64, variance, TAIL) * if k == 0 { 1.0 } else { 2.0 };
            let found = threshold as f64 / 2_f64.powi(128);
            assert!((found - cumulative).abs() < 1e-14, "threshold {k}: {found}, wanted {cumulative}");
        }
    }

    #[test]
    fn every_threshold_agrees_with_its_definition() {
        thresholds_agree_with_floats(&KEYS, 20.25);
        thresholds_agree_with_floats(&ERRORS, 40.5);
    }

    /// χ² over the values that are expected at least 50 times, all others in one class.
    fn check_distribution<const TAIL: usize>(distribution: &DiscreteGaussian<TAIL>, variance: f64) {
        let samples = draw(distribution, 7, COUNT);
        let mean = samples.iter().map(|&x| f64::from(x)).sum::<f64>() / COUNT as f64;
        let found = samples.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / COUNT as f64;
        assert!(mean.abs() < 5.0 * (variance / COUNT as f64).sqrt(), "mean {mean}");
        assert!((found / variance - 1.0).abs() < 5.0 * (2.0 / COUNT as f64).sqrt(), "variance {found}");

        let tail = TAIL as i64;
        let mut counts = vec![0_u32; 2 * TAIL + 1];
        for &x in &samples {
            counts[(i64::from(x) + tail) as usize] += 1;
        }
        let (mut statistic, mut classes) = (0.0, 0);
        let (mut rest, mut expected_rest) = (0.0, 0.0);
        for (x, &count) in (-tail..=tail).zip(&counts) {
            let expected = probability(x, variance, TAIL) * COUNT as f64;
            if expected < 50.0 {
                rest += f64::from(count);
                expected_rest += expected;
            } else {
                statistic += (f64::from(count) - expected).powi(2) / expected;
                classes += 1;
            }
        }
        statistic += (rest - expected_rest).powi(2) / expected_rest;
        let freedom = f64::from(classes);
        assert!(classes > 30, "{classes} classes");
        assert!((statistic - freedom).abs() < 5.0 * (2.0 * freedom).sqrt(), "χ² {statistic} of {freedom}");
    }

    #[test]
    fn keys_are_distributed_as_stated() {
        check_distribution(&KEYS, 20.25);
    }

    #[test]
    fn errors_are_distributed_as_stated() {
        check_distribution(&ERRORS, 40.5);
    }

    /// The sum of clients' binary keys would give away a share of each.
    #[test]
    fn keys_are_not_binary() {
        let key = draw(&KEYS, 1, 4096);
        let small = key.iter().filter(|x| x.abs() <= 1).count();
        assert!(small < 4096 / 3, "{small} of 4096 coefficients are -1, 0 or 1");
        let mut values = key.clone();
        values.sort_unstable();
        values.dedup();
        assert!(values.len() > 24, "{} different values", values.len());
    }

    /// Every sample again, one by one, as the module says it is made.
    fn check_against_the_description<const TAIL: usize>(distribution: &DiscreteGaussian<TAIL>, count: usize) {
        let key = [9; 32];
        let mut first = vec![0; 2 * count];
        ChaCha20::new((&key).into(), &[0; 12].into()).write_keystream(&mut first);
        let mut second_stream = ChaCha20::new((&key).into(), &second_nonce().into());
        let tops: Vec<u128> = distribution.thresholds.iter().map(|threshold| threshold >> 113).collect();
        let mut second_draws = 0;
        let wanted: Vec<i16> = first
            .as_chunks::<2>()
            .0
            .iter()
            .map(|word| {
                let word = u16::from_le_bytes(*word);
                let mut fraction = u128::from(word >> 1) << 113;
                if tops.contains(&(fraction >> 113)) {
                    let mut bytes = [0; 16];
                    second_stream.write_keystream(&mut bytes);
                    fraction |= u128::from_le_bytes(bytes) >> 15;
                    second_draws += 1;
                }
                let magnitude =
                    distribution.thresholds.iter().filter(|&&threshold| threshold <= fraction).count();
                if word & 1 == 1 { -(magnitude as i16) } else { magnitude as i16 }
            })
            .collect();
        assert!(count < 10_000 || second_draws > 0);
        assert_eq!(draw(distribution, 9, count), wanted);
    }

    #[test]
    fn samples_are_what_the_description_says() {
        for count in [0, 1, 31, 33, 1023, 1025, 20_000] {
            check_against_the_description(&KEYS, count);
            check_against_the_description(&ERRORS, count);
        }
    }
}
