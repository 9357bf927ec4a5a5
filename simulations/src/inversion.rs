//! Gradient inversion: what an update of an affine layer tells about the examples behind it.
//!
//! For one example x, the gradient with respect to output i of an affine layer is δ_i for the bias and δ_i·x for the
//! weights: their quotient is the example. One update of one step gives it away exactly. These tests say so, and that
//! the sums which a coordinator sees do not.

use chacha20::ChaCha20Rng;
use fedveil_learning::{Dataset, LocalTraining, ModelSpec, train};
use fedveil_privacy::{
    ClipNorm, Delta, Guarantee, Mechanism, Noise, NoiseKind, NoiseMultiplier, Placement, clip_l2,
};
use rand_core::SeedableRng;

use crate::datasets::digits;

const SOFTMAX: &str = "softmax:64x10";
const SOFTMAX_PARAMETERS: usize = 65 * 10;
const MLP: &str = "mlp:64x16x10";

/// The members of a group, who hold one example each.
const MEMBERS: usize = 18;

/// Groups that are attacked.
const GROUPS: usize = 20;

/// New parameters minus old, after one step on one example.
fn update(model: &str, data: &Dataset, row: usize) -> Vec<f32> {
    let spec: ModelSpec = model.parse().unwrap();
    let step = LocalTraining::sgd(1, 1, 0.5);
    let old = spec.initial(7);
    let new = train(&spec, &old, &data.subset(&[row]).unwrap(), &step, 0).unwrap().parameters;
    new.iter().zip(&old).map(|(new, old)| new - old).collect()
}

/// The quotient of weights and bias of one output of the first layer.
fn invert(update: &[f64], outputs: usize, output: usize) -> Vec<f64> {
    let (bias, rest) = update.split_at(outputs);
    rest[..64 * outputs].chunks_exact(outputs).map(|row| row[output] / bias[output]).collect()
}

/// The output of the first layer whose bias moved most: its quotient loses the fewest digits.
fn loudest(update: &[f64], outputs: usize) -> usize {
    (0..outputs).max_by(|&a, &b| update[a].abs().total_cmp(&update[b].abs())).unwrap()
}

fn wide(vector: &[f32]) -> Vec<f64> {
    vector.iter().map(|&value| f64::from(value)).collect()
}

fn example(data: &Dataset, row: usize) -> Vec<f64> {
    wide(&data.features()[64 * row..][..64])
}

/// Pearson's correlation of a reconstruction with an example, both as they differ from the average image: what all
/// digits have in common says nothing about one of them.
fn correlation(found: &[f64], example: &[f64], average: &[f64]) -> f64 {
    let differ = |vector: &[f64]| -> Vec<f64> { vector.iter().zip(average).map(|(x, a)| x - a).collect() };
    let centre = |vector: Vec<f64>| -> Vec<f64> {
        let mean = vector.iter().sum::<f64>() / vector.len() as f64;
        vector.iter().map(|x| x - mean).collect()
    };
    let (one, two) = (centre(differ(found)), centre(differ(example)));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&one, &two) / (dot(&one, &one) * dot(&two, &two)).sqrt()
}

fn average(data: &Dataset) -> Vec<f64> {
    let rows = data.len() as f64;
    (0..64).map(|at| (0..data.len()).map(|row| example(data, row)[at]).sum::<f64>() / rows).collect()
}

/// The noise of the demo's plan, for groups of 18.
fn guarantee() -> Guarantee {
    Mechanism {
        adaptive_clip: None,
        evaluation: None,
        clip: ClipNorm::new(0.5).unwrap(),
        resolution: 1 << 12,
        dimension: SOFTMAX_PARAMETERS as u32,
        noise: NoiseKind::DiscreteGaussian,
        noise_multiplier: NoiseMultiplier::new(1.12).unwrap(),
        placement: Placement::Distributed {
            clients: 180,
            malicious: 4,
            groups: 10,
            group_size: MEMBERS as u32,
            min_survivors: 15,
        },
        rounds: 8,
        delta: Delta::new(1e-5).unwrap(),
    }
    .guarantee()
    .unwrap()
}

#[test]
fn a_single_update_gives_its_example_away() {
    let data = digits();
    for (model, outputs) in [(SOFTMAX, 10), (MLP, 16)] {
        for row in 0..50 {
            let update = wide(&update(model, &data, row));
            let found = invert(&update, outputs, loudest(&update, outputs));
            // Pixels are multiples of 1/16: rounding gives every one of them back.
            for (found, pixel) in found.iter().zip(example(&data, row)) {
                assert_eq!((found * 16.0).round(), pixel * 16.0, "{model}, row {row}: {found}, not {pixel}");
            }
        }
    }
}

#[test]
fn clipping_hides_nothing() {
    let data = digits();
    let mut clipped = update(SOFTMAX, &data, 3);
    assert!(clip_l2(&mut clipped, ClipNorm::new(0.01).unwrap()).unwrap().clipped);
    let clipped = wide(&clipped);
    let found = invert(&clipped, 10, loudest(&clipped, 10));
    for (found, pixel) in found.iter().zip(example(&data, 3)) {
        assert!((found - pixel).abs() < 1e-4);
    }
}

/// The mean over groups and members of how well the best of ten quotients fits a member's label, with the plan's noise
/// or without, and the largest share of pixels that any reconstruction got right.
fn attack_on_sums(with_noise: bool) -> (f64, f64) {
    let (data, guarantee) = (digits(), guarantee());
    let (average, mut rng) = (average(&data), ChaCha20Rng::seed_from_u64(11));
    let noise = Noise::new(guarantee.noise, guarantee.share);
    let (mut total, mut right) = (0.0, 0.0f64);
    for group in 0..GROUPS {
        let members: Vec<usize> = (0..MEMBERS).map(|member| (group * MEMBERS + member) * 5).collect();
        let mut sum = vec![0i64; SOFTMAX_PARAMETERS];
        for &row in &members {
            let mut update = update(SOFTMAX, &data, row);
            clip_l2(&mut update, guarantee.grid.clip()).unwrap();
            let steps = guarantee.grid.round(&update, &mut rng);
            for (sum, step) in sum.iter_mut().zip(steps) {
                *sum += i64::from(step) + if with_noise { noise.sample(&mut rng) } else { 0 };
            }
        }
        let sum = guarantee.grid.to_real(&sum);
        for &row in &members {
            let (label, image) = (data.labels()[row] as usize, example(&data, row));
            let found = invert(&sum, 10, label);
            total += correlation(&found, &image, &average);
            let hits = found.iter().zip(&image).filter(|(found, pixel)| (*found - *pixel).abs() < 1.0 / 32.0);
            right = right.max(hits.count() as f64 / 64.0);
        }
    }
    (total / (GROUPS * MEMBERS) as f64, right)
}

#[test]
fn a_group_sum_without_noise_blurs_its_examples() {
    let (correlation, right) = attack_on_sums(false);
    // No image comes out, but something of a digit's shape does.
    assert!(right < 0.8, "{right}");
    assert!(correlation > 0.2 && correlation < 0.9, "{correlation}");
}

#[test]
fn a_group_sum_with_noise_says_no_more_than_chance() {
    let (correlation, right) = attack_on_sums(true);
    // Of 360 unrelated images of 64 pixels, those of one digit in one group much alike: 0 ± 0.02.
    assert!(correlation.abs() < 0.08, "{correlation}");
    assert!(right < 0.5, "{right}");
}
