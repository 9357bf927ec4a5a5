//! Convolutional networks for images: two plain layers, two normalised layers, and residual blocks.
//!
//! Kernels are channels out × channels in × height × width, as in PyTorch. Normalisation is by groups of four channels
//! (Wu and He 2018, arXiv:1803.08494): unlike batch normalisation it knows nothing of other examples, and there are no
//! running averages that would have to be shared.

use burn::tensor::module::{conv2d, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Tensor, activation};

use super::dense::{affine, affine_tensors};
use super::{named, numbers};
use crate::model::{Batch, Input, Model, Role, Start, TensorSpec, Weights};
use crate::{LearningError, ModelSpec};

/// Channels that are normalised together.
const GROUP: usize = 4;

/// What is added to a variance before it divides, as in PyTorch.
const EPSILON: f32 = 1e-5;

/// Stages of a residual network, each with half the height and width and twice the channels of the one before.
const STAGES: usize = 3;

/// Blocks of a stage at most.
const MAX_BLOCKS: usize = 20;

#[derive(Clone, Copy)]
struct Image {
    height: usize,
    width: usize,
    channels: usize,
}

/// Two convolutions with rectified linear units and pooling by two, and a hidden layer (McMahan et al. 2017,
/// arXiv:1602.05629).
struct Plain {
    image: Image,
    filters: [usize; 2],
    hidden: usize,
    classes: usize,
}

/// Two convolutions with normalisation, rectified linear units and pooling by two.
struct Normalised {
    image: Image,
    filters: [usize; 2],
    classes: usize,
}

/// Residual blocks of two convolutions (He et al. 2016, arXiv:1512.03385, section 4.2).
struct Residual {
    image: Image,
    blocks: Vec<Block>,
    classes: usize,
}

struct Block {
    name: String,
    inputs: usize,
    outputs: usize,
    stride: usize,
}

pub(super) fn plain(sizes: &str) -> Option<Result<ModelSpec, LearningError>> {
    let sizes = numbers(sizes)?;
    let &[height, width, channels, one, two, hidden, classes] = sizes.as_slice() else { return None };
    let image = Image { height, width, channels };
    let model = Plain { image, filters: [one, two], hidden, classes };
    Some(ModelSpec::new(named("cnn", &sizes), Box::new(model)))
}

pub(super) fn normalised(sizes: &str) -> Option<Result<ModelSpec, LearningError>> {
    let sizes = numbers(sizes)?;
    let &[height, width, channels, one, two, classes] = sizes.as_slice() else { return None };
    if !one.is_multiple_of(GROUP) || !two.is_multiple_of(GROUP) {
        return None;
    }
    let model = Normalised { image: Image { height, width, channels }, filters: [one, two], classes };
    Some(ModelSpec::new(named("cnn-norm", &sizes), Box::new(model)))
}

pub(super) fn residual(sizes: &str) -> Option<Result<ModelSpec, LearningError>> {
    let sizes = numbers(sizes)?;
    let &[height, width, channels, filters, blocks, classes] = sizes.as_slice() else { return None };
    if !filters.is_multiple_of(GROUP) || !(1..=MAX_BLOCKS).contains(&blocks) {
        return None;
    }
    let mut inputs = filters;
    let mut chain = Vec::with_capacity(STAGES * blocks);
    for (stage, block) in (0..STAGES).flat_map(|stage| (0..blocks).map(move |block| (stage, block))) {
        let outputs = filters.saturating_mul(1 << stage);
        let stride = if stage > 0 && block == 0 { 2 } else { 1 };
        chain.push(Block { name: format!("stage{}.{block}", stage + 1), inputs, outputs, stride });
        inputs = outputs;
    }
    let model = Residual { image: Image { height, width, channels }, blocks: chain, classes };
    Some(ModelSpec::new(named("resnet", &sizes), Box::new(model)))
}

impl Image {
    fn input(self) -> Input {
        let Self { height, width, channels } = self;
        Input::Image { channels, height, width }
    }

    /// Values that one filter leaves after both layers have pooled.
    fn pooled_twice(self) -> usize {
        (self.height / 4).saturating_mul(self.width / 4)
    }

    /// Rows × channels × height × width.
    fn of(self, batch: Batch) -> Tensor<4> {
        let features = batch.features();
        let rows = features.dims()[0];
        features.reshape([rows, self.channels, self.height, self.width])
    }
}

impl Model for Plain {
    fn input(&self) -> Input {
        self.image.input()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let [one, two] = self.filters;
        let flat = two.saturating_mul(self.image.pooled_twice());
        let mut tensors = Vec::new();
        for (name, inputs, outputs) in [("conv1", self.image.channels, one), ("conv2", one, two)] {
            tensors.push(TensorSpec::new(format!("{name}.bias"), &[outputs], Start::Zeros));
            tensors.push(kernel(name, inputs, outputs, 5));
        }
        tensors.extend(affine_tensors("hidden", flat, self.hidden, Role::Body));
        tensors.extend(affine_tensors("output", self.hidden, self.classes, Role::Head));
        tensors
    }

    fn scores(&self, weights: &Weights<'_>, batch: Batch) -> Tensor<2> {
        let values = ["conv1", "conv2"].into_iter().fold(self.image.of(batch), |values, name| {
            let bias = weights.get(&format!("{name}.bias"));
            halve(activation::relu(convolve(weights, name, values, Some(bias), 1)))
        });
        let hidden = affine(weights, "hidden", values.flatten(1, 3));
        affine(weights, "output", activation::relu(hidden))
    }
}

