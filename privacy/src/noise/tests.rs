use std::collections::BTreeMap;

use chacha20::ChaCha20Rng;
use dashu::{integer::UBig, rational::RBig};
use opendp::traits::samplers::sample_discrete_gaussian;
use rand_core::SeedableRng;

use super::{
    exact::{below_ratio, enclose},
    fixed::{ERROR, POINT, Ratio},
    table::{FINE, Shape, alias},
    *,
};

const KINDS: [NoiseKind; 2] = [NoiseKind::DiscreteGaussian, NoiseKind::Skellam];

/// Nearly every sample comes from doubt or tail, and is decided by integers of any size.
const COARSE: Shape = Shape { fraction_bits: 3, max_cells: 15, sigmas: 1, margin: 1 };

fn sampler(kind: NoiseKind, variance: u64) -> Noise {
    Noise::new(kind, Variance::new(variance).unwrap())
}

fn draw(noise: &Noise, n: usize, seed: u64) -> Vec<i64> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    (0..n).map(|_| noise.sample(&mut rng)).collect()
}

/// Exact probabilities, up to rounding, of −reach..=reach, where reach leaves out less than e^-40.
fn pmf(kind: NoiseKind, variance: u64) -> BTreeMap<i64, f64> {
    let mu = variance as f64;
    let reach = 12 * mu.sqrt().ceil() as usize + 12;
    let ratios: Vec<f64> = match kind {
        NoiseKind::DiscreteGaussian => (0..=reach).map(|x| (-((x * x) as f64) / (2.0 * mu)).exp()).collect(),
        NoiseKind::Skellam => {
            // Two Poisson laws, from their largest term outwards, and the sum over their differences.
            let rate = mu / 2.0;
            let mode = rate.floor() as usize;
            let mut poisson = vec![0.0; mode + 2 * reach + 1];
            poisson[mode] = 1.0;
            for k in mode + 1..poisson.len() {
                poisson[k] = poisson[k - 1] * rate / k as f64;
            }
            for k in (0..mode).rev() {
                poisson[k] = poisson[k + 1] * (k + 1) as f64 / rate;
            }
            let from = mode.saturating_sub(reach);
            let at = |x: usize| poisson[from..].iter().zip(&poisson[from + x..]).map(|(p, q)| p * q).sum();
            (0..=reach).map(at).collect()
        }
    };
    let total = 2.0 * ratios.iter().sum::<f64>() - ratios[0];
    let reach = reach as i64;
    (-reach..=reach).map(|x| (x, ratios[x.unsigned_abs() as usize] / total)).collect()
}

/// χ² and its degrees of freedom, over cells with at least ten expected samples (neighbours are merged until they have).
fn chi_squared(pmf: &BTreeMap<i64, f64>, samples: &[i64]) -> (f64, f64) {
    let mut seen = BTreeMap::<i64, f64>::new();
    for &sample in samples {
        *seen.entry(sample).or_default() += 1.0;
    }
    let (mut statistic, mut cells) = (0.0, 0.0);
    let (mut expected, mut observed) = (0.0, 0.0);
    assert!(seen.keys().all(|sample| pmf.contains_key(sample)), "a sample lies beyond 12 σ");
    for (value, probability) in pmf {
        expected += probability * samples.len() as f64;
        observed += seen.get(value).copied().unwrap_or(0.0);
        if expected >= 10.0 {
            statistic += (observed - expected).powi(2) / expected;
            cells += 1.0;
            (expected, observed) = (0.0, 0.0);
        }
    }
    (statistic, cells - 1.0)
}

/// Mean and standard deviation of χ² are `freedom` and √(2·freedom); small ones have a longer tail.
fn limit(freedom: f64) -> f64 {
    freedom + 4.0 * (2.0 * freedom).sqrt() + 4.0
}

fn assert_follows(pmf: &BTreeMap<i64, f64>, samples: &[i64], name: &str) {
    let (statistic, freedom) = chi_squared(pmf, samples);
    assert!(statistic < limit(freedom), "{name}: χ² = {statistic} of {freedom}");
}

#[test]
fn samples_follow_the_exact_distribution() {
    // With σ² = 2^18 a cell of the table holds several magnitudes.
    for kind in KINDS {
        for (seed, variance) in (0..).zip([1, 2, 3, 10, 64, 1_000, 12_345, 1 << 18]) {
            let samples = draw(&sampler(kind, variance), 500_000, seed);
            assert_follows(&pmf(kind, variance), &samples, &format!("{kind}, {variance}, seed {seed}"));
        }
    }
}

