//! Signed manifests and the append-only model log
