//! The manifest: what the coordinator signs about one global model.
//!
//! An in-toto statement whose one subject is the model file and whose predicate tells the round that made it: its
//! parent, the task, the cohort, the groups kept and dropped, and the privacy spent. Round 0 is the initial model and
//! has no parent. A manifest is identified by the digest of its envelope's bytes, as signed and sent.
//!
//! A signature says that the signer stands by these numbers, not that they are true: nobody can check from a manifest
//! that the robust rule was run honestly. With the group sums at hand, a replay of the round can.

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

pub use crate::statement::StatementError;
use crate::{digest::Digest, excerpt, explanation::Explanation, privacy::PrivacyClaim, statement};

/// The predicate type of a manifest.
pub const ROUND_PREDICATE_TYPE: &str = "urn:fedveil:round:v2";

/// The name of the model file: the subject of every manifest.
pub const MODEL_FILE: &str = "model.safetensors";

/// The largest manifest envelope that is written or read, in bytes. Decisions about 2,000 rows fit.
pub const MAX_MANIFEST_BYTES: usize = 1 << 20;

/// One global model and the round that made it.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Digest of the model file.
    pub model: Digest,
    /// The round.
    pub round: RoundPredicate,
}

/// The predicate of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundPredicate {
    /// The round that made the model; 0 is the initial model. Grows along the chain, with gaps where rounds failed.
    pub round: u32,
    /// Digest of the parent manifest's envelope bytes; `None` in round 0 alone.
    pub parent: Option<Digest>,
    /// Digest of the task's signed plan.
    pub task_digest: Digest,
    /// Commitment to the members of the cohort.
    pub cohort_commitment: Digest,
    /// What became of each group, by index.
    pub groups: Vec<GroupDecision>,
    /// Rounds after the parent's whose models did not pass the plan's gate, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedRound>,
    /// The Byzantine-robust rule, as the plan names it.
    pub rule: String,
    /// What was spent, and what that means.
    pub privacy: PrivacyClaim,
    /// Name and version of the software that ran the round.
    pub software: String,
    /// Other files of the round.
    pub files: Vec<FileEntry>,
}

/// What became of one group in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupDecision {
    /// Index of the group in the round.
    pub index: u32,
    /// Clients drawn into it.
    pub members: u32,
    /// Clients whose update is in its sum.
    pub survivors: u32,
    /// What was done with its sum.
    pub decision: Decision,
    /// Why, in words; empty where it was kept.
    pub reason: String,
    /// The rule's score of its mean, where the rule gives one.
    pub score: Option<f64>,
    /// The numbers behind the decision, where the rule made one about this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
}

/// A round whose model was made and not published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectedRound {
    /// The round.
    pub round: u32,
    /// Digest of the model that nobody was given.
    pub model: Digest,
    /// Why, in words.
    pub reason: String,
}

/// What was done with a group's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It is part of the new model.
    Kept,
    /// The rule left it out.
    Dropped,
    /// It was never unmasked: too few survivors for its noise.
    Withheld,
}

/// A file by its path in the run folder and its digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Relative, with `/` between its parts; no part is empty, `.` or `..`.
    pub path: String,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// Why a manifest was not made, or not believed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Refused before parsing, or before it is published.
    #[error("manifest of {0} bytes, at most {MAX_MANIFEST_BYTES} are accepted")]
    TooLarge(usize),
    /// The envelope, its signatures or its statement.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Not about exactly one model file.
    #[error("the subject of a manifest is one {MODEL_FILE}, found {0}")]
    Subject(String),
    /// A number outside its range.
    #[error("{field} is {value}, expected {expected}")]
    Number {
        /// Member of the predicate.
        field: &'static str,
        /// What it says.
        value: f64,
        /// What it can be.
        expected: &'static str,
    },
    /// More spent than there was.
    #[error("epsilon_spent is {spent}, more than epsilon_budget {budget}")]
    Overspent {
        /// ε spent.
        spent: f64,
        /// ε of the budget.
        budget: f64,
    },
    /// A member of the privacy claim that is no word.
    #[error("{field} is \"{found}\", expected 1 to 64 printable characters without spaces")]
    Word {
        /// The member.
        field: &'static str,
        /// What it says.
        found: String,
    },
    /// More survivors than members.
    #[error("group {index} has {survivors} survivors of {members} members")]
    Survivors {
        /// Index of the group.
        index: u32,
        /// Members it names.
        members: u32,
        /// Survivors it names.
        survivors: u32,
    },
    /// A rejected round that is not between the parent's and the manifest's own, or out of order.
    #[error("round {found} is listed as rejected, accepted are rounds after {after} and before {before}")]
    Rejected {
        /// The round that it names.
        found: u32,
        /// The parent's round, or the rejected one before.
        after: u32,
        /// The manifest's round.
        before: u32,
    },
    /// A path that could lead out of the run folder.
    #[error("\"{0}\" is not a relative path inside the run folder")]
    Path(String),
}

