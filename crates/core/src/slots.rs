//! Which slot of a schedule is due, and what a clock that steps does to that.

use jiff::{SignedDuration, Timestamp};

use crate::schedule::Schedule;

/// How far ahead what is dealt with may lie. Further, and the clock was ahead when that was
/// written: waiting for it would be silence. Up to here a step back repeats nothing.
pub const LONGEST_SILENCE: SignedDuration = SignedDuration::from_hours(1);

/// Slots are counted up to here; a minutely schedule reaches it after a week.
const MOST_COUNTED: u32 = 10_000;

/// From where on slots are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Slots after this one are open.
    pub after: Timestamp,
    /// What was said to be dealt with, where that was too far ahead to be believed.
    pub disbelieved: Option<Timestamp>,
}

/// Where slots are open from, when all up to `dealt_with_until` are said to be dealt with.
pub fn floor(dealt_with_until: Timestamp, now: Timestamp) -> Floor {
    if dealt_with_until.duration_since(now) > LONGEST_SILENCE {
        Floor {
            after: now,
            disbelieved: Some(dealt_with_until),
        }
    } else {
        Floor {
            after: dealt_with_until,
            disbelieved: None,
        }
    }
}

/// Slots that passed without a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: u32,
    /// Whether there may be more than were counted.
    pub at_least: bool,
    /// The first.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
}

/// The slots of `schedule` between `after` and `before`, neither included.
pub fn skipped(schedule: &Schedule, after: Timestamp, before: Timestamp) -> Option<Skipped> {
    let next = |slot| schedule.next_after(slot).filter(|next| *next < before);
    let from = next(after)?;
    let mut skipped = Skipped {
        count: 1,
        at_least: false,
        from,
        until: from,
    };
    while let Some(slot) = next(skipped.until) {
        if skipped.count == MOST_COUNTED {
            let moment = SignedDuration::from_nanos(1);
            let last = before.checked_sub(moment).unwrap_or(before);
            skipped.at_least = true;
            skipped.until = schedule.latest_between(slot, last).unwrap_or(slot);
            break;
        }
        skipped.count += 1;
        skipped.until = slot;
    }
    Some(skipped)
}
