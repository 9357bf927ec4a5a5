//! What guarantees promise and cost, and plans that give none.

use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::SeedableRng;

use super::*;
use crate::{Account, Epsilon, Noise, RdpCurve, Rotation, SamplingRate, clip_l2};

const KINDS: [NoiseKind; 2] = [NoiseKind::DiscreteGaussian, NoiseKind::Skellam];

fn plan() -> Mechanism {
    Mechanism {
        adaptive_clip: None,
        evaluation: None,
        clip: ClipNorm::new(0.5).unwrap(),
        resolution: 1_024,
        dimension: 650,
        noise: NoiseKind::DiscreteGaussian,
        noise_multiplier: NoiseMultiplier::new(1.4).unwrap(),
        placement: distributed(200, 4, 11, 19, 14),
        rounds: 12,
        delta: Delta::new(1e-5).unwrap(),
    }
}

#[test]
fn answers_about_models_are_charged_and_counted_among_the_sums() {
    let evaluation = Some(NoiseMultiplier::new(2.0).unwrap());
    for placement in [plan().placement, Placement::Local { group_size: 19 }] {
        let silent = Mechanism { placement, ..plan() }.guarantee().unwrap();
        let asking = Mechanism { placement, evaluation, ..plan() }.guarantee().unwrap();
        let alone = asking.epsilon_of_evaluation(12).unwrap();
        let both = asking.epsilon(12);
        assert!(both > silent.epsilon(12).max(alone) && both < silent.epsilon(12) + alone);
        assert!(asking.collusion_failure >= silent.collusion_failure);
        assert!(asking.honest <= silent.honest, "{} of {}", asking.honest, silent.honest);
        assert_eq!(asking.claim.accounting, Accounting::Rdp);
    }
    let placement = Placement::Central { sampling: Sampling::Full };
    let refused = Mechanism { placement, evaluation, ..plan() }.guarantee();
    assert_eq!(refused, Err(PlanError::EvaluationCentral));
}

fn distributed(clients: u32, malicious: u32, groups: u32, group_size: u32, min_survivors: u32) -> Placement {
    Placement::Distributed { clients, malicious, groups, group_size, min_survivors }
}

fn central(rate: f64) -> Placement {
    Placement::Central { sampling: Sampling::Poisson(SamplingRate::new(rate).unwrap()) }
}

fn placements() -> [Placement; 4] {
    let everyone = Placement::Central { sampling: Sampling::Full };
    [plan().placement, Placement::Local { group_size: 19 }, everyone, central(0.05)]
}

fn refusal(change: impl FnOnce(&mut Mechanism)) -> String {
    let mut plan = plan();
    change(&mut plan);
    plan.guarantee().unwrap_err().to_string()
}

#[test]
fn opendp_converts_a_loss_to_what_we_say_of_it() {
    for placement in placements() {
        let guarantee = Mechanism { placement, ..plan() }.guarantee().unwrap();
        let added_up_as_rho = guarantee.claim.accounting == Accounting::Zcdp;
        for participations in [1, 7, 12] {
            let ours = guarantee.epsilon(participations);
            match guarantee.epsilon_by_opendp(participations) {
                Some(theirs) => {
                    assert!(
                        added_up_as_rho && theirs <= ours * (1.0 + 1e-9),
                        "{placement}: {theirs}, {ours}"
                    );
                    assert!(ours <= theirs * 1.01, "{placement}: {ours} for {theirs}");
                }
                None => assert!(!added_up_as_rho, "{placement}"),
            }
        }
        assert!(
            guarantee.epsilon_by_opendp(13).is_none_or(f64::is_infinite),
            "{placement}: beyond the rounds"
        );
    }
}

#[test]
fn honest_survivors_alone_carry_the_whole_noise() {
    let guarantee = plan().guarantee().unwrap();
    assert_eq!((guarantee.colluders, guarantee.collusion_failure), (4, 0.0));
    assert_eq!(guarantee.honest, 10);
    // 1024² + 650/4 + 1024 + √650/2, floored.
    assert_eq!(guarantee.grid.norm_bound_squared(), 1_049_775);
    // ⌈1.96 · 1049775 / 10⌉.
    assert_eq!(guarantee.share.get(), 205_756);
    // 19·1024 + 8.4·√(19·205756) = 36 thousand is above 2^15. Rotation leaves 0.37 of the first term, and 23 in all.
    assert_eq!(guarantee.ring_bits, 16);
    assert!(guarantee.wrap_probability <= 2f64.powi(-40));
}

