//! What uploads look like, and what their secrets are worth.

use super::super::agreement::{Agreed, pairwise_mask_key, self_mask_key};
use super::super::protocol::{BODY_MODULUS, Layers};
use super::super::shamir::Share;
use super::*;

/// χ² of 256 bins that should be equally full; for 255 degrees of freedom the quantiles are 347.7 at 99.99 % and 180.0
/// at 0.01 %.
fn chi_squared(bins: impl Iterator<Item = usize>) -> f64 {
    let mut counts = [0_u32; 256];
    let mut all = 0.0;
    for bin in bins {
        counts[bin] += 1;
        all += 1.0;
    }
    let expected = all / 256.0;
    counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}

const UNIFORM: std::ops::Range<f64> = 180.0..347.7;

/// The highest and the lowest eight bits of elements of the masked layer, and of residues mod q.
fn statistics(config: &SessionConfig, layers: &Layers) -> Vec<(&'static str, f64)> {
    let bits = config.shape().masked_bits;
    let mut found = vec![
        ("high bits, masked", chi_squared(layers.masked.iter().map(|x| (x >> (bits - 8) & 0xff) as usize))),
        ("low bits, masked", chi_squared(layers.masked.iter().map(|x| (x & 0xff) as usize))),
    ];
    if !layers.body.is_empty() {
        let high = |x: &u64| ((u128::from(*x) << 8) / u128::from(BODY_MODULUS)) as usize;
        found.push(("high bits, body", chi_squared(layers.body.iter().map(high))));
        found.push(("low bits, body", chi_squared(layers.body.iter().map(|x| (x & 0xff) as usize))));
    }
    found
}

/// D: an upload of zeros is uniform in both layers, whatever the protocol, the graph, the cipher and the width. The
/// layers before the masks, and the sum after them, are not: the test would see it.
#[test]
fn uploads_of_zeros_look_uniform_and_what_is_in_them_does_not() {
    for parameters in graphs_and_protocols() {
        for (prg, ring_bits) in
            [(Prg::Aes256Ctr, 8), (Prg::ChaCha20, 13), (Prg::Aes256Ctr, 20), (Prg::ChaCha20, 32)]
        {
            let length = 1 << 16;
            let parameters = SessionParameters { prg, ring_bits, length, ..parameters.clone() };
            let mut session = Session::new(parameters.clone(), parameters.group_size, 2);
            let (mut clients, server) = session.until_input();
            let (_, message) = ok(clients.swap_remove(0).submit(&vec![0; length], &mut session.rng));
            let layers = session.decode(&message).unwrap().layers;
            for (what, statistic) in statistics(&session.config, &layers) {
                assert!(UNIFORM.contains(&statistic), "{parameters:?}, {what}: χ² = {statistic}");
            }
            let bare = session.config.protocol().encode(server.transcript(), &vec![0; length], &[1; 32]);
            let high_bits = statistics(&session.config, &bare)[0].1;
            assert!(high_bits > 10_000.0, "{parameters:?}, not masked: χ² = {high_bits}");
        }
    }
}

/// D: no seed is cut short. Each of the 256 bits of a self-mask seed makes another mask, and of a mask secret key all but
/// the five that X25519 fixes; so does each bit of the transcript.
#[test]
fn every_bit_of_a_seed_makes_another_mask() {
    let (transcript, seed) = ([3; 32], [0x5a; 32]);
    let flipped = |bytes: &[u8; 32], bit: usize| {
        let mut other = *bytes;
        other[bit / 8] ^= 1 << (bit % 8);
        other
    };
    let theirs = Secret::from_bytes(&[9; 32]).public_key();
    let own = |transcript: &[u8; 32], seed: &[u8; 32]| self_mask_key(transcript, seed, 1);
    let pairwise = |transcript: &[u8; 32], secret: &[u8; 32]| {
        pairwise_mask_key(transcript, &Secret::from_bytes(secret), 1, &theirs, 2)
    };
    let distance =
        |a: &[u8; 32], b: &[u8; 32]| a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    for bit in 0..256 {
        let (other, elsewhere) = (flipped(&seed, bit), flipped(&transcript, bit));
        assert!(distance(&own(&transcript, &other), &own(&transcript, &seed)) > 80, "bit {bit}");
        assert!(distance(&own(&elsewhere, &seed), &own(&transcript, &seed)) > 80, "bit {bit}");
        assert!(distance(&pairwise(&elsewhere, &seed), &pairwise(&transcript, &seed)) > 80, "bit {bit}");
        let changed = distance(&pairwise(&transcript, &other), &pairwise(&transcript, &seed));
        let fixed = !(3..254).contains(&bit);
        assert!(if fixed { changed == 0 } else { changed > 80 }, "bit {bit}");
    }
}

/// Fails to compile where the type has the trait, for there are then two ways to resolve the path.
macro_rules! assert_lacks {
    ($type:ty: $($trait:path),+) => {$(
        const _: fn() = || {
            trait Lacks<Marker> {
                fn resolve() {}
            }
            struct Has;
            impl<T: ?Sized> Lacks<()> for T {}
            impl<T: ?Sized + $trait> Lacks<Has> for T {}
            let _ = <$type as Lacks<_>>::resolve;
        };
    )+};
}

/// D: secrets cannot be compared, so no comparison of theirs takes a time that depends on them; nor can they be printed.
/// What is compared are tags, by the AEAD in constant time, and digests and public keys of what was recovered.
#[test]
fn secrets_are_never_compared_or_printed() {
    use std::fmt::{Debug, Display};
    assert_lacks!(Secret: PartialEq, Debug, Display, Clone);
    assert_lacks!(Share: PartialEq, Debug, Display);
    assert_lacks!(Agreed: PartialEq, Debug, Display, Clone);
    assert_lacks!(AwaitRoster: PartialEq, Debug, Clone);
    assert_lacks!(AwaitReveals: PartialEq, Debug, Clone);
    assert_lacks!(AwaitDelivery: PartialEq, Debug, Clone);
    assert_lacks!(AwaitInput: PartialEq, Debug, Clone);
    assert_lacks!(AwaitSurvivors: PartialEq, Debug, Clone);
    assert_lacks!(AwaitSignatures: PartialEq, Debug, Clone);
}
