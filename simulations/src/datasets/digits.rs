//! The data inside the binary, and the split of any rows into those for training and those for testing.

use std::f64::consts::PI;
use std::io::Read;

use chacha20::ChaCha20Rng;
use fedveil_learning::{Dataset, permutation};
use flate2::read::GzDecoder;
use rand_core::SeedableRng;

use super::table::{Part, Shape};
use super::{Data, DatasetError, names_of};

/// Share of the rows that a run keeps for testing unless told otherwise.
pub const TEST_SHARE: f64 = 0.2;

/// UCI optical digits (data/digits/README.md): gzipped CSV, 64 pixels from 0 to 16 and the digit in each row.
const DIGITS: &[u8] = include_bytes!("../../data/digits/digits.csv.gz");

/// Pixels of an 8 × 8 image.
const DIGIT_PIXELS: usize = 64;

/// The brightest pixel.
const DIGIT_WHITE: f32 = 16.0;

/// Brightness of an average pixel, rounded so that no image can be read from it.
const DIGIT_MEAN: f64 = 0.3;

/// Frequencies kept along each side of an image.
const DIGIT_FREQUENCIES: usize = 5;

/// 1,797 images of handwritten digits: 64 inputs in `[0, 1]` (row by row, 1 is ink), 10 classes.
pub fn digits() -> Dataset {
    let mut text = String::new();
    GzDecoder::new(DIGITS).read_to_string(&mut text).expect("the embedded file is gzipped text");
    let (mut features, mut labels) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let (pixels, digit) = line.rsplit_once(',').expect("an embedded row ends with its digit");
        let pixel = |value: &str| value.parse::<u8>().expect("an embedded pixel is a small integer");
        features.extend(pixels.split(',').map(|value| f32::from(pixel(value)) / DIGIT_WHITE));
        labels.push(digit.parse().expect("an embedded label is a digit"));
    }
    Dataset::new(features, labels, DIGIT_PIXELS, 10).expect("the embedded rows have 64 pixels and a digit")
}

/// The digits by their low frequencies: 25 inputs, of which input 5u + v is coefficient (u, v) of the orthonormal
/// two-dimensional DCT-II of the centred image, weighted by (1 + u² + v²)^¼.
///
/// It is for training under noise: the norm of the noise grows with the number of parameters, and strokes as wide
/// as these live in the low frequencies. The map is fixed and looks at one image at a time, so that a client applies
/// it alone and at no cost in privacy. Its shape was chosen by the accuracy on these digits, which no ε covers.
pub fn digits_spectrum() -> Dataset {
    spectrum_of(&digits())
}

/// The same for some images of 64 inputs in `[0, 1]`. Panics for examples of another size.
pub fn spectrum_of(images: &Dataset) -> Dataset {
    assert_eq!(images.inputs(), DIGIT_PIXELS, "inputs of an image of 8 × 8 pixels");
    let basis = dct_basis();
    let features = images.features().chunks_exact(DIGIT_PIXELS).flat_map(|image| spectrum(image, &basis));
    Dataset::new(features.collect(), images.labels().to_vec(), basis.len(), images.classes())
        .expect("every digit has 25 finite coefficients")
}

/// Training and test rows: a shuffle under `seed`, cut so that `test_share` of the rows (rounded, and at least one
/// on either side) are for testing.
pub fn split(data: &Dataset, test_share: f64, seed: u64) -> Result<(Dataset, Dataset), DatasetError> {
    let (train, test) = split_rows(data.len(), test_share, seed)?;
    let rows = |rows: &[usize]| data.subset(rows).expect("both sides hold existing rows");
    Ok((rows(&train), rows(&test)))
}

/// The rows that [`split`] takes for training and for testing, in its order.
pub(super) fn split_rows(
    rows: usize,
    test_share: f64,
    seed: u64,
) -> Result<(Vec<usize>, Vec<usize>), DatasetError> {
    if !(test_share > 0.0 && test_share < 1.0) {
        return Err(DatasetError::TestShare { found: test_share });
    }
    if rows < 2 {
        return Err(DatasetError::SingleRow);
    }
    let mut test = permutation(rows, &mut ChaCha20Rng::seed_from_u64(seed));
    let test_rows = (rows as f64 * test_share).round() as usize;
    let train = test.split_off(test_rows.clamp(1, rows - 1));
    Ok((train, test))
}