impl Model for Normalised {
    fn input(&self) -> Input {
        self.image.input()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let [one, two] = self.filters;
        let mut tensors = vec![kernel("conv1", self.image.channels, one, 3), kernel("conv2", one, two, 3)];
        tensors.extend(norm_tensors("norm1", one));
        tensors.extend(norm_tensors("norm2", two));
        let flat = two.saturating_mul(self.image.pooled_twice());
        tensors.extend(affine_tensors("output", flat, self.classes, Role::Head));
        tensors
    }

    fn scores(&self, weights: &Weights<'_>, batch: Batch) -> Tensor<2> {
        let layers = [("conv1", "norm1"), ("conv2", "norm2")];
        let values = layers.into_iter().fold(self.image.of(batch), |values, (conv, norm)| {
            let values = convolve(weights, conv, values, None, 1);
            halve(activation::relu(normalise(weights, norm, values)))
        });
        affine(weights, "output", values.flatten(1, 3))
    }
}

impl Model for Residual {
    fn input(&self) -> Input {
        self.image.input()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let mut tensors = vec![kernel("conv", self.image.channels, self.blocks[0].inputs, 3)];
        tensors.extend(norm_tensors("norm", self.blocks[0].inputs));
        for Block { name, inputs, outputs, .. } in &self.blocks {
            tensors.push(kernel(&format!("{name}.conv1"), *inputs, *outputs, 3));
            tensors.push(kernel(&format!("{name}.conv2"), *outputs, *outputs, 3));
            tensors.extend(norm_tensors(&format!("{name}.norm1"), *outputs));
            tensors.extend(norm_tensors(&format!("{name}.norm2"), *outputs));
            if inputs != outputs {
                tensors.push(kernel(&format!("{name}.shortcut.conv"), *inputs, *outputs, 1));
                tensors.extend(norm_tensors(&format!("{name}.shortcut.norm"), *outputs));
            }
        }
        let last = self.blocks[self.blocks.len() - 1].outputs;
        tensors.extend(affine_tensors("output", last, self.classes, Role::Head));
        tensors
    }

    fn scores(&self, weights: &Weights<'_>, batch: Batch) -> Tensor<2> {
        let stem = convolve(weights, "conv", self.image.of(batch), None, 1);
        let stem = activation::relu(normalise(weights, "norm", stem));
        let values = self.blocks.iter().fold(stem, |values, block| block.apply(weights, values));
        let [rows, channels, ..] = values.dims();
        affine(weights, "output", values.mean_dims(&[2, 3]).reshape([rows, channels]))
    }
}

impl Block {
    fn apply(&self, weights: &Weights<'_>, values: Tensor<4>) -> Tensor<4> {
        let normalised = |conv: &str, norm: &str, values, stride| {
            let values = convolve(weights, &format!("{}.{conv}", self.name), values, None, stride);
            normalise(weights, &format!("{}.{norm}", self.name), values)
        };
        let inner = activation::relu(normalised("conv1", "norm1", values.clone(), self.stride));
        let inner = normalised("conv2", "norm2", inner, 1);
        let shortcut = if self.inputs == self.outputs {
            values
        } else {
            normalised("shortcut.conv", "shortcut.norm", values, self.stride)
        };
        activation::relu(inner + shortcut)
    }
}

/// The kernel of a square convolution.
fn kernel(name: &str, inputs: usize, outputs: usize, side: usize) -> TensorSpec {
    let start = Start::he(inputs.saturating_mul(side * side));
    TensorSpec::new(format!("{name}.weight"), &[outputs, inputs, side, side], start)
}

fn norm_tensors(name: &str, channels: usize) -> [TensorSpec; 2] {
    let tensor =
        |part, start| TensorSpec::new(format!("{name}.{part}"), &[channels], start).with_role(Role::Norm);
    [tensor("bias", Start::Zeros), tensor("weight", Start::Ones)]
}

/// A convolution with zeros around the image, so that with stride 1 it keeps its size.
fn convolve(
    weights: &Weights<'_>,
    name: &str,
    values: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
) -> Tensor<4> {
    let kernel: Tensor<4> = weights.get(&format!("{name}.weight"));
    let padding = kernel.dims()[2] / 2;
    conv2d(values, kernel, bias, ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1))
}

/// The largest of each square of four; an odd row or column at the end is left out.
fn halve(values: Tensor<4>) -> Tensor<4> {
    max_pool2d(values, MaxPoolOptions::new([2, 2]))
}

/// Groups of channels of mean 0 and variance 1, then a scale and a shift for each channel.
fn normalise(weights: &Weights<'_>, name: &str, values: Tensor<4>) -> Tensor<4> {
    let [rows, channels, height, width] = values.dims();
    let groups = values.reshape([rows, channels / GROUP, GROUP * height * width]);
    let centred = groups.clone() - groups.mean_dim(2);
    let deviation = (centred.clone() * centred.clone()).mean_dim(2).add_scalar(EPSILON).sqrt();
    let standard = (centred / deviation).reshape([rows, channels, height, width]);
    let each_channel = |part| weights.row(&format!("{name}.{part}")).reshape([1, channels, 1, 1]);
    standard * each_channel("weight") + each_channel("bias")
}
