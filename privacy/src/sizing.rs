//! How many colluders a randomly drawn group may hold.

/// A number of colluders, and the probability that some group holds more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColluderBound {
    /// The most malicious clients that any group in any round is assumed to hold.
    pub colluders: u32,
    /// The probability that the assumption fails, rounded up.
    pub failure: f64,
}

/// The smallest number c of colluders such that, with probability at least 1 − `max_failure`, no group in any round
/// holds more than c of the `malicious` clients.
///
/// Each group is a uniformly random set of at most `group_size` out of `clients`; groups and rounds may depend on each
/// other in any way (union bound). Where a group cannot hold more than c, the failure is exactly 0.
pub fn colluder_bound(
    clients: u32,
    malicious: u32,
    group_size: u32,
    groups: u32,
    rounds: u32,
    max_failure: f64,
) -> ColluderBound {
    let draws = f64::from(groups) * f64::from(rounds);
    let failure = |c| (draws * hypergeometric_tail(clients, malicious, group_size, c)).min(1.0);
    let (mut low, mut high) = (0, malicious.min(group_size));
    while low < high {
        let middle = low + (high - low) / 2;
        if failure(middle) <= max_failure {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    ColluderBound { colluders: low, failure: failure(low) }
}

/// P[X > `above`] for the number X of marked items among `draws` taken without replacement from `population` items, of
/// which `marked` are marked. Rounded up by a millionth of itself to cover the floating-point error.
///
/// More marked items or draws than the population holds count as all of it. Takes time linear in `draws`.
pub fn hypergeometric_tail(population: u32, marked: u32, draws: u32, above: u32) -> f64 {
    let (marked, draws) = (marked.min(population), draws.min(population));
    let plain = population - marked;
    let most = marked.min(draws);
    let least = draws.saturating_sub(plain);
    if above >= most {
        return 0.0;
    }
    if above < least {
        return 1.0;
    }
    // From the far tail inwards, so that small terms are added first; ratios of neighbouring terms are exact enough.
    let mut ln_term =
        ln_binomial(marked, most) + ln_binomial(plain, draws - most) - ln_binomial(population, draws);
    let mut tail = 0.0;
    for k in (above + 1..=most).rev() {
        tail += ln_term.exp();
        if k > least {
            let fewer = f64::from(k) * f64::from(plain - (draws - k));
            let more = f64::from(marked - k + 1) * f64::from(draws - k + 1);
            ln_term += (fewer / more).ln();
        }
    }
    (tail * (1.0 + 1e-6)).min(1.0)
}

/// ln C(n, k), as a sum of k logarithms.
fn ln_binomial(n: u32, k: u32) -> f64 {
    let k = k.min(n - k);
    (1..=k).map(|i| (f64::from(n - k + i) / f64::from(i)).ln()).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binomial(n: u32, k: u32) -> u128 {
        (0..u128::from(k)).fold(1, |product, i| product * (u128::from(n) - i) / (i + 1))
    }

    fn exact_tail(population: u32, marked: u32, draws: u32, above: u32) -> f64 {
        let ways = |k: u32| {
            if k > marked || draws - k > population - marked {
                0
            } else {
                binomial(marked, k) * binomial(population - marked, draws - k)
            }
        };
        let hits: u128 = (above + 1..=draws).map(ways).sum();
        hits as f64 / binomial(population, draws) as f64
    }

    #[test]
    fn far_tails_keep_their_digits() {
        // P[all 50 draws are marked] = 50!·(N−50)!/N! for N = 10^6 and 50 marked.
        let ln: f64 = (0..50).map(|i| (f64::from(50 - i) / f64::from(1_000_000 - i)).ln()).sum();
        let tail = hypergeometric_tail(1_000_000, 50, 50, 49);
        assert!(tail > 0.0 && (tail.ln() - ln).abs() < 1e-5, "{} {ln}", tail.ln());
    }

    #[test]
    fn the_bound_is_the_smallest_one() {
        // C(18,4)/C(200,4) = 3060/64684950 is too likely over 11 groups and 12 rounds for 1e-6: all four count.
        assert_eq!(colluder_bound(200, 4, 18, 11, 12, 1e-6), ColluderBound { colluders: 4, failure: 0.0 });
        let bound = colluder_bound(10_000, 1_000, 100, 100, 50, 1e-9);
        assert!(bound.failure <= 1e-9 && bound.failure > 0.0);
        let one_fewer = 5_000.0 * hypergeometric_tail(10_000, 1_000, 100, bound.colluders - 1);
        assert!(one_fewer > 1e-9, "{one_fewer}");
    }

    #[test]
    fn the_ends_are_exact() {
        assert_eq!(colluder_bound(100, 0, 10, 10, 10, 0.0), ColluderBound { colluders: 0, failure: 0.0 });
        assert_eq!(colluder_bound(100, 100, 10, 10, 10, 0.5), ColluderBound { colluders: 10, failure: 0.0 });
        assert_eq!(hypergeometric_tail(10, 8, 5, 2), 1.0, "at most two of five draws can be plain");
        assert_eq!(hypergeometric_tail(10, 3, 5, 3), 0.0);
    }

    proptest! {
        #[test]
        fn the_tail_is_the_exact_one_rounded_up(
            population in 1u32..60, marked in 0u32..60, draws in 0u32..60, above in 0u32..60
        ) {
            let (marked, draws) = (marked.min(population), draws.min(population));
            let exact = exact_tail(population, marked, draws, above);
            let tail = hypergeometric_tail(population, marked, draws, above);
            prop_assert!(tail >= exact - 1e-300 && tail <= exact * (1.0 + 2e-6), "{tail} for {exact}");
        }
    }
}