#[test]
fn the_numbers_of_every_placement_and_mechanism() {
    let named = |placement, noise| {
        let guarantee = Mechanism { noise, placement, ..plan() }.guarantee().unwrap();
        let Claim { unit, adjacency, accounting, sampling } = guarantee.claim;
        let claim = format!("{unit} {adjacency} {accounting} {sampling}");
        let sizes = (guarantee.honest, guarantee.share.get(), guarantee.ring_bits);
        (claim, sizes, [1, 12].map(|rounds| (guarantee.epsilon(rounds) * 1e4).round() / 1e4))
    };
    let [distributed, local, everyone, sampled] = placements();
    let [gaussian, skellam] = KINDS;
    // ⌈1.96 · 1049775⌉ is the whole noise, and a tenth of it a share.
    let (share, whole) = (205_756, 2_057_559);
    for (placement, noise, claim, sizes, epsilons) in [
        (distributed, gaussian, "user zero-out zcdp full", (10, share, 16), [3.2255, 13.9537]),
        (distributed, skellam, "user zero-out rdp full", (10, share, 16), [3.2261, 13.9854]),
        (local, gaussian, "user zero-out zcdp full", (1, whole, 17), [3.2255, 13.9537]),
        (local, skellam, "user zero-out rdp full", (1, whole, 17), [3.2261, 13.9854]),
        (everyone, gaussian, "user zero-out zcdp full", (1, whole, 32), [3.2255, 13.9537]),
        (everyone, skellam, "user zero-out rdp full", (1, whole, 32), [3.2261, 13.9854]),
        (sampled, gaussian, "user add-remove rdp poisson(0.05)", (1, whole, 32), [0.7733, 1.0451]),
        (sampled, skellam, "user add-remove rdp poisson(0.05)", (1, whole, 32), [0.7733, 1.0451]),
    ] {
        assert_eq!(named(placement, noise), (claim.to_owned(), sizes, epsilons));
    }
}

#[test]
fn one_adders_loss_is_what_opendps_map_says() {
    for placement in &placements()[1..3] {
        let guarantee = Mechanism { placement: *placement, ..plan() }.guarantee().unwrap();
        let theirs = gaussian_rho(guarantee.grid.norm_bound_squared(), guarantee.share);
        assert!((guarantee.rho().unwrap() / theirs - 1.0).abs() < 1e-12, "{placement}");
    }
}

#[test]
fn fixed_size_cohorts_are_refused() {
    let sampling = Sampling::FixedSize { cohort: 10, population: 100 };
    assert_eq!(
        refusal(|plan| plan.placement = Placement::Central { sampling }),
        "sampling is fixed-size(10 of 100), accepted is full or poisson"
    );
}

proptest! {
    #[test]
    fn losses_never_fall_and_wider_rings_never_narrow(
        placement in 0..4usize, skellam in any::<bool>(), noise in 0.3..20.0f64,
        resolution in 1u32..100_000, dimension in 1u32..100_000, rounds in 1u32..40,
    ) {
        let plan = Mechanism {
            placement: placements()[placement],
            noise: KINDS[usize::from(skellam)],
            noise_multiplier: NoiseMultiplier::new(noise).unwrap(),
            resolution, dimension, rounds,
            ..plan()
        };
        let guarantee = plan.guarantee().unwrap();
        let spent: Vec<f64> = (0..=rounds).map(|count| guarantee.epsilon(count)).collect();
        prop_assert!(spent.is_sorted() && spent[0] == 0.0 && guarantee.epsilon(rounds + 1) == f64::INFINITY);
        prop_assert!(guarantee.wrap_probability <= 2f64.powi(-40));
        // More clients, more steps or more noise in a sum take as many bits or more.
        let wider = [
            Mechanism { resolution: 2 * resolution, ..plan.clone() },
            Mechanism { noise_multiplier: NoiseMultiplier::new(2.0 * noise).unwrap(), ..plan.clone() },
            Mechanism { placement: match plan.placement {
                Placement::Distributed { clients, malicious, groups, group_size, min_survivors } =>
                    distributed(clients, malicious, groups, 2 * group_size, min_survivors),
                Placement::Local { group_size } => Placement::Local { group_size: 2 * group_size },
                other => other,
            }, ..plan },
        ];
        for wider in wider {
            let bits = wider.guarantee().unwrap().ring_bits;
            prop_assert!(bits >= guarantee.ring_bits, "{} bits after {}", bits, guarantee.ring_bits);
        }
    }
}

