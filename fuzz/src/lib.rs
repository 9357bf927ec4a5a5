//! What the fuzz targets run, and what the ordinary tests run again on every file of the corpora.
//!
//! Each module is one target. Its `run` takes any bytes to the code that a peer's bytes reach first and panics where a
//! promise is broken: not only where that code panics, but also where it accepts what it should refuse, or reads one
//! thing in two ways. It returns whether the input was accepted. Its `seeds` are inputs of every kind, good and bad, made
//! from fixed keys, and equal in every run; a name says what becomes of the input, `accepted-…` or `refused-…`.
//!
//! The file belongs to two crates: the fuzzers', which is outside the workspace, and the integration tests'. So it
//! uses nothing of libFuzzer.

pub mod checkpoint;
pub mod frames;
pub mod identity;
pub mod join_token;
pub mod manifest;
pub mod model_file;
pub mod plain_upload;
pub mod plan;
pub mod publication;
pub mod run_folder;
pub mod secagg_client;
pub mod secagg_server;
pub mod upload;

mod history;
mod session;

/// Inputs by name.
pub type Seeds = Vec<(String, Vec<u8>)>;

/// One target.
pub struct Target {
    /// Of its module, its fuzzer and its corpus.
    pub name: &'static str,
    /// Tries an input; whether it was accepted.
    pub run: fn(&[u8]) -> bool,
    /// What the fuzzer starts from.
    pub seeds: fn() -> Seeds,
}

macro_rules! targets {
    ($($name:ident),*) => {
        &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds }),*]
    };
}

/// Every target, in the order of their names.
pub const TARGETS: &[Target] = targets![
    checkpoint,
    frames,
    identity,
    join_token,
    manifest,
    model_file,
    plain_upload,
    plan,
    publication,
    run_folder,
    secagg_client,
    secagg_server,
    upload
];

fn seed(name: &str, input: impl Into<Vec<u8>>) -> (String, Vec<u8>) {
    (name.to_owned(), input.into())
}
