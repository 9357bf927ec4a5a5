//! Features that differ from client to client while classes do not: every client sees the world through a lens of its
//! own, the same in every round.

use chacha20::ChaCha20Rng;
use fedveil_learning::Dataset;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::datasets::{DatasetError, Part, Shape};
use crate::sampling::{standard_normal, uniform};

/// Told apart from the seeds of splits, so that a lens is independent of which rows lie behind it.
const PURPOSE: u64 = 0x6c65_6e73;

/// What changes a client's features, in the order of the fields; 0 changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shift {
    /// Images are turned about their centre by an angle that the client draws evenly from −`rotation` to `rotation`
    /// degrees; corners that come from outside are black.
    pub rotation: f64,
    /// A number that the client draws evenly from −`brightness` to `brightness` is added to every feature, in the unit
    /// of scaled features.
    pub brightness: f64,
    /// Gaussian noise is added to every feature, in the unit of scaled features: of deviation `noise` · (i + 1)/n at
    /// client i of n (Li et al., arXiv:2102.02079, §4.3). A row's noise is the same whenever it is read.
    pub noise: f64,
}

impl Shift {
    /// Refuses settings out of range, and rotation of what is no image.
    pub fn check(&self, part: &Part) -> Result<(), DatasetError> {
        let refuse = |name, found, expected| Err(DatasetError::Shift { name, found, expected });
        if !(0.0..=180.0).contains(&self.rotation) {
            return refuse("rotation", self.rotation, "0 to 180 degrees");
        }
        for (name, found) in [("brightness", self.brightness), ("noise", self.noise)] {
            if !(0.0..=100.0).contains(&found) {
                return refuse(name, found, "0 to 100");
            }
        }
        if self.rotation > 0.0 && part.shape().is_none() {
            return refuse("rotation", self.rotation, "0, since the rows are no images");
        }
        Ok(())
    }

    /// The rows of a client, changed.
    pub(super) fn dataset(
        &self,
        part: &Part,
        rows: &[u32],
        client: usize,
        clients: usize,
        seed: u64,
    ) -> Result<Dataset, DatasetError> {
        self.check(part)?;
        let mut features = part.features(rows)?;
        let mut rng = ChaCha20Rng::seed_from_u64(seed ^ PURPOSE);
        rng.set_stream(client as u64);
        let mut within = |most: f64| most * (2.0 * uniform(&mut rng) - 1.0);
        let (degrees, offset) = (within(self.rotation), within(self.brightness) as f32);
        let noise = self.noise * (client + 1) as f64 / clients as f64;

        let inputs = part.inputs();
        let black = part.black();
        for (row, features) in rows.iter().zip(features.chunks_exact_mut(inputs)) {
            if let Some(shape) = part.shape().filter(|_| self.rotation > 0.0) {
                rotate(features, shape, degrees.to_radians(), &black);
            }
            for value in &mut *features {
                *value += offset;
            }
            if noise > 0.0 {
                // The client's generator, from a place of the row's own.
                rng.set_word_pos((u128::from(*row) + 1) << 32);
                for value in features {
                    *value += (noise * standard_normal(&mut rng)) as f32;
                }
            }
        }
        part.with_features(features, rows)
    }
}

