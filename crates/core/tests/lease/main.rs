//! Who leads: single decisions, and many processes at once over a lease that anybody may miss.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod decisions;
mod simulation;
mod world;

use std::time::Duration;

use jiff::Timestamp;
use tidelock_core::lease::{Moment, Timing};

fn timing() -> Timing {
    Timing::new(15, 10, 2).unwrap()
}

fn at(seconds: u64) -> Moment {
    Moment::since_start(Duration::from_secs(seconds))
}

fn wall(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}
