//! The messages of a session, parsed. Encoding is canonical (see `codec`); a parsed message that is signed or hashed
//! later keeps the bytes it came in.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::agreement::is_strong_public_key;
use super::codec::{CodecError, HEADER_LEN, Kind, Reader, Writer, ascending};
use super::config::{BOX_LEN, SessionConfig};
use super::identity::{ClientId, IdentityCertificate, IdentityError};
use super::protocol::GroupTranscript;
use super::shamir::Share;
use super::signature::Signed;
use super::transcript::digest;

/// An opening message taken apart: whom it claims to be of, and what it says. No signature is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    bytes: Vec<u8>,
    certificate_len: usize,
    id: ClientId,
    pub(super) box_key: [u8; 32],
    pub(super) mask_key: [u8; 32],
    nonce_commitment: [u8; 32],
    seed_commitment: [u8; 32],
}

/// A client's opening message, checked: certified identity, strong keys, valid signature under this configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    claim: Claim,
    identity: IdentityCertificate,
}

/// Why an opening message is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertisementError {
    /// The bytes are not an opening message.
    #[error("advertisement: {0}")]
    Malformed(#[from] CodecError),
    /// The identity is not one that the authority vouches for now.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The identity did not sign these keys for this configuration.
    #[error("advertisement is not signed by its identity for this session")]
    Signature,
    /// A key whose agreements are not secret, or a second encoding of one.
    #[error("advertised X25519 key is of small order or not canonical")]
    WeakKey,
    /// The two keys of a client are the same.
    #[error("advertised keys for boxes and masks are the same")]
    RepeatedKey,
}

/// What a client says of itself in its opening message.
pub(super) struct Offer<'a> {
    pub(super) certificate: &'a [u8],
    pub(super) box_key: [u8; 32],
    pub(super) mask_key: [u8; 32],
    pub(super) nonce_commitment: [u8; 32],
    pub(super) seed_commitment: [u8; 32],
}

impl Offer<'_> {
    pub(super) fn sign(&self, config: &SessionConfig, key: &SigningKey) -> Vec<u8> {
        let body = Writer::new(Kind::Advertise)
            .u32(self.certificate.len())
            .bytes(self.certificate)
            .bytes(&self.box_key)
            .bytes(&self.mask_key)
            .bytes(&self.nonce_commitment)
            .bytes(&self.seed_commitment)
            .finish();
        let signature = key.sign(&advertised_digest(config, &body));
        [body.as_slice(), &signature.to_bytes()].concat()
    }
}

/// Where the certificate starts in an opening message.
const CERTIFICATE_AT: usize = HEADER_LEN + 4;

impl Claim {
    /// Takes an opening message apart.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, AdvertisementError> {
        let mut reader = Reader::new(bytes, Kind::Advertise)?;
        let certificate_len = reader.u32()?;
        let certificate = reader.bytes(certificate_len)?;
        let [box_key, mask_key, nonce_commitment, seed_commitment] =
            [reader.array()?, reader.array()?, reader.array()?, reader.array()?];
        let _signature: [u8; Signature::BYTE_SIZE] = reader.array()?;
        reader.finish()?;
        if box_key == mask_key {
            return Err(AdvertisementError::RepeatedKey);
        }
        let (bytes, id) = (bytes.to_vec(), IdentityCertificate::claimed_id(certificate)?);
        Ok(Self { bytes, certificate_len, id, box_key, mask_key, nonce_commitment, seed_commitment })
    }

    /// Checks that the client made it for this session; `now` is unix seconds.
    pub(super) fn verify(
        self,
        config: &SessionConfig,
        now: u64,
    ) -> Result<Advertisement, AdvertisementError> {
        let (advertisement, [of_authority, of_identity]) = self.verify_unsigned(config, now)?;
        if !of_authority.is_valid() {
            return Err(IdentityError::Forged.into());
        }
        if !of_identity.is_valid() {
            return Err(AdvertisementError::Signature);
        }
        Ok(advertisement)
    }

    /// [`verify`](Self::verify) but for the authority's and the identity's signature, which are left to the caller.
    pub(super) fn verify_unsigned(
        self,
        config: &SessionConfig,
        now: u64,
    ) -> Result<(Advertisement, [Signed; 2]), AdvertisementError> {
        let certificate = &self.bytes[CERTIFICATE_AT..CERTIFICATE_AT + self.certificate_len];
        let (identity, of_authority) =
            IdentityCertificate::verify_unsigned(certificate, config.authority(), now)?;
        let (body, signature) =
            self.bytes.split_last_chunk().expect("a message that was parsed ends with a signature");
        let of_identity = Signed {
            key: *identity.public_key(),
            digest: advertised_digest(config, body),
            signature: Signature::from_bytes(signature),
        };
        if !is_strong_public_key(&self.box_key) || !is_strong_public_key(&self.mask_key) {
            return Err(AdvertisementError::WeakKey);
        }
        Ok((Advertisement { claim: self, identity }, [of_authority, of_identity]))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn client_id(&self) -> ClientId {
        self.id
    }

    pub(super) fn commits_to_nonce(&self, config: &SessionConfig, nonce: &Nonce) -> bool {
        nonce_commitment(config, &self.id, &nonce.0) == self.nonce_commitment
    }
}