#[test]
fn the_loss_is_that_of_one_gaussian_with_the_noise_multiplier() {
    let guarantee = plan().guarantee().unwrap();
    for rounds in [1, 5, 12] {
        let central =
            RdpCurve::gaussian(plan().noise_multiplier).compose(rounds).epsilon(plan().delta).epsilon;
        assert!((guarantee.epsilon(rounds) / central - 1.0).abs() < 1e-4, "{rounds}");
    }
    assert!((guarantee.epsilon(12) - 14.0).abs() < 0.2, "{}", guarantee.epsilon(12));
    assert_eq!(guarantee.epsilon(0), 0.0);
    assert_eq!(guarantee.epsilon(13), f64::INFINITY);
}

#[test]
fn a_larger_population_bounds_colluders_by_chance_and_pays_in_delta() {
    let mut plan = plan();
    plan.placement = distributed(1_000, 50, 20, 50, 40);
    let guarantee = plan.guarantee().unwrap();
    assert!(guarantee.colluders > 3 && guarantee.colluders < 20, "{}", guarantee.colluders);
    assert_eq!(guarantee.honest, 40 - guarantee.colluders);
    assert!(guarantee.collusion_failure > 0.0 && guarantee.collusion_failure <= 1e-6);
    let with_all_of_delta =
        RdpCurve::from_zcdp(guarantee.rho().unwrap()).compose(12).epsilon(plan.delta).epsilon;
    assert!(guarantee.epsilon(12) > with_all_of_delta);
}

#[test]
fn participations_within_is_the_last_that_fits() {
    let guarantee = plan().guarantee().unwrap();
    for budget in [0.1, 3.0, 5.0, 8.0, 13.0] {
        let most = guarantee.participations_within(Epsilon::new(budget).unwrap());
        assert!(
            guarantee.epsilon(most) <= budget && guarantee.epsilon(most + 1) > budget,
            "{budget}: {most}"
        );
    }
    assert_eq!(guarantee.participations_within(Epsilon::new(1e6).unwrap()), 12);
}

#[test]
fn group_sums_fit_the_ring_and_carry_the_noise() {
    for (placement, noise) in
        placements()[..2].iter().flat_map(|&placement| KINDS.map(|noise| (placement, noise)))
    {
        let plan = Mechanism { placement, noise, resolution: 24, ..plan() };
        let guarantee = plan.guarantee().unwrap();
        let sampler = Noise::new(noise, guarantee.share);
        let rotation = Rotation::new(&[7; 32], 650);
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let (mut exact, mut ring) = (vec![0i64; 650], vec![0i32; 650]);
        let mut signal = vec![0i64; 650];
        for client in 0..19 {
            // All clients push one coordinate to the clip norm: the longest sum there is.
            let mut update = vec![0.0; 650];
            update[0] = 0.5;
            update[1] = if client % 2 == 0 { 0.3 } else { -0.3 };
            clip_l2(&mut update, plan.clip).unwrap();
            rotation.forward(&mut update);
            clip_l2(&mut update, plan.clip).unwrap();
            let steps = guarantee.grid.round(&update, &mut rng);
            let noise = sampler.sample_vec(650, &mut rng);
            for (i, (step, noise)) in steps.into_iter().zip(noise).enumerate() {
                signal[i] += i64::from(step);
                exact[i] += i64::from(step) + i64::from(noise);
                ring[i] = ring[i].wrapping_add(step).wrapping_add(noise);
            }
        }
        let unused = 32 - guarantee.ring_bits;
        let centred: Vec<i64> = ring.iter().map(|&x| i64::from(x << unused >> unused)).collect();
        assert_eq!(centred, exact, "{placement} {noise}");

        let added = exact.iter().zip(&signal).map(|(x, y)| ((x - y) * (x - y)) as f64).sum::<f64>() / 650.0;
        let expected = 19.0 * guarantee.share.get() as f64;
        let spread = 5.0 * (2.0f64 / 650.0).sqrt();
        assert!((added / expected - 1.0).abs() < spread, "{placement} {noise}: {added} for {expected}");
    }
}

#[test]
fn coarse_grids_pay_for_the_sum_not_being_a_discrete_gaussian() {
    let coarse = Mechanism {
        resolution: 1,
        dimension: 1,
        noise_multiplier: NoiseMultiplier::new(0.5).unwrap(),
        ..plan()
    };
    let guarantee = coarse.guarantee().unwrap();
    assert_eq!(guarantee.share.get(), 1);
    let ideal = guarantee.grid.norm_bound_squared() as f64 / (2.0 * f64::from(guarantee.honest));
    assert!(guarantee.rho().unwrap() > ideal);
}

