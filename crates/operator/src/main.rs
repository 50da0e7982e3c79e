//! The operator: watches policies, backups and restores, and acts on them.
fn main() {}
