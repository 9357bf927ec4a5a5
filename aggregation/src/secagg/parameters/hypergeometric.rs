//! Tails of the hypergeometric distribution, in logarithms: 2^-300 is as exact as 1/2.

use std::f64::consts::{LN_2, TAU};

/// How many marked items are among those drawn without replacement. Neither number exceeds the population.
#[derive(Clone, Copy)]
pub(super) struct Hypergeometric {
    pub(super) population: usize,
    pub(super) marked: usize,
    pub(super) drawn: usize,
}

impl Hypergeometric {
    /// log2 P[X ≥ count].
    pub(super) fn log2_at_least(self, count: usize) -> f64 {
        self.ln_at_least(count) / LN_2
    }

    /// ln P[X ≥ count].
    fn ln_at_least(self, count: usize) -> f64 {
        let Self { population, marked, drawn } = self;
        if count <= (marked + drawn).saturating_sub(population) {
            return 0.0;
        }
        if count > marked.min(drawn) {
            return f64::NEG_INFINITY;
        }
        if count as u128 * population as u128 <= marked as u128 * drawn as u128 {
            // Up to the mean the other tail is the smaller one: fewer than `count` marked are more than
            // `drawn − count` unmarked.
            let other = Self { marked: population - marked, ..self }.ln_at_least(drawn - count + 1);
            return (-other.exp()).ln_1p();
        }
        // From the mean on terms fall, so they are summed in units of the first.
        let first = ln_binomial(marked, count) + ln_binomial(population - marked, drawn - count)
            - ln_binomial(population, drawn);
        let (mut sum, mut term) = (1.0, 1.0);
        for x in count..marked.min(drawn) {
            let up = (marked - x) as f64 * (drawn - x) as f64;
            let down = (x + 1) as f64 * (population + x + 1 - marked - drawn) as f64;
            term *= up / down;
            sum += term;
            if term < sum * f64::EPSILON / 16.0 {
                break;
            }
        }
        (first + f64::ln(sum)).min(0.0)
    }
}

/// ln C(n, k) for k ≤ n.
pub(super) fn ln_binomial(n: usize, k: usize) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// ln n!, within 10^-15 of itself: small ones exactly, others by Stirling's series, whose first omitted term is below
/// 10^-13 from n = 16 on. Where differences of these are taken for n up to 2^16, no more than 10^-8 is lost.
fn ln_factorial(n: usize) -> f64 {
    if n < 16 {
        return ((1..=n as u64).product::<u64>() as f64).ln();
    }
    let n = n as f64;
    let square = n * n;
    let tail = (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / (1680.0 * square)) / square) / square) / n;
    (n + 0.5) * n.ln() - n + 0.5 * TAU.ln() + tail
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::MAX_COHORT;
    use super::*;

    /// Reference values from integer arithmetic without rounding, to nine places.
    #[test]
    fn deep_tails_are_exact() {
        for (population, marked, drawn, count, expected) in [
            (1000, 100, 96, 38, -53.130_261_066),
            (10_000, 1000, 122, 48, -57.256_457_182),
            (10_000, 2000, 184, 88, -56.325_784_601),
            (65_536, 6554, 200, 90, -121.663_470_263),
            (200, 20, 20, 14, -39.782_426_915),
            (1000, 200, 96, 96, -256.018_631_908),
        ] {
            let found = Hypergeometric { population, marked, drawn }.log2_at_least(count);
            assert!((found - expected).abs() < 2e-9, "{found} for {expected}");
        }
    }

    proptest! {
        #[test]
        fn tails_are_sums_of_exact_terms(
            population in 1_usize..60, marked in 0_usize..60, drawn in 0_usize..60, count in 0_usize..62
        ) {
            let (marked, drawn) = (marked.min(population), drawn.min(population));
            let ways: u128 = (count..=marked.min(drawn))
                .map(|x| binomial(marked, x) * binomial(population - marked, drawn - x))
                .sum();
            let exact = ways as f64 / binomial(population, drawn) as f64;
            let found = Hypergeometric { population, marked, drawn }.ln_at_least(count).exp();
            prop_assert!((found - exact).abs() <= 1e-12 * exact, "{found} for {exact}");
        }
    }

    fn binomial(n: usize, k: usize) -> u128 {
        if k > n { 0 } else { (0..k).fold(1, |ways, i| ways * (n - i) as u128 / (i + 1) as u128) }
    }

    #[test]
    fn log_factorials_meet_their_error() {
        let mut sum = 0.0_f64;
        // What rounding takes from the sum (Kahan).
        let mut lost = 0.0;
        for n in 1..=MAX_COHORT {
            let term = (n as f64).ln() - lost;
            let next = sum + term;
            lost = (next - sum) - term;
            sum = next;
            assert!((ln_factorial(n) - sum).abs() <= 1e-15 * sum + 1e-13, "{n}");
        }
    }
}
