//! The program in the Job pod: backup, restore, delete.
fn main() {}