/// The digits in training and test rows, as [`split`] makes them of [`digits`] or of [`digits_spectrum`].
pub(super) fn data(spectrum: bool, test_share: f64, seed: u64) -> Result<Data, DatasetError> {
    let all = if spectrum { digits_spectrum() } else { digits() };
    let (train, test) = split(&all, test_share, seed)?;
    let part = |data: &Dataset| {
        let (features, labels) = (data.features(), data.labels().to_vec());
        if spectrum {
            return Part::floats(features.to_vec(), labels, data.inputs(), data.classes());
        }
        let bytes = features.iter().map(|value| (value * DIGIT_WHITE) as u8).collect();
        let shape = Shape { channels: 1, height: 8, width: 8 };
        let level = |byte: usize| byte as f32 / DIGIT_WHITE;
        Part::images(bytes, labels, shape, data.classes(), vec![std::array::from_fn(level)])
    };
    Ok(Data {
        name: "digits".to_owned(),
        train: part(&train),
        test: part(&test),
        class_names: names_of("0123456789"),
        clients: Vec::new(),
        characters: Vec::new(),
    })
}

/// Weighted coefficients of one image of 8 × 8 pixels in `[0, 1]`.
fn spectrum(image: &[f32], basis: &[[f64; DIGIT_PIXELS]]) -> Vec<f32> {
    let project = |wave: &[f64; DIGIT_PIXELS]| {
        image.iter().zip(wave).map(|(&pixel, wave)| (f64::from(pixel) - DIGIT_MEAN) * wave).sum::<f64>()
            as f32
    };
    basis.iter().map(project).collect()
}

