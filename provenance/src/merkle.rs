//! The append-only log: an RFC 6962 §2.1 Merkle tree over SHA-256, and its proofs.
//!
//! A leaf is the bytes of a manifest's DSSE envelope. A log is rebuilt by appending its leaves in order, so only the
//! leaves need to be stored. The tree is `ct-merkle`'s; this module bounds what reaches its verifier and speaks
//! [`Digest`].
//!
//! Absent: proofs against an earlier size than the log's own, and tiles; a log of models has thousands of leaves.

use ct_merkle::{ConsistencyProof, InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

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

    /// Where the next leaf goes.
    pub fn frontier(&self) -> Frontier {
        let size = self.size();
        let roots = size.checked_sub(1).map_or(Vec::new(), |last| {
            let leaf = self.tree.get(last as usize).expect("the log has that many leaves");
            let path = digests(self.tree.prove_inclusion(last as usize).as_bytes());
            // The last leaf is the rightmost of the smallest complete subtree, whose other parts are left of it; what its
            // path goes on with are the larger subtrees.
            let (within, larger) = path.split_at(size.trailing_zeros() as usize);
            let smallest = within.iter().fold(leaf_hash(leaf), |right, left| node_hash(left, &right));
            std::iter::once(smallest).chain(larger.iter().copied()).collect()
        });
        Frontier { size, roots }
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

/// What is needed of a log to say its head after one more leaf: its size, and the roots of the complete subtrees that it
/// is made of, the smallest first. A copy costs at most 48 digests, however long the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    roots: Vec<Digest>,
}

impl Frontier {
    /// The head of the log with `leaf` behind its leaves.
    pub fn head_with(&self, leaf: &[u8]) -> TreeHead {
        let root = self.roots.iter().fold(leaf_hash(leaf), |right, left| node_hash(left, &right));
        TreeHead { size: self.size + 1, root }
    }
}

fn leaf_hash(leaf: &[u8]) -> Digest {
    Digest(Sha256::new_with_prefix([0]).chain_update(leaf).finalize().into())
}

fn node_hash(left: &Digest, right: &Digest) -> Digest {
    Digest(Sha256::new_with_prefix([1]).chain_update(left.0).chain_update(right.0).finalize().into())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Reference vectors of Certificate Transparency, as in github.com/transparency-dev/merkle,
    // testonly/reference_test.go: eight leaves, the roots after each, and proofs.
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const EMPTY_ROOT: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    /// Size, leaf index, proof.
    const INCLUSION: [(u64, u64, &[&str]); 6] = [
        (1, 0, &[]),
        (2, 1, &["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"]),
        (3, 2, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
        (
            5,
            1,
            &[
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
        (
            8,
            0,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            8,
            5,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
    ];
    /// Old size, new size, proof.
    const CONSISTENCY: [(u64, u64, &[&str]); 4] = [
        (1, 1, &[]),
        (
            1,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            2,
            5,
            &[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
        (
            6,
            8,
            &[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
    ];

    fn reference_log(size: u64) -> Log {
        let mut log = Log::new();
        for leaf in &LEAVES[..size as usize] {
            log.append(hex::decode(leaf).unwrap());
        }
        log
    }

    fn parsed(proof: &[&str]) -> Vec<Digest> {
        proof.iter().map(|digest| digest.parse().unwrap()).collect()
    }

    #[test]
    fn reference_roots() {
        assert_eq!(Log::new().root().to_string(), EMPTY_ROOT);
        for (size, root) in (1..).zip(ROOTS) {
            assert_eq!(reference_log(size).root().to_string(), root, "size {size}");
        }
    }

    #[test]
    fn reference_proofs() {
        for (size, index, proof) in INCLUSION {
            let log = reference_log(size);
            assert_eq!(log.inclusion_proof(index), Ok(parsed(proof)));
            assert_eq!(
                verify_inclusion(&log.head(), log.leaf(index).unwrap(), index, &parsed(proof)),
                Ok(())
            );
        }
        for (old, new, proof) in CONSISTENCY {
            let (before, log) = (reference_log(old).head(), reference_log(new));
            assert_eq!(log.consistency_proof(old), Ok(parsed(proof)));
            assert_eq!(verify_consistency(&before, &log.head(), &parsed(proof)), Ok(()));
        }
    }

    #[test]
    fn what_a_log_does_not_have_is_an_error() {
        let log = reference_log(3);
        assert_eq!(log.leaf(3), Err(MerkleError::NoLeaf { index: 3, size: 3 }));
        assert_eq!(log.inclusion_proof(3), Err(MerkleError::NoLeaf { index: 3, size: 3 }));
        assert_eq!(log.inclusion_proof(u64::MAX), Err(MerkleError::NoLeaf { index: u64::MAX, size: 3 }));
        assert_eq!(log.consistency_proof(4), Err(MerkleError::NoPrefix { old: 4, new: 3 }));
        assert_eq!(log.consistency_proof(0), Ok(vec![]));
        let (head, shorter) = (log.head(), reference_log(2).head());
        assert_eq!(verify_consistency(&head, &shorter, &[]), Err(MerkleError::NoPrefix { old: 3, new: 2 }));
        let empty = Log::new().head();
        assert_eq!(verify_consistency(&empty, &head, &[]), Err(MerkleError::NoPrefix { old: 0, new: 3 }));
        assert_eq!(verify_inclusion(&empty, b"", 0, &[]), Err(MerkleError::NoLeaf { index: 0, size: 0 }));
    }

    /// Tree arithmetic overflows near 2^63; a signer may put any number into a checkpoint.
    #[test]
    fn absurd_sizes_are_refused() {
        let root = Digest([0; 32]);
        for size in [MAX_SIZE + 1, 1 << 63, u64::MAX] {
            let head = TreeHead { size, root };
            assert_eq!(verify_inclusion(&head, b"", size - 1, &[]), Err(MerkleError::TooLarge(size)));
            assert_eq!(
                verify_consistency(&TreeHead { size: 1, root }, &head, &[]),
                Err(MerkleError::TooLarge(size))
            );
            assert_eq!(verify_consistency(&head, &head, &[]), Err(MerkleError::TooLarge(size)));
        }
        let head = TreeHead { size: MAX_SIZE, root };
        let index = MAX_SIZE - 1;
        assert_eq!(
            verify_inclusion(&head, b"", index, &[root; 48]),
            Err(MerkleError::NotIncluded { index, size: MAX_SIZE })
        );
    }

    // RFC 6962 §2.1, word for word: slow and plainly right.

    fn split(leaves: &[Vec<u8>]) -> usize {
        leaves.len().next_power_of_two() / 2
    }

    fn tree_hash(leaves: &[Vec<u8>]) -> Digest {
        match leaves {
            [] => Digest::of(b""),
            [leaf] => Digest::of([&[0], leaf.as_slice()].concat()),
            _ => {
                let (left, right) = leaves.split_at(split(leaves));
                Digest::of([&[1][..], &tree_hash(left).0, &tree_hash(right).0].concat())
            }
        }
    }

    fn path(index: usize, leaves: &[Vec<u8>]) -> Vec<Digest> {
        if leaves.len() == 1 {
            return vec![];
        }
        let at = split(leaves);
        let (left, right) = leaves.split_at(at);
        let (mut proof, sibling) =
            if index < at { (path(index, left), right) } else { (path(index - at, right), left) };
        proof.push(tree_hash(sibling));
        proof
    }

    fn subproof(old: usize, leaves: &[Vec<u8>], complete: bool) -> Vec<Digest> {
        if old == leaves.len() {
            return if complete { vec![] } else { vec![tree_hash(leaves)] };
        }
        let at = split(leaves);
        let (left, right) = leaves.split_at(at);
        let (mut proof, sibling) = if old <= at {
            (subproof(old, left, complete), right)
        } else {
            (subproof(old - at, right, false), left)
        };
        proof.push(tree_hash(sibling));
        proof
    }

    fn leaves(size: usize) -> Vec<Vec<u8>> {
        (0..size).map(|leaf| vec![leaf as u8; leaf % 5]).collect()
    }

    #[test]
    fn every_proof_up_to_40_leaves_is_that_of_the_rfc() {
        let mut log = Log::new();
        let mut heads = vec![log.head()];
        let leaves = leaves(40);
        for size in 1..=40 {
            let so_far = &leaves[..size];
            let foreseen = log.frontier().head_with(&leaves[size - 1]);
            assert_eq!(log.append(leaves[size - 1].clone()), size as u64 - 1);
            assert_eq!(log.head(), foreseen);
            assert_eq!(log.root(), tree_hash(so_far));
            heads.push(log.head());
            for (index, leaf) in so_far.iter().enumerate() {
                let proof = log.inclusion_proof(index as u64).unwrap();
                assert_eq!(proof, path(index, so_far));
                assert_eq!(verify_inclusion(&log.head(), leaf, index as u64, &proof), Ok(()));
            }
            for before in &heads[1..] {
                let proof = log.consistency_proof(before.size).unwrap();
                assert_eq!(proof, subproof(before.size as usize, so_far, true));
                assert_eq!(verify_consistency(before, &log.head(), &proof), Ok(()));
            }
        }
    }

    fn log_of(leaves: &[Vec<u8>]) -> Log {
        let mut log = Log::new();
        for leaf in leaves {
            log.append(leaf.clone());
        }
        log
    }

    /// Damages a proof in one of three ways.
    fn damage(proof: &mut Vec<Digest>, at: usize, how: u8) {
        match how {
            0 if !proof.is_empty() => {
                let at = at % proof.len();
                proof[at].0[at % 32] ^= 1;
            }
            1 if !proof.is_empty() => drop(proof.pop()),
            _ => proof.push(Digest([at as u8; 32])),
        }
    }

    proptest! {
        #[test]
        fn a_damaged_inclusion_proof_fails(size in 1_usize..40, index: usize, at: usize, how in 0_u8..3) {
            let leaves = leaves(size);
            let log = log_of(&leaves);
            let index = index % size;
            let mut proof = log.inclusion_proof(index as u64).unwrap();
            prop_assert!(verify_inclusion(&log.head(), b"another leaf", index as u64, &proof).is_err());
            if size > 1 {
                let other = (index + 1) % size;
                prop_assert!(verify_inclusion(&log.head(), &leaves[index], other as u64, &proof).is_err());
            }
            damage(&mut proof, at, how);
            prop_assert!(verify_inclusion(&log.head(), &leaves[index], index as u64, &proof).is_err());
        }

        #[test]
        fn a_rewritten_log_is_inconsistent(size in 2_usize..40, old: usize, changed: usize, at: usize, how in 0_u8..3) {
            let leaves = leaves(size);
            let old = 1 + old % (size - 1);
            let before = log_of(&leaves[..old]).head();
            let log = log_of(&leaves);
            let mut rewritten = leaves;
            rewritten[changed % old] = b"rewritten".to_vec();
            let rewritten = log_of(&rewritten);
            let mut proof = rewritten.consistency_proof(old as u64).unwrap();
            prop_assert!(verify_consistency(&before, &rewritten.head(), &proof).is_err());
            proof = log.consistency_proof(old as u64).unwrap();
            prop_assert!(verify_consistency(&before, &rewritten.head(), &proof).is_err());
            damage(&mut proof, at, how);
            prop_assert!(verify_consistency(&before, &log.head(), &proof).is_err());
        }
    }
}
