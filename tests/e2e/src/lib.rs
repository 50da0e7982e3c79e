//! What the stories share: a cluster, a namespace of their own, volumes whose files the test sees,
//! waiting by watches, and comparison by independent tools.
//!
//! `cargo xtask e2e` brings up the cluster and says where it is in the environment.

pub mod age;
pub mod archives;
pub mod audit;
pub mod cluster;
pub mod daemons;
pub mod deployment;
pub mod effect;
pub mod evidence;
pub mod helm;
pub mod local_operator;
pub mod loop_mounts;
pub mod metrics;
pub mod nodes;
pub mod normal;
pub mod objects;
pub mod outcome;
pub mod pods;
pub mod procfs;
pub mod prometheus;
pub mod proxy;
pub mod s3;
pub mod snapshot;
pub mod story;
pub mod tree;
pub mod usage;
pub mod volumes;
pub mod wait;
pub mod workloads;

pub use story::{Story, tell, tell_in_a_bucket, tell_on_each_storage};
