//! The vector itself under the masks (Bonawitz et al., CCS 2017): nothing to encode, nothing to decode.

use super::{GroupTranscript, Layers, Protocol, Shape};
use crate::secagg::ring::element_mask;

/// Masks all of the vector. Costs k + 1 expansions of the vector's length per client.
pub struct PairwiseMask {
    ring_bits: u32,
    length: usize,
}

impl PairwiseMask {
    /// For vectors of `length` elements below 2^`ring_bits`, 8 to 32 bits.
    pub fn new(ring_bits: u32, length: usize) -> Self {
        Self { ring_bits, length }
    }
}

impl Protocol for PairwiseMask {
    fn shape(&self) -> Shape {
        Shape { masked: self.length, masked_bits: self.ring_bits, body: 0 }
    }

    fn encode(&self, _: &GroupTranscript, values: &[u32], _: &[u8; 32]) -> Layers {
        Layers { masked: values.to_vec(), body: Vec::new() }
    }

    fn decode(&self, _: &GroupTranscript, sum: Layers) -> Vec<u32> {
        let mut values = sum.masked;
        let mask = element_mask(self.ring_bits);
        for value in &mut values {
            *value &= mask;
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_reduced_into_the_ring() {
        let protocol = PairwiseMask::new(9, 3);
        let layers = protocol.encode(&[0; 32], &[1, 2, 511], &[0; 32]);
        assert_eq!(layers.masked.len(), protocol.shape().masked);
        let sum =
            Layers { masked: layers.masked.iter().map(|value| value.wrapping_mul(3)).collect(), ..layers };
        assert_eq!(protocol.decode(&[0; 32], sum), [3, 6, 509]);
    }
}
