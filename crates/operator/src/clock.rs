//! The clock that leases are counted by.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tidelock_core::lease::Moment;

/// Time since the machine's start, the time it slept included: it never steps, and it goes on for a
/// process that is stopped and for a machine that is suspended.
pub fn moment() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    // Neither is ever negative.
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Moment::since_start(Duration::new(seconds, nanoseconds))
}
