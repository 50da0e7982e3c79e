//! What a run that has not ended is doing, and since when.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use tidelock_api::Phase;

use crate::conditions::{self, ready_reason};
use crate::convert;
use crate::telemetry::reasons;

/// The states, as label values.
pub const STATES: [&str; 6] = [
    "Pending", "Queued", "Starting", "Running", "Stopping", "Deleting",
];
const PENDING: usize = 0;
const QUEUED: usize = 1;
const STARTING: usize = 2;
const RUNNING: usize = 3;
const STOPPING: usize = 4;
const DELETING: usize = 5;

/// Since when the longest in each state is in it, in the order of [`STATES`].
pub type Oldest = [Option<Timestamp>; STATES.len()];

/// What is known of a run.
pub struct Run<'a> {
    /// Its metadata.
    pub meta: &'a ObjectMeta,
    /// Where it stands.
    pub phase: Option<Phase>,
    /// When its Job was asked for.
    pub started: Option<&'a Time>,
    /// Since when it is being brought to its end.
    pub ending: Option<&'a Time>,
    /// Its conditions.
    pub conditions: &'a [Condition],
}

/// The state of a run, as a place in [`STATES`], and since when; none for one that has ended.
pub fn state(run: &Run<'_>) -> Option<(usize, Timestamp)> {
    if let Some(at) = &run.meta.deletion_timestamp {
        return Some((DELETING, at.0));
    }
    if convert::is_terminal(run.phase) {
        return None;
    }
    let created = convert::created(run.meta);
    let started = run.started.map_or(created, |time| time.0);
    Some(match (run.phase, ready_reason(run.conditions)) {
        (_, reasons::STOPPING | reasons::TAKING_BACK) => {
            (STOPPING, run.ending.map_or(started, |time| time.0))
        }
        (Some(Phase::Running), reasons::RUNNING) => (RUNNING, started),
        (Some(Phase::Running), _) => (STARTING, started),
        (_, reasons::QUEUED) => {
            let since = conditions::since(run.conditions, tidelock_api::QUEUED, true);
            (QUEUED, since.unwrap_or(created))
        }
        _ => {
            let since = conditions::since(run.conditions, tidelock_api::QUEUED, false);
            (PENDING, since.unwrap_or(created))
        }
    })
}

/// Takes a run into `oldest`.
pub fn note(oldest: &mut Oldest, run: &Run<'_>) {
    if let Some((index, since)) = state(run) {
        let slot = &mut oldest[index];
        *slot = Some(slot.map_or(since, |known| known.min(since)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn condition(kind: &str, status: &str, reason: &str, since: i64) -> Condition {
        Condition {
            type_: kind.to_owned(),
            reason: reason.to_owned(),
            status: status.to_owned(),
            last_transition_time: at(since),
            message: String::new(),
            observed_generation: None,
        }
    }

    /// The state of a run whose condition `Queued`, if it has one, has this status since second 15.
    fn seen(
        phase: Option<Phase>,
        reason: &str,
        queued: Option<&str>,
    ) -> Option<(&'static str, i64)> {
        let meta = ObjectMeta {
            creation_timestamp: Some(at(10)),
            ..Default::default()
        };
        let mut conditions = vec![condition("Ready", "False", reason, 11)];
        conditions.extend(queued.map(|status| condition("Queued", status, "", 15)));
        let run = Run {
            meta: &meta,
            phase,
            started: Some(&at(20)),
            ending: Some(&at(30)),
            conditions: &conditions,
        };
        state(&run).map(|(index, since)| (STATES[index], since.as_second()))
    }

    #[test]
    fn a_state_is_told_with_its_own_beginning() {
        let (pending, running) = (Some(Phase::Pending), Some(Phase::Running));
        let seen = |phase, reason| super::tests::seen(phase, reason, None);
        assert_eq!(seen(None, ""), Some(("Pending", 10)));
        assert_eq!(seen(pending, "PVCNotFound"), Some(("Pending", 10)));
        assert_eq!(seen(pending, "Queued"), Some(("Queued", 10)));
        assert_eq!(seen(running, "PodPending"), Some(("Starting", 20)));
        assert_eq!(seen(running, "Running"), Some(("Running", 20)));
        assert_eq!(seen(running, "TakingBack"), Some(("Stopping", 30)));
        assert_eq!(seen(Some(Phase::Failed), "OutOfMemory"), None);
    }

    #[test]
    fn the_queue_and_what_comes_after_it_do_not_count_from_the_making() {
        let pending = Some(Phase::Pending);
        let queued = seen(pending, "Queued", Some("True"));
        assert_eq!(queued, Some(("Queued", 15)));
        let after = seen(pending, "PVCNotFound", Some("False"));
        assert_eq!(after, Some(("Pending", 15)));
    }
}
