//! The `kvraft` command.
fn main() {}
