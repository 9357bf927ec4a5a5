//! The fedveil command.
fn main() {}
