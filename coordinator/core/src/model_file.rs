//! A model file as a vector: the data section of a safetensors file whose tensors are all F32.
//!
//! The coordinator never interprets a model. It reads the data section in file order, adds an update and writes the same
//! header back, so any architecture that a client can train passes through unchanged.

use std::collections::BTreeMap;

/// Why a model file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelFileError {
    /// Not safetensors.
    #[error("model file is not safetensors: {0}")]
    Malformed(String),
    /// A tensor of another type than F32.
    #[error("model file: tensor `{tensor}` is {found}, accepted is F32")]
    Type {
        /// Name of the tensor.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// Another number of parameters than expected.
    #[error("model file has {found} parameters, expected are {expected}")]
    Length {
        /// Parameters in the file.
        found: usize,
        /// Parameters expected.
        expected: usize,
    },
}

/// The parameters of a model file, in file order.
pub fn parameters(file: &[u8]) -> Result<Vec<f32>, ModelFileError> {
    let (words, _) = file[data_offset(file)?..].as_chunks::<4>();
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

/// The same file with other parameters.
pub fn with_parameters(file: &[u8], parameters: &[f32]) -> Result<Vec<u8>, ModelFileError> {
    let offset = data_offset(file)?;
    let expected = (file.len() - offset) / 4;
    if parameters.len() != expected {
        return Err(ModelFileError::Length { found: parameters.len(), expected });
    }
    let mut out = file[..offset].to_vec();
    out.extend(parameters.iter().flat_map(|value| value.to_le_bytes()));
    Ok(out)
}

fn data_offset(file: &[u8]) -> Result<usize, ModelFileError> {
    let malformed = |error: safetensors::SafeTensorError| ModelFileError::Malformed(error.to_string());
    let (header_length, metadata) = safetensors::SafeTensors::read_metadata(file).map_err(malformed)?;
    let tensors: BTreeMap<_, _> = metadata.tensors().into_iter().collect();
    for (name, info) in tensors {
        if info.dtype != safetensors::Dtype::F32 {
            return Err(ModelFileError::Type { tensor: name, found: format!("{:?}", info.dtype) });
        }
    }
    let offset = header_length + 8;
    if metadata.data_len() + offset != file.len() {
        return Err(ModelFileError::Malformed(format!("{} bytes after the header", file.len() - offset)));
    }
    Ok(offset)
}