#[test]
fn the_test_above_notices_a_wrong_distribution() {
    for kind in KINDS {
        let samples = draw(&sampler(kind, 1_000), 200_000, 1);
        let (statistic, freedom) = chi_squared(&pmf(kind, 1_040), &samples);
        assert!(statistic > limit(freedom), "{kind}: {statistic} of {freedom}");
        // One variance, two laws.
        let samples = draw(&sampler(kind, 10), 200_000, 2);
        let other = KINDS[usize::from(kind == KINDS[0])];
        let (statistic, freedom) = chi_squared(&pmf(other, 10), &samples);
        assert!(statistic > limit(freedom), "{kind}: {statistic} of {freedom}");
    }
}

#[test]
fn moments_hold_for_large_variances() {
    for kind in KINDS {
        for (seed, variance) in (0..).zip([1 << 20, 1 << 33, (1 << 40) + 12_345, MAX_VARIANCE]) {
            let n = 100_000;
            let sigma = (variance as f64).sqrt();
            let samples = draw(&sampler(kind, variance), n, seed);
            let moment =
                |power: i32| samples.iter().map(|&x| (x as f64 / sigma).powi(power)).sum::<f64>() / n as f64;
            // Normal moments and their standard errors: 0 ± 1, 1 ± √2, 0 ± √15, 3 ± √96, each over √n.
            for (power, expected, spread) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
                let error = (moment(power) - expected).abs();
                let limit = 4.0 * (spread / n as f64).sqrt();
                assert!(error < limit, "{kind}, {variance}, seed {seed}: moment {power} is off by {error}");
            }
            // Places inside a cell are even: the lowest bits of a magnitude are fair.
            for bit in 0..4 {
                let set = samples.iter().filter(|x| x.unsigned_abs() >> bit & 1 == 1).count() as f64;
                assert!((set - n as f64 / 2.0).abs() < 2.0 * (n as f64).sqrt(), "bit {bit} of {variance}");
            }
        }
    }
}

#[test]
fn skellam_noise_adds_up_to_skellam_noise() {
    let (left, right) = (draw(&sampler(KINDS[1], 3), 200_000, 5), draw(&sampler(KINDS[1], 8), 200_000, 6));
    let sum: Vec<i64> = left.into_iter().zip(right).map(|(x, y)| x + y).collect();
    assert_follows(&pmf(NoiseKind::Skellam, 11), &sum, "3 + 8");
}

#[test]
fn coarse_tables_give_the_same_distribution() {
    for kind in KINDS {
        for (seed, variance) in (0..).zip([1, 3, 10, 64]) {
            let noise = Noise { table: Table::new(kind, variance, COARSE) };
            let samples = draw(&noise, 10_000, seed);
            assert_follows(&pmf(kind, variance), &samples, &format!("{kind}, {variance}, seed {seed}"));
            let reach = noise.table.reach();
            assert!(samples.iter().any(|x| x.unsigned_abs() >= reach), "{kind}, {variance}: no tail");
        }
    }
}

#[test]
fn large_integers_decide_what_coarse_tables_leave_open() {
    for kind in KINDS {
        // Of 10 000 samples of each of the tables above at least 2 000 pass through doubt or tail.
        for variance in [1, 3, 10, 64] {
            let share = Table::new(kind, variance, COARSE).uncertain_share();
            assert!(share > 0.2, "{kind}, {variance}: {share}");
        }
        // And the tables in use leave to them what is said to be left.
        for variance in [1, 1_000, 63_000, 65_000, 1 << 18, 1 << 33, MAX_VARIANCE] {
            let share = Table::new(kind, variance, FINE).uncertain_share();
            let most = if variance < 63_504 { 1e-9 } else { 0.012 };
            assert!(share < most, "{kind}, {variance}: {share}");
        }
    }
}

#[test]
fn coins_with_the_chance_of_a_ratio_are_fair() {
    let mut rng = ChaCha20Rng::seed_from_u64(11);
    for kind in KINDS {
        for (variance, x) in [(1, 1), (1, 2), (10, 3), (64, 0), (64, 8), (900, 45)] {
            let pmf = pmf(kind, variance);
            let p = pmf[&x] / pmf[&0];
            let n = 5_000;
            let query =
                |rng: &mut ChaCha20Rng, shift| below_ratio(kind, variance, x as u64, (0, 1, shift), rng);
            let heads = (0..n).filter(|_| query(&mut rng, 0)).count() as f64;
            let limit = 4.0 * (p * (1.0 - p) * f64::from(n)).sqrt() + 1e-6;
            assert!((heads - p * f64::from(n)).abs() <= limit, "{kind}, {variance}, {x}: {heads} heads");
            assert!(query(&mut rng, 20), "{p} of 2^20 is above every number below 1");
        }
    }
}

