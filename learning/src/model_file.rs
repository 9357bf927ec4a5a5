//! Models as safetensors files (<https://github.com/huggingface/safetensors>).
//!
//! One `F32` tensor per weight and bias, named and shaped as [`ModelSpec::tensors`] lists them, and the name of the
//! model under the metadata key `fedveil.model`. Writing is byte-deterministic, so the digest of a file names its
//! model. Reading is strict: exactly those tensors, all finite. Other metadata keys are ignored.
//!
//! The data section of a file is the flat vector, in little-endian `f32`: safetensors lays tensors of one type out
//! by name, and [`ModelSpec`] puts its parameters in the order of their names. So the coordinator adds an update to
//! a file it has no model for.

use std::collections::HashMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::{LearningError, MAX_PARAMETERS, ModelSpec, Models, TensorSpec};

/// Largest file read, in bytes.
pub const MAX_BYTES: usize = MAX_PARAMETERS * size_of::<f32>() + MAX_HEADER_BYTES + LENGTH_BYTES;

/// Bytes of the header's length, which opens the file (little-endian).
const LENGTH_BYTES: usize = 8;

/// Largest JSON header read. A tensor takes about 100 bytes; the library would parse 100 MB.
const MAX_HEADER_BYTES: usize = 1 << 16;

/// Metadata key of the model's name.
const SPEC_KEY: &str = "fedveil.model";

/// The file of a model; the same model gives the same bytes.
pub fn to_safetensors(spec: &ModelSpec, parameters: &[f32]) -> Result<Vec<u8>, LearningError> {
    spec.check_parameters(parameters)?;
    let bytes: Vec<u8> = parameters.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut rest = bytes.as_slice();
    let mut tensors = Vec::new();
    for tensor in spec.layout() {
        let (data, after) = rest.split_at(tensor.size() * size_of::<f32>());
        rest = after;
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), data).map_err(invalid)?;
        tensors.push((&tensor.name, view));
    }
    // A single key: the library writes the metadata in the order of a HashMap.
    let metadata = HashMap::from([(SPEC_KEY.to_owned(), spec.to_string())]);
    safetensors::serialize(tensors, Some(metadata)).map_err(invalid)
}

/// Reads what [`to_safetensors`] wrote of a built-in model.
pub fn from_safetensors(bytes: &[u8]) -> Result<(ModelSpec, Vec<f32>), LearningError> {
    read(bytes, &Models::default())
}