#[test]
fn correlated_noise_costs_once_and_as_much_as_one_gaussian() {
    for matrix in [MatrixKind::SquareRoot, MatrixKind::Banded { bands: 4 }] {
        let participation = Participation { min_separation: 4, max_participations: 3 };
        let plan = Mechanism { placement: Placement::Correlated { matrix, participation }, ..plan() };
        let guarantee = plan.guarantee().unwrap();
        let once = RdpCurve::gaussian(plan.noise_multiplier).compose(1).epsilon(plan.delta).epsilon;
        assert_eq!(guarantee.epsilon(0), 0.0);
        for participations in [1, 3, 12] {
            let spent = guarantee.epsilon(participations);
            assert!((spent / once - 1.0).abs() < 1e-3, "{spent}, {once}");
        }
        assert_eq!(guarantee.epsilon(13), f64::INFINITY);
        let mut account = Account::default();
        account.add(&guarantee.task_loss(), 12);
        assert_eq!(
            account.epsilon(plan.delta),
            guarantee.epsilon(12),
            "beside other tasks it costs the same"
        );
        let whole = Epsilon::new(guarantee.epsilon(1)).unwrap();
        assert_eq!(guarantee.participations_within(whole), 12);
        assert_eq!(guarantee.participations_within(Epsilon::new(whole.get() * 0.999).unwrap()), 0);
        assert_eq!(
            (guarantee.claim.adjacency, guarantee.claim.sampling),
            (Adjacency::ZeroOut, Sampling::Full)
        );
        assert!(guarantee.matrix_noise().is_some());
    }
    let skellam = refusal(|plan| {
        plan.noise = NoiseKind::Skellam;
        plan.placement =
            Placement::Correlated { matrix: MatrixKind::SquareRoot, participation: Participation::ONCE };
    });
    assert_eq!(skellam, "mechanism is skellam, accepted with correlated noise is discrete-gaussian");
}

#[test]
fn refusals_name_field_value_and_range() {
    let size = |clients, malicious, groups, group_size, min_survivors| {
        refusal(|plan| {
            plan.placement = distributed(clients, malicious, groups, group_size, min_survivors);
        })
    };
    assert_eq!(
        size(200, 4, 11, 19, 4),
        "min_survivors is 4, accepted is 5 to 19 (more than the 4 colluders that a group may hold, \
         at most group_size)"
    );
    assert!(size(200, 4, 11, 19, 20).starts_with("min_survivors is 20, accepted is 5 to 19"));
    assert_eq!(
        size(200, 150, 11, 19, 14),
        "min_survivors is 14, accepted is no value while a whole group of 19 may collude: \
         malicious is 150 of 200 clients"
    );
    assert_eq!(size(200, 200, 11, 19, 14), "malicious is 200, accepted is 0 to 199");
    assert_eq!(size(0, 4, 11, 19, 14), "clients is 0, accepted is at least 1");
    assert_eq!(size(200, 4, 11, 201, 14), "group_size is 201, accepted is 1 to 200");
    assert_eq!(size(200, 4, 0, 19, 14), "groups is 0, accepted is 1 to 200");
    assert_eq!(
        refusal(|plan| plan.placement = Placement::Local { group_size: 0 }),
        "group_size is 0, accepted is 1 to 1048576"
    );
    assert_eq!(refusal(|plan| plan.rounds = 0), "rounds is 0, accepted is at least 1");
    assert!(refusal(|plan| plan.dimension = 0).starts_with("dimension is 0, accepted is"));
    assert!(refusal(|plan| plan.resolution = 0).starts_with("resolution is 0, accepted is"));
    let wide = refusal(|plan| {
        plan.resolution = 1 << 24;
        plan.noise_multiplier = NoiseMultiplier::new(3.0).unwrap();
        plan.dimension = 4;
        plan.placement = distributed(10_000, 4, 11, 1_000, 900);
    });
    assert!(wide.starts_with("a group sum needs a ring of 36 bits, accepted is at most 32"), "{wide}");
    let loud = refusal(|plan| plan.noise_multiplier = NoiseMultiplier::new(1e6).unwrap());
    assert!(loud.starts_with("noise variance is"), "{loud}");
}