#[test]
fn enclosures_narrow_around_the_ratio() {
    for kind in KINDS {
        for variance in [1, 7, 1_000, 250_000] {
            let pmf = pmf(kind, variance);
            for x in [0, 1, 2, 5, 11, variance.isqrt() * 4] {
                let (low, high) = enclose(kind, variance, x, 100);
                assert!(low <= high && &high - &low <= UBig::from(4u8), "{kind}, {variance}, {x}");
                let (lower, higher) = enclose(kind, variance, x, 300);
                assert!(&lower >> 200 >= low && &higher >> 200 <= high, "{kind}, {variance}, {x}");
                let ratio = pmf[&(x as i64)] / pmf[&0];
                let found = RBig::from_parts(low.into(), UBig::ONE << 100).to_f64().value();
                assert!((found - ratio).abs() <= 1e-12 * ratio + 1e-28, "{found} for {ratio}");
            }
        }
    }
}

#[test]
fn approximations_are_as_close_as_they_say() {
    for kind in KINDS {
        for variance in [1, 2, 6, 48, 49, 440, 441, 12_345, 1 << 18] {
            let ratio = Ratio::new(kind, variance);
            let reach = 8 * (variance.isqrt() + 1) + 24;
            for x in (0..40).map(|i| reach * i / 39) {
                let (low, high) = enclose(kind, variance, x, POINT as usize);
                let (low, high) = (u64::try_from(low).unwrap(), u64::try_from(high).unwrap());
                let near = ratio.approximate(x);
                // The proof is for the worst of everything at once.
                let off = near.saturating_sub(high).max(low.saturating_sub(near));
                assert!(off <= ERROR / 32, "{kind}, {variance}, {x}: {near} for {low} to {high}");
            }
        }
    }
    // Where μ is large, the ratios of both laws differ by less than 3/μ.
    for variance in [1u64 << 40, (1 << 46) + 99, MAX_VARIANCE] {
        let [gaussian, skellam] = KINDS.map(|kind| Ratio::new(kind, variance));
        for x in (0..50).map(|i| i * (8 * (variance.isqrt() + 1) + 24) / 49) {
            let apart = gaussian.approximate(x).abs_diff(skellam.approximate(x));
            assert!(apart <= 3 * ((1 << POINT) / variance) + ERROR / 16, "{variance}, {x}: {apart}");
        }
    }
}

#[test]
fn heights_lie_where_the_areas_say() {
    for kind in KINDS {
        for (variance, shape) in [(1, FINE), (30, FINE), (90_000, FINE), (3, COARSE), (500, COARSE)] {
            let table = Table::new(kind, variance, shape);
            for x in (1..table.reach()).step_by(1 + variance as usize / 100) {
                // S times the ratio, in units of 2^-100.
                let (low, high) = enclose(kind, variance, x, 100);
                let (bottom, top) = table.doubt_of(x);
                let name = format!("{kind}, {variance}, {x}: {bottom} to {top}");
                assert!(UBig::from(bottom) << 100 <= low * table.scale(), "{name}");
                assert!(UBig::from(top) << 100 >= high * table.scale(), "{name}");
            }
        }
    }
}

#[test]
fn alias_tables_keep_every_weight() {
    for weights in [&[5, 0, 11][..], &[1, 1, 1, 1, 28], &[32, 0, 0], &[8, 8, 8, 8], &[3, 29]] {
        let column_bits = weights.len().next_power_of_two().ilog2();
        let full = weights.iter().sum::<u64>() >> column_bits;
        let fraction_bits = full.ilog2();
        assert_eq!(full << column_bits, weights.iter().sum::<u64>(), "the test's weights fill the columns");
        let mut found = vec![0; 1 << column_bits];
        for (column, entry) in
            alias(weights.iter().copied(), column_bits, fraction_bits).into_iter().enumerate()
        {
            let threshold = entry >> 16;
            found[column] += threshold;
            found[(entry & 0xffff) as usize] += full - threshold;
        }
        assert_eq!(&found[..weights.len()], weights);
    }
}

