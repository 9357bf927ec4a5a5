//! The server's step from an aggregated update to the next global model: FedAvgM (Hsu, Qi, Brown: "Measuring
//! the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019).
//!
//! ```text
//! v ← momentum · v + mean update
//! w ← w + learning rate · v
//! ```
//!
//! An update is "after minus before", so it is added; the paper states the same with the opposite sign. Learning
//! rate 1 and momentum 0 are FedAvg. The momentum `v` belongs to the caller, who stores it with the model.

/// Step size and momentum of the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerOptimizer {
    /// Factor on the momentum, greater than 0.
    pub learning_rate: f64,
    /// Share of the momentum that stays from one round to the next, in [0, 1).
    pub momentum: f64,
}

/// The server's velocity `v`, of the model's dimension and unit; empty before the first step.
pub type Momentum = Vec<f64>;

/// A setting out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerError {
    /// The learning rate is not a positive number.
    #[error("server learning rate is {0}; it must be finite and greater than 0")]
    LearningRate(f64),
    /// The momentum is outside [0, 1).
    #[error("server momentum is {0}; it must be at least 0 and less than 1")]
    Momentum(f64),
}

impl Default for ServerOptimizer {
    /// FedAvg: the model moves by the mean update.
    fn default() -> Self {
        Self { learning_rate: 1.0, momentum: 0.0 }
    }
}

impl ServerOptimizer {
    /// Checks that both settings are in range.
    pub fn check(&self) -> Result<(), OptimizerError> {
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(OptimizerError::LearningRate(self.learning_rate));
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return Err(OptimizerError::Momentum(self.momentum));
        }
        Ok(())
    }

    /// Moves `model` by one step and keeps the momentum for the next one in `state`.
    ///
    /// # Panics
    /// Where `mean_update`, or a `state` that is not empty, has another dimension than `model`.
    pub fn step(&self, state: &mut Momentum, model: &mut [f32], mean_update: &[f64]) {
        assert_eq!(mean_update.len(), model.len(), "the update has another dimension than the model");
        if state.is_empty() {
            state.resize(model.len(), 0.0);
        }
        assert_eq!(state.len(), model.len(), "the momentum has another dimension than the model");
        for ((weight, velocity), update) in model.iter_mut().zip(state).zip(mean_update) {
            *velocity = self.momentum * *velocity + update;
            *weight = (f64::from(*weight) + self.learning_rate * *velocity) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn momentum_accumulates_over_steps() {
        let optimizer = ServerOptimizer { learning_rate: 2.0, momentum: 0.5 };
        let mut state = Momentum::new();
        let mut model = [1.0, -1.0];

        // v = (0.5, 1), w = (1, -1) + 2v
        optimizer.step(&mut state, &mut model, &[0.5, 1.0]);
        assert_eq!(state, [0.5, 1.0]);
        assert_eq!(model, [2.0, 1.0]);

        // v = 0.5 (0.5, 1) + (1, -2) = (1.25, -1.5)
        optimizer.step(&mut state, &mut model, &[1.0, -2.0]);
        assert_eq!(state, [1.25, -1.5]);
        assert_eq!(model, [4.5, -2.0]);

        // Without an update the model keeps rolling: v = (0.625, -0.75)
        optimizer.step(&mut state, &mut model, &[0.0, 0.0]);
        assert_eq!(state, [0.625, -0.75]);
        assert_eq!(model, [5.75, -3.5]);
    }

    #[test]
    fn the_default_adds_the_mean_update() {
        let mut state = Momentum::new();
        let mut model = [1.0, 2.0];
        for _ in 0..2 {
            ServerOptimizer::default().step(&mut state, &mut model, &[0.25, -0.5]);
        }
        assert_eq!(model, [1.5, 1.0]);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for learning_rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let optimizer = ServerOptimizer { learning_rate, ..ServerOptimizer::default() };
            assert!(matches!(optimizer.check(), Err(OptimizerError::LearningRate(_))), "{learning_rate}");
        }
        for momentum in [-0.1, 1.0, f64::NAN] {
            let optimizer = ServerOptimizer { momentum, ..ServerOptimizer::default() };
            assert!(matches!(optimizer.check(), Err(OptimizerError::Momentum(_))), "{momentum}");
        }
        assert_eq!(ServerOptimizer { learning_rate: 1.4, momentum: 0.5 }.check(), Ok(()));
    }

    #[test]
    #[should_panic(expected = "the momentum has another dimension")]
    fn a_foreign_momentum_is_a_programming_error() {
        ServerOptimizer::default().step(&mut vec![0.0; 3], &mut [0.0; 2], &[0.0; 2]);
    }
}