impl Advertisement {
    /// Parses and checks an opening message; `now` is unix seconds.
    pub(super) fn verify(bytes: &[u8], config: &SessionConfig, now: u64) -> Result<Self, AdvertisementError> {
        Claim::parse(bytes)?.verify(config, now)
    }

    /// The bytes as received.
    pub fn bytes(&self) -> &[u8] {
        &self.claim.bytes
    }

    /// Who sent it.
    pub fn client_id(&self) -> ClientId {
        self.claim.id
    }

    /// The sender's certificate.
    pub fn identity(&self) -> &IdentityCertificate {
        &self.identity
    }

    pub(super) fn box_key(&self) -> &[u8; 32] {
        &self.claim.box_key
    }

    pub(super) fn mask_key(&self) -> &[u8; 32] {
        &self.claim.mask_key
    }

    pub(super) fn commits_to_nonce(&self, config: &SessionConfig, nonce: &Nonce) -> bool {
        self.claim.commits_to_nonce(config, nonce)
    }

    pub(super) fn commits_to_seed(&self, config: &SessionConfig, seed: &[u8; 32]) -> bool {
        seed_commitment(config, &self.claim.id, seed) == self.claim.seed_commitment
    }
}

pub(super) fn nonce_commitment(config: &SessionConfig, id: &ClientId, nonce: &[u8; 32]) -> [u8; 32] {
    digest("nonce", &[config.digest(), &id.0, nonce])
}

/// Hiding, because the seed has 256 bits of entropy.
pub(super) fn seed_commitment(config: &SessionConfig, id: &ClientId, seed: &[u8; 32]) -> [u8; 32] {
    digest("seed", &[config.digest(), &id.0, seed])
}

fn advertised_digest(config: &SessionConfig, body: &[u8]) -> [u8; 32] {
    digest("advertise", &[config.digest(), body])
}

/// A client's revealed contribution to the beacon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub(super) [u8; 32]);

impl Nonce {
    pub(super) fn encode(&self) -> Vec<u8> {
        Writer::new(Kind::Reveal).bytes(&self.0).finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes, Kind::Reveal)?;
        let nonce = reader.array()?;
        reader.finish()?;
        Ok(Self(nonce))
    }
}

/// Revealed nonces by roster index, in ascending order.
pub(super) fn encode_reveals(reveals: &[(usize, Nonce)]) -> Vec<u8> {
    let mut writer = Writer::new(Kind::Reveals).u32(reveals.len());
    for (index, nonce) in reveals {
        writer = writer.u32(*index).bytes(&nonce.0);
    }
    writer.finish()
}

pub(super) fn decode_reveals(bytes: &[u8], cohort: usize) -> Result<Vec<(usize, Nonce)>, CodecError> {
    let mut reader = Reader::new(bytes, Kind::Reveals)?;
    let count = reader.count(cohort, "number of reveals")?;
    let mut last = None;
    let mut reveals = Vec::with_capacity(count);
    for _ in 0..count {
        let index = reader.u32()?;
        ascending(&mut last, index, "roster indices")?;
        if index >= cohort {
            return Err(CodecError::Value { field: "roster index" });
        }
        reveals.push((index, Nonce(reader.array()?)));
    }
    reader.finish()?;
    Ok(reveals)
}

/// A sealed pair of shares.
pub(super) type SealedBox = [u8; BOX_LEN];

