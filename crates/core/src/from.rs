//! Which backup of a policy a restore takes.

use jiff::Timestamp;

use crate::Phase;
use crate::fact::{BackupFact, Proof, Standard};

/// At most so many passed-over backups are told one by one.
const TOLD: usize = 5;

/// The backup of a policy that holds its newest state among those completed at or before `as_of`.
///
/// With [`Standard::Completed`] (`allowUnverified`) one that was never read back will do.
///
/// # Guarantees
/// It is completed, not being deleted, not suspicious unless accepted, and not known to be damaged.
/// To restore one of those all the same, a person names it.
///
/// # Errors
/// The sentence that says why there is none, what was passed over and what to do.
pub fn latest(
    backups: &[BackupFact],
    as_of: Timestamp,
    standard: Standard,
) -> Result<&BackupFact, String> {
    let in_time = |fact: &&BackupFact| fact.completed_at.is_some_and(|at| at <= as_of);
    backups
        .iter()
        .filter(|fact| fact.is_good(standard))
        .filter(in_time)
        .max_by_key(|fact| fact.age_order())
        .ok_or_else(|| none_found(backups, as_of, standard))
}

fn none_found(backups: &[BackupFact], as_of: Timestamp, standard: Standard) -> String {
    if backups.is_empty() {
        return "The policy has no backups.".to_owned();
    }
    let mut passed: Vec<&BackupFact> = backups.iter().collect();
    passed.sort_by_key(|fact| std::cmp::Reverse(fact.age_order()));
    let told = passed.iter().take(TOLD).map(|fact| {
        let why = why_not(fact, as_of);
        format!("{} {why}", fact.name)
    });
    let told: Vec<String> = told.collect();
    let more = match passed.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let verified = match standard {
        Standard::Verified => "verified ",
        Standard::Completed => "",
    };
    let unread = backups
        .iter()
        .any(|fact| fact.is_stored() && fact.proof == Proof::Unknown);
    let way_out = if standard == Standard::Verified && unread {
        " Set allowUnverified to take one that was never read back, or name a Backup in backupName."
    } else {
        " To restore one of them all the same, name it in backupName."
    };
    format!(
        "No {verified}backup of the policy was completed at or before {as_of}. Passed over: {}{more}.{way_out}",
        told.join("; ")
    )
}

/// Why `fact` is not taken.
fn why_not(fact: &BackupFact, as_of: Timestamp) -> String {
    let why = match (fact.phase, fact.completed_at) {
        _ if fact.leaving => "is being deleted",
        (None | Some(Phase::Pending), _) => "has not begun",
        (Some(Phase::Running), _) => "is still running",
        (Some(Phase::Failed), _) => "failed",
        (Some(Phase::Completed), Some(at)) if at > as_of => {
            return format!("was completed later, at {at}");
        }
        (Some(Phase::Completed), None) => "does not say when it was completed",
        _ if fact.proof == Proof::Refuted => "was found damaged",
        _ if fact.suspicious => "is suspicious and was not accepted",
        _ => "was never verified",
    };
    why.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fact::completed;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn with(name: &str, second: i64, change: impl FnOnce(&mut BackupFact)) -> BackupFact {
        let mut fact = completed(name, second);
        change(&mut fact);
        fact
    }

    fn name(found: Result<&BackupFact, String>) -> String {
        found.map(|fact| fact.name.clone()).unwrap()
    }

    #[test]
    fn the_newest_that_was_completed_in_time_is_taken() {
        let all = [
            completed("a", 10),
            completed("c", 30),
            completed("b", 20),
            with("slow", 25, |f| f.completed_at = Some(at(60))),
        ];
        assert_eq!(name(latest(&all, at(99), Standard::Verified)), "c");
        assert_eq!(name(latest(&all, at(30), Standard::Verified)), "c");
        assert_eq!(name(latest(&all, at(29), Standard::Verified)), "b");
        assert!(latest(&all, at(9), Standard::Verified).is_err());
    }

    #[test]
    fn of_two_that_overlapped_the_one_with_the_newer_state_is_taken() {
        let all = [
            with("long", 10, |f| f.completed_at = Some(at(50))),
            with("short", 20, |f| f.completed_at = Some(at(30))),
        ];
        assert_eq!(name(latest(&all, at(60), Standard::Verified)), "short");
    }

    #[test]
    fn an_unread_one_is_taken_only_where_that_is_allowed() {
        let all = [
            completed("read", 10),
            with("unread", 20, |f| f.proof = Proof::Unknown),
        ];
        assert_eq!(name(latest(&all, at(60), Standard::Verified)), "read");
        assert_eq!(name(latest(&all, at(60), Standard::Completed)), "unread");
    }

    #[test]
    fn where_there_is_none_each_is_told_with_its_reason() {
        let all = [
            with("rotten", 10, |f| f.proof = Proof::Refuted),
            with("empty", 20, |f| f.suspicious = true),
            with("unread", 30, |f| f.proof = Proof::Unknown),
            with("leaving", 40, |f| f.leaving = true),
            with("broken", 50, |f| f.phase = Some(Phase::Failed)),
        ];
        let why = latest(&all, at(60), Standard::Verified).unwrap_err();
        assert_eq!(
            why,
            "No verified backup of the policy was completed at or before 1970-01-01T00:01:00Z. Passed over: broken failed; leaving is being deleted; unread was never verified; empty is suspicious and was not accepted; rotten was found damaged. Set allowUnverified to take one that was never read back, or name a Backup in backupName."
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let all: Vec<_> = (0..500)
            .map(|n| with(&format!("b{n}"), n, |f| f.phase = None))
            .collect();
        let why = latest(&all, at(1000), Standard::Completed).unwrap_err();
        assert!(
            why.contains("b499") && why.contains("; and 495 more"),
            "{why}"
        );
        assert!(why.len() < 1000);
    }

    proptest! {
        #[test]
        fn only_a_good_one_in_time_is_ever_taken(
            facts in prop::collection::vec((0i64..50, 0i64..50, 0usize..3, any::<bool>(), any::<bool>()), 0..20),
            as_of in 0i64..100,
            unverified in any::<bool>(),
        ) {
            let proofs = [Proof::Verified, Proof::Refuted, Proof::Unknown];
            let all: Vec<_> = facts.into_iter().map(|(taken, took, proof, suspicious, leaving)| {
                with("x", taken, |f| {
                    f.completed_at = Some(at(taken + took));
                    f.proof = proofs[proof];
                    (f.suspicious, f.leaving) = (suspicious, leaving);
                })
            }).collect();
            let standard = if unverified { Standard::Completed } else { Standard::Verified };
            let fits = |fact: &BackupFact| {
                fact.is_good(standard) && fact.completed_at.is_some_and(|end| end <= at(as_of))
            };
            match latest(&all, at(as_of), standard) {
                Ok(taken) => {
                    prop_assert!(fits(taken));
                    prop_assert!(all.iter().all(|f| !fits(f) || f.taken_at <= taken.taken_at));
                }
                Err(_) => prop_assert!(!all.iter().any(fits)),
            }
        }
    }
}
