//! The checked-in code is what the `.proto` file generates.
//!
//! After a change to the `.proto` file, `FEDVEIL_REGENERATE=1 cargo test -p fedveil-proto --test generated` writes the
//! code anew.

use std::{fs, path::Path};

#[test]
fn checked_in_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = root.join("src/gen/fedveil.v1.rs");
    let scratch = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(["fedveil/v1/fedveil.proto"], [root]).unwrap();
    tonic_prost_build::configure()
        // Without `connect`: a channel is made by the client's own TLS code or not at all.
        .build_transport(false)
        .bytes(".fedveil.v1.Frame.data")
        // The join token's secret must not reach a log.
        .skip_debug([".fedveil.v1.EnrollRequest"])
        .emit_rerun_if_changed(false)
        .out_dir(scratch.path())
        .compile_fds(descriptors)
        .unwrap();
    let files: Vec<_> =
        fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["fedveil.v1.rs"], "one package, one file");
    let generated = fs::read_to_string(scratch.path().join("fedveil.v1.rs")).unwrap();

    if std::env::var_os("FEDVEIL_REGENERATE").is_some() {
        fs::write(&checked_in, &generated).unwrap();
    }
    let found = fs::read_to_string(&checked_in).unwrap();
    assert!(
        found == generated,
        "{} differs from what fedveil/v1/fedveil.proto generates; to write it anew:\n    \
         FEDVEIL_REGENERATE=1 cargo test --release -p fedveil-proto --test generated",
        checked_in.display()
    );
}
