//! Language models: an embedding, layers of gated units, and the scores of the next token after each one.
//!
//! Gates lie in the order of PyTorch's `nn.GRU` and `nn.LSTM`, whose names the tensors have; like all matrices here they
//! have a row for each input. The state before the first token is zero.

use burn::tensor::{Int, Tensor, activation};

use super::dense::{affine, affine_tensors};
use super::{named, numbers};
use crate::model::{Batch, Input, Model, Role, Start, TensorSpec, Weights};
use crate::{LearningError, ModelSpec};

/// Layers at most: nine and fewer have names of one length.
const MAX_LAYERS: usize = 4;

#[derive(Clone, Copy)]
enum Unit {
    /// Cho et al. 2014, arXiv:1406.1078, with the reset gate after the product: reset, update and new.
    Gru,
    /// Hochreiter and Schmidhuber 1997, with a forget gate: input, forget, cell and output.
    Lstm,
}

struct Recurrent {
    unit: Unit,
    vocabulary: usize,
    embedding: usize,
    hidden: Vec<usize>,
}

pub(super) fn gru(sizes: &str) -> Option<Result<ModelSpec, LearningError>> {
    spec("gru", Unit::Gru, sizes)
}

pub(super) fn lstm(sizes: &str) -> Option<Result<ModelSpec, LearningError>> {
    spec("lstm", Unit::Lstm, sizes)
}

fn spec(kind: &str, unit: Unit, sizes: &str) -> Option<Result<ModelSpec, LearningError>> {
    let sizes = numbers(sizes)?;
    let [vocabulary, embedding, hidden @ ..] = sizes.as_slice() else { return None };
    if !(1..=MAX_LAYERS).contains(&hidden.len()) {
        return None;
    }
    let model = Recurrent { unit, vocabulary: *vocabulary, embedding: *embedding, hidden: hidden.to_vec() };
    Some(ModelSpec::new(named(kind, &sizes), Box::new(model)))
}

impl Unit {
    fn gates(self) -> usize {
        match self {
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }
}

impl Model for Recurrent {
    fn input(&self) -> Input {
        Input::Tokens
    }

    fn classes(&self) -> usize {
        self.vocabulary
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        // Variance 1.
        let start = Start::Uniform(3_f32.sqrt());
        let mut tensors =
            vec![TensorSpec::new("embedding.weight", &[self.vocabulary, self.embedding], start)];
        let mut inputs = self.embedding;
        for (layer, &hidden) in self.hidden.iter().enumerate() {
            let gates = hidden.saturating_mul(self.unit.gates());
            let start = Start::Uniform(1.0 / (hidden as f32).sqrt());
            for (part, inputs) in [("ih", inputs), ("hh", hidden)] {
                let bias = format!("rnn.bias_{part}_l{layer}");
                tensors.push(TensorSpec::new(bias, &[gates], Start::Zeros));
                tensors.push(TensorSpec::new(format!("rnn.weight_{part}_l{layer}"), &[inputs, gates], start));
            }
            inputs = hidden;
        }
        tensors.extend(affine_tensors("output", inputs, self.vocabulary, Role::Head));
        tensors
    }

    fn scores(&self, weights: &Weights<'_>, batch: Batch) -> Tensor<2> {
        let tokens = batch.tokens();
        let [rows, length] = tokens.dims();
        // One tensor per place: to cut places out of one large tensor would cost a pass over all of it for each.
        let table: Tensor<2> = weights.get("embedding.weight");
        let embedded = |place| {
            let tokens: Tensor<1, Int> = tokens.clone().narrow(1, place, 1).reshape([rows]);
            table.clone().select(0, tokens)
        };
        let mut values: Vec<Tensor<2>> = (0..length).map(embedded).collect();
        for (layer, &hidden) in self.hidden.iter().enumerate() {
            values = Layer::new(self.unit, weights, layer, hidden).run(values);
        }
        let last = affine(weights, "output", Tensor::cat(values, 0));
        let by_row = last.reshape([length, rows, self.vocabulary]).swap_dims(0, 1);
        by_row.reshape([rows * length, self.vocabulary])
    }
}

/// One layer of gated units.
struct Layer {
    unit: Unit,
    hidden: usize,
    input_weight: Tensor<2>,
    input_bias: Tensor<2>,
    state_weight: Tensor<2>,
    state_bias: Tensor<2>,
}

impl Layer {
    fn new(unit: Unit, weights: &Weights<'_>, layer: usize, hidden: usize) -> Self {
        Self {
            unit,
            hidden,
            input_weight: weights.get(&format!("rnn.weight_ih_l{layer}")),
            input_bias: weights.row(&format!("rnn.bias_ih_l{layer}")),
            state_weight: weights.get(&format!("rnn.weight_hh_l{layer}")),
            state_bias: weights.row(&format!("rnn.bias_hh_l{layer}")),
        }
    }

    /// The outputs at every place, from the inputs at every place (rows × inputs).
    fn run(&self, inputs: Vec<Tensor<2>>) -> Vec<Tensor<2>> {
        let rows = inputs[0].dims()[0];
        let zero = Tensor::zeros([rows, self.hidden], (&inputs[0].device(), inputs[0].dtype()));
        let (mut output, mut cell) = (zero.clone(), zero);
        inputs
            .into_iter()
            .map(|input| {
                let from_input = input.matmul(self.input_weight.clone()) + self.input_bias.clone();
                let from_state = output.clone().matmul(self.state_weight.clone()) + self.state_bias.clone();
                match self.unit {
                    Unit::Gru => output = self.gru(&from_input, &from_state, output.clone()),
                    Unit::Lstm => (output, cell) = self.lstm(&(from_input + from_state), cell.clone()),
                }
                output.clone()
            })
            .collect()
    }

    fn gru(&self, from_input: &Tensor<2>, from_state: &Tensor<2>, output: Tensor<2>) -> Tensor<2> {
        let both = |gate| activation::sigmoid(self.gate(from_input, gate) + self.gate(from_state, gate));
        let (reset, update) = (both(0), both(1));
        let new = (self.gate(from_input, 2) + reset * self.gate(from_state, 2)).tanh();
        new.clone() + update * (output - new)
    }

    fn lstm(&self, gates: &Tensor<2>, cell: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let open = |gate| activation::sigmoid(self.gate(gates, gate));
        let cell = open(1) * cell + open(0) * self.gate(gates, 2).tanh();
        (open(3) * cell.clone().tanh(), cell)
    }

    /// The columns of one gate.
    fn gate(&self, gates: &Tensor<2>, gate: usize) -> Tensor<2> {
        gates.clone().narrow(1, gate * self.hidden, self.hidden)
    }
}
