//! Vectors over Z_{2^b}, b from 8 to 32: one `u32` per element in memory, b bits per element on the wire.
//!
//! Elements are packed least significant bit first. Eight of them take exactly b bytes: that unit is packed and
//! unpacked at once, with whole words.

use super::codec::CodecError;

/// Elements in a unit of `bits` bytes.
pub(super) const UNIT: usize = 8;

/// The elements' mask: 2^bits − 1.
pub(super) fn element_mask(bits: u32) -> u32 {
    u32::MAX >> (32 - bits)
}

/// Bytes that `length` elements of `bits` bits take on the wire.
pub(super) fn packed_len(length: usize, bits: u32) -> usize {
    (length * bits as usize).div_ceil(8)
}

/// An expression with the width as a constant, so that every shift and mask of a unit is one too.
macro_rules! with_width {
    ($bits:expr, $name:ident => $body:expr) => {
        with_width!($bits, $name => $body;
            8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32)
    };
    ($bits:expr, $name:ident => $body:expr; $($width:literal)*) => {
        match $bits {
            $($width => { const $name: usize = $width; $body })*
            other => unreachable!("the configuration bounds the width to 8 to 32 bits, not {other}"),
        }
    };
}

/// Packs elements mod 2^bits; bits after the last element are zero.
pub(super) fn pack(values: &[u32], bits: u32, out: &mut Vec<u8>) {
    out.reserve(packed_len(values.len(), bits));
    with_width!(bits, BITS => pack_width::<BITS>(values, out));
}

fn pack_width<const BITS: usize>(values: &[u32], out: &mut Vec<u8>) {
    let (units, rest) = values.as_chunks::<UNIT>();
    for unit in units {
        out.extend_from_slice(&pack_unit::<BITS>(unit)[..BITS]);
    }
    let mut last = [0; UNIT];
    last[..rest.len()].copy_from_slice(rest);
    out.extend_from_slice(&pack_unit::<BITS>(&last)[..packed_len(rest.len(), BITS as u32)]);
}

fn pack_unit<const BITS: usize>(values: &[u32; UNIT]) -> [u8; 32] {
    let mask = element_mask(BITS as u32);
    let pair = |at: usize| u64::from(values[at] & mask) | u64::from(values[at + 1] & mask) << BITS;
    let four = |at: usize| u128::from(pair(at)) | u128::from(pair(at + 2)) << (2 * BITS);
    let (low, high) = (four(0), four(4));
    // The upper four begin in the middle of a byte if the width is odd.
    let middle = BITS / 2;
    let overlap = low.checked_shr(8 * middle as u32).unwrap_or(0);
    let mut unit = [0; 32];
    unit[..16].copy_from_slice(&low.to_le_bytes());
    unit[middle..middle + 16].copy_from_slice(&(high << (4 * BITS % 8) | overlap).to_le_bytes());
    unit
}

/// Appends the elements of whole units: a multiple of `bits` bytes.
pub(super) fn unpack(bytes: &[u8], bits: u32, out: &mut Vec<u32>) {
    out.reserve(bytes.len() / bits as usize * UNIT);
    with_width!(bits, BITS => unpack_width::<BITS>(bytes, out));
}

fn unpack_width<const BITS: usize>(bytes: &[u8], out: &mut Vec<u32>) {
    let (units, _) = bytes.as_chunks::<BITS>();
    for unit in units {
        let mut window = [0; WINDOW];
        window[..BITS].copy_from_slice(unit);
        out.extend_from_slice(&unpack_unit::<BITS>(&window));
    }
}

/// The elements, fewer than a unit, of a vector's last bytes; fails on non-zero padding bits.
pub(super) fn unpack_last(bytes: &[u8], length: usize, bits: u32) -> Result<Vec<u32>, CodecError> {
    let mut window = [0; WINDOW];
    window[..bytes.len()].copy_from_slice(bytes);
    let unit = with_width!(bits, BITS => unpack_unit::<BITS>(&window));
    let (values, padding) = unit.split_at(length);
    if padding.iter().any(|&value| value != 0) {
        return Err(CodecError::Value { field: "padding" });
    }
    Ok(values.to_vec())
}

/// Bytes of the longest unit, and those after it that are read with its last element.
const WINDOW: usize = 36;

fn unpack_unit<const BITS: usize>(window: &[u8; WINDOW]) -> [u32; UNIT] {
    std::array::from_fn(|i| {
        let at = i * BITS;
        let word = window[at / 8..].first_chunk().expect("at most 28 whole bytes come before an element");
        (u64::from_le_bytes(*word) >> (at % 8)) as u32 & element_mask(BITS as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn unpack_inverts_pack(bits in 8_u32..=32, values in prop::collection::vec(any::<u32>(), 0..100)) {
            let mut packed = Vec::new();
            pack(&values, bits, &mut packed);
            prop_assert_eq!(packed.len(), packed_len(values.len(), bits));
            let rest = values.len() % UNIT;
            let (units, last) = packed.split_at(values.len() / UNIT * bits as usize);
            let mut unpacked = Vec::new();
            unpack(units, bits, &mut unpacked);
            unpacked.extend(unpack_last(last, rest, bits).unwrap());
            let elements: Vec<u32> = values.iter().map(|value| value & element_mask(bits)).collect();
            prop_assert_eq!(unpacked, elements);
        }

        /// Against the definition: bit i of the message is bit i mod b of element ⌊i / b⌋.
        #[test]
        fn layout_is_least_significant_bit_first(bits in 8_u32..=32, values in prop::collection::vec(any::<u32>(), 1..20)) {
            let mut packed = Vec::new();
            pack(&values, bits, &mut packed);
            for at in 0..8 * packed.len() {
                let expected = values.get(at / bits as usize).map_or(0, |value| value >> (at % bits as usize) & 1);
                prop_assert_eq!(u32::from(packed[at / 8] >> (at % 8) & 1), expected);
            }
        }
    }

    #[test]
    fn known_answer() {
        let mut packed = Vec::new();
        pack(&[0xabc, 0x123], 12, &mut packed);
        assert_eq!(packed, [0xbc, 0x3a, 0x12]);
    }

    #[test]
    fn padding_is_checked() {
        assert_eq!(unpack_last(&[0xff, 0x01], 1, 9), Ok(vec![0x1ff]));
        assert_eq!(unpack_last(&[0xff, 0x02], 1, 9), Err(CodecError::Value { field: "padding" }));
    }
}
