//! Models as safetensors files (<https://github.com/huggingface/safetensors>).
//!
//! One `F32` tensor per weight and bias, named and shaped as [`ModelSpec`] lists them, and the text form of the
//! spec under the metadata key `fedveil.model`. Writing is byte-deterministic, so the digest of a file names its
//! model. Reading is strict: exactly those tensors, all finite. Other metadata keys are ignored.

use std::collections::HashMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::model::Layer;
use crate::{LearningError, MAX_PARAMETERS, ModelSpec};

/// Largest file read, in bytes.
pub const MAX_BYTES: usize = MAX_PARAMETERS * size_of::<f32>() + MAX_HEADER_BYTES + LENGTH_BYTES;

/// Bytes of the header's length, which opens the file (little-endian).
const LENGTH_BYTES: usize = 8;

/// Largest JSON header read. Four tensors take about 400 bytes; the library would parse 100 MB.
const MAX_HEADER_BYTES: usize = 1 << 16;

/// Metadata key of the spec's text form.
const SPEC_KEY: &str = "fedveil.model";

/// The file of a model; the same model gives the same bytes.
pub fn to_safetensors(spec: &ModelSpec, parameters: &[f32]) -> Result<Vec<u8>, LearningError> {
    spec.check_parameters(parameters)?;
    let bytes: Vec<u8> = parameters.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut rest = bytes.as_slice();
    let mut tensors = Vec::new();
    for (name, shape) in spec.layers().flat_map(tensors_of) {
        let (data, after) = rest.split_at(shape.iter().product::<usize>() * size_of::<f32>());
        rest = after;
        tensors.push((name, TensorView::new(Dtype::F32, shape, data).map_err(invalid)?));
    }
    // A single key: the library writes the metadata in the order of a HashMap.
    let metadata = HashMap::from([(SPEC_KEY.to_owned(), spec.to_string())]);
    safetensors::serialize(tensors, Some(metadata)).map_err(invalid)
}

/// Reads what [`to_safetensors`] wrote.
pub fn from_safetensors(bytes: &[u8]) -> Result<(ModelSpec, Vec<f32>), LearningError> {
    if bytes.len() > MAX_BYTES {
        return refuse(format!("{} bytes: expected at most {MAX_BYTES}", bytes.len()));
    }
    if let Some(length) = bytes.first_chunk().copied().map(u64::from_le_bytes)
        && length > MAX_HEADER_BYTES as u64
    {
        return refuse(format!("a header of {length} bytes: expected at most {MAX_HEADER_BYTES}"));
    }
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    let Some(text) = header.metadata().as_ref().and_then(|metadata| metadata.get(SPEC_KEY)) else {
        return refuse(format!(
            "no metadata key {SPEC_KEY}: expected the model's text form, such as softmax:64x10"
        ));
    };
    let spec: ModelSpec = text.parse()?;

    let file = SafeTensors::deserialize(bytes).map_err(invalid)?;
    let expected: Vec<_> = spec.layers().flat_map(tensors_of).collect();
    if file.len() != expected.len() {
        return refuse(format!("{} tensors: expected {} for model {spec}", file.len(), expected.len()));
    }
    let mut parameters = Vec::with_capacity(spec.parameters());
    for (name, shape) in expected {
        let tensor = file.tensor(&name).map_err(invalid)?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            return refuse(format!(
                "tensor {name} is {:?} {:?}: expected F32 {shape:?}",
                tensor.dtype(),
                tensor.shape()
            ));
        }
        let (values, _) = tensor.data().as_chunks();
        parameters.extend(values.iter().map(|value| f32::from_le_bytes(*value)));
    }
    spec.check_parameters(&parameters)?;
    Ok((spec, parameters))
}

/// Name and shape of the tensors of a layer, in the order of the flat vector.
fn tensors_of(layer: Layer) -> [(String, Vec<usize>); 2] {
    [
        (format!("{}.weight", layer.name), vec![layer.inputs, layer.outputs]),
        (format!("{}.bias", layer.name), vec![layer.outputs]),
    ]
}

fn refuse<T>(detail: String) -> Result<T, LearningError> {
    Err(LearningError::ModelFile { detail })
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn invalid(error: SafeTensorError) -> LearningError {
    LearningError::ModelFile { detail: error.to_string() }
}
