//! For tests: a real S3 server, and a proxy before it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod proxy;
mod server;

pub use proxy::{Fault, Proxy, Request};
pub use server::{BUCKET, PROGRAM, Server, fresh_prefix, server, write_secret};
