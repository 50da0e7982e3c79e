//! Set-up, checks, test cluster, image and demo.
fn main() {}
