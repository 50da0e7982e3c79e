//! Which slot has passed without what it was for.

use jiff::{SignedDuration, Timestamp};
use tidelock_api::BackupPolicy;
use tidelock_core::fact::BackupFact;

use crate::policy::observe;

/// The slot for a backup that has passed without one being made since. `newest` is the last moment
/// at which one was.
///
/// # Guarantees
/// None while the policy is suspended or its schedule is invalid, and none for slots from before
/// the policy was made, was resumed or changed its schedule. A slot that waits for an active backup
/// is not among them: what is wrong then is told of that backup.
pub fn overdue_since(
    policy: &BackupPolicy,
    newest: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let status = policy.status.as_ref()?;
    if policy.spec.suspend {
        return None;
    }
    let is_open = |slot: &Timestamp| *slot <= now && newest.is_none_or(|newest| newest < *slot);
    let announced = status.next_scheduled_backup.as_ref().map(|time| time.0);
    if let Some(slot) = announced.filter(is_open) {
        return Some(slot);
    }
    // Given up, or nobody's: where a policy begins is recorded as dealt with as well.
    announced?;
    let dealt_with = status.last_schedule_time.as_ref().map(|time| time.0);
    dealt_with
        .filter(is_open)
        .filter(|at| is_slot(policy, *at, now))
}

/// Whether the policy's schedule has a slot at that moment.
fn is_slot(policy: &BackupPolicy, at: Timestamp, now: Timestamp) -> bool {
    // Slots are whole minutes, and parsing is the dear part.
    if at.as_second() % 60 != 0 {
        return false;
    }
    let just_before = at.checked_sub(SignedDuration::from_secs(1));
    let schedule = observe::schedule(policy, now);
    match (just_before, schedule) {
        (Ok(before), Ok(schedule)) => schedule.next_after(before) == Some(at),
        _ => false,
    }
}

/// The slot for reading stored backups again that has passed without any being read since.
///
/// # Guarantees
/// None while the policy is suspended, and none for a slot at which nothing was stored yet.
pub fn verification_overdue_since(
    policy: &BackupPolicy,
    backups: &[BackupFact],
    now: Timestamp,
) -> Option<Timestamp> {
    let status = policy.status.as_ref()?;
    if policy.spec.suspend {
        return None;
    }
    let read = status.last_verification_time.as_ref().map(|time| time.0);
    let was_stored = |slot: Timestamp| {
        let mut ended = backups.iter().filter(|fact| fact.is_stored());
        ended.any(|fact| fact.completed_at.is_some_and(|at| at < slot))
    };
    let dealt_with = status.last_verification_schedule_time.as_ref();
    let announced = status.next_verification.as_ref();
    let slots = dealt_with.into_iter().chain(announced).map(|time| time.0);
    slots
        .filter(|slot| *slot <= now && read.is_none_or(|read| read < *slot) && was_stored(*slot))
        .min()
}
