//! When a storage is looked at again.

use jiff::{SignedDuration, Timestamp};

/// Shortest and longest pause between two looks at a storage that cannot be used.
const FAILING_PAUSE: (SignedDuration, SignedDuration) = (
    SignedDuration::from_secs(60),
    SignedDuration::from_secs(900),
);

/// What is known of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckFacts {
    /// Whether nothing is to be done there.
    pub is_suspended: bool,
    /// Whether its spec changed since the last look.
    pub has_changed: bool,
    /// Whether the last look did not get to the end of what it was to find.
    pub has_more: bool,
    /// When it was last looked at.
    pub last: Option<Timestamp>,
    /// Since when it cannot be used, where it cannot.
    pub failing_since: Option<Timestamp>,
    /// How often it is to be looked at.
    pub interval: SignedDuration,
}

/// What to do about a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckDecision {
    /// Nothing, until something happens.
    Rest,
    /// Nothing before then.
    Wait(Timestamp),
    /// Look at it.
    Look,
}

/// Decides whether to look at a storage that no look is under way at.
///
/// # Guarantees
/// What cannot be used is looked at ever more rarely, but every quarter of an
/// hour and no rarer than the interval. A last look that lies in the future was dated by a clock that
/// was wrong, and holds nothing up.
pub fn decide(facts: &CheckFacts, now: Timestamp) -> CheckDecision {
    if facts.is_suspended {
        return CheckDecision::Rest;
    }
    let Some(last) = facts.last.filter(|last| *last <= now) else {
        return CheckDecision::Look;
    };
    if facts.has_changed || facts.has_more {
        return CheckDecision::Look;
    }
    let due = last
        .checked_add(pause(facts, last))
        .unwrap_or(Timestamp::MAX);
    if due <= now {
        CheckDecision::Look
    } else {
        CheckDecision::Wait(due)
    }
}

/// As long again as half of the time that it has failed for.
fn pause(facts: &CheckFacts, last: Timestamp) -> SignedDuration {
    let Some(since) = facts.failing_since else {
        return facts.interval;
    };
    let (shortest, longest) = FAILING_PAUSE;
    let half = last.duration_since(since) / 2;
    half.clamp(shortest, longest).min(facts.interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn looked_at(last: i64) -> CheckFacts {
        CheckFacts {
            is_suspended: false,
            has_changed: false,
            has_more: false,
            last: Some(at(last)),
            failing_since: None,
            interval: SignedDuration::from_secs(HOUR),
        }
    }

    #[test]
    fn it_is_looked_at_when_it_is_new_or_changed_and_then_at_the_interval() {
        let new = CheckFacts {
            last: None,
            ..looked_at(0)
        };
        assert_eq!(decide(&new, at(0)), CheckDecision::Look);
        let changed = CheckFacts {
            has_changed: true,
            ..looked_at(0)
        };
        assert_eq!(decide(&changed, at(1)), CheckDecision::Look);
        let settled = looked_at(0);
        assert_eq!(decide(&settled, at(1)), CheckDecision::Wait(at(HOUR)));
        assert_eq!(decide(&settled, at(HOUR)), CheckDecision::Look);
    }

    #[test]
    fn what_was_not_told_to_the_end_is_told_at_once() {
        let more = CheckFacts {
            has_more: true,
            ..looked_at(0)
        };
        assert_eq!(decide(&more, at(0)), CheckDecision::Look);
    }

    #[test]
    fn nothing_is_done_while_suspended() {
        let suspended = CheckFacts {
            is_suspended: true,
            has_changed: true,
            ..looked_at(0)
        };
        assert_eq!(decide(&suspended, at(9 * HOUR)), CheckDecision::Rest);
    }

    #[test]
    fn what_fails_is_looked_at_ever_more_rarely_but_never_given_up() {
        let failing = |last| CheckFacts {
            failing_since: Some(at(0)),
            ..looked_at(last)
        };
        let next = |last| match decide(&failing(last), at(last)) {
            CheckDecision::Wait(due) => due.duration_since(at(last)).as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            [next(0), next(60), next(400), next(9 * HOUR)],
            [60, 60, 200, 900]
        );
        let often = CheckFacts {
            interval: SignedDuration::from_secs(60),
            ..failing(9 * HOUR)
        };
        let due = CheckDecision::Wait(at(9 * HOUR + 60));
        assert_eq!(decide(&often, at(9 * HOUR)), due);
    }

    #[test]
    fn a_look_of_the_future_holds_nothing_up() {
        assert_eq!(decide(&looked_at(HOUR), at(0)), CheckDecision::Look);
    }
}
