//! IDX, the format of MNIST and its kin: a magic number, big-endian sizes, then unsigned bytes.
//!
//! ```text
//! images: 00 00 08 03 | count | rows | columns | count × rows × columns bytes
//! labels: 00 00 08 01 | count | count bytes
//! ```
//!
//! Source: the description by LeCun, Cortes and Burges that comes with MNIST. Only unsigned bytes are accepted, since
//! no published set of images has anything else.

use super::DatasetError;
use super::read::{Files, Input, MAX_FILE_BYTES};
use super::table::{Part, Shape, levels};

/// Unsigned bytes in three dimensions, and in one.
const IMAGES: u32 = 0x0000_0803;
const LABELS: u32 = 0x0000_0801;

/// The longest side of an image: longer ones are a mistake, or an attack on memory.
const MAX_SIDE: u32 = 4096;

/// How the files of a set are to be read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Number of classes.
    pub(super) classes: usize,
    /// What the first class is called in the file: 0, or 1 in EMNIST's letters.
    pub(super) first_label: u8,
    /// Whether the images are stored column by column, as EMNIST's are.
    pub(super) transposed: bool,
    /// Pixels become (byte / 255 − mean) / deviation.
    pub(super) mean: f32,
    /// See `mean`.
    pub(super) deviation: f32,
}

/// Reads a file of images and the file of their labels, each under the first name that is there.
pub(super) fn part(
    files: &dyn Files,
    images: &[&str],
    labels: &[&str],
    reading: &Reading,
) -> Result<Part, DatasetError> {
    let (mut bytes, shape) = read_images(Input::open(files, images)?)?;
    if reading.transposed {
        transpose(&mut bytes, shape);
    }
    let count = bytes.len() / shape.inputs();
    let labels = read_labels(Input::open(files, labels)?, count, reading)?;
    let levels = vec![levels(reading.mean, reading.deviation)];
    Ok(Part::images(bytes, labels, shape, reading.classes, levels))
}

fn read_images(mut input: Input<'_>) -> Result<(Vec<u8>, Shape), DatasetError> {
    magic(&mut input, IMAGES, "images: unsigned bytes in 3 dimensions")?;
    let count = size(&mut input, "images", u32::MAX)?;
    let height = size(&mut input, "rows of an image", MAX_SIDE)?;
    let width = size(&mut input, "columns of an image", MAX_SIDE)?;
    let shape = Shape { channels: 1, height: height as usize, width: width as usize };
    let total = u64::from(count) * shape.inputs() as u64;
    if total > MAX_FILE_BYTES {
        let found = format!("{count} images of {height} x {width} pixels");
        return Err(input.malformed(4, found, format!("at most {MAX_FILE_BYTES} bytes of pixels")));
    }
    let bytes = input.exactly(total, "pixels")?;
    input.end()?;
    Ok((bytes, shape))
}

fn read_labels(mut input: Input<'_>, images: usize, reading: &Reading) -> Result<Vec<u32>, DatasetError> {
    magic(&mut input, LABELS, "labels: unsigned bytes in 1 dimension")?;
    let count = size(&mut input, "labels", u32::MAX)?;
    if count as usize != images {
        return Err(input.malformed(
            4,
            format!("{count} labels"),
            format!("one for each of {images} images"),
        ));
    }
    let start = input.at();
    let bytes = input.exactly(u64::from(count), "labels")?;
    let first = reading.first_label;
    let known = |byte: u8| byte >= first && usize::from(byte - first) < reading.classes;
    if let Some(row) = bytes.iter().position(|&byte| !known(byte)) {
        let last = usize::from(first) + reading.classes - 1;
        let found = format!("label {} of image {row}", bytes[row]);
        return Err(input.malformed(start + row as u64, found, format!("{first} to {last}")));
    }
    input.end()?;
    Ok(bytes.into_iter().map(|byte| u32::from(byte - first)).collect())
}

fn magic(input: &mut Input<'_>, expected: u32, meaning: &str) -> Result<(), DatasetError> {
    let found = number(input, "the magic number")?;
    if found == expected {
        return Ok(());
    }
    Err(input.malformed(0, format!("magic number {found:#010x}"), format!("{expected:#010x} ({meaning})")))
}

fn size(input: &mut Input<'_>, what: &str, most: u32) -> Result<u32, DatasetError> {
    let at = input.at();
    let found = number(input, &format!("the number of {what}"))?;
    if (1..=most).contains(&found) {
        return Ok(found);
    }
    Err(input.malformed(at, format!("{found} {what}"), format!("1 to {most}")))
}

fn number(input: &mut Input<'_>, what: &str) -> Result<u32, DatasetError> {
    let bytes = input.exactly(4, what)?;
    Ok(u32::from_be_bytes(bytes.try_into().expect("four bytes were asked for")))
}

