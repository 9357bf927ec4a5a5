//! The server's step from an aggregated update to the next global model.
//!
//! ```text
//! sgd      v ← momentum · v + Δ                     w ← w + η · v
//!          m ← β₁ · m + (1 − β₁) · Δ                w ← w + η · m / (√v + τ)
//! adagrad    v ← v + Δ²
//! adam       v ← β₂ · v + (1 − β₂) · Δ²
//! yogi       v ← v − (1 − β₂) · Δ² · sign(v − Δ²)
//! ```
//!
//! Δ is the aggregate of the clients' updates, "after minus before", so it is added; papers state the same with the
//! opposite sign. `sgd` with learning rate 1 and momentum 0 is FedAvg (McMahan et al. 2017, arXiv:1602.05629), with
//! momentum it is FedAvgM (Hsu, Qi, Brown 2019, arXiv:1909.06335). The other three are FedAdagrad, FedAdam and FedYogi
//! (Reddi et al. 2021, arXiv:2003.00295, algorithm 2), in which v starts at τ², the least that the paper allows.
//!
//! All of it is computed from what is released anyway, so that it costs no privacy and fits every mode. What an
//! optimiser keeps belongs to the caller, who stores it with the model.

use std::fmt::Debug;

/// A step of the server. Implement it for one of your own; the coordinator keeps its state.
pub trait ServerStep: Debug + Send + Sync {
    /// Numbers that it keeps for each parameter, from one step to the next.
    fn slots(&self) -> usize;

    /// Moves `model` by one step. `state` has [`slots`](Self::slots) · model numbers, or none before the first step;
    /// none must be left that is not finite.
    fn step(&self, state: &mut Vec<f64>, model: &mut [f32], update: &[f64]);
}

/// The server optimisers that a plan can name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ServerOptimizer {
    /// One step size for all parameters.
    Sgd {
        /// η, the factor on the momentum, greater than 0.
        learning_rate: f64,
        /// Share of the momentum that stays from one round to the next, in [0, 1).
        momentum: f64,
    },
    /// A step size of its own for each parameter.
    Adaptive {
        /// How the step sizes follow the updates.
        rule: Adaptive,
        /// η, greater than 0.
        learning_rate: f64,
        /// β₁, share of the mean of updates that stays, in [0, 1).
        beta1: f64,
        /// β₂, share of the mean of squares that stays, in [0, 1); `adagrad` has none.
        beta2: f64,
        /// τ, what keeps the step sizes bounded, greater than 0: a small one adapts more.
        tau: f64,
    },
}

/// How step sizes follow the updates. Written `adagrad`, `adam`, `yogi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adaptive {
    /// By the sum of all squares: step sizes only fall.
    Adagrad,
    /// By a mean of squares that forgets.
    Adam,
    /// By a mean of squares that moves by the newest square at most, and so forgets slowly where updates are sparse.
    Yogi,
}

impl Adaptive {
    /// Every rule.
    pub const ALL: [Self; 3] = [Self::Adagrad, Self::Adam, Self::Yogi];

    /// The name in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adagrad => "adagrad",
            Self::Adam => "adam",
            Self::Yogi => "yogi",
        }
    }
}

/// A setting out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("server {name} is {found}, accepted is {accepted}")]
pub struct OptimizerError {
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub found: f64,
    /// What it may be.
    pub accepted: &'static str,
}

impl Default for ServerOptimizer {
    /// FedAvg: the model moves by the mean update.
    fn default() -> Self {
        Self::Sgd { learning_rate: 1.0, momentum: 0.0 }
    }
}

impl ServerOptimizer {
    /// Checks that all settings are in range.
    pub fn check(&self) -> Result<(), OptimizerError> {
        let positive = |name, value: f64| {
            let holds = value.is_finite() && value > 0.0;
            holds.then_some(()).ok_or(OptimizerError {
                name,
                found: value,
                accepted: "a finite number above 0",
            })
        };
        let share = |name, value: f64| {
            let holds = (0.0..1.0).contains(&value);
            holds.then_some(()).ok_or(OptimizerError {
                name,
                found: value,
                accepted: "a number from 0, below 1",
            })
        };
        match *self {
            Self::Sgd { learning_rate, momentum } => {
                positive("learning rate", learning_rate)?;
                share("momentum", momentum)
            }
            Self::Adaptive { rule: _, learning_rate, beta1, beta2, tau } => {
                positive("learning rate", learning_rate)?;
                share("beta1", beta1)?;
                share("beta2", beta2)?;
                positive("tau", tau)
            }
        }
    }
}

impl ServerStep for ServerOptimizer {
    fn slots(&self) -> usize {
        match self {
            Self::Sgd { .. } => 1,
            Self::Adaptive { .. } => 2,
        }
    }