/// Reads what [`to_safetensors`] wrote of one of these models.
pub fn read(bytes: &[u8], models: &Models) -> Result<(ModelSpec, Vec<f32>), LearningError> {
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
            "no metadata key {SPEC_KEY}: expected the model's name, such as softmax:64x10"
        ));
    };
    let spec = models.find(text)?;

    let file = SafeTensors::deserialize(bytes).map_err(invalid)?;
    let expected = spec.layout();
    if file.len() != expected.len() {
        return refuse(format!("{} tensors: expected {} for model {spec}", file.len(), expected.len()));
    }
    let mut parameters = Vec::with_capacity(spec.parameters());
    for TensorSpec { name, shape, .. } in expected {
        let tensor = file.tensor(name).map_err(invalid)?;
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

fn refuse<T>(detail: String) -> Result<T, LearningError> {
    Err(LearningError::ModelFile { detail })
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn invalid(error: SafeTensorError) -> LearningError {
    LearningError::ModelFile { detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mlp() -> ModelSpec {
        "mlp:2x3x2".parse().unwrap()
    }

    fn counting(spec: &ModelSpec) -> Vec<f32> {
        (0..spec.parameters()).map(|i| i as f32).collect()
    }

    /// A well-formed safetensors file of the given tensors, whatever they are.
    fn file(metadata: &[(&str, &str)], tensors: &[(&str, Dtype, &[usize])]) -> Vec<u8> {
        let zeros = [0_u8; 256];
        let views = tensors.iter().map(|&(name, dtype, shape)| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            (name, TensorView::new(dtype, shape.to_vec(), &zeros[..bytes]).unwrap())
        });
        let metadata = metadata.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        safetensors::serialize(views, Some(metadata)).unwrap()
    }

    fn refusal(bytes: &[u8]) -> String {
        from_safetensors(bytes).unwrap_err().to_string()
    }

    #[test]
    fn round_trips_and_is_deterministic() {
        for spec in ["softmax:64x10".parse().unwrap(), mlp()] {
            let bytes = to_safetensors(&spec, &counting(&spec)).unwrap();
            assert_eq!(bytes, to_safetensors(&spec, &counting(&spec)).unwrap());
            let parameters = counting(&spec);
            assert_eq!(from_safetensors(&bytes).unwrap(), (spec, parameters));
        }
    }

    #[test]
    fn other_tools_find_named_tensors() {
        let bytes = to_safetensors(&mlp(), &counting(&mlp())).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut names = file.names();
        names.sort_unstable();
        assert_eq!(names, ["hidden.bias", "hidden.weight", "output.bias", "output.weight"]);
        let weight = file.tensor("output.weight").unwrap();
        assert_eq!((weight.dtype(), weight.shape()), (Dtype::F32, [3, 2].as_slice()));
        let expected: Vec<u8> = (11..17).flat_map(|i| (i as f32).to_le_bytes()).collect();
        assert_eq!(weight.data(), expected);
    }

    #[test]
    fn the_data_section_is_the_flat_vector() {
        for spec in ["softmax:25x10".parse().unwrap(), mlp()] {
            let bytes = to_safetensors(&spec, &counting(&spec)).unwrap();
            let (length, rest) = bytes.split_at(8);
            let header = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let (_json, data) = rest.split_at(header);
            let (values, odd_bytes) = data.as_chunks();
            assert!(odd_bytes.is_empty());
            let found: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
            assert_eq!(found, counting(&spec), "{spec}");
        }
    }

    #[test]
    fn refuses_to_write_what_is_no_model() {
        assert!(matches!(
            to_safetensors(&mlp(), &[0.0]),
            Err(LearningError::ParameterCount { found: 1, .. })
        ));
        let infinite = vec![f32::INFINITY; mlp().parameters()];
        assert!(matches!(to_safetensors(&mlp(), &infinite), Err(LearningError::NonFiniteParameter { .. })));
    }

    #[test]
    fn refuses_other_tensors_than_the_models() {
        let spec = [(SPEC_KEY, "softmax:3x2")];
        let weight = ("output.weight", Dtype::F32, [3, 2].as_slice());
        let bias = ("output.bias", Dtype::F32, [2].as_slice());
        assert!(from_safetensors(&file(&spec, &[weight, bias])).is_ok());
        assert!(from_safetensors(&file(&[spec[0], ("format", "pt")], &[weight, bias])).is_ok());

        let cases = [
            (file(&[], &[weight, bias]), "no metadata key fedveil.model"),
            (file(&[(SPEC_KEY, "softmax:3")], &[weight, bias]), "unknown model \"softmax:3\""),
            (
                file(&[(SPEC_KEY, "softmax:4x2")], &[weight, bias]),
                "tensor output.weight is F32 [3, 2]: expected F32 [4, 2]",
            ),
            (file(&spec, &[weight]), "1 tensors: expected 2"),
            (file(&spec, &[weight, bias, ("extra", Dtype::F32, &[1])]), "3 tensors: expected 2"),
            (file(&spec, &[weight, ("output.bigs", Dtype::F32, &[2])]), "output.bias"),
            (
                file(&spec, &[weight, ("output.bias", Dtype::F64, &[2])]),
                "tensor output.bias is F64 [2]: expected F32 [2]",
            ),
            (
                file(&spec, &[weight, ("output.bias", Dtype::F32, &[1, 2])]),
                "tensor output.bias is F32 [1, 2]",
            ),
        ];
        for (bytes, expected) in cases {
            let found = refusal(&bytes);
            assert!(found.contains(expected), "found {found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn refuses_values_that_are_not_finite() {
        let mut bytes = to_safetensors(&mlp(), &counting(&mlp())).unwrap();
        let last = bytes.len() - size_of::<f32>();
        bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(refusal(&bytes), "parameter 16 is NaN: expected a finite number");
    }

    #[test]
    fn refuses_sizes_before_parsing() {
        let mut header = (MAX_HEADER_BYTES as u64 + 1).to_le_bytes().to_vec();
        header.resize(1 << 17, b' ');
        assert!(refusal(&header).contains("a header of 65537 bytes: expected at most 65536"));
        assert!(refusal(&vec![0; MAX_BYTES + 1]).contains("expected at most"));
    }

    #[test]
    fn every_truncation_and_extension_is_refused() {
        let bytes = to_safetensors(&mlp(), &counting(&mlp())).unwrap();
        for length in 0..bytes.len() {
            assert!(from_safetensors(&bytes[..length]).is_err(), "{length} bytes of {}", bytes.len());
        }
        assert!(from_safetensors(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    proptest! {
        /// A changed byte is refused, changes the content, or sits in the spelling of the header; none panics.
        #[test]
        fn damage_never_panics(at in 0_usize..400, flip in 1_u8..) {
            let mut bytes = to_safetensors(&mlp(), &counting(&mlp())).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            if let Ok((spec, parameters)) = from_safetensors(&bytes) {
                prop_assert_eq!(parameters.len(), spec.parameters());
                prop_assert!(parameters.iter().all(|value| value.is_finite()));
            }
        }
    }
}
