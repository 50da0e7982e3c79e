//! The decisions of Tidelock: facts and `now` in, a decision out.
//!
//! Nothing here reads a clock, a file, the environment or a cluster. The operator observes, asks
//! one of the `decide` functions, and carries the answer out.

pub mod names;
pub mod phase;
pub mod policy;
pub mod removal;
pub mod retention;
pub mod run;
pub mod schedule;
pub mod text;

pub use phase::Phase;