    /// # Panics
    /// Where `update`, or a `state` that is not empty, is not of the model's dimension.
    fn step(&self, state: &mut Vec<f64>, model: &mut [f32], update: &[f64]) {
        assert_eq!(update.len(), model.len(), "the update has another dimension than the model");
        if state.is_empty() {
            state.resize(model.len(), 0.0);
            if let Self::Adaptive { tau, .. } = self {
                state.resize(2 * model.len(), tau * tau);
            }
        }
        assert_eq!(
            state.len(),
            self.slots() * model.len(),
            "the state is of another dimension than the model"
        );
        let (means, squares) = state.split_at_mut(model.len());
        match *self {
            Self::Sgd { learning_rate, momentum } => {
                for ((weight, velocity), update) in model.iter_mut().zip(means).zip(update) {
                    *velocity = momentum * *velocity + update;
                    *weight = (f64::from(*weight) + learning_rate * *velocity) as f32;
                }
            }
            Self::Adaptive { rule, learning_rate, beta1, beta2, tau } => {
                for (((weight, mean), square), update) in model.iter_mut().zip(means).zip(squares).zip(update)
                {
                    let newest = update * update;
                    *mean = beta1 * *mean + (1.0 - beta1) * update;
                    *square = match rule {
                        Adaptive::Adagrad => *square + newest,
                        Adaptive::Adam => beta2 * *square + (1.0 - beta2) * newest,
                        Adaptive::Yogi => {
                            let above = f64::from(i8::from(*square > newest) - i8::from(*square < newest));
                            *square - (1.0 - beta2) * newest * above
                        }
                    };
                    *weight = (f64::from(*weight) + learning_rate * *mean / (square.sqrt() + tau)) as f32;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The models that come of these updates, one after the other, from 0.
    fn steps<const N: usize>(optimizer: ServerOptimizer, updates: [f64; N]) -> [f32; N] {
        let (mut state, mut model) = (Vec::new(), [0.0]);
        updates.map(|update| {
            optimizer.step(&mut state, &mut model, &[update]);
            assert_eq!(state.len(), optimizer.slots());
            model[0]
        })
    }

    #[test]
    fn momentum_accumulates_over_steps() {
        let optimizer = ServerOptimizer::Sgd { learning_rate: 2.0, momentum: 0.5 };
        let mut state = Vec::new();
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
        assert_eq!(steps(ServerOptimizer::default(), [0.25, 0.25]), [0.25, 0.5]);
    }

    #[test]
    fn adaptive_steps_are_those_computed_by_hand() {
        let adaptive = |rule, beta1, beta2, tau| ServerOptimizer::Adaptive {
            rule,
            learning_rate: 1.0,
            beta1,
            beta2,
            tau,
        };
        // v = 3² + 4² = 5², 4 / (5 + 3) = 1/2; v = 5² + 12² = 13², 12 / (13 + 3) = 3/4.
        assert_eq!(steps(adaptive(Adaptive::Adagrad, 0.0, 0.0, 3.0), [4.0, 12.0]), [0.5, 1.25]);
        // m = 1, v = 4/2 + 4/2 = 2², 1 / (2 + 2); m = 1/2 + 7, v = 4/2 + 196/2 = 10², 7.5 / (10 + 2).
        assert_eq!(steps(adaptive(Adaptive::Adam, 0.5, 0.5, 2.0), [2.0, 14.0]), [0.25, 0.875]);
        // v = 4 + 64/2 = 6², 8 / (6 + 2); v is above 4²: v = 36 − 16/2 = 28, 4 / (√28 + 2).
        let yogi = steps(adaptive(Adaptive::Yogi, 0.0, 0.5, 2.0), [8.0, 4.0]);
        assert_eq!(yogi[0], 1.0);
        assert!((f64::from(yogi[1]) - (1.0 + 4.0 / (28_f64.sqrt() + 2.0))).abs() < 1e-7, "{}", yogi[1]);
        // Where the mean of squares is the newest square, it stays.
        assert_eq!(steps(adaptive(Adaptive::Yogi, 0.0, 0.5, 2.0), [2.0, 2.0]), [0.5, 1.0]);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let sgd = |learning_rate, momentum| ServerOptimizer::Sgd { learning_rate, momentum };
        let adam = |learning_rate, beta1, beta2, tau| ServerOptimizer::Adaptive {
            rule: Adaptive::Adam,
            learning_rate,
            beta1,
            beta2,
            tau,
        };
        for (optimizer, name) in [
            (sgd(0.0, 0.0), "learning rate"),
            (sgd(f64::INFINITY, 0.0), "learning rate"),
            (sgd(f64::NAN, 0.0), "learning rate"),
            (sgd(1.0, 1.0), "momentum"),
            (sgd(1.0, -0.1), "momentum"),
            (adam(-1.0, 0.9, 0.99, 1e-3), "learning rate"),
            (adam(1.0, 1.0, 0.99, 1e-3), "beta1"),
            (adam(1.0, 0.9, f64::NAN, 1e-3), "beta2"),
            (adam(1.0, 0.9, 0.99, 0.0), "tau"),
        ] {
            assert_eq!(optimizer.check().unwrap_err().name, name, "{optimizer:?}");
        }
        assert_eq!(sgd(1.4, 0.5).check(), Ok(()));
        assert_eq!(adam(0.1, 0.9, 0.99, 1e-3).check(), Ok(()));
    }

    #[test]
    #[should_panic(expected = "the state is of another dimension")]
    fn a_foreign_state_is_a_programming_error() {
        ServerOptimizer::default().step(&mut vec![0.0; 3], &mut [0.0; 2], &[0.0; 2]);
    }
}
