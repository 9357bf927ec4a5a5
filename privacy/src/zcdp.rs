//! What opendp knows about zero-concentrated differential privacy (zCDP), asked of opendp.
//!
//! Its privacy maps and conversions are rounded towards more loss by construction. It is asked for numbers only: none of
//! its mechanisms runs here, because its generator can neither be seeded nor exchanged.
//!
//! One [`zcdp_epsilon`] takes some ten milliseconds, because opendp searches with big floats. A query to an
//! [`RdpCurve`](crate::RdpCurve) takes microseconds and is at most 1 % above it (a test says so for ρ from 10^-6 to 10):
//! ask this one about a plan, not about a client. Its last digits hang on the platform's logarithm, so that two machines
//! may not agree on them.

use opendp::{
    combinators::ConcentratedMeasure,
    domains::{AtomDomain, VectorDomain},
    error::Fallible,
    measurements::make_gaussian,
    measures::ZeroConcentratedDivergence,
    metrics::L2Distance,
};

use crate::Variance;

/// ρ of one release of an integer vector with discrete Gaussian noise in each coordinate, for neighbours whose vectors
/// are at most √`norm_bound_squared` steps apart in L2. opendp's map, rounded up; infinite where it fails.
pub fn gaussian_rho(norm_bound_squared: u64, variance: Variance) -> f64 {
    let distance = (norm_bound_squared as f64).sqrt().next_up();
    let scale = (variance.get() as f64).sqrt().next_down();
    let rho = || -> Fallible<f64> {
        make_gaussian::<_, _, ZeroConcentratedDivergence>(
            VectorDomain::new(AtomDomain::<i64>::default()),
            L2Distance::<f64>::default(),
            scale,
            None,
        )?
        .map(&distance)
    };
    rho().unwrap_or(f64::INFINITY)
}

