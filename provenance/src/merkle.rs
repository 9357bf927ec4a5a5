//! The append-only log: an RFC 6962 §2.1 Merkle tree over SHA-256, and its proofs.
//!
//! A leaf is the bytes of a manifest's DSSE envelope. A log is rebuilt by appending its leaves in order, so only the
//! leaves need to be stored. The tree is `ct-merkle`'s; this module bounds what reaches its verifier and speaks
//! [`Digest`].
//!
//! Absent: proofs against an earlier size than the log's own, and tiles; a log of models has thousands of leaves.

use ct_merkle::{ConsistencyProof, InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::digest::Digest;

/// The largest log that is verified, in leaves: far over any real one, far under what overflows tree arithmetic.
pub const MAX_SIZE: u64 = 1 << 48;

/// A size of a log, in leaves, and its root hash at that size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    /// Number of leaves.
    pub size: u64,
    /// RFC 6962 Merkle tree hash of the leaves.
    pub root: Digest,
}

/// Why a proof was not made, or does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MerkleError {
    /// A size over [`MAX_SIZE`].
    #[error("log of {0} leaves, at most {MAX_SIZE} are accepted")]
    TooLarge(u64),
    /// A leaf that the log does not have.
    #[error("leaf {index} is not in a log of {size} leaves")]
    NoLeaf {
        /// Position asked for, from 0.
        index: u64,
        /// Leaves in the log.
        size: u64,
    },
    /// A log cannot be shown to continue a longer one, or an empty one.
    #[error("a log of {new} leaves cannot be checked to continue one of {old}")]
    NoPrefix {
        /// The earlier size.
        old: u64,
        /// The later size.
        new: u64,
    },
    /// The leaf is not at that place under that root.
    #[error("the inclusion proof of leaf {index} does not lead to the root at size {size}")]
    NotIncluded {
        /// Position of the leaf, from 0.
        index: u64,
        /// Size of the tree.
        size: u64,
    },
    /// The later tree does not begin with the earlier one.
    #[error("the log of {new} leaves does not continue the log of {old} leaves")]
    Inconsistent {
        /// The earlier size.
        old: u64,
        /// The later size.
        new: u64,
    },
}

/// An append-only log in memory.
#[derive(Clone, Debug, Default)]
pub struct Log {
    tree: MemoryBackedTree<Sha256, Vec<u8>>,
}

impl Log {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a leaf and returns its index, from 0.
    pub fn append(&mut self, leaf: Vec<u8>) -> u64 {
        self.tree.push(leaf);
        self.size() - 1
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.tree.len()
    }

    /// The bytes of leaf `index`.
    pub fn leaf(&self, index: u64) -> Result<&[u8], MerkleError> {
        let leaf = usize::try_from(index).ok().and_then(|index| self.tree.get(index));
        leaf.map(Vec::as_slice).ok_or(MerkleError::NoLeaf { index, size: self.size() })
    }

    /// RFC 6962 §2.1 Merkle tree hash; of an empty log, the SHA-256 of nothing.
    pub fn root(&self) -> Digest {
        Digest((*self.tree.root().as_bytes()).into())
    }

    /// Size and root.
    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.size(), root: self.root() }
    }

    /// RFC 6962 §2.1.1 audit path of leaf `index` at the log's own size, from the leaf up.
    pub fn inclusion_proof(&self, index: u64) -> Result<Vec<Digest>, MerkleError> {
        if index >= self.size() {
            return Err(MerkleError::NoLeaf { index, size: self.size() });
        }
        Ok(digests(self.tree.prove_inclusion(index as usize).as_bytes()))
    }

    /// RFC 6962 §2.1.2 proof that this log continues its first `old_size` leaves. From 0 leaves it is empty.
    pub fn consistency_proof(&self, old_size: u64) -> Result<Vec<Digest>, MerkleError> {
        match self.size().checked_sub(old_size) {
            None => Err(MerkleError::NoPrefix { old: old_size, new: self.size() }),
            Some(_) if old_size == 0 => Ok(Vec::new()),
            Some(additions) => Ok(digests(self.tree.prove_consistency(additions as usize).as_bytes())),
        }
    }
}

/// Checks that `leaf` is the `index`-th leaf (from 0) of the log with this head.
pub fn verify_inclusion(
    head: &TreeHead,
    leaf: &[u8],
    index: u64,
    proof: &[Digest],
) -> Result<(), MerkleError> {
    let root = root_hash(head)?;
    if index >= head.size {
        return Err(MerkleError::NoLeaf { index, size: head.size });
    }
    let proof = InclusionProof::try_from_bytes(concat(proof)).expect("digests make whole digests");
    root.verify_inclusion(&leaf, index, &proof)
        .map_err(|_| MerkleError::NotIncluded { index, size: head.size })
}

/// Checks that the log with head `new` begins with the leaves of the log with head `old`.
pub fn verify_consistency(old: &TreeHead, new: &TreeHead, proof: &[Digest]) -> Result<(), MerkleError> {
    let (old_root, new_root) = (root_hash(old)?, root_hash(new)?);
    if old.size == 0 || old.size > new.size {
        return Err(MerkleError::NoPrefix { old: old.size, new: new.size });
    }
    let proof = ConsistencyProof::try_from_bytes(concat(proof)).expect("digests make whole digests");
    new_root
        .verify_consistency(&old_root, &proof)
        .map_err(|_| MerkleError::Inconsistent { old: old.size, new: new.size })
}

fn root_hash(head: &TreeHead) -> Result<RootHash<Sha256>, MerkleError> {
    if head.size > MAX_SIZE {
        return Err(MerkleError::TooLarge(head.size));
    }
    Ok(RootHash::new(head.root.0.into(), head.size))
}

fn digests(proof: &[u8]) -> Vec<Digest> {
    let (chunks, rest) = proof.as_chunks::<32>();
    debug_assert!(rest.is_empty());
    chunks.iter().copied().map(Digest).collect()
}

fn concat(proof: &[Digest]) -> Vec<u8> {
    proof.iter().flat_map(|digest| digest.0).collect()
}
