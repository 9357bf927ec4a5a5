//! A client's update: what the plan's training makes of its data.

use fedveil_learning::{Dataset, LearningError, LocalTraining, ModelSpec, evaluate, model_file, train};
use fedveil_proto_plan::{TaskPlan, Training};

/// Why there is no update.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The model file cannot be read, or training fails.
    #[error(transparent)]
    Learning(#[from] LearningError),
    /// The plan's architecture is no model.
    #[error("model.architecture: {0}")]
    Architecture(LearningError),
    /// The model is not the plan's.
    #[error("the model is {found}, the plan says {planned}")]
    Mismatch {
        /// The model that was sent.
        found: ModelSpec,
        /// The model of the plan.
        planned: ModelSpec,
    },
}

/// The architecture and the parameters of `model`, a safetensors file that plan and data agree with.
pub fn agreed_model(
    data: &Dataset,
    model: &[u8],
    plan: &TaskPlan,
) -> Result<(ModelSpec, Vec<f32>), TrainingError> {
    let (found, old) = model_file::from_safetensors(model)?;
    let planned: ModelSpec = plan.model.architecture.parse().map_err(TrainingError::Architecture)?;
    if found != planned {
        return Err(TrainingError::Mismatch { found, planned });
    }
    found.check_data(data)?;
    Ok((found, old))
}

/// Accuracy of `new` on `data` less that of `model`, both safetensors files of the plan's model.
pub fn difference(data: &Dataset, model: &[u8], new: &[u8], plan: &TaskPlan) -> Result<f64, TrainingError> {
    let accuracy = |file| {
        let (spec, parameters) = agreed_model(data, file, plan)?;
        Ok::<_, TrainingError>(evaluate(&spec, &parameters, data)?.accuracy)
    };
    Ok(accuracy(new)? - accuracy(model)?)
}

/// New parameters minus old, in file order, after the plan's training on `data` from `model`, a safetensors file.
///
/// No noise is added for single examples, whatever the plan says: an honest client whose plan has a section
/// `training.example_privacy` must train otherwise. Colluders, who owe their data nothing, train like this.
pub fn local_update(
    data: &Dataset,
    model: &[u8],
    plan: &TaskPlan,
    seed: u64,
) -> Result<Vec<f32>, TrainingError> {
    let (spec, old) = agreed_model(data, model, plan)?;
    update(&spec, &old, data, plan, seed)
}

/// The plan's settings of local training, for single examples without noise.
pub fn local_training(plan: &TaskPlan) -> LocalTraining {
    let Training { epochs, batch_size, learning_rate, momentum, proximal, .. } = plan.training;
    LocalTraining {
        momentum: momentum.unwrap_or(0.0) as f32,
        proximal: proximal.unwrap_or(0.0) as f32,
        ..LocalTraining::sgd(epochs, batch_size, learning_rate as f32)
    }
}

/// New parameters minus old, after the plan's training from `old`; scaled to `training.planned_steps` where the plan has
/// them.
pub fn update(
    spec: &ModelSpec,
    old: &[f32],
    data: &Dataset,
    plan: &TaskPlan,
    seed: u64,
) -> Result<Vec<f32>, TrainingError> {
    let training = local_training(plan);
    let trained = train(spec, old, data, &training, seed)?;
    let scale = match plan.training.planned_steps {
        Some(planned) => accumulated(&training, planned.into()) / accumulated(&training, trained.steps),
        None => 1.0,
    };
    let moved = trained.parameters.iter().zip(old).map(|(new, old)| new - old);
    Ok(if scale == 1.0 {
        moved.collect()
    } else {
        moved.map(|value| (f64::from(value) * scale) as f32).collect()
    })
}

/// FedNova's ‖a‖₁: how far so many steps go under a constant gradient of 1, in units of the step size. Without momentum
/// and proximal term that is their number.
pub fn accumulated(training: &LocalTraining, steps: u64) -> f64 {
    let LocalTraining { learning_rate, proximal, momentum, .. } = *training;
    if momentum == 0.0 && proximal == 0.0 {
        return steps as f64;
    }
    let pull = f64::from(learning_rate) * f64::from(proximal);
    let (mut distance, mut velocity) = (0.0, 0.0);
    for _ in 0..steps {
        velocity = f64::from(momentum) * velocity + 1.0 - pull * distance;
        distance += velocity;
    }
    distance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accumulated_weights_are_those_of_the_paper() {
        let plain = LocalTraining::sgd(1, 8, 0.5);
        assert_eq!(accumulated(&plain, 7), 7.0);
        // Section 4.2: with momentum ρ, [τ − ρ (1 − ρ^τ) / (1 − ρ)] / (1 − ρ); here 1 + 1.5 + 1.75.
        let momentum = LocalTraining { momentum: 0.5, ..plain };
        assert!((accumulated(&momentum, 3) - 4.25).abs() < 1e-12);
        // With a proximal term, [1 − (1 − ημ)^τ] / ημ; here ημ = 1/4, 1 + 3/4.
        let proximal = LocalTraining { proximal: 0.5, ..plain };
        assert!((accumulated(&proximal, 2) - 1.75).abs() < 1e-12);
    }
}
