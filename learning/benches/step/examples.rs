//! The examples of a federation: Fashion-MNIST, or waves in its place.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use fedveil_learning::Dataset;
use flate2::read::GzDecoder;

use crate::{CLASSES, INPUTS, text, waves};

pub(crate) struct Examples {
    pub(crate) train: Dataset,
    pub(crate) test: Option<Dataset>,
}

impl Examples {
    /// As many as Fashion-MNIST has, that cost as much.
    pub(crate) fn waves() -> Self {
        Self { train: waves(60_000, 3), test: None }
    }

    /// The files of Xiao et al. 2017 (arXiv:1708.07747), in units of the training images' standard deviation.
    pub(crate) fn fashion_mnist(folder: &Path) -> Result<Self, String> {
        let load = |images: &str, labels: &str| {
            let features = idx(&folder.join(images), 16)?
                .into_iter()
                .map(|pixel| (f32::from(pixel) / 255.0 - 0.2860) / 0.3530)
                .collect();
            let labels = idx(&folder.join(labels), 8)?.into_iter().map(u32::from).collect();
            Dataset::new(features, labels, INPUTS, CLASSES).map_err(text)
        };
        Ok(Self {
            train: load("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")?,
            test: Some(load("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")?),
        })
    }
}

/// The bytes of an IDX file after its header.
fn idx(path: &Path, header: usize) -> Result<Vec<u8>, String> {
    let fault = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(path).map_err(fault)?).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() <= header {
        return Err(format!("{}: shorter than its header", path.display()));
    }
    Ok(bytes.split_off(header))
}
