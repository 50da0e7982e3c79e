//! Writes everything below deploy/ from the types and tables in code.
fn main() {}
