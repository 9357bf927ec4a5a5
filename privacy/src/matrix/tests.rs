use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::SeedableRng;

use super::*;

fn mechanism(kind: MatrixKind, rounds: u32, participation: Participation) -> MatrixMechanism {
    MatrixMechanism::new(kind, rounds, participation).unwrap()
}

fn noise(kind: MatrixKind, rounds: u32, multiplier: f64, resolution: u64, dimension: usize) -> MatrixNoise {
    let multiplier = NoiseMultiplier::new(multiplier).unwrap();
    mechanism(kind, rounds, Participation::ONCE).noise(multiplier, resolution.pow(2), dimension).unwrap()
}

#[test]
fn the_square_root_is_the_published_one() {
    // The closed form; jax_privacy computes the same (`toeplitz.optimal_max_error_strategy_coefs`).
    let six = mechanism(MatrixKind::SquareRoot, 6, Participation::ONCE);
    assert_eq!(six.coefficients(), [1.0, 0.5, 0.375, 0.3125, 0.273_437_5, 0.246_093_75]);
    assert_eq!(six.noising_coefficients()[..5], [1.0, -0.5, -0.125, -0.0625, -5.0 / 128.0]);
    for (rounds, squared) in [(10, 1.791_344), (100, 2.531_352), (1_000, 3.265_003), (2_000, 3.485_678)] {
        let whole = mechanism(MatrixKind::SquareRoot, rounds, Participation::ONCE);
        assert!((whole.sensitivity().powi(2) - squared).abs() < 1e-6, "n = {rounds}");
        // C = B here, so the longest row is as long as the longest column.
        assert!((whole.max_error() / squared - 1.0).abs() < 1e-6, "n = {rounds}");
        let independent = mechanism(MatrixKind::Banded { bands: 1 }, rounds, Participation::ONCE);
        assert_eq!(independent.sensitivity(), 1.0);
        assert!((independent.max_error() - f64::from(rounds).sqrt()).abs() < 1e-9);
        let mut before = independent.max_error();
        for bands in [2, 4, rounds / 2] {
            let error = mechanism(MatrixKind::Banded { bands }, rounds, Participation::ONCE).max_error();
            assert!(error < before && error > whole.max_error(), "n = {rounds}, b = {bands}: {error}");
            before = error;
        }
    }
}

#[test]
fn factor_times_inverse_is_the_identity() {
    for bands in [1, 2, 7, 50] {
        let banded = mechanism(MatrixKind::Banded { bands }, 50, Participation::ONCE);
        for t in 0..50 {
            let entry: f64 = (0..=t.min(bands as usize - 1))
                .map(|k| banded.coefficients()[k] * banded.noising_coefficients()[t - k])
                .sum();
            assert!((entry - if t == 0 { 1.0 } else { 0.0 }).abs() < 1e-14, "b = {bands}, t = {t}: {entry}");
        }
    }
    let all_bands = mechanism(MatrixKind::Banded { bands: 50 }, 50, Participation::ONCE);
    assert_eq!(all_bands, mechanism(MatrixKind::SquareRoot, 50, Participation::ONCE));
}

#[test]
fn no_pattern_of_participation_moves_more_than_the_sensitivity() {
    for (rounds, bands) in [(1, 1), (6, 6), (9, 3), (10, 10), (11, 4)] {
        for (min_separation, max_participations) in [(1, 1), (1, 3), (2, 2), (3, 9), (4, 2), (20, 5)] {
            let participation = Participation { min_separation, max_participations };
            let kind = MatrixKind::Banded { bands };
            let banded = mechanism(kind, rounds, participation);
            let mut most = 0.0f64;
            for pattern in 0u32..1 << rounds {
                let taken: Vec<u32> = (0..rounds).filter(|t| pattern >> t & 1 == 1).collect();
                let apart = taken.windows(2).all(|pair| pair[1] - pair[0] >= min_separation);
                if apart && taken.len() <= max_participations as usize {
                    let row = |t: u32| -> f64 {
                        let reach = taken.iter().filter(|&&at| at <= t);
                        reach.filter_map(|at| banded.coefficients().get((t - at) as usize)).sum()
                    };
                    most = most.max((0..rounds).map(|t| row(t).powi(2)).sum());
                }
            }
            let name = format!("n = {rounds}, {bands} bands, {participation:?}");
            assert!((banded.sensitivity() - most.sqrt()).abs() < 1e-12, "{name}");
            if bands <= min_separation {
                let column = banded.coefficients().iter().map(|c| c * c).sum::<f64>().sqrt();
                let times = max_participations.min(rounds.div_ceil(min_separation));
                assert!(banded.sensitivity() <= f64::from(times).sqrt() * column + 1e-12, "{name}");
            }
        }
    }
}

