//! What the same work costs without protection, in the same run: vectors in the clear, and the bare cipher.

use std::hint::black_box;
use std::time::Duration;

use aes::Aes256Enc;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20::{ChaCha20, ChaCha20Rng};
use fedveil_aggregation::secagg::Prg;
use rand_core::{Rng, SeedableRng};

use crate::clock::{median, timed};

/// Vectors of signed 16-bit values in the clear: packed by each client, unpacked and added by the coordinator.
pub(crate) struct PlainSum {
    sum: Vec<i32>,
    packing: Vec<Duration>,
    adding: Duration,
}

impl PlainSum {
    pub(crate) fn new(length: usize) -> Self {
        Self { sum: vec![0; length], packing: Vec::new(), adding: Duration::ZERO }
    }

    /// Sends a client's vector: random, the same for the same seed.
    pub(crate) fn add_client(&mut self, seed: u64) -> Vec<i16> {
        let mut message = vec![0; 2 * self.sum.len()];
        ChaCha20Rng::seed_from_u64(!seed).fill_bytes(&mut message);
        let values: Vec<i16> = message.as_chunks().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
        drop(message);

        let (packing, message) = timed(|| {
            let mut message = Vec::with_capacity(2 * values.len());
            for value in &values {
                message.extend(value.to_le_bytes());
            }
            black_box(message)
        });
        let (adding, ()) = timed(|| {
            let (received, _) = message.as_chunks();
            for (sum, bytes) in self.sum.iter_mut().zip(received) {
                *sum += i32::from(i16::from_le_bytes(*bytes));
            }
        });
        self.packing.push(packing);
        self.adding += adding;
        values
    }

    /// Panics unless `protected`, residues mod 2^`bits`, is the sum.
    pub(crate) fn compare(&self, protected: &[u32], bits: u32) {
        let unused = 32 - bits;
        let signed = |residue: &u32| (residue << unused) as i32 >> unused;
        assert!(protected.iter().map(signed).eq(self.sum.iter().copied()), "the sum is not the plain sum");
    }

    /// Median time of a client.
    pub(crate) fn client_time(&mut self) -> Duration {
        median(&mut self.packing)
    }

    /// Time of the coordinator for all clients.
    pub(crate) fn server_time(&self) -> Duration {
        self.adding
    }
}

/// Median time in which the bare cipher makes `length` words of key stream, in place, one key for all.
pub(crate) fn cipher_stream(prg: Prg, length: usize) -> Duration {
    let mut stream = vec![0; 4 * length];
    let mut times: Vec<Duration> = (0..31)
        .map(|_| {
            let (time, ()) = timed(|| match prg {
                Prg::ChaCha20 => {
                    ChaCha20::new(&[1; 32].into(), &[0; 12].into()).apply_keystream(&mut stream);
                }
                _ => ctr::Ctr32BE::<Aes256Enc>::new(&[1; 32].into(), &[0; 16].into())
                    .apply_keystream(&mut stream),
            });
            black_box(&mut stream);
            time
        })
        .collect();
    median(&mut times)
}
