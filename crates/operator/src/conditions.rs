//! The condition that sums an object up.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use tidelock_api::READY;

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

    fn new(holds: Option<bool>, reason: &str, message: impl Into<String>) -> Self {
        Self {
            holds,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// `conditions` with `Ready` as `verdict` says; the transition time moves only with the status.
pub fn set_ready(
    conditions: &mut Vec<Condition>,
    verdict: &Verdict,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = match verdict.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let previous = conditions.iter().position(|c| c.type_ == READY);
    let since = previous
        .map(|index| &conditions[index])
        .filter(|condition| condition.status == status)
        .map_or(Time(now), |condition| {
            condition.last_transition_time.clone()
        });
    let condition = Condition {
        type_: READY.to_owned(),
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
}