/// Turns an image about its centre, anticlockwise where rows count downwards, by bilinear interpolation.
fn rotate(image: &mut [f32], shape: Shape, angle: f64, black: &[f32]) {
    let (sine, cosine) = angle.sin_cos();
    let (height, width) = (shape.height, shape.width);
    let centre = ((height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0);
    for (plane, &black) in image.chunks_exact_mut(height * width).zip(black) {
        let before = plane.to_vec();
        let pixel = |row: f64, column: f64| {
            let inside = row >= 0.0 && column >= 0.0 && row < height as f64 && column < width as f64;
            f64::from(if inside { before[row as usize * width + column as usize] } else { black })
        };
        for (at, value) in plane.iter_mut().enumerate() {
            let (down, right) = ((at / width) as f64 - centre.0, (at % width) as f64 - centre.1);
            // Where the pixel comes from.
            let (row, column) =
                (centre.0 + cosine * down + sine * right, centre.1 + cosine * right - sine * down);
            let (top, left) = (row.floor(), column.floor());
            let (below, beside) = (row - top, column - left);
            let mix = |a: f64, b: f64, share: f64| a + share * (b - a);
            let upper = mix(pixel(top, left), pixel(top, left + 1.0), beside);
            let lower = mix(pixel(top + 1.0, left), pixel(top + 1.0, left + 1.0), beside);
            *value = mix(upper, lower, below) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::DataSpec;
    use crate::partition::{Partitioner, Split};
    use std::collections::BTreeMap;

    fn digits() -> Part {
        let spec = DataSpec::Digits { spectrum: false, test_share: 0.2 };
        spec.load(&BTreeMap::new(), 1).unwrap().train
    }

    #[test]
    fn a_quarter_turn_moves_pixels_and_four_bring_them_back() {
        let shape = Shape { channels: 2, height: 3, width: 3 };
        let before: Vec<f32> = (0..18).map(|value| value as f32).collect();
        let mut image = before.clone();
        rotate(&mut image, shape, 90_f64.to_radians(), &[0.0; 2]);
        // The right column becomes the top row.
        let rounded: Vec<i32> = image.iter().map(|value| value.round() as i32).collect();
        assert_eq!(rounded[..9], [2, 5, 8, 1, 4, 7, 0, 3, 6]);
        assert_eq!(rounded[9..], [11, 14, 17, 10, 13, 16, 9, 12, 15]);
        for _ in 0..3 {
            rotate(&mut image, shape, 90_f64.to_radians(), &[0.0; 2]);
        }
        assert!(image.iter().zip(&before).all(|(a, b)| (a - b).abs() < 1e-4), "{image:?}");
    }

    #[test]
    fn what_comes_from_outside_is_black() {
        let shape = Shape { channels: 1, height: 4, width: 4 };
        let mut image = vec![1.0; 16];
        rotate(&mut image, shape, 45_f64.to_radians(), &[-3.0]);
        assert!(image[0] < -1.0 && (image[5] - 1.0).abs() < 1e-6, "{image:?}");
    }

    #[test]
    fn every_client_has_a_lens_of_its_own_that_stays() {
        let part = digits();
        let split = Split::new(&part, &Partitioner::Draw { rows: part.rows(), alpha: None }, 4, 7).unwrap();
        let shift = Shift { rotation: 30.0, brightness: 0.5, noise: 0.1 };
        let seen = |client| split.dataset(&part, client, Some(&shift)).unwrap();
        assert_eq!(seen(2), seen(2));
        assert_ne!(seen(2), seen(3));
        assert_eq!(seen(2).labels(), part.labels());
        assert_eq!(split.dataset(&part, 2, Some(&Shift::default())), split.dataset(&part, 2, None));
    }

    #[test]
    fn noise_grows_from_client_to_client_and_brightness_is_one_number() {
        let part = digits();
        let split = Split::new(&part, &Partitioner::Draw { rows: part.rows(), alpha: None }, 2, 7).unwrap();
        let change = |client, shift: Shift| -> Vec<f64> {
            let plain = split.dataset(&part, client, None).unwrap();
            let shifted = split.dataset(&part, client, Some(&shift)).unwrap();
            shifted.features().iter().zip(plain.features()).map(|(a, b)| f64::from(a - b)).collect()
        };
        for (client, expected) in [(0, 0.4), (1, 0.8)] {
            let noise = change(client, Shift { noise: 0.8, ..Shift::default() });
            let deviation = (noise.iter().map(|x| x * x).sum::<f64>() / noise.len() as f64).sqrt();
            assert!((deviation - expected).abs() < 0.01, "client {client}: {deviation}");
            let rows: Vec<&[f64]> = noise.chunks_exact(64).take(2).collect();
            assert_ne!(rows[0], rows[1]);
        }
        let offsets = change(0, Shift { brightness: 0.5, ..Shift::default() });
        assert!(offsets.iter().all(|offset| (offset - offsets[0]).abs() < 1e-6 && offset.abs() <= 0.5));
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let part = digits();
        let refusal = |shift: Shift| shift.check(&part).unwrap_err().to_string();
        assert_eq!(
            refusal(Shift { rotation: 181.0, ..Shift::default() }),
            "shift.rotation 181: expected 0 to 180 degrees"
        );
        assert_eq!(refusal(Shift { noise: -1.0, ..Shift::default() }), "shift.noise -1: expected 0 to 100");
        assert!(Shift { brightness: f64::NAN, ..Shift::default() }.check(&part).is_err());
        let spec = DataSpec::Digits { spectrum: true, test_share: 0.2 };
        let spectrum = spec.load(&BTreeMap::new(), 1).unwrap().train;
        let error = Shift { rotation: 5.0, ..Shift::default() }.check(&spectrum).unwrap_err().to_string();
        assert_eq!(error, "shift.rotation 5: expected 0, since the rows are no images");
    }
}
