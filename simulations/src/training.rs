//! A client's update: what the plan's training makes of its data.

use fedveil_learning::{Dataset, LearningError, LocalTraining, ModelSpec, evaluate, model_file, train};
use fedveil_proto_plan::TaskPlan;

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
    let settings = &plan.training;
    let training = LocalTraining::sgd(settings.epochs, settings.batch_size, settings.learning_rate as f32);
    let new = train(&spec, &old, data, &training, seed)?.parameters;
    Ok(new.iter().zip(&old).map(|(new, old)| new - old).collect())
}