/// χ² of two samples being of one distribution, and its degrees of freedom.
fn two_samples(left: &[i64], right: &[i64]) -> (f64, f64) {
    let mut seen = BTreeMap::<i64, (f64, f64)>::new();
    for &x in left {
        seen.entry(x).or_default().0 += 1.0;
    }
    for &x in right {
        seen.entry(x).or_default().1 += 1.0;
    }
    let (p, q) =
        ((right.len() as f64 / left.len() as f64).sqrt(), (left.len() as f64 / right.len() as f64).sqrt());
    let (mut statistic, mut cells, mut held) = (0.0, 0.0, (0.0, 0.0));
    for (x, y) in seen.into_values() {
        held = (held.0 + x, held.1 + y);
        if held.0 + held.1 >= 40.0 {
            statistic += (p * held.0 - q * held.1).powi(2) / (held.0 + held.1);
            cells += 1.0;
            held = (0.0, 0.0);
        }
    }
    (statistic, cells - 1.0)
}

#[test]
fn samples_and_opendps_are_of_one_distribution() {
    for sigma in [1u64, 3, 40] {
        // opendp's generator takes no seed. A false alarm has a chance below 10^-7.
        let limit = |freedom: f64| freedom + 7.0 * (2.0 * freedom).sqrt() + 20.0;
        let theirs: Vec<i64> = (0..30_000)
            .map(|_| i64::try_from(sample_discrete_gaussian(RBig::from(sigma)).unwrap()).unwrap())
            .collect();
        let ours = draw(&sampler(NoiseKind::DiscreteGaussian, sigma * sigma), 300_000, sigma);
        let (statistic, freedom) = two_samples(&ours, &theirs);
        assert!(statistic < limit(freedom), "σ = {sigma}: χ² = {statistic} of {freedom}");
        let wider = draw(
            &sampler(NoiseKind::DiscreteGaussian, sigma * sigma + (sigma * sigma).div_ceil(4)),
            300_000,
            1,
        );
        let (statistic, freedom) = two_samples(&wider, &theirs);
        assert!(statistic > limit(freedom), "σ = {sigma}: {statistic} of {freedom} for another variance");
    }
}

#[test]
fn one_seed_gives_one_vector() {
    for kind in KINDS {
        let noise = sampler(kind, 500);
        let vector = |seed| noise.sample_vec(64, &mut ChaCha20Rng::seed_from_u64(seed));
        assert_eq!(vector(9), vector(9));
        assert_ne!(vector(9), vector(10));
        let one_by_one: Vec<i32> = draw(&noise, 64, 9).into_iter().map(|x| x as i32).collect();
        assert_eq!(vector(9), one_by_one);
    }
}

#[test]
fn a_seed_gives_the_same_vector_everywhere() {
    // Made here: no other implementation has this format. It is the sampler's promise to every later version of itself.
    let wide =
        [2_225_428, 4_199_986, -36_144_555, -12_901_848, -34_763_456, 1_855_466, 27_447_539, -7_632_061];
    for (kind, variance, expected) in [
        (NoiseKind::DiscreteGaussian, 1, [0, 1, 0, 1, 0, -1, -1, 0]),
        (NoiseKind::Skellam, 1, [0, 0, 0, 1, 0, 0, -1, 0]),
        (NoiseKind::DiscreteGaussian, 205_756, [8, 116, 52, 539, -550, -133, -289, 104]),
        // So wide, the two laws part in the last of the bits only.
        (NoiseKind::Skellam, 205_756, [8, 116, 52, 539, -550, -133, -289, 104]),
        (NoiseKind::DiscreteGaussian, 1 << 48, wide),
        (NoiseKind::Skellam, 1 << 48, wide),
    ] {
        let found = sampler(kind, variance).sample_vec(8, &mut ChaCha20Rng::from_seed([7; 32]));
        assert_eq!(found, expected, "{kind}, {variance}");
    }
}

#[test]
fn names_are_read_back_and_others_refused() {
    for kind in KINDS {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    let refused = "gaussian".parse::<NoiseKind>().unwrap_err();
    assert_eq!(refused.to_string(), "noise is `gaussian`, accepted is discrete-gaussian or skellam");
}

#[test]
fn variances_outside_the_range_are_refused() {
    assert_eq!(Variance::new(0).unwrap_err().name, "noise variance");
    assert!(Variance::new(MAX_VARIANCE + 1).is_err());
    assert_eq!(Variance::new(MAX_VARIANCE).unwrap().get(), MAX_VARIANCE);
}
