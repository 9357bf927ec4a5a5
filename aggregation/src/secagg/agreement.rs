//! X25519 key agreement (RFC 7748) and what is derived from it: mask keys and sealed boxes.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use rand_core::CryptoRng;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::protocol::GroupTranscript;
use super::transcript::derive_key;

/// Bytes that [`seal`] adds.
pub(super) const TAG_LEN: usize = 16;

/// 32 secret bytes, erased when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Secret([u8; 32]);

impl Secret {
    pub(super) fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        let secret = Self(bytes);
        bytes.zeroize();
        secret
    }

    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The X25519 public key of these bytes as a secret key.
    pub(super) fn public_key(&self) -> [u8; 32] {
        PublicKey::from(&StaticSecret::from(self.0)).to_bytes()
    }

    /// What this secret key and the one behind `theirs` have in common.
    pub(super) fn agree(&self, theirs: &[u8; 32]) -> Agreed {
        let shared = StaticSecret::from(self.0).diffie_hellman(&PublicKey::from(*theirs));
        Agreed(shared.to_bytes())
    }
}

/// An X25519 shared secret, erased when dropped.
#[derive(ZeroizeOnDrop)]
pub(super) struct Agreed([u8; 32]);

/// The u-coordinates below p of all points whose order divides the cofactors: of the curve, 8, they are those of order
/// 2 (u = 0), 4 and 8; of its twist, 4, of order 2 (again 0) and 4.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    {
        let mut minus_one = P;
        minus_one[0] -= 1;
        minus_one
    },
];

/// p = 2^255 − 19, little-endian.
const P: [u8; 32] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
};

/// Whether bytes are the canonical encoding of a point of large order, so that an agreement with it is a secret.
pub(super) fn is_strong_public_key(bytes: &[u8; 32]) -> bool {
    bytes.iter().rev().lt(P.iter().rev()) && !SMALL_ORDER.contains(bytes)
}

/// Key of the mask that the two holders of these key pairs share; the same whichever computes it.
pub(super) fn pairwise_mask_key(
    transcript: &GroupTranscript,
    ours: &Secret,
    our_position: usize,
    theirs: &[u8; 32],
    their_position: usize,
) -> Zeroizing<[u8; 32]> {
    let (low, high) = (our_position.min(their_position), our_position.max(their_position));
    derive_key("pairwise mask", transcript, &ours.agree(theirs).0, &[&position(low), &position(high)])
}

/// Key of the mask that only the holder of `seed` knows.
pub(super) fn self_mask_key(
    transcript: &GroupTranscript,
    seed: &[u8; 32],
    holder: usize,
) -> Zeroizing<[u8; 32]> {
    derive_key("self mask", transcript, seed, &[&position(holder)])
}

/// Direction of a box inside a group.
#[derive(Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) transcript: &'a GroupTranscript,
    pub(super) sender: usize,
    pub(super) recipient: usize,
}

/// Encrypts and authenticates `plaintext` for one recipient of one group in one direction. `agreed` is of the box keys
/// of the two.
pub(super) fn seal(agreed: &Agreed, route: Route<'_>, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plaintext.len() + TAG_LEN);
    sealed.extend_from_slice(plaintext);
    box_cipher(agreed, route)
        .encrypt_in_place(&Nonce::default(), route.transcript, &mut sealed)
        .expect("a plaintext of a few bytes is within ChaCha20-Poly1305's limit");
    sealed
}

/// Inverse of [`seal`]; `None` where the box is not of this pair, group and direction.
pub(super) fn open(agreed: &Agreed, route: Route<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut plaintext = Zeroizing::new(sealed.to_vec());
    box_cipher(agreed, route).decrypt_in_place(&Nonce::default(), route.transcript, &mut *plaintext).ok()?;
    Some(plaintext)
}

/// ChaCha20-Poly1305 (RFC 8439) under a key that both ends derive from fresh key pairs, the group and the direction.
/// Such a key seals one box, so its nonce is constant.
fn box_cipher(agreed: &Agreed, route: Route<'_>) -> ChaCha20Poly1305 {
    let parts = [position(route.sender), position(route.recipient)];
    let key = derive_key("box", route.transcript, &agreed.0, &[&parts[0], &parts[1]]);
    ChaCha20Poly1305::new((&*key).into())
}

fn position(position: usize) -> [u8; 8] {
    (position as u64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::MontgomeryPoint;

    const GROUP: GroupTranscript = [5; 32];

    fn route(sender: usize, recipient: usize) -> Route<'static> {
        Route { transcript: &GROUP, sender, recipient }
    }

    /// All encodings of points whose order divides 8, on the curve or its twist (the list in the curve25519-dalek and
    /// libsodium sources), and the aliases of small ones.
    #[test]
    fn weak_and_non_canonical_keys_are_refused() {
        let weak = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        for key in weak {
            let bytes: [u8; 32] = hex::decode(key).unwrap().try_into().unwrap();
            assert!(!is_strong_public_key(&bytes), "{key}");
        }
        let strong = Secret::from_bytes(&[3; 32]).public_key();
        assert!(is_strong_public_key(&strong));
        let mut alias = strong;
        alias[31] |= 0x80;
        assert!(!is_strong_public_key(&alias));
        // 9 is the base point; 9 + p is the same point, encoded another way.
        let mut base = [0; 32];
        base[0] = 9;
        assert!(is_strong_public_key(&base));
        let mut alias = [0xff; 32];
        (alias[0], alias[31]) = (0xf6, 0x7f);
        assert!(!is_strong_public_key(&alias));
    }

    /// Eight times such a point is the neutral element, whose u is given as 0. With the neutral element itself, and two
    /// points for each u but 0, the curve's list has 8 points and the twist's 4: none is missing.
    #[test]
    fn listed_keys_are_those_of_small_order() {
        for bytes in SMALL_ORDER {
            let times_eight = MontgomeryPoint(bytes).mul_bits_be([true, false, false, false].into_iter());
            assert_eq!(times_eight.to_bytes(), [0; 32]);
        }
    }

    #[test]
    fn both_ends_of_a_pair_derive_the_same_mask_key_and_no_other_pair_does() {
        let (a, b) = (Secret::from_bytes(&[1; 32]), Secret::from_bytes(&[2; 32]));
        let key = pairwise_mask_key(&GROUP, &a, 0, &b.public_key(), 4);
        assert_eq!(key, pairwise_mask_key(&GROUP, &b, 4, &a.public_key(), 0));
        assert_ne!(key, pairwise_mask_key(&GROUP, &b, 3, &a.public_key(), 0));
        assert_ne!(key, pairwise_mask_key(&[6; 32], &b, 4, &a.public_key(), 0));
    }

    #[test]
    fn a_box_opens_only_on_its_route() {
        let (a, b) = (Secret::from_bytes(&[1; 32]), Secret::from_bytes(&[2; 32]));
        let sealed = seal(&a.agree(&b.public_key()), route(0, 1), b"shares");
        let agreed = b.agree(&a.public_key());
        let opened = |route| open(&agreed, route, &sealed).map(|plaintext| plaintext.to_vec());
        assert_eq!(opened(route(0, 1)).unwrap(), b"shares");
        assert!(opened(route(1, 0)).is_none());
        assert!(opened(route(0, 2)).is_none());
        assert!(opened(Route { transcript: &[6; 32], ..route(0, 1) }).is_none());
        assert!(open(&agreed, route(0, 1), &sealed[..10]).is_none());
    }
}
