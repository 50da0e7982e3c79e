//! The condition that sums an object up.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use tidelock_api::{READY, STALLED};

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `True`, `False`; none is `Unknown`.
    pub holds: Option<bool>,
    /// One word.
    pub reason: String,
    /// The sentence.
    pub message: String,
}

impl Verdict {
    /// It holds.
    pub fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Some(true), reason, message)
    }

    /// It does not hold.
    pub fn no(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Some(false), reason, message)
    }

    /// Nobody knows.
    pub fn unknown(reason: &str, message: impl Into<String>) -> Self {
        Self::new(None, reason, message)
    }

    fn new(holds: Option<bool>, reason: &str, message: impl Into<String>) -> Self {
        Self {
            holds,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// `conditions` with `Ready` as `verdict` says.
pub fn set_ready(
    conditions: &mut Vec<Condition>,
    verdict: &Verdict,
    generation: Option<i64>,
    now: Timestamp,
) {
    set(conditions, READY, verdict, generation, now);
}

/// `conditions` with `Ready` and `Stalled` as `verdict` says about an object that comes to nothing as
/// it is, or with `Ready` alone where more is to come.
pub fn set_ready_or_stalled(
    conditions: &mut Vec<Condition>,
    verdict: &Verdict,
    is_stalled: bool,
    generation: Option<i64>,
    now: Timestamp,
) {
    set_ready(conditions, verdict, generation, now);
    if is_stalled {
        let stalled = Verdict::yes(&verdict.reason, verdict.message.clone());
        set(conditions, STALLED, &stalled, generation, now);
    } else {
        conditions.retain(|condition| condition.type_ != STALLED);
    }
}

/// Whether the condition of that type is True.
pub fn holds(conditions: &[Condition], kind: &str) -> bool {
    let found = conditions.iter().find(|condition| condition.type_ == kind);
    found.is_some_and(|condition| condition.status == "True")
}

/// `conditions` with the one of type `kind` as `verdict` says; the transition time moves only with
/// the status.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    verdict: &Verdict,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = match verdict.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let previous = conditions.iter().position(|c| c.type_ == kind);
    let since = previous
        .map(|index| &conditions[index])
        .filter(|condition| condition.status == status)
        .map_or(Time(now), |condition| {
            condition.last_transition_time.clone()
        });
    let condition = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.clone(),
        message: verdict.message.clone(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match previous {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

/// `conditions` with whether the state `kind` holds now. One that never held has no condition.
pub fn mark(
    conditions: &mut Vec<Condition>,
    kind: &str,
    verdict: &Verdict,
    generation: Option<i64>,
    now: Timestamp,
) {
    let is_there = conditions.iter().any(|condition| condition.type_ == kind);
    if is_there || verdict.holds == Some(true) {
        set(conditions, kind, verdict, generation, now);
    }
}

/// Since when the state `kind` holds, or no longer holds; none where it is not so, or never was.
pub fn since(conditions: &[Condition], kind: &str, holds: bool) -> Option<Timestamp> {
    let status = if holds { "True" } else { "False" };
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == status);
    found.map(|condition| condition.last_transition_time.0)
}

/// The reason of `Ready`, empty where there is none.
pub fn ready_reason(conditions: &[Condition]) -> &str {
    conditions
        .iter()
        .find(|condition| condition.type_ == READY)
        .map_or("", |condition| &condition.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_state_is_told_with_its_time_once_it_ever_held() {
        let mut conditions = vec![];
        let (yes, no) = (Verdict::yes("Queued", ""), Verdict::no("NotQueued", ""));
        mark(&mut conditions, "Queued", &no, None, at(1));
        assert!(conditions.is_empty());
        for second in [2, 3] {
            mark(&mut conditions, "Queued", &yes, None, at(second));
            assert_eq!(since(&conditions, "Queued", true), Some(at(2)));
        }
        mark(&mut conditions, "Queued", &no, None, at(4));
        assert_eq!(since(&conditions, "Queued", true), None);
        assert_eq!(since(&conditions, "Queued", false), Some(at(4)));
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_does() {
        let mut conditions = vec![];
        set_ready(
            &mut conditions,
            &Verdict::no("Pending", "waits"),
            Some(1),
            at(1),
        );
        set_ready(
            &mut conditions,
            &Verdict::no("Running", "runs"),
            Some(1),
            at(2),
        );
        assert_eq!(conditions[0].last_transition_time, Time(at(1)));
        assert_eq!(ready_reason(&conditions), "Running");
        set_ready(
            &mut conditions,
            &Verdict::yes("Completed", "done"),
            Some(1),
            at(3),
        );
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].last_transition_time, Time(at(3)));
    }

    #[test]
    fn stalled_is_there_only_while_nothing_more_will_come() {
        let mut conditions = vec![];
        let broken = Verdict::no("InvalidSchedule", "minute 61");
        set_ready_or_stalled(&mut conditions, &broken, true, Some(1), at(1));
        assert!(holds(&conditions, STALLED));
        assert!(!holds(&conditions, READY));
        assert_eq!(conditions[1].message, "minute 61");
        let mended = Verdict::yes("Scheduled", "follows its schedule");
        set_ready_or_stalled(&mut conditions, &mended, false, Some(2), at(2));
        assert_eq!(conditions.len(), 1);
        assert!(holds(&conditions, READY));
    }
}
