//! Which backups of a policy go.

use jiff::Timestamp;

use crate::Phase;

/// What retention needs to know of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionFact {
    /// Name of the Backup.
    pub name: String,
    /// Where it stands; none before the operator has seen it.
    pub phase: Option<Phase>,
    /// The moment whose state it holds: when it was started.
    pub taken_at: Timestamp,
    /// Whether it is being deleted already.
    pub leaving: bool,
}

/// The Backups that go, oldest first, so that the `keep_last` newest completed ones stay.
///
/// # Guarantees
/// Only completed Backups go, never one younger than one that stays, and never while fewer than
/// `keep_last` (at least one) completed ones would be left. Pending, running and failed ones
/// neither go nor count; nor does what is being deleted already.
///
/// # Assumptions
/// `backups` are those of one policy, read afresh.
pub fn surplus(backups: &[RetentionFact], keep_last: u32) -> Vec<&RetentionFact> {
    let mut completed: Vec<&RetentionFact> = backups
        .iter()
        .filter(|backup| backup.phase == Some(Phase::Completed) && !backup.leaving)
        .collect();
    completed.sort_by(|a, b| (a.taken_at, &a.name).cmp(&(b.taken_at, &b.name)));
    let keep = usize::try_from(keep_last.max(1)).unwrap_or(usize::MAX);
    let going = completed.len().saturating_sub(keep);
    completed.truncate(going);
    completed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fact(name: &str, second: i64, phase: Phase) -> RetentionFact {
        RetentionFact {
            name: name.into(),
            phase: Some(phase),
            taken_at: Timestamp::from_second(second).unwrap(),
            leaving: false,
        }
    }

    fn names(going: Vec<&RetentionFact>) -> Vec<&str> {
        going.into_iter().map(|b| b.name.as_str()).collect()
    }

    #[test]
    fn the_oldest_completed_beyond_keep_last_go() {
        let all = [
            fact("c", 3, Phase::Completed),
            fact("a", 1, Phase::Completed),
            fact("d", 4, Phase::Completed),
            fact("b", 2, Phase::Completed),
        ];
        assert_eq!(names(surplus(&all, 2)), ["a", "b"]);
        assert!(surplus(&all, 4).is_empty());
    }

    #[test]
    fn failed_runs_never_push_a_good_one_out() {
        let all = [
            fact("good", 1, Phase::Completed),
            fact("bad1", 2, Phase::Failed),
            fact("bad2", 3, Phase::Failed),
            fact("now", 4, Phase::Running),
        ];
        assert!(surplus(&all, 1).is_empty());
    }

    #[test]
    fn keep_last_zero_still_keeps_one() {
        assert!(surplus(&[fact("only", 1, Phase::Completed)], 0).is_empty());
    }

    #[test]
    fn what_is_leaving_is_not_counted_as_kept() {
        let mut leaving = fact("new", 9, Phase::Completed);
        leaving.leaving = true;
        assert!(surplus(&[fact("old", 1, Phase::Completed), leaving], 1).is_empty());
    }

    fn any_fact() -> impl Strategy<Value = RetentionFact> {
        let phase = prop_oneof![
            1 => Just(None),
            1 => Just(Some(Phase::Pending)),
            1 => Just(Some(Phase::Running)),
            3 => Just(Some(Phase::Completed)),
            1 => Just(Some(Phase::Failed)),
        ];
        ("[a-f]{1,3}", 0i64..20, phase, prop::bool::weighted(0.1)).prop_map(
            |(name, second, phase, leaving)| RetentionFact {
                name,
                phase,
                taken_at: Timestamp::from_second(second).unwrap(),
                leaving,
            },
        )
    }

    proptest! {
        #[test]
        fn retention_keeps_what_it_promises(
            all in prop::collection::vec(any_fact(), 0..30),
            keep_last in 0u32..6,
        ) {
            let going = surplus(&all, keep_last);
            let goes = |b: &RetentionFact| going.iter().any(|g| std::ptr::eq(*g, b));
            let counted = |b: &&RetentionFact| b.phase == Some(Phase::Completed) && !b.leaving;
            prop_assert!(going.iter().all(counted));
            let staying: Vec<_> = all.iter().filter(counted).filter(|b| !goes(b)).collect();
            let total = all.iter().filter(counted).count();
            prop_assert_eq!(staying.len(), total.min(keep_last.max(1) as usize));
            for gone in &going {
                prop_assert!(staying.iter().all(|kept| kept.taken_at >= gone.taken_at));
            }
        }
    }
}