/// A member's boxes for its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// In ascending order of the neighbours' positions.
    pub(super) boxes: Vec<SealedBox>,
}

impl Shares {
    pub(super) fn encode(boxes: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
        let mut writer = Writer::new(Kind::Shares);
        boxes.for_each(|sealed| writer.push(&sealed));
        writer.finish()
    }

    pub(super) fn decode(bytes: &[u8], neighbours: usize) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes, Kind::Shares)?;
        let boxes = (0..neighbours).map(|_| reader.array()).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { boxes })
    }
}

/// Members of a group by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemberSet(Vec<bool>);

impl MemberSet {
    pub(super) fn empty(group_len: usize) -> Self {
        Self(vec![false; group_len])
    }

    pub(super) fn of(group_len: usize, positions: impl IntoIterator<Item = usize>) -> Self {
        let mut set = Self::empty(group_len);
        for position in positions {
            set.insert(position);
        }
        set
    }

    pub(super) fn insert(&mut self, position: usize) {
        self.0[position] = true;
    }

    pub(super) fn remove(&mut self, position: usize) {
        self.0[position] = false;
    }

    pub(super) fn contains(&self, position: usize) -> bool {
        self.0.get(position).copied().unwrap_or(false)
    }

    pub(super) fn len(&self) -> usize {
        self.iter().count()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        self.0.iter().enumerate().filter_map(|(position, member)| member.then_some(position))
    }

    /// Those of the positions that are members.
    pub(super) fn among<'a>(&'a self, positions: &'a [usize]) -> impl Iterator<Item = usize> + Clone + 'a {
        positions.iter().copied().filter(|&position| self.contains(position))
    }

    pub(super) fn is_subset(&self, of: &Self) -> bool {
        self.iter().all(|position| of.contains(position))
    }

    /// One bit per position, least significant first.
    fn encode(&self) -> Vec<u8> {
        self.0
            .chunks(8)
            .map(|bits| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit)))
            .collect()
    }

    fn decode(reader: &mut Reader<'_>, group_len: usize) -> Result<Self, CodecError> {
        let bytes = reader.bytes(group_len.div_ceil(8))?;
        let bit = |position: usize| bytes[position / 8] >> (position % 8) & 1 == 1;
        if (group_len..8 * bytes.len()).any(bit) {
            return Err(CodecError::Value { field: "member bitmap" });
        }
        Ok(Self((0..group_len).map(bit).collect()))
    }
}

/// The boxes for one member.
pub(super) struct Delivery {
    /// U1: who shared; the recipient is one of them.
    pub(super) sharers: MemberSet,
    /// Of the recipient's neighbours that shared, by ascending position.
    pub(super) boxes: Vec<SealedBox>,
}

impl Delivery {
    pub(super) fn encode<'a>(sharers: &MemberSet, boxes: impl Iterator<Item = &'a SealedBox>) -> Vec<u8> {
        let mut writer = Writer::new(Kind::Delivery).bytes(&sharers.encode());
        boxes.for_each(|sealed| writer.push(sealed));
        writer.finish()
    }

    /// `neighbours` are the recipient's.
    pub(super) fn decode(bytes: &[u8], group_len: usize, neighbours: &[usize]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes, Kind::Delivery)?;
        let sharers = MemberSet::decode(&mut reader, group_len)?;
        let senders = neighbours.iter().filter(|&&position| sharers.contains(position));
        let boxes = senders.map(|_| reader.array()).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { sharers, boxes })
    }
}

/// Who shared and who submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Survivors {
    /// U1
    pub(super) sharers: MemberSet,
    /// U2
    pub(super) submitters: MemberSet,
}

impl Survivors {
    pub(super) fn encode(&self) -> Vec<u8> {
        Writer::new(Kind::Survivors).bytes(&self.sharers.encode()).bytes(&self.submitters.encode()).finish()
    }

    pub(super) fn decode(bytes: &[u8], group_len: usize) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes, Kind::Survivors)?;
        let sharers = MemberSet::decode(&mut reader, group_len)?;
        let submitters = MemberSet::decode(&mut reader, group_len)?;
        reader.finish()?;
        Ok(Self { sharers, submitters })
    }
}

/// A member's signature on the survivors that it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consistency(pub(super) Signature);