impl Manifest {
    /// Signs the manifest; the bytes are what is hashed, logged, stored and sent.
    pub fn sign(&self, keys: &[&SigningKey]) -> Result<Vec<u8>, ManifestError> {
        self.round.check()?;
        let subject = FileEntry { path: MODEL_FILE.to_owned(), digest: self.model };
        let envelope = statement::sign(ROUND_PREDICATE_TYPE, [subject], &self.round, keys);
        check_size(&envelope)?;
        Ok(envelope)
    }

    /// Reads a manifest that at least `threshold` of the `trusted` keys signed.
    pub fn verify(
        envelope: &[u8],
        trusted: &[VerifyingKey],
        threshold: usize,
    ) -> Result<Self, ManifestError> {
        check_size(envelope)?;
        let (subject, round): (_, RoundPredicate) =
            statement::verify(envelope, ROUND_PREDICATE_TYPE, trusted, threshold)?;
        let model = match subject.as_slice() {
            [file] if file.path == MODEL_FILE => file.digest,
            [file] => return Err(ManifestError::Subject(excerpt(&file.path))),
            files => return Err(ManifestError::Subject(format!("{} files", files.len()))),
        };
        round.check()?;
        Ok(Self { model, round })
    }
}

impl RoundPredicate {
    fn check(&self) -> Result<(), ManifestError> {
        self.privacy.check()?;
        for group in &self.groups {
            if group.survivors > group.members {
                let GroupDecision { index, members, survivors, .. } = *group;
                return Err(ManifestError::Survivors { index, members, survivors });
            }
            if let Some(value) = group.score.filter(|score| !score.is_finite()) {
                return Err(ManifestError::Number { field: "score", value, expected: "a finite number" });
            }
            group.explanation.as_ref().map_or(Ok(()), Explanation::check)?;
        }
        self.check_rejected(0)?;
        self.files.iter().try_for_each(|file| check_path(&file.path))
    }

    /// Refuses rejected rounds that are not between that of the parent and this one, in their order.
    pub(crate) fn check_rejected(&self, parent: u32) -> Result<(), ManifestError> {
        let (mut after, before) = (parent, self.round);
        for &RejectedRound { round: found, .. } in &self.rejected {
            if found <= after || found >= before {
                return Err(ManifestError::Rejected { found, after, before });
            }
            after = found;
        }
        Ok(())
    }
}

/// Refuses a path that is not plainly inside the folder it is relative to, on any operating system.
pub(crate) fn check_path(path: &str) -> Result<(), ManifestError> {
    let plain = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.contains(|c: char| c.is_control() || c == '\\' || c == ':')
    };
    if path.split('/').all(plain) { Ok(()) } else { Err(ManifestError::Path(excerpt(path))) }
}

