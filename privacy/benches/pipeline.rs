//! What a client does to an update, in ns per coordinate: `cargo bench -p fedveil-privacy --bench pipeline`.
//!
//! CPU time of this thread, the median of some repetitions at d = 2^20. The floor is a copy of the update; opendp's
//! sampler runs in between, one integer at a time as it offers.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and has nobody to report to"
)]

use std::hint::black_box;

use chacha20::ChaCha20Rng;
use dashu::rational::RBig;
use fedveil_privacy::{ClipNorm, Grid, Noise, NoiseKind, Rotation, Variance, clip_l2};
use opendp::traits::samplers::sample_discrete_gaussian;
use rand_core::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

/// Coordinates of the update.
const D: usize = 1 << 20;

/// Bits of a value on its way to the sum.
const RING_BITS: u32 = 20;

fn main() {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let update: Vec<f32> = (0..D).map(|_| (rng.next_u32() as i32 >> 8) as f32 / (1 << 23) as f32).collect();
    let clip = ClipNorm::new(1.0).unwrap();
    let grid = Grid::new(clip, 4_096, D).unwrap();
    let rotation = Rotation::new(&[7; 32], D);
    let share = |sigma: u64| Variance::new(sigma * sigma).unwrap();
    let gaussian = Noise::new(NoiseKind::DiscreteGaussian, share(453));
    let skellam = Noise::new(NoiseKind::Skellam, share(453));

    let floor = median(21, || {
        let mut copy = black_box(vec![0.0f32; D]);
        time(|| copy.copy_from_slice(black_box(&update))).0
    });
    println!("| step | ns per coordinate | × copy |\n|---|---|---|");
    row("copy of the update (the floor)", floor, floor);
    let mut clipped = update.clone();
    let spent = median(11, || {
        clipped.copy_from_slice(&update);
        time(|| clip_l2(black_box(&mut clipped), clip).unwrap()).0
    });
    row("clip", spent, floor);
    let mut rotated = clipped.clone();
    let spent = median(11, || {
        rotated.copy_from_slice(&clipped);
        time(|| rotation.forward(black_box(&mut rotated))).0
    });
    row("rotate", spent, floor);
    let (mut steps, spent) = (Vec::new(), &mut Vec::new());
    for _ in 0..11 {
        let (ns, rounded) = time(|| grid.round(black_box(&rotated), &mut rng));
        spent.push(ns);
        steps = rounded;
    }
    row("round", middle(spent), floor);
    let mut noise = Vec::new();
    let sampled = median(11, || {
        let (ns, drawn) = time(|| gaussian.sample_vec(D, &mut rng));
        noise = drawn;
        ns
    });
    row("discrete Gaussian noise, σ = 453", sampled, floor);
    row("or Skellam noise, σ = 453", median(11, || time(|| skellam.sample_vec(D, &mut rng)).0), floor);
    row("pack", median(11, || time(|| pack(black_box(&steps), black_box(&noise))).0), floor);
    let whole = |noise: &Noise| {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        median(11, || {
            let mut update = update.clone();
            time(|| {
                let noise = noise.sample_vec(D, &mut rng);
                clip_l2(black_box(&mut update), clip).unwrap();
                rotation.forward(&mut update);
                pack(&grid.round(&update, &mut rng), &noise)
            })
            .0
        })
    };
    row("**the whole, discrete Gaussian**", whole(&gaussian), floor);
    row("**the whole, Skellam**", whole(&skellam), floor);

    let words = || time(|| (0..D).fold(0, |sum: u64, _| sum.wrapping_add(rng.next_u64()))).0;
    let words = median(11, words);
    println!("\n| beside the pipeline | ns per coordinate | × copy |\n|---|---|---|");
    row("64 random bits each (the floor of noise)", words, floor);
    let odd = 3 * D / 4;
    let two_steps = Rotation::new(&[7; 32], odd);
    let spent = median(11, || time(|| two_steps.forward(black_box(&mut rotated[..odd]))).0);
    row("rotate, d = 3·2^18", spent * D as f64 / odd as f64, floor);
    let mut sum: Vec<f64> = clipped.iter().map(|&x| f64::from(x)).collect();
    row("rotate back, f64", median(11, || time(|| rotation.inverse(black_box(&mut sum))).0), floor);
    row("the signs of a rotation", median(11, || time(|| Rotation::new(&[9; 32], D)).0), floor);

    println!("\n| sampler | σ | ns per sample | opendp's ÷ it | ms to make |\n|---|---|---|---|---|");
    for sigma in [1, 16, 453, 65_536, 1 << 20, 1 << 24] {
        let scale = RBig::from(sigma);
        let n = 1 << 13;
        let theirs = median(3, || {
            let (ns, sum) = time(|| {
                (0..n).map(|_| sample_discrete_gaussian(scale.clone()).unwrap()).sum::<dashu::integer::IBig>()
            });
            black_box(sum);
            ns * D as f64 / f64::from(n)
        });
        println!("| opendp, discrete Gaussian | {sigma} | {theirs:.0} | 1 | |");
        for kind in [NoiseKind::DiscreteGaussian, NoiseKind::Skellam] {
            let made = median(5, || time(|| Noise::new(black_box(kind), share(sigma))).0) * D as f64 / 1e6;
            let sampler = Noise::new(kind, share(sigma));
            let ours = median(5, || time(|| sampler.sample_vec(D, &mut rng)).0);
            println!("| {kind} | {sigma} | {ours:.1} | {:.0} | {made:.2} |", theirs / ours);
        }
    }
}

/// Adds noise to steps modulo 2^b, and puts b bits after b bits.
fn pack(steps: &[i32], noise: &[i32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(D * RING_BITS as usize / 8 + 8);
    let (mut held, mut bits) = (0u64, 0);
    for (step, noise) in steps.iter().zip(noise) {
        let value = step.wrapping_add(*noise) as u32 & ((1 << RING_BITS) - 1);
        held |= u64::from(value) << bits;
        bits += RING_BITS;
        if bits >= 32 {
            bytes.extend_from_slice(&(held as u32).to_le_bytes());
            held >>= 32;
            bits -= 32;
        }
    }
    bytes.extend_from_slice(&held.to_le_bytes());
    bytes
}

fn row(name: &str, ns: f64, floor: f64) {
    println!("| {name} | {ns:.2} | {:.1} |", ns / floor);
}

/// CPU time of this thread in ns per coordinate, and what was made.
fn time<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    let start = now();
    let made = black_box(work());
    ((now() - start) / D as f64, made)
}

fn median(repetitions: usize, mut measure: impl FnMut() -> f64) -> f64 {
    middle(&mut (0..repetitions).map(|_| measure()).collect::<Vec<_>>())
}

fn middle(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