impl Consistency {
    pub(super) fn sign(transcript: &GroupTranscript, survivors: &[u8], key: &SigningKey) -> Self {
        Self(key.sign(&survivors_digest(transcript, survivors)))
    }

    pub(super) fn is_valid(
        &self,
        transcript: &GroupTranscript,
        survivors: &[u8],
        key: &VerifyingKey,
    ) -> bool {
        self.signed(survivors_digest(transcript, survivors), key).is_valid()
    }

    /// As a signature on the survivors of that digest, by the holder of that key.
    pub(super) fn signed(&self, digest: [u8; 32], key: &VerifyingKey) -> Signed {
        Signed { key: *key, digest, signature: self.0 }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        Writer::new(Kind::Consistency).bytes(&self.0.to_bytes()).finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes, Kind::Consistency)?;
        let signature = Signature::from_bytes(&reader.array()?);
        reader.finish()?;
        Ok(Self(signature))
    }
}

/// `survivors` are the message's bytes; the transcript binds configuration, roster, beacon and group.
pub(super) fn survivors_digest(transcript: &GroupTranscript, survivors: &[u8]) -> [u8; 32] {
    digest("survivors", &[transcript, survivors])
}

/// Signatures on the survivors by position, in ascending order.
pub(super) fn encode_signatures(signatures: &[(usize, Consistency)]) -> Vec<u8> {
    let mut writer = Writer::new(Kind::Signatures).u32(signatures.len());
    for (position, signature) in signatures {
        writer = writer.u32(*position).bytes(&signature.0.to_bytes());
    }
    writer.finish()
}

pub(super) fn decode_signatures(
    bytes: &[u8],
    group_len: usize,
) -> Result<Vec<(usize, Consistency)>, CodecError> {
    let mut reader = Reader::new(bytes, Kind::Signatures)?;
    let count = reader.count(group_len, "number of signatures")?;
    let mut last = None;
    let mut signatures = Vec::with_capacity(count);
    for _ in 0..count {
        let position = reader.u32()?;
        ascending(&mut last, position, "signers")?;
        if position >= group_len {
            return Err(CodecError::Value { field: "signer's position" });
        }
        signatures.push((position, Consistency(Signature::from_bytes(&reader.array()?))));
    }
    reader.finish()?;
    Ok(signatures)
}

/// One share for every neighbour in U1: of its self-mask seed where it submitted, of its mask secret key where not. The
/// survivors decide the kind, so the message cannot carry both.
#[derive(Clone)]
pub struct Unmask {
    /// By ascending position of the neighbours in U1.
    pub(super) shares: Vec<Share>,
}

impl Unmask {
    pub(super) fn encode<'a>(shares: impl Iterator<Item = &'a Share>) -> Vec<u8> {
        let mut writer = Writer::new(Kind::Unmask);
        shares.for_each(|share| writer.push(share.encode().as_slice()));
        writer.finish()
    }

    pub(super) fn decode(bytes: &[u8], sharers: usize) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes, Kind::Unmask)?;
        let mut share = || Share::decode(&reader.array()?).ok_or(CodecError::Value { field: "secret share" });
        let shares = (0..sharers).map(|_| share()).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { shares })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_has_one_encoding() {
        let survivors =
            Survivors { sharers: MemberSet::of(11, [0, 3, 10]), submitters: MemberSet::empty(11) };
        let mut bytes = survivors.encode();
        assert_eq!(bytes[2..], [0b1001, 0b100, 0, 0]);
        assert_eq!(Survivors::decode(&bytes, 11), Ok(survivors));
        bytes[3] |= 0b1000;
        assert_eq!(Survivors::decode(&bytes, 11), Err(CodecError::Value { field: "member bitmap" }));
    }

    #[test]
    fn entries_ascend_strictly_and_stay_in_range() {
        let nonce = Nonce([1; 32]);
        let decode = |reveals: &[(usize, Nonce)]| decode_reveals(&encode_reveals(reveals), 5);
        assert_eq!(decode(&[(0, nonce), (4, nonce)]), Ok(vec![(0, nonce), (4, nonce)]));
        let order = Err(CodecError::Order { field: "roster indices" });
        assert_eq!(decode(&[(1, nonce), (1, nonce)]), order);
        assert_eq!(decode(&[(2, nonce), (1, nonce)]), order);
        assert_eq!(decode(&[(5, nonce)]), Err(CodecError::Value { field: "roster index" }));
    }
}