/// Swaps rows and columns of every image; sides that differ are refused by nobody, since EMNIST's are equal, so that
/// this leaves such images as they are.
fn transpose(bytes: &mut [u8], shape: Shape) {
    let side = shape.width;
    if shape.height != side {
        return;
    }
    for image in bytes.chunks_exact_mut(side * side) {
        for row in 0..side {
            for column in 0..row {
                image.swap(row * side + column, column * side + row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    const READING: Reading =
        Reading { classes: 3, first_label: 0, transposed: false, mean: 0.0, deviation: 1.0 };

    /// Two images of 2 × 2 pixels.
    fn images() -> Vec<u8> {
        [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2][..], &[0, 51, 102, 153, 204, 255, 0, 0]].concat()
    }

    fn labels() -> Vec<u8> {
        vec![0, 0, 8, 1, 0, 0, 0, 2, 2, 1]
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(images: Vec<u8>, labels: Vec<u8>, reading: &Reading) -> Result<Part, DatasetError> {
        let files = BTreeMap::from([("images".to_owned(), images), ("labels".to_owned(), labels)]);
        part(&files, &["images"], &["labels"], reading)
    }

    fn refusal(images: Vec<u8>, labels: Vec<u8>) -> String {
        read(images, labels, &READING).unwrap_err().to_string()
    }

    #[test]
    fn plain_and_packed_files_give_the_same_images() {
        let packed_files = BTreeMap::from([
            ("images.gz".to_owned(), packed(&images())),
            ("labels.gz".to_owned(), packed(&labels())),
        ]);
        let plain = read(images(), labels(), &READING).unwrap();
        let unpacked = part(&packed_files, &["other", "images"], &["labels"], &READING).unwrap();
        for part in [&plain, &unpacked] {
            let data = part.dataset(&[0, 1]).unwrap();
            assert_eq!(data.features(), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.0, 0.0]);
            assert_eq!(data.labels(), [2, 1]);
            assert_eq!(part.shape(), Some(Shape { channels: 1, height: 2, width: 2 }));
        }
    }

    #[test]
    fn transposed_images_are_turned_and_labels_may_start_at_one() {
        let reading = Reading { transposed: true, first_label: 1, classes: 2, ..READING };
        let data = read(images(), labels(), &reading).unwrap().dataset(&[0]).unwrap();
        assert_eq!(data.features(), [0.0, 0.4, 0.2, 0.6]);
        assert_eq!(data.labels(), [1]);
        let mut zero = labels();
        zero[9] = 0;
        let error = read(images(), zero, &reading).unwrap_err().to_string();
        assert_eq!(error, "labels, byte 9: found label 0 of image 1, expected 1 to 2");
    }

    #[test]
    fn broken_files_are_told_by_place_and_reason() {
        let with = |bytes: Vec<u8>, at: usize, value: u8| {
            let mut bytes = bytes;
            bytes[at] = value;
            bytes
        };
        let cases = [
            (
                refusal(labels(), labels()),
                "images, byte 0: found magic number 0x00000801, expected 0x00000803 (images: unsigned bytes in 3 dimensions)",
            ),
            (
                refusal(with(images(), 2, 0x0d), labels()),
                "images, byte 0: found magic number 0x00000d03, expected 0x00000803 (images: unsigned bytes in 3 dimensions)",
            ),
            (
                refusal(with(images(), 7, 0), labels()),
                "images, byte 4: found 0 images, expected 1 to 4294967295",
            ),
            (
                refusal(with(images(), 8, 1), labels()),
                "images, byte 8: found 16777218 rows of an image, expected 1 to 4096",
            ),
            (
                refusal(with(with(images(), 4, 0xff), 10, 4), labels()),
                "images, byte 4: found 4278190082 images of 1026 x 2 pixels, expected at most 1073741824 bytes of pixels",
            ),
            (
                refusal(with(images(), 7, 3), labels()),
                "images, byte 24: found the end of the file after 8 bytes, expected 12 bytes of pixels",
            ),
            (
                refusal([images(), vec![9]].concat(), labels()),
                "images, byte 24: found more bytes, expected the end of the file",
            ),
            (
                refusal(images(), with(labels(), 7, 1)),
                "labels, byte 4: found 1 labels, expected one for each of 2 images",
            ),
            (
                refusal(images(), with(labels(), 8, 3)),
                "labels, byte 8: found label 3 of image 0, expected 0 to 2",
            ),
            (
                refusal(packed(&images())[..10].to_vec(), labels()),
                "images, byte 0: found the end of the packed file, expected the rest of its contents",
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), at in 0_usize..24, value: u8) {
            prop_assert!(read(bytes.clone(), labels(), &READING).is_err());
            prop_assert!(read(images(), bytes, &READING).is_err());
            let mut changed = images();
            changed[at] = value;
            // A changed pixel is no mistake that a reader could see; a changed header is.
            let accepted = read(changed.clone(), labels(), &READING).is_ok();
            prop_assert_eq!(accepted, at >= 16 || changed == images());
        }

        #[test]
        fn every_truncation_is_refused(length in 0_usize..24) {
            prop_assert!(read(images()[..length].to_vec(), labels(), &READING).is_err());
            prop_assert!(read(images(), labels()[..length.min(9)].to_vec(), &READING).is_err());
            let whole = packed(&images());
            prop_assert!(read(whole[..length.min(whole.len() - 1)].to_vec(), labels(), &READING).is_err());
        }
    }
}
