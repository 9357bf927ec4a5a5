//! A model of your own: classes as points, the nearest one is the answer.
//!
//! ```text
//! cargo run --release -p fedveil-learning --example own_model
//! ```
//!
//! A model says which tensors it has and how they turn inputs into class scores; burn's autodiff does the rest. Whoever
//! takes part in a task whose plan says `points:2x3` must have the same model under this name, in [`Models`].

use burn::tensor::Tensor;
use fedveil_learning::{
    Batch, Dataset, Input, LearningError, LocalTraining, Model, ModelSpec, Models, Role, Start, TensorSpec,
    Weights, evaluate, train,
};

/// One point per class; scores are negative squared distances.
struct Points {
    inputs: usize,
    classes: usize,
}

impl Points {
    fn spec(inputs: usize, classes: usize) -> Result<ModelSpec, LearningError> {
        ModelSpec::custom(format!("points:{inputs}x{classes}"), Self { inputs, classes })
    }
}

impl Model for Points {
    fn input(&self) -> Input {
        Input::Features(self.inputs)
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let shape = [self.classes, self.inputs];
        vec![TensorSpec::new("points", &shape, Start::Uniform(1.0)).with_role(Role::Head)]
    }

    fn scores(&self, weights: &Weights<'_>, batch: Batch) -> Tensor<2> {
        let rows = batch.features().unsqueeze_dim::<3>(1);
        let points = weights.get::<2>("points").unsqueeze_dim::<3>(0);
        (rows - points).square().sum_dim(2).squeeze_dim::<2>(2).neg()
    }
}

#[expect(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<(), LearningError> {
    let models = Models::with(vec![Points::spec(2, 3)?]);
    let spec = models.find("points:2x3")?;

    // Three clouds around the corners of a triangle.
    let corners = [[0.0, 1.0], [1.0, -1.0], [-1.0, -1.0]];
    let labels: Vec<u32> = (0..300).map(|row| row % 3).collect();
    let place = |(row, &label): (usize, &u32)| {
        let [x, y] = corners[label as usize];
        let angle = row as f32 * 2.4;
        [x + 0.7 * angle.cos(), y + 0.7 * angle.sin()]
    };
    let data = Dataset::new(labels.iter().enumerate().flat_map(place).collect(), labels.clone(), 2, 3)?;

    let start = spec.initial(1);
    let trained = train(&spec, &start, &data, &LocalTraining::sgd(5, 16, 0.1), 1)?;
    for (when, parameters) in [("at the start", &start), ("trained", &trained.parameters)] {
        let metrics = evaluate(&spec, parameters, &data)?;
        println!("{spec} {when}: accuracy {:.3}, loss {:.3}", metrics.accuracy, metrics.loss);
    }
    Ok(())
}