fn check_size(envelope: &[u8]) -> Result<(), ManifestError> {
    if envelope.len() > MAX_MANIFEST_BYTES {
        return Err(ManifestError::TooLarge(envelope.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dsse::{DsseError, Envelope},
        fixtures::{History, key, manifest},
        run::INDEX_FILE,
    };

    fn signers() -> [VerifyingKey; 1] {
        [key(1).verifying_key()]
    }

    /// An envelope by the right key around a changed statement.
    fn resigned(from: &str, to: &str) -> Result<Manifest, ManifestError> {
        let envelope =
            Envelope::parse(&manifest(1, Some(Digest::of("parent"))).sign(&[&key(1)]).unwrap()).unwrap();
        let payload = String::from_utf8(envelope.danger_unverified_payload().to_vec()).unwrap();
        assert!(payload.contains(from), "{from} is not in {payload}");
        let payload = payload.replacen(from, to, 1).into_bytes();
        let envelope = Envelope::sign("application/vnd.in-toto+json", payload, &[&key(1)]);
        Manifest::verify(&envelope.to_json(), &signers(), 1)
    }

    #[test]
    fn a_signed_manifest_reads_back() {
        for made in [manifest(0, None), manifest(7, Some(Digest::of("parent")))] {
            let envelope = made.sign(&[&key(1)]).unwrap();
            assert_eq!(Manifest::verify(&envelope, &signers(), 1), Ok(made));
        }
    }

    #[test]
    fn only_trusted_keys_are_believed() {
        let envelope = manifest(0, None).sign(&[&key(2)]).unwrap();
        assert!(matches!(
            Manifest::verify(&envelope, &signers(), 1),
            Err(ManifestError::Statement(StatementError::Envelope(DsseError::UnknownSigner { .. })))
        ));
    }

    #[test]
    fn members_that_nobody_defined_are_refused() {
        assert!(resigned("\"rule\"", "\"rule\"").is_ok());
        for (from, to) in [
            ("\"rule\":", "\"ruler\":0,\"rule\":"),
            ("\"rule\":", "\"rule\":\"mean\",\"rule\":"),
            ("\"members\":", "\"color\":0,\"members\":"),
            ("\"unit\":", "\"units\":1,\"unit\":"),
            ("\"unit\":\"user\",", ""),
            ("\"sha256\":", "\"sha512\":\"\",\"sha256\":"),
            ("\"_type\":", "\"x\":0,\"_type\":"),
            ("\"cosine\":", "\"sine\":0,\"cosine\":"),
            ("\"norm\":", "\"norm\":1,\"norm\":"),
            ("\"influence\":0.1", "\"influence\":\"nothing\""),
            ("\"kept\"", "\"Kept\""),
            ("\"round\":1", "\"round\":-1"),
            ("\"round\":1", "\"round\":4294967296"),
            ("\"survivors\":16", "\"survivors\":16.5"),
            ("\"epsilon_spent\":0.7", "\"epsilon_spent\":1e999"),
        ] {
            let read = resigned(from, to);
            assert!(
                matches!(read, Err(ManifestError::Statement(StatementError::Malformed(_)))),
                "{to}: {read:?}"
            );
        }
    }

    #[test]
    fn a_manifest_is_about_one_model() {
        let one = format!("{{\"name\":\"{MODEL_FILE}\"");
        assert!(
            matches!(resigned(&one, "{\"name\":\"other\""), Err(ManifestError::Subject(name)) if name == "other")
        );
        let digest = Digest::of("");
        let two = format!("{{\"name\":\"a\",\"digest\":{{\"sha256\":\"{digest}\"}}}},{one}");
        assert!(matches!(resigned(&one, &two), Err(ManifestError::Subject(count)) if count == "2 files"));
    }

    #[test]
    fn a_run_index_is_not_a_manifest() {
        let index = &History::of(1).folder().0[INDEX_FILE];
        let Err(ManifestError::Statement(StatementError::Type { member, .. })) =
            Manifest::verify(index, &signers(), 1)
        else {
            panic!("an index was read as a manifest");
        };
        assert_eq!(member, "predicateType");
        for other in ["urn:fedveil:round:v1", "urn:fedveil:round:v3"] {
            let read = resigned(ROUND_PREDICATE_TYPE, other);
            assert!(matches!(read, Err(ManifestError::Statement(StatementError::Type { .. }))), "{other}");
        }
        let v2 = resigned("Statement/v1", "Statement/v2");
        assert!(matches!(v2, Err(ManifestError::Statement(StatementError::Type { member: "_type", .. }))));
    }

    #[test]
    fn numbers_have_ranges_on_both_sides() {
        type Change = fn(&mut RoundPredicate);
        let changes: [(Change, &str); 4] = [
            (|round| round.groups[0].explanation.as_mut().unwrap().z_score = f64::NAN, "z_score"),
            (|round| round.privacy.epsilon_spent = f64::NAN, "epsilon_spent"),
            (|round| round.privacy.delta = 1.0, "delta"),
            (|round| round.groups[0].score = Some(f64::NAN), "score"),
        ];
        for (change, expected) in changes {
            let mut made = manifest(1, Some(Digest::of("parent")));
            change(&mut made.round);
            let signed = made.sign(&[&key(1)]);
            assert!(
                matches!(signed, Err(ManifestError::Number { field, .. }) if field == expected),
                "{expected}"
            );
        }
        // `null` is infinity, which only a plan without noise may have.
        for member in ["\"epsilon_spent\":0.7", "\"epsilon_budget\":15.0", "\"clip_norm\":0.5"] {
            let (name, _) = member.split_once(':').unwrap();
            let read = resigned(member, &format!("{name}:null"));
            assert!(
                matches!(read, Err(ManifestError::Number { value: f64::INFINITY, .. })),
                "{name}: {read:?}"
            );
        }
        assert!(matches!(
            resigned("\"epsilon_spent\":0.7", "\"epsilon_spent\":-0.7"),
            Err(ManifestError::Number { field: "epsilon_spent", .. })
        ));
        assert_eq!(
            resigned("\"epsilon_spent\":0.7", "\"epsilon_spent\":15.5"),
            Err(ManifestError::Overspent { spent: 15.5, budget: 15.0 })
        );
        assert!(matches!(
            resigned("\"cosine\":0.5", "\"cosine\":1.5"),
            Err(ManifestError::Number { field: "cosine", .. })
        ));
        assert!(matches!(
            resigned("\"survivors\":16", "\"survivors\":19"),
            Err(ManifestError::Survivors { index: 0, members: 18, survivors: 19 })
        ));
    }

    #[test]
    fn rejected_rounds_are_between_the_parents_and_its_own() {
        let listing = |rounds: &[u32]| {
            let mut made = manifest(7, Some(Digest::of("parent")));
            let rejected = |&round: &u32| RejectedRound {
                round,
                model: Digest::of(round.to_string()),
                reason: "its step has norm 9, accepted is up to 6".to_owned(),
            };
            made.round.rejected = rounds.iter().map(rejected).collect();
            made
        };
        let made = listing(&[4, 5]);
        let envelope = made.sign(&[&key(1)]).unwrap();
        assert_eq!(Manifest::verify(&envelope, &signers(), 1), Ok(made.clone()));
        assert_eq!(made.round.check_rejected(3), Ok(()));
        assert_eq!(
            made.round.check_rejected(4),
            Err(ManifestError::Rejected { found: 4, after: 4, before: 7 })
        );
        for rounds in [&[0][..], &[5, 4], &[5, 5], &[7], &[4, 8]] {
            let signed = listing(rounds).sign(&[&key(1)]);
            assert!(matches!(signed, Err(ManifestError::Rejected { before: 7, .. })), "{rounds:?}");
        }
    }

    #[test]
    fn paths_stay_inside_the_folder() {
        for path in ["model.safetensors", "manifests/00000.dsse.json", "a/b/c", "..a/b..", ".a"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        for path in ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", "./a", "a\\b", "C:/a", "a\0b", "a\nb"]
        {
            assert!(matches!(check_path(path), Err(ManifestError::Path(_))), "{path:?}");
        }
        let files = "\"files\":[";
        let entry = format!("{files}{{\"path\":\"../a\",\"digest\":\"{}\"}}", Digest::of(""));
        assert!(matches!(resigned(files, &entry), Err(ManifestError::Path(_))));
    }

    #[test]
    fn a_manifest_that_no_client_would_read_is_not_signed() {
        let mut made = manifest(0, None);
        made.round.rule = "x".repeat(MAX_MANIFEST_BYTES);
        assert!(matches!(made.sign(&[&key(1)]), Err(ManifestError::TooLarge(_))));
        let bytes = vec![b' '; MAX_MANIFEST_BYTES + 1];
        assert_eq!(Manifest::verify(&bytes, &signers(), 1), Err(ManifestError::TooLarge(bytes.len())));
    }
}
