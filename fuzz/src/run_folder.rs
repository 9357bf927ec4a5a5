//! Run folders, as anyone may hand them to `fedveil verify`: one file of a good folder is the input's.
//!
//! The first byte of an input is the file, in the order of their paths; the rest is its content. What is not the index
//! is tried under the old index, and under one that the signer made for it.

use std::{collections::BTreeMap, sync::LazyLock};

use fedveil_provenance::{
    Digest, Files, build_index,
    manifest::MODEL_FILE,
    run::{INDEX_FILE, KEY_FILE, MANIFEST_FILE, checkpoint_path, encode_key, manifest_path},
    verify_run,
};

use super::{
    Seeds,
    history::{key, logs, model},
    seed,
};

static GOOD: LazyLock<Folder> = LazyLock::new(Folder::good);

/// Whether the folder passes, indexed anew.
pub fn run(input: &[u8]) -> bool {
    let Some((&file, content)) = input.split_first() else { return false };
    let mut folder = GOOD.clone();
    let file = usize::from(file) % folder.0.len();
    let (path, held) = folder.0.iter_mut().nth(file).expect("the number was reduced");
    let path = path.clone();
    let changed = *held != content;
    *held = content.to_vec();
    let trusted = key().verifying_key();
    let report = verify_run(&folder, Some(&trusted));
    assert!(!changed || !report.ok(), "no file can change");
    assert_eq!(report.ok(), report.failures().count() == 0 && report.signer.is_some());
    if path != INDEX_FILE {
        folder.index();
    }
    verify_run(&folder, None);
    verify_run(&folder, Some(&trusted)).ok()
}

#[derive(Clone)]
struct Folder(BTreeMap<String, Vec<u8>>);

impl Folder {
    /// Of two rounds.
    fn good() -> Self {
        let logs = logs(1);
        let mut files = BTreeMap::new();
        for (leaf, (log, checkpoint)) in (0..).zip(&logs) {
            let manifest = log.leaf(leaf).expect("the newest leaf").to_vec();
            files.insert(MANIFEST_FILE.to_owned(), manifest.clone());
            files.insert(manifest_path(leaf), manifest);
            files.insert(checkpoint_path(leaf), checkpoint.clone().into_bytes());
        }
        files.insert(MODEL_FILE.to_owned(), model(1));
        files.insert(KEY_FILE.to_owned(), encode_key(&key().verifying_key()).into_bytes());
        let mut folder = Self(files);
        folder.index();
        folder
    }

    fn index(&mut self) {
        self.0.remove(INDEX_FILE);
        let digests: Vec<_> = self.0.iter().map(|(path, bytes)| (path.clone(), Digest::of(bytes))).collect();
        let index = build_index(&digests, &key()).expect("the folder has the files that a run has");
        self.0.insert(INDEX_FILE.to_owned(), index);
    }

    /// An input for `path`.
    fn input(&self, path: &str, content: &[u8]) -> Vec<u8> {
        let file = self.0.keys().position(|found| found == path).expect("the folder has the file");
        [&[file as u8], content].concat()
    }
}

impl Files for Folder {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.get(path).cloned())
    }

    fn list(&self) -> Result<Vec<String>, String> {
        Ok(self.0.keys().cloned().collect())
    }
}

pub fn seeds() -> Seeds {
    let folder = &*GOOD;
    let as_it_is = |path: &str| folder.input(path, &folder.0[path]);
    let first_manifest = folder.0[&manifest_path(0)].clone();
    let first_checkpoint = folder.0[&checkpoint_path(0)].clone();
    vec![
        seed("accepted-index", as_it_is(INDEX_FILE)),
        seed("accepted-key", as_it_is(KEY_FILE)),
        seed("accepted-manifest", as_it_is(&manifest_path(1))),
        seed("accepted-checkpoint", as_it_is(&checkpoint_path(1))),
        seed("accepted-model", as_it_is(MODEL_FILE)),
        seed("refused-no-index", folder.input(INDEX_FILE, b"")),
        seed("refused-index-of-another-kind", folder.input(INDEX_FILE, &first_manifest)),
        seed(
            "refused-key-of-small-order",
            folder.input(KEY_FILE, format!("01{}\n", "0".repeat(62)).as_bytes()),
        ),
        seed("refused-old-manifest", folder.input(&manifest_path(1), &first_manifest)),
        seed("refused-old-checkpoint", folder.input(&checkpoint_path(1), &first_checkpoint)),
        seed("refused-other-newest", folder.input(MANIFEST_FILE, &first_manifest)),
        seed("refused-other-model", folder.input(MODEL_FILE, &model(2))),
    ]
}
