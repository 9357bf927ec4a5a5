//! Privacy of single examples inside one client: the mechanism of DP-SGD at the device.
//!
//! A client that trains this way adds discrete Gaussian noise to every sum of its clipped gradients, on the integer
//! grid, and draws the rows of each step by independent coins. What it trains is then private in each of its examples
//! against everyone, the coordinator, colluders and the model's readers included, whatever becomes of masks and of the
//! noise that protects the client as a whole.
//!
//! The unit is one example, neighbours are add-or-remove: the client's data with it or without. Steps are charged at
//! whole Rényi orders, where the moments of a sampled discrete Gaussian are bounded by the continuous one's; the tighter
//! privacy loss distributions of continuous noise would not be proved for integers.

use rand_core::CryptoRng;

use crate::{
    ClipNorm, Delta, Grid, Noise, NoiseKind, NoiseMultiplier, ParamError, RdpCurve, SamplingRate, Variance,
};

/// Integer steps per clip norm. Fine enough that rounding adds less than a thousandth to the norm of any gradient of up
/// to 2^22 coordinates.
const RESOLUTION: u32 = 1 << 16;

/// What a task plan says about the privacy of examples.
#[derive(Clone, Debug, PartialEq)]
pub struct ExampleLevel {
    /// L2 bound on the gradient of one example.
    pub clip: ClipNorm,
    /// Coordinates of a gradient.
    pub dimension: u32,
    /// Standard deviation of the noise in the sum of a step, over the integer L2 bound.
    pub noise_multiplier: NoiseMultiplier,
    /// Probability with which an example takes part in a step.
    pub sampling_rate: SamplingRate,
    /// The δ of the whole task.
    pub delta: Delta,
}

/// What it guarantees, and the sizes that make it true.
#[derive(Clone, Debug, PartialEq)]
pub struct ExampleGuarantee {
    grid: Grid,
    variance: Variance,
    delta: Delta,
    step: RdpCurve,
}

impl ExampleLevel {
    /// Sizes the noise and proves the loss of one step.
    ///
    /// # Errors
    /// A dimension of zero, or a noise multiplier beyond the range of the sampler (about 250).
    pub fn guarantee(&self) -> Result<ExampleGuarantee, ParamError> {
        let grid = Grid::new(self.clip, RESOLUTION, self.dimension as usize)?;
        let bound = grid.norm_bound_squared();
        let variance = Variance::new((self.noise_multiplier.get().powi(2) * bound as f64).ceil() as u64)?;
        let rho = bound as f64 / (2.0 * variance.get() as f64);
        let step = RdpCurve::from_zcdp(rho).poisson_sampled(self.sampling_rate);
        Ok(ExampleGuarantee { grid, variance, delta: self.delta, step })
    }
}

impl ExampleGuarantee {
    /// The ε of one example, at the plan's δ, after so many steps on the data that it is part of.
    pub fn epsilon(&self, steps: u64) -> f64 {
        RdpCurve::from_zcdp(0.0).plus(&self.step, steps).epsilon(self.delta).epsilon
    }

    /// An empty sum, with its noise. The generator must be seeded by the operating system.
    pub fn sum<R: CryptoRng>(&self, rng: R) -> GradientSum<R> {
        let noise = Noise::new(NoiseKind::DiscreteGaussian, self.variance);
        let mut sum = GradientSum { grid: self.grid.clone(), noise, rng, steps: Vec::new() };
        sum.start();
        sum
    }
}

/// The sum of the clipped gradients of one step, noised before the first of them is added.
pub struct GradientSum<R> {
    grid: Grid,
    noise: Noise,
    rng: R,
    steps: Vec<i64>,
}

impl<R: CryptoRng> GradientSum<R> {
    /// Adds a clipped gradient, rounded to the grid. Whatever it is given, it adds no more than the integer norm that is
    /// accounted for.
    ///
    /// # Panics
    /// If the gradient does not have the plan's dimension.
    pub fn add(&mut self, clipped: &[f32]) {
        for (sum, step) in self.steps.iter_mut().zip(self.grid.round(clipped, &mut self.rng)) {
            *sum += i64::from(step);
        }
    }

    /// The noised sum, in the unit of the gradients. The next one starts empty, with noise of its own.
    pub fn release(&mut self) -> Vec<f64> {
        let released = self.grid.to_real(&self.steps);
        self.start();
        released
    }

