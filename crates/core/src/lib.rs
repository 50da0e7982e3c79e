//! The decisions of Tidelock: facts and `now` in, a decision out.
//!
//! Nothing here reads a clock, a file, the environment or a cluster. The operator observes, asks
//! one of the `decide` functions, and carries the answer out.

pub mod check;
pub mod fact;
pub mod from;
pub mod guard;
pub mod identity;
pub mod lease;
pub mod names;
pub mod phase;
pub mod placement;
pub mod policy;
pub mod progress;
pub mod queue;
pub mod removal;
pub mod retention;
pub mod run;
pub mod schedule;
pub mod slots;
pub mod text;
pub mod verification;

pub use phase::Phase;
