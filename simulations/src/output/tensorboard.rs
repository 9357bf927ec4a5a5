//! Rounds as a TensorBoard event file.
//!
//! The file is a sequence of TFRecords (TensorFlow, `core/lib/io/record_writer.cc`): the length of the record as
//! a little-endian `u64`, its masked CRC, the record, its masked CRC. A CRC is CRC-32C (Castagnoli, RFC 3720 §B.4),
//! masked by a rotation and an addition, because records may hold CRCs themselves. A record is an `Event`
//! (`core/util/event.proto`) with a `Summary` (`core/framework/summary.proto`) of plain values.
//!
//! Times are virtual, seconds since the start of the simulation, so that one scenario gives one file.

use prost::Message;

use crate::record::RoundRecord;

/// A record of the file.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Values>,
}

/// TensorFlow's `Summary`.
#[derive(Clone, PartialEq, Message)]
struct Values {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The content of an event file, whose name must contain `tfevents` for TensorBoard to find it.
pub fn tensorboard(rounds: &[RoundRecord]) -> Vec<u8> {
    let first =
        Event { wall_time: 0.0, step: 0, file_version: Some("brain.Event:2".to_owned()), summary: None };
    let mut file = record(&first.encode_to_vec());
    let mut wall_time = 0.0;
    for round in rounds {
        wall_time += round.seconds;
        let value =
            |(tag, value): (&str, f64)| Value { tag: tag.to_owned(), simple_value: Some(value as f32) };
        let summary = Values { value: super::numbers(round).into_iter().map(value).collect() };
        let event =
            Event { wall_time, step: i64::from(round.round), file_version: None, summary: Some(summary) };
        file.extend(record(&event.encode_to_vec()));
    }
    file
}

/// One TFRecord.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let crc = |bytes: &[u8]| masked(crc32c(bytes)).to_le_bytes();
    [&length[..], &crc(&length), bytes, &crc(bytes)].concat()
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C: the reflected polynomial 0x82f63b78, all ones before and after.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crcs_are_those_of_the_standard() {
        // RFC 3720, §B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// Splits a file into records by the format alone, and checks what it says of itself.
    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !file.is_empty() {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            let crc = |bytes: &[u8]| {
                let crc = crc32c(bytes);
                crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
            };
            assert_eq!(file[8..12], crc(&file[..8]));
            let bytes = &file[12..12 + length];
            assert_eq!(file[12 + length..16 + length], crc(bytes));
            found.push(bytes.to_vec());
            file = &file[16 + length..];
        }
        found
    }

    #[test]
    fn the_first_record_is_what_tensorflow_writes() {
        // Field 1 is the time (0, and left out as such), field 3 the version: 0x1a, 13 bytes.
        let first = records(&tensorboard(&[])).remove(0);
        assert_eq!(first, b"\x1a\x0dbrain.Event:2");
    }

    #[test]
    fn rounds_are_steps_with_their_numbers() {
        let rounds = super::super::tests::rounds();
        let records = records(&tensorboard(&rounds));
        assert_eq!(records.len(), rounds.len() + 1);
        let second = Event::decode(records[2].as_slice()).unwrap();
        assert_eq!((second.step, second.wall_time), (2, 3.0));
        let values = second.summary.unwrap().value;
        let of =
            |tag: &str| values.iter().find(|value| value.tag == tag).and_then(|value| value.simple_value);
        assert_eq!(of("test/accuracy"), Some(0.5));
        assert_eq!(of("privacy/epsilon"), Some(2.0));
        assert_eq!(of("traffic/up_bytes_per_client"), Some(10.0));
        assert_eq!(of("clients/worst_tenth_accuracy"), Some(0.25));
        assert_eq!(of("no such tag"), None);
    }
}