    fn start(&mut self) {
        self.steps = (0..self.grid.dimension()).map(|_| self.noise.sample(&mut self.rng)).collect();
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::{Composition, Neighbours, Sampling};

    fn plan() -> ExampleLevel {
        ExampleLevel {
            clip: ClipNorm::new(0.5).unwrap(),
            dimension: 400,
            noise_multiplier: NoiseMultiplier::new(1.1).unwrap(),
            sampling_rate: SamplingRate::new(0.05).unwrap(),
            delta: Delta::new(1e-5).unwrap(),
        }
    }

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(3)
    }

    #[test]
    fn a_step_costs_what_the_accountant_of_sampled_gaussians_says() {
        let guarantee = plan().guarantee().unwrap();
        for steps in [1, 20, 400] {
            let rounds = Composition::new(Neighbours::AddRemove)
                .then(Sampling::Poisson(plan().sampling_rate), plan().noise_multiplier, steps)
                .unwrap();
            let (found, at_all_orders) =
                (guarantee.epsilon(steps.into()), rounds.rdp().epsilon(plan().delta).epsilon);
            // Chords between whole orders are a little above the curve.
            assert!(
                found >= at_all_orders * (1.0 - 1e-6) && found < at_all_orders * 1.03,
                "{steps}: {found}, {at_all_orders}"
            );
            assert!(found > rounds.epsilon(plan().delta).lower);
        }
        assert_eq!(guarantee.epsilon(0), 0.0);
        assert!(guarantee.epsilon(u64::MAX) > 1e6);
    }

    #[test]
    fn rounded_gradients_stay_within_what_is_charged() {
        let guarantee = plan().guarantee().unwrap();
        let mut sum = guarantee.sum(rng());
        let bound = guarantee.grid.norm_bound_squared() as i64;
        // The clip norm in one coordinate, in all of them, and far beyond it, as from a clip that is wrong.
        let even = (0.5 / 20.0) as f32;
        for gradient in [[0.5f32; 1].to_vec(), vec![even; 400], vec![1e9; 400], vec![f32::NAN; 400]] {
            let gradient: Vec<f32> = gradient.into_iter().chain(std::iter::repeat(0.0)).take(400).collect();
            sum.steps.fill(0);
            sum.add(&gradient);
            assert!(sum.steps.iter().map(|step| step * step).sum::<i64>() <= bound);
        }
    }

    #[test]
    fn an_empty_step_is_noise_of_the_stated_size() {
        let guarantee = plan().guarantee().unwrap();
        let mut sum = guarantee.sum(rng());
        let mut squares = 0.0;
        for _ in 0..50 {
            squares += sum.release().iter().map(|value| value * value).sum::<f64>();
        }
        let deviation = (squares / (50.0 * 400.0)).sqrt();
        // 1.1 clip norms, ± 0.5 % in 20,000 samples.
        assert!((deviation / 0.55 - 1.0).abs() < 0.03, "{deviation}");
        let (one, two) = (sum.release(), sum.release());
        assert_ne!(one, two);
    }

    #[test]
    fn sums_are_of_what_was_added_and_of_one_step() {
        // Without noise to speak of: z = 0.001.
        let quiet = ExampleLevel { noise_multiplier: NoiseMultiplier::new(1e-3).unwrap(), ..plan() };
        let mut sum = quiet.guarantee().unwrap().sum(rng());
        let gradient: Vec<f32> = (0..400).map(|i| 0.02 * (i as f32).sin()).collect();
        for _ in 0..3 {
            sum.add(&gradient);
        }
        for (found, one) in sum.release().iter().zip(&gradient) {
            assert!((found - 3.0 * f64::from(*one)).abs() < 0.005);
        }
        assert!(sum.release().iter().all(|value| value.abs() < 0.005));
    }

    #[test]
    fn plans_out_of_range_are_refused() {
        let none = ExampleLevel { dimension: 0, ..plan() };
        assert_eq!(none.guarantee().unwrap_err().name, "dimension");
        let loud = ExampleLevel { noise_multiplier: NoiseMultiplier::new(1e3).unwrap(), ..plan() };
        assert_eq!(loud.guarantee().unwrap_err().name, "noise variance");
    }
}
