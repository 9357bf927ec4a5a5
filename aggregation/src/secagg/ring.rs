//! Vectors over Z_{2^b}, b from 8 to 32: one `u32` per element in memory, b bits per element on the wire.

use super::codec::CodecError;

/// The elements' mask: 2^bits − 1.
pub(super) fn element_mask(bits: u32) -> u32 {
    u32::MAX >> (32 - bits)
}

/// Bytes that `length` elements of `bits` bits take on the wire.
pub(super) fn packed_len(length: usize, bits: u32) -> usize {
    (length * bits as usize).div_ceil(8)
}

/// Packs elements, least significant bit first; bits after the last element are zero.
pub(super) fn pack(values: &[u32], bits: u32, out: &mut Vec<u8>) {
    out.reserve(packed_len(values.len(), bits));
    let (mut window, mut filled) = (0_u64, 0);
    for &value in values {
        window |= u64::from(value) << filled;
        filled += bits;
        while filled >= 8 {
            out.push(window as u8);
            window >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(window as u8);
    }
}

/// Inverse of [`pack`]; fails on any other length and on non-zero padding bits.
pub(super) fn unpack(bytes: &[u8], length: usize, bits: u32) -> Result<Vec<u32>, CodecError> {
    let needed = packed_len(length, bits);
    if bytes.len() < needed {
        return Err(CodecError::Truncated { needed, left: bytes.len() });
    }
    if bytes.len() > needed {
        return Err(CodecError::Trailing { extra: bytes.len() - needed });
    }
    let mask = element_mask(bits);
    let (mut window, mut filled, mut bytes) = (0_u64, 0, bytes.iter());
    let mut values = Vec::with_capacity(length);
    for _ in 0..length {
        while filled < bits {
            let byte = *bytes.next().expect("the length was checked above");
            window |= u64::from(byte) << filled;
            filled += 8;
        }
        values.push(window as u32 & mask);
        window >>= bits;
        filled -= bits;
    }
    if window == 0 { Ok(values) } else { Err(CodecError::Value { field: "padding" }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn unpack_inverts_pack(bits in 8_u32..=32, values in prop::collection::vec(any::<u32>(), 0..40)) {
            let values: Vec<u32> = values.into_iter().map(|value| value & element_mask(bits)).collect();
            let mut packed = Vec::new();
            pack(&values, bits, &mut packed);
            prop_assert_eq!(packed.len(), packed_len(values.len(), bits));
            prop_assert_eq!(unpack(&packed, values.len(), bits), Ok(values));
        }
    }

    #[test]
    fn layout_is_least_significant_bit_first() {
        let mut packed = Vec::new();
        pack(&[0xabc, 0x123], 12, &mut packed);
        assert_eq!(packed, [0xbc, 0x3a, 0x12]);
    }

    #[test]
    fn padding_and_lengths_are_checked() {
        assert_eq!(unpack(&[0xff, 0x01], 1, 9), Ok(vec![0x1ff]));
        assert_eq!(unpack(&[0xff, 0x02], 1, 9), Err(CodecError::Value { field: "padding" }));
        assert_eq!(unpack(&[0xff], 1, 9), Err(CodecError::Truncated { needed: 2, left: 1 }));
        assert_eq!(unpack(&[0; 3], 1, 9), Err(CodecError::Trailing { extra: 1 }));
    }
}