#[test]
fn the_run_costs_one_gaussian_of_its_multiplier() {
    let often = Participation { min_separation: 5, max_participations: 4 };
    for (kind, resolution) in [
        (MatrixKind::SquareRoot, 10),
        (MatrixKind::SquareRoot, 9_000),
        (MatrixKind::Banded { bands: 5 }, 1_000),
    ] {
        let run = mechanism(kind, 200, often);
        let noise = run.noise(NoiseMultiplier::new(1.3).unwrap(), u64::pow(resolution, 2), 1).unwrap();
        let gaussian = 1.0 / (2.0 * 1.3f64.powi(2));
        assert!(noise.rho() <= gaussian && noise.rho() > gaussian * (1.0 - 1e-3), "{}", noise.rho());
        // What the coefficients are rounded to costs no more than it gains.
        let unit = f64::from(noise.fraction_bits).exp2();
        let sigma = (noise.variance.get() as f64).sqrt() / unit;
        let ideal = 1.3 * run.sensitivity() * resolution as f64;
        assert!((sigma / ideal - 1.0).abs() < 0.02, "{resolution}: {sigma}, not {ideal}");
    }
}

#[test]
fn the_noise_is_that_of_the_factorisation() {
    let (rounds, dimension) = (12, 4_000);
    for kind in [MatrixKind::SquareRoot, MatrixKind::Banded { bands: 4 }] {
        let mut run = noise(kind, rounds, 2.0, 50, dimension);
        let mut rng = ChaCha20Rng::seed_from_u64(17);
        let sigma = (run.variance.get() as f64).sqrt() / f64::from(run.fraction_bits).exp2();
        let whole = mechanism(kind, rounds, Participation::ONCE);
        let mut sums = vec![0i64; dimension];
        let (mut row, mut sum_of_row) = (0.0, 0.0);
        for (t, coefficient) in whole.noising_coefficients().iter().enumerate() {
            assert_eq!(run.released(), t);
            let step = run.next_round(&mut rng).unwrap();
            step.iter().zip(&mut sums).for_each(|(step, sum)| *sum += step);
            sum_of_row += coefficient;
            row += sum_of_row * sum_of_row;
            let variance = sums.iter().map(|&x| (x * x) as f64).sum::<f64>() / dimension as f64;
            let expected = row * sigma * sigma;
            assert!((variance / expected - 1.0).abs() < 5.0 * (2.0 / dimension as f64).sqrt(), "t = {t}");
        }
        assert_eq!(run.next_round(&mut rng), None);
    }
}

proptest! {
    /// The argument of the module's documentation, executed: two data sets whose C̃x + z agree release the same.
    #[test]
    fn releases_are_a_function_of_what_is_protected(
        bands in 1u32..9,
        resolution in prop::sample::select(vec![1u64, 30, 5_000, 20_000]),
        ours in prop::collection::vec(-40_000i64..40_000, 8),
        theirs in prop::collection::vec(-40_000i64..40_000, 8),
        seed in any::<u64>(),
    ) {
        let kind = MatrixKind::Banded { bands: bands.min(8) };
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (mut left, mut right) = (noise(kind, 8, 1.5, resolution, 1), noise(kind, 8, 1.5, resolution, 1));
        let sampler = Noise::new(NoiseKind::DiscreteGaussian, left.variance);
        let column: Vec<i64> =
            std::iter::once(1 << left.fraction_bits).chain(left.coefficients.iter().copied()).collect();
        for t in 0..8 {
            let z = sampler.sample(&mut rng);
            // What z has to be for the other data set, so that both have the same y.
            let shift: i64 = (0..=t)
                .filter_map(|s| column.get(t - s).map(|c| c * (ours[s] - theirs[s])))
                .sum();
            let released = ours[t] + left.correlate(vec![z])[0];
            prop_assert_eq!(released, theirs[t] + right.correlate(vec![z + shift])[0]);
        }
    }
}

#[test]
fn only_what_is_needed_is_remembered() {
    for (bands, kept) in [(1, 0), (2, 1), (4, 3), (8, 7)] {
        let mut run = noise(MatrixKind::Banded { bands }, 8, 1.0, 100, 3);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        while run.next_round(&mut rng).is_some() {}
        assert_eq!(run.earlier.len(), kept, "{bands}");
    }
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    let refusal = |kind, rounds, min_separation, max_participations| {
        let participation = Participation { min_separation, max_participations };
        MatrixMechanism::new(kind, rounds, participation).unwrap_err().to_string()
    };
    let root = MatrixKind::SquareRoot;
    assert_eq!(
        refusal(root, 0, 1, 1),
        "rounds of a matrix mechanism is 0, accepted is a number from 1 to 16384"
    );
    assert!(refusal(root, 16_385, 1, 1).contains("16385"));
    assert_eq!(refusal(root, 5, 0, 1), "minimum separation is 0, accepted is a number of rounds above 0");
    assert_eq!(refusal(root, 5, 1, 0), "maximum participations is 0, accepted is a number above 0");
    for bands in [0, 6] {
        let found = refusal(MatrixKind::Banded { bands }, 5, 1, 1);
        assert_eq!(found, format!("bands is {bands}, accepted is a number from 1 to the number of rounds"));
    }
    let loud = mechanism(root, 5, Participation::ONCE).noise(NoiseMultiplier::new(2.0).unwrap(), 1 << 32, 1);
    let found = loud.err().unwrap().to_string();
    assert!(found.starts_with("standard deviation of a matrix mechanism is "), "{found}");
}
