//! CIFAR-10 in its binary version: records of one label and 3 × 32 × 32 pixels, red, green, blue.
//!
//! Source: Krizhevsky, "Learning multiple layers of features from tiny images" (2009), and the page of the data.

use super::DatasetError;
use super::read::{Files, Input, MAX_FILE_BYTES};
use super::table::{Part, Shape, levels};

const SHAPE: Shape = Shape { channels: 3, height: 32, width: 32 };

const CLASSES: usize = 10;

/// A label and the pixels of its image.
const RECORD: usize = 1 + 3 * 32 * 32;

/// Mean and deviation of the channels over the 50,000 training images, of pixels in [0, 1].
const CHANNELS: [(f32, f32); 3] = [(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)];

/// Reads the files `names` of the first folder that has them, one after the other.
pub(super) fn part(files: &dyn Files, folders: &[&str], names: &[&str]) -> Result<Part, DatasetError> {
    let (mut bytes, mut labels) = (Vec::new(), Vec::new());
    for name in names {
        let paths: Vec<String> = folders.iter().map(|folder| format!("{folder}/{name}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        records(&mut Input::open(files, &paths)?, &mut bytes, &mut labels)?;
    }
    let levels = CHANNELS.map(|(mean, deviation)| levels(mean, deviation)).to_vec();
    Ok(Part::images(bytes, labels, SHAPE, CLASSES, levels))
}

fn records(input: &mut Input<'_>, bytes: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<(), DatasetError> {
    let content = input.rest()?;
    if content.is_empty() || !content.len().is_multiple_of(RECORD) {
        let expected = format!("whole records of {RECORD} bytes, at least one");
        return Err(input.malformed(0, format!("{} bytes", content.len()), expected));
    }
    if (bytes.len() + content.len()) as u64 > MAX_FILE_BYTES {
        return Err(input.malformed(0, "more images".to_owned(), format!("{MAX_FILE_BYTES} bytes in all")));
    }
    bytes.reserve_exact(content.len());
    for (row, record) in content.chunks_exact(RECORD).enumerate() {
        if usize::from(record[0]) >= CLASSES {
            let found = format!("label {} of image {row}", record[0]);
            return Err(input.malformed((row * RECORD) as u64, found, format!("0 to {}", CLASSES - 1)));
        }
        labels.push(u32::from(record[0]));
        bytes.extend_from_slice(&record[1..]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn record(label: u8, red: u8, blue: u8) -> Vec<u8> {
        [vec![label], vec![red; 1024], vec![128; 1024], vec![blue; 1024]].concat()
    }

    fn read(one: Vec<u8>, two: Vec<u8>) -> Result<Part, DatasetError> {
        let files = BTreeMap::from([("b/1.bin".to_owned(), one), ("b/2.bin".to_owned(), two)]);
        part(&files, &["a", "b"], &["1.bin", "2.bin"])
    }

    #[test]
    fn records_of_all_files_follow_one_another() {
        let part = read([record(3, 0, 255), record(9, 1, 2)].concat(), record(0, 255, 0)).unwrap();
        assert_eq!((part.rows(), part.labels()), (3, &[3, 9, 0][..]));
        let data = part.dataset(&[2]).unwrap();
        assert_eq!(data.features()[0], (1.0 - 0.4914) / 0.2470);
        assert_eq!(data.features()[1024], (128.0 / 255.0 - 0.4822) / 0.2435);
        assert_eq!(data.features()[3071], -0.4465 / 0.2616);
    }

    #[test]
    fn broken_files_are_told_by_place_and_reason() {
        let short = record(1, 0, 0)[..3072].to_vec();
        assert_eq!(
            read(record(1, 0, 0), short).unwrap_err().to_string(),
            "b/2.bin, byte 0: found 3072 bytes, expected whole records of 3073 bytes, at least one"
        );
        assert_eq!(
            read([record(1, 0, 0), record(10, 0, 0)].concat(), record(1, 0, 0)).unwrap_err().to_string(),
            "b/1.bin, byte 3073: found label 10 of image 1, expected 0 to 9"
        );
        assert!(read(Vec::new(), record(1, 0, 0)).is_err());
        let error = part(&BTreeMap::new(), &["a", "b"], &["1.bin"]).unwrap_err();
        assert_eq!(error, DatasetError::Missing { file: "a/1.bin or b/1.bin".to_owned() });
    }
}
