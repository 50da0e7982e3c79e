//! What the stories share: a cluster, a namespace of their own, volumes whose files the test sees,
//! waiting by watches, and comparison by independent tools.
//!
//! `cargo xtask e2e` brings up the cluster and says where it is in the environment.

pub mod audit;
pub mod cluster;
pub mod evidence;
pub mod metrics;
pub mod objects;
pub mod pods;
pub mod story;
pub mod tree;
pub mod volumes;
pub mod wait;

pub use story::{Story, tell};