/// An ε such that every ρ-zCDP mechanism is (ε, δ)-differentially private: opendp's conversion (Canonne, Kamath and
/// Steinke 2020, proposition 12, at the best order), rounded up.
///
/// Infinite where there is none or opendp finds none, as for δ = 0, a negative ρ, or a NaN.
pub fn zcdp_epsilon(rho: f64, delta: f64) -> f64 {
    if !((0.0..=1.0).contains(&delta) && rho >= 0.0 && rho.is_finite()) {
        return f64::INFINITY;
    }
    ZeroConcentratedDivergence::convert(rho)
        .and_then(|profile| profile.epsilon(delta))
        .ok()
        .filter(|epsilon| !epsilon.is_nan())
        .unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use opendp::{
        combinators::{make_fully_adaptive_composition, make_privacy_filter},
        core::{Function, Measurement, PrivacyMap},
        metrics::DiscreteDistance,
    };

    use super::*;
    use crate::{
        ClipNorm, Delta, Epsilon, Ledger, Mechanism, NoiseKind, NoiseMultiplier, Placement, RdpCurve,
        distributed_discrete_gaussian_rho,
    };

    /// The δ of ρ-zCDP at ε and the order that gives the least, found by a search of our own.
    fn least_delta(rho: f64, epsilon: f64) -> f64 {
        let log_delta = |order: f64| {
            (order - 1.0) * (order * rho - epsilon) + order * (-1.0 / order).ln_1p() - (order - 1.0).ln()
        };
        let (mut low, mut high) = (1.0 + 1e-6, 2.0 + (epsilon + 1.0) / rho);
        for _ in 0..200 {
            let (left, right) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
            if log_delta(left) < log_delta(right) { high = right } else { low = left }
        }
        log_delta(low).exp()
    }

    #[test]
    fn our_conversion_and_opendps_agree() {
        for rho in [1e-6, 1e-4, 0.003, 0.02, 0.1, 0.5, 1.0, 3.0, 10.0] {
            for delta in [1e-3, 1e-5, 1e-6, 1e-9, 1e-12] {
                let theirs = zcdp_epsilon(rho, delta);
                let ours = RdpCurve::from_zcdp(rho).epsilon(Delta::new(delta).unwrap()).epsilon;
                // Neither claims less than the proposition gives at the best order of all.
                for epsilon in [theirs, ours] {
                    let shown = least_delta(rho, epsilon);
                    assert!(shown <= delta * (1.0 + 1e-6), "ρ = {rho}, δ = {delta}: {shown} at {epsilon}");
                }
                // Ours minimises over whole orders and tenths, theirs over all: it can only be above.
                assert!(ours >= theirs * (1.0 - 1e-9), "ρ = {rho}, δ = {delta}: {ours} below {theirs}");
                assert!(ours <= theirs * 1.01, "ρ = {rho}, δ = {delta}: {ours} for {theirs}");
            }
        }
    }

    #[test]
    fn conversions_of_the_literature_are_above() {
        // ρ + 2·√(ρ·ln 1/δ), Bun and Steinke 2016, proposition 1.3.
        for rho in [1e-4, 0.01, 0.1, 1.0, 10.0] {
            for delta in [1e-3, 1e-6, 1e-9] {
                let epsilon = zcdp_epsilon(rho, delta);
                let simple = rho + 2.0 * (rho * -f64::ln(delta)).sqrt();
                assert!(epsilon < simple && epsilon > 0.3 * simple, "{epsilon} for {simple}");
            }
        }
    }

    #[test]
    fn no_input_panics_and_nonsense_gives_no_guarantee() {
        let extremes = [
            0.0,
            -0.0,
            f64::MIN_POSITIVE,
            5e-324,
            1e-300,
            1e-100,
            1e-20,
            1e-9,
            0.5,
            1.0 - f64::EPSILON / 2.0,
            1.0,
            2.0,
            1e3,
            1e9,
            1e100,
            1e300,
            f64::MAX,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            -1.0,
            -5e-324,
        ];
        for rho in extremes {
            for delta in extremes {
                let epsilon = zcdp_epsilon(rho, delta);
                assert!(epsilon >= 0.0, "ρ = {rho}, δ = {delta}: {epsilon}");
                let sound = rho >= 0.0 && rho.is_finite() && (0.0..=1.0).contains(&delta);
                assert!(sound || epsilon == f64::INFINITY, "ρ = {rho}, δ = {delta}: {epsilon}");
                // ε = 0 asks for a total variation of at most δ; that of two Gaussians with this ρ is erf(√ρ/2).
                let variation = libm::erf(rho.sqrt() / 2.0);
                assert!(epsilon > 0.0 || variation <= delta, "ρ = {rho}, δ = {delta}: {variation}");
            }
        }
        assert_eq!(zcdp_epsilon(1.0, 0.0), f64::INFINITY);
    }

    #[test]
    fn our_map_of_one_release_and_opendps_agree() {
        for norm_bound_squared in [0, 1, 2, 110, 1_049_775, 1 << 40, (1 << 48) + 12_345] {
            for variance in [1, 2, 1_000, 205_756, 1 << 33, 1 << 48] {
                let variance = Variance::new(variance).unwrap();
                let theirs = gaussian_rho(norm_bound_squared, variance);
                let exact = norm_bound_squared as f64 / (2.0 * variance.get() as f64);
                let ours = distributed_discrete_gaussian_rho(norm_bound_squared, variance, 1, 1);
                assert!(theirs >= exact && theirs <= exact * (1.0 + 1e-14) + 1e-300, "{theirs} for {exact}");
                assert!(ours >= exact * (1.0 - 1e-15) && ours <= theirs, "{ours} for {theirs}");
            }
        }
    }

    /// How many releases of ρ each opendp's filter lets through under a budget.
    fn let_through_by_filter(rho: f64, budget: f64) -> u32 {
        // The release costs ρ by its map and draws nothing: opendp's generator stays out of it.
        let release = Measurement::new(
            AtomDomain::<bool>::default(),
            DiscreteDistance,
            ZeroConcentratedDivergence,
            Function::new(|input: &bool| *input),
            PrivacyMap::new(move |_: &u32| rho),
        )
        .unwrap();
        let odometer = make_fully_adaptive_composition::<_, _, _, bool>(
            AtomDomain::<bool>::default(),
            DiscreteDistance,
            ZeroConcentratedDivergence,
        )
        .unwrap();
        let mut filter = make_privacy_filter(odometer, 1, budget).unwrap().invoke(&true).unwrap();
        let mut count = 0;
        while filter.invoke(release.clone()).is_ok() {
            count += 1;
        }
        count
    }

    #[test]
    fn the_ledger_refuses_when_opendps_filter_does() {
        let plan = Mechanism {
            adaptive_clip: None,
            evaluation: None,
            clip: ClipNorm::new(1.0).unwrap(),
            resolution: 4_096,
            dimension: 100,
            noise: NoiseKind::DiscreteGaussian,
            noise_multiplier: NoiseMultiplier::new(4.0).unwrap(),
            placement: Placement::Distributed {
                clients: 100,
                malicious: 2,
                groups: 5,
                group_size: 20,
                min_survivors: 15,
            },
            rounds: 60,
            delta: Delta::new(1e-5).unwrap(),
        };
        let guarantee = plan.guarantee().unwrap();
        let rho = guarantee.rho().unwrap();
        for budget in [0.5, 1.0, 1.7, 2.5, 3.3, 4.1, 6.0, 8.0] {
            // The budget in ρ: the most whose ε at δ, by opendp's conversion, is within the budget.
            let (mut low, mut high) = (0.0, 10.0);
            for _ in 0..50 {
                let middle = f64::midpoint(low, high);
                if zcdp_epsilon(middle, plan.delta.get()) <= budget { low = middle } else { high = middle }
            }
            let mut ledger = Ledger::new(guarantee.clone(), Epsilon::new(budget).unwrap());
            let client = [7; 32];
            while ledger.check(&client).is_ok() {
                ledger.charge(client);
            }
            assert_eq!(
                ledger.participations(&client),
                let_through_by_filter(rho, low).min(60),
                "ε = {budget}"
            );
        }
    }
}
