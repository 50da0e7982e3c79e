//! The operator: watches policies, backups and restores, and acts on them.
//!
//! Each kind has one reconcile of one shape: observe (all reads), validate (parse once), decide
//! (pure, in `tidelock-core`), apply (all writes), report (status and Events). Every write is
//! idempotent: names are fixed by what they stand for, and status is written against the
//! resourceVersion that was read, so a stale view loses.

pub mod backup;
pub mod clock;
pub mod conditions;
pub mod context;
pub mod controller;
pub mod convert;
pub mod error;
pub mod fact;
pub mod finalizers;
pub mod gate;
pub mod health;
pub mod job;
pub mod leader;
pub mod owners;
pub mod patience;
pub mod placement;
pub mod policy;
pub mod rbac;
pub mod restore;
pub mod run;
pub mod stop;
pub mod storage;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod volume;
pub mod watch;