/// The weighted waves that images are projected on, 25 × 64.
fn dct_basis() -> Vec<[f64; DIGIT_PIXELS]> {
    let wave = |frequency: usize, at: usize| {
        let scale = if frequency == 0 { 0.125_f64 } else { 0.25 };
        scale.sqrt() * (PI * (2 * at + 1) as f64 * frequency as f64 / 16.0).cos()
    };
    let frequencies = (0..DIGIT_FREQUENCIES).flat_map(|u| (0..DIGIT_FREQUENCIES).map(move |v| (u, v)));
    frequencies
        .map(|(u, v)| {
            let weight = (1.0 + (u * u + v * v) as f64).powf(0.25);
            std::array::from_fn(|pixel| weight * wave(u, pixel / 8) * wave(v, pixel % 8))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fedveil_learning::{LocalTraining, ModelSpec, evaluate, train};

    use super::*;

    #[test]
    fn digits_are_all_there() {
        let data = digits();
        assert_eq!((data.len(), data.inputs(), data.classes()), (1797, 64, 10));
        assert!(data.features().iter().all(|pixel| (0.0..=1.0).contains(pixel)));
        assert!(data.features().contains(&1.0));
        // Counts of the ten digits, from the description that comes with the data.
        let counts: Vec<usize> =
            (0..10).map(|digit| data.labels().iter().filter(|label| **label == digit).count()).collect();
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        // The first image is a zero: bright on the ring, dark in its middle and its corners.
        assert_eq!(data.labels()[0], 0);
        let pixel = |row: usize, column: usize| data.features()[row * 8 + column];
        assert_eq!(pixel(1, 3) * 16.0, 15.0);
        assert_eq!([pixel(0, 0), pixel(3, 3), pixel(7, 7)], [0.0; 3]);
    }

    #[test]
    fn spectrum_separates_waves() {
        let spectrum_of = |pixel: &dyn Fn(usize, usize) -> f64| {
            let image: Vec<f32> = (0..64).map(|at| pixel(at / 8, at % 8) as f32).collect();
            spectrum(&image, &dct_basis())
        };
        let close = |found: &[f32], at: usize, expected: f64| {
            found
                .iter()
                .enumerate()
                .all(|(i, &value)| (f64::from(value) - if i == at { expected } else { 0.0 }).abs() < 1e-5)
        };
        // An even image has its mean alone: 8 times it, since a wave of frequency 0 is 1/8 everywhere.
        assert!(close(&spectrum_of(&|_, _| 0.8), 0, 8.0 * 0.5));
        // A wave down the rows has one coefficient, (2, 0): the sum of its squares over 8 rows is 4, over 64
        // pixels 32, so its norm is √32, times the weight 5^¼.
        let down = |row: usize, _: usize| 0.3 + (PI * (2 * row + 1) as f64 * 2.0 / 16.0).cos();
        assert!(close(&spectrum_of(&down), 10, 32_f64.sqrt() * 5_f64.powf(0.25)));
        // The same wave along the columns is (0, 2).
        assert!(close(&spectrum_of(&|row, column| down(column, row)), 2, 32_f64.sqrt() * 5_f64.powf(0.25)));
        // Frequency 5 is left out.
        let fine = |row: usize, _: usize| 0.3 + (PI * (2 * row + 1) as f64 * 5.0 / 16.0).cos();
        assert!(close(&spectrum_of(&fine), 0, 0.0));
    }

    #[test]
    fn waves_are_orthogonal_and_as_long_as_their_weight() {
        let basis = dct_basis();
        for (i, one) in basis.iter().enumerate() {
            for (j, two) in basis.iter().enumerate() {
                let product: f64 = one.iter().zip(two).map(|(a, b)| a * b).sum();
                let (u, v) = ((i / 5) as f64, (i % 5) as f64);
                let expected = if i == j { (1.0 + u * u + v * v).sqrt() } else { 0.0 };
                assert!((product - expected).abs() < 1e-12, "waves {i} and {j}: {product}");
            }
        }
    }

    #[test]
    fn spectrum_agrees_with_scipy() {
        let data = digits_spectrum();
        let cases = [
            (0, [-0.103_125, -0.059_344, 0.185_309, -1.472_793, 1.123_491]),
            (1796, [0.6625, 0.168_45, -0.498_908, 0.454_471, 1.984_835]),
        ];
        for (row, expected) in cases {
            for (input, expected) in [0, 1, 5, 12, 24].into_iter().zip(expected) {
                let found = data.features()[row * data.inputs() + input];
                assert!((found - expected).abs() < 2e-6, "row {row}, input {input}: {found}");
            }
        }
    }

    #[test]
    fn spectrum_keeps_rows_and_labels() {
        let (pixels, spectrum) = (digits(), digits_spectrum());
        assert_eq!((spectrum.len(), spectrum.inputs(), spectrum.classes()), (1797, 25, 10));
        assert_eq!(spectrum.labels(), pixels.labels());
    }

    #[test]
    fn split_keeps_every_row_once() {
        // Features that name their row.
        let data = Dataset::new((0..10).map(|row| row as f32).collect(), vec![0; 10], 1, 2).unwrap();
        let (train, test) = split(&data, TEST_SHARE, 7).unwrap();
        assert_eq!((train.len(), test.len()), (8, 2));
        let rows: BTreeSet<u32> =
            train.features().iter().chain(test.features()).map(|&row| row as u32).collect();
        assert_eq!(rows, (0..10).collect());
        assert_eq!(split(&data, TEST_SHARE, 7).unwrap(), (train.clone(), test));
        assert_ne!(split(&data, TEST_SHARE, 8).unwrap().0, train);
    }

    #[test]
    fn split_leaves_a_row_on_either_side() {
        let data = Dataset::new(vec![0.0; 3], vec![0; 3], 1, 2).unwrap();
        for (share, expected) in [(0.01, (2, 1)), (0.99, (1, 2))] {
            let (train, test) = split(&data, share, 0).unwrap();
            assert_eq!((train.len(), test.len()), expected);
        }
    }

    #[test]
    fn split_refuses_improper_shares() {
        let data = digits();
        for share in [0.0, 1.0, -0.2, f64::INFINITY] {
            assert_eq!(split(&data, share, 0), Err(DatasetError::TestShare { found: share }));
        }
        assert!(split(&data, f64::NAN, 0).is_err());
        let one = data.subset(&[0]).unwrap();
        assert_eq!(split(&one, 0.5, 0), Err(DatasetError::SingleRow));
    }

    #[test]
    fn rows_that_are_kept_as_bytes_are_the_same_rows() {
        let all: Vec<u32> = (0..1438).collect();
        for (spectrum, pixels) in [(false, digits()), (true, digits_spectrum())] {
            let (train_rows, test_rows) = split(&pixels, TEST_SHARE, 7).unwrap();
            let found = data(spectrum, TEST_SHARE, 7).unwrap();
            assert_eq!(found.train.dataset(&all).unwrap(), train_rows);
            assert_eq!(found.test.dataset(&all[..359]).unwrap(), test_rows);
        }
    }

    #[test]
    fn models_learn_the_digits_centrally() {
        let training = LocalTraining::sgd(15, 16, 0.2);
        for (data, spec) in
            [(digits(), "softmax:64x10"), (digits(), "mlp:64x32x10"), (digits_spectrum(), "softmax:25x10")]
        {
            let (train_data, test_data) = split(&data, TEST_SHARE, 1).unwrap();
            let spec: ModelSpec = spec.parse().unwrap();
            let trained = train(&spec, &spec.initial(1), &train_data, &training, 1).unwrap();
            let metrics = evaluate(&spec, &trained.parameters, &test_data).unwrap();
            assert!(metrics.accuracy > 0.93, "{spec}: {metrics:?}");
        }
    }
}
