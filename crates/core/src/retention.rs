//! Which backups of a policy go, and why the others stay.

use jiff::Timestamp;

use crate::fact::{BackupFact, Proof, Standard};

/// What a policy keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// How many of the newest good backups stay; zero keeps one.
    pub keep_last: u32,
    /// What makes a backup a good one.
    pub standard: Standard,
}

/// What retention says of one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As many good ones as are to be kept are younger.
    Goes,
    /// It is not completed, or being deleted already: not retention's concern.
    NotKept,
    /// It is dated in the future: a clock was ahead, and its place among the others is unknown.
    FromTheFuture,
    /// It is one of the newest good ones.
    Counts,
    /// Fewer good ones than are to be kept are younger; it is not counted itself.
    TooFewGood,
    /// It is the last one that is known to be whole.
    LastVerified,
    /// It would go, but its storage does not let go of it yet.
    Locked,
}

/// What becomes of each of `backups`, in their order.
///
/// # Guarantees
/// - Only what is completed goes, and only while `keep_last` (at least one) younger good ones stay.
/// - What is suspicious, damaged, or unverified where verification is on never counts, so it
///   displaces nothing.
/// - The last verified one stays, whatever `keep_last` says, also when verification is off now.
/// - What its storage keeps locked stays until the lock ends.
/// - What is dated in the future neither counts nor goes: a clock that was ahead and was set right
///   displaces nothing. See [`misdated`] for what places it.
///
/// # Assumptions
/// `backups` are those of one policy, read afresh.
pub fn judge(backups: &[BackupFact], rule: Rule, now: Timestamp) -> Vec<Verdict> {
    let of_now = |backup: &BackupFact| backup.is_stored() && !backup.is_ahead(now);
    let last_verified = backups
        .iter()
        .filter(|backup| of_now(backup) && backup.proof == Proof::Verified)
        .max_by_key(|backup| (!backup.suspicious, backup.age_order()));

    let mut newest_first: Vec<usize> = (0..backups.len()).collect();
    newest_first.sort_by_key(|index| std::cmp::Reverse((backups[*index].age_order(), *index)));
    let keep = rule.keep_last.max(1);
    let mut younger_good = 0;
    let mut verdicts = vec![Verdict::NotKept; backups.len()];
    for index in newest_first {
        let backup = &backups[index];
        verdicts[index] = if !backup.is_stored() {
            Verdict::NotKept
        } else if !of_now(backup) {
            Verdict::FromTheFuture
        } else if younger_good >= keep {
            if last_verified.is_some_and(|last| std::ptr::eq(last, backup)) {
                Verdict::LastVerified
            } else if backup.is_locked(now) {
                Verdict::Locked
            } else {
                Verdict::Goes
            }
        } else if backup.is_good(rule.standard) {
            younger_good += 1;
            Verdict::Counts
        } else {
            Verdict::TooFewGood
        };
    }
    verdicts
}

/// The Backups that are dated in the future: to be marked as there by `now`, which places them
/// before all that are taken from now on. Without the mark one of them would pass for the newest
/// once its date has come.
pub fn misdated(backups: &[BackupFact], now: Timestamp) -> impl Iterator<Item = &BackupFact> {
    let stored = backups.iter().filter(|backup| backup.is_stored());
    stored.filter(move |backup| backup.is_ahead(now))
}

/// The Backups that go by [`judge`], oldest first.
pub fn surplus(backups: &[BackupFact], rule: Rule, now: Timestamp) -> Vec<&BackupFact> {
    judged_as(Verdict::Goes, backups, rule, now)
}

/// The Backups that would go were they not locked by their storage, oldest first.
pub fn locked(backups: &[BackupFact], rule: Rule, now: Timestamp) -> Vec<&BackupFact> {
    judged_as(Verdict::Locked, backups, rule, now)
}

fn judged_as(
    verdict: Verdict,
    backups: &[BackupFact],
    rule: Rule,
    now: Timestamp,
) -> Vec<&BackupFact> {
    let verdicts = judge(backups, rule, now);
    let judged = backups.iter().zip(verdicts);
    let mut found: Vec<&BackupFact> = judged
        .filter(|(_, own)| *own == verdict)
        .map(|(backup, _)| backup)
        .collect();
    found.sort_by_key(|backup| backup.age_order());
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Phase;
    use crate::fact::{CLOCK_SLACK, completed};

    const NOW: i64 = 1_000_000;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn keep(keep_last: u32, standard: Standard) -> Rule {
        Rule {
            keep_last,
            standard,
        }
    }

    fn going(all: &[BackupFact], rule: Rule) -> Vec<&str> {
        let names = surplus(all, rule, now()).into_iter();
        names.map(|backup| backup.name.as_str()).collect()
    }

    fn with(mut fact: BackupFact, change: impl FnOnce(&mut BackupFact)) -> BackupFact {
        change(&mut fact);
        fact
    }

    #[test]
    fn the_oldest_completed_beyond_keep_last_go() {
        let all = [
            completed("c", 3),
            completed("a", 1),
            completed("d", 4),
            completed("b", 2),
        ];
        assert_eq!(going(&all, keep(2, Standard::Verified)), ["a", "b"]);
        assert!(going(&all, keep(4, Standard::Verified)).is_empty());
    }

    #[test]
    fn failed_runs_never_push_a_good_one_out() {
        let phase = |name, second, phase| with(completed(name, second), |f| f.phase = Some(phase));
        let all = [
            completed("good", 1),
            phase("bad1", 2, Phase::Failed),
            phase("bad2", 3, Phase::Failed),
            phase("now", 4, Phase::Running),
        ];
        assert!(going(&all, keep(1, Standard::Completed)).is_empty());
    }

    #[test]
    fn keep_last_zero_still_keeps_one() {
        assert!(going(&[completed("only", 1)], keep(0, Standard::Completed)).is_empty());
    }

    #[test]
    fn what_is_leaving_is_not_counted_as_kept() {
        let leaving = with(completed("new", 9), |f| f.leaving = true);
        let all = [completed("old", 1), leaving];
        assert!(going(&all, keep(1, Standard::Completed)).is_empty());
    }

    #[test]
    fn empty_backups_never_push_the_last_good_one_out() {
        let empty = |name, second| with(completed(name, second), |f| f.suspicious = true);
        let all = [
            completed("good", 1),
            empty("e2", 2),
            empty("e3", 3),
            empty("e4", 4),
        ];
        for standard in [Standard::Verified, Standard::Completed] {
            assert!(going(&all, keep(1, standard)).is_empty());
        }
        let mut accepted = all.to_vec();
        accepted[3].suspicious = false;
        let rule = keep(1, Standard::Verified);
        assert_eq!(going(&accepted, rule), ["good", "e2", "e3"]);
    }

    #[test]
    fn unverified_ones_count_only_where_verification_is_off() {
        let unread = |name, second| with(completed(name, second), |f| f.proof = Proof::Unknown);
        let all = [unread("a", 1), unread("b", 2), unread("c", 3)];
        assert!(going(&all, keep(1, Standard::Verified)).is_empty());
        assert_eq!(going(&all, keep(1, Standard::Completed)), ["a", "b"]);
    }

    #[test]
    fn the_last_verified_one_stays_also_when_verification_is_off_now() {
        let unread = |name, second| with(completed(name, second), |f| f.proof = Proof::Unknown);
        let all = [
            completed("v1", 1),
            completed("v2", 2),
            unread("u3", 3),
            unread("u4", 4),
        ];
        assert_eq!(going(&all, keep(1, Standard::Completed)), ["v1", "u3"]);
    }

    #[test]
    fn rot_that_is_found_later_brings_the_older_ones_back_to_count() {
        let mut all = [completed("a", 1), completed("b", 2), completed("c", 3)];
        assert_eq!(going(&all, keep(2, Standard::Verified)), ["a"]);
        all[2].proof = Proof::Refuted;
        assert!(going(&all, keep(2, Standard::Verified)).is_empty());
    }

    #[test]
    fn what_its_storage_locks_stays_until_then_and_is_told_of() {
        let until = |name, second, until| {
            let until = Timestamp::from_second(until).ok();
            with(completed(name, second), |f| f.locked_until = until)
        };
        let all = [
            until("a", 1, NOW - 3_600),
            until("b", 2, NOW + 3_600),
            // Ended by this clock, and perhaps not by the storage's.
            until("c", 3, NOW - 10),
            completed("d", 4),
        ];
        let rule = keep(1, Standard::Verified);
        assert_eq!(going(&all, rule), ["a"]);
        let names = |found: Vec<&BackupFact>| -> Vec<String> {
            found.iter().map(|backup| backup.name.clone()).collect()
        };
        assert_eq!(names(locked(&all, rule, now())), ["b", "c"]);
        let all_kept = keep(4, Standard::Verified);
        assert!(locked(&all, all_kept, now()).is_empty());
    }

    #[test]
    fn a_clock_that_was_ahead_displaces_nothing() {
        let ahead = completed("ahead", NOW + 86_400);
        let all = [completed("old", NOW - 20), completed("new", NOW), ahead];
        assert_eq!(going(&all, keep(1, Standard::Verified)), ["old"]);
        let verdicts = judge(&all, keep(1, Standard::Verified), now());
        assert_eq!(verdicts[1..], [Verdict::Counts, Verdict::FromTheFuture]);
    }

    #[test]
    fn one_dated_in_the_future_never_passes_for_the_newest_once_its_time_has_come() {
        let mut ahead = completed("ahead", NOW + 100_000);
        let found: Vec<_> = misdated(std::slice::from_ref(&ahead), now()).collect();
        assert_eq!(found.len(), 1);
        ahead.there_by = Some(now());
        let since = completed("since", NOW + 99_999);
        let all = [ahead, since];
        let later = Timestamp::from_second(NOW + 200_000).unwrap();
        let going = surplus(&all, keep(1, Standard::Verified), later);
        assert_eq!(going[0].name, "ahead");
        assert_eq!(misdated(&all, later).count(), 0);
    }

    fn any_fact() -> impl Strategy<Value = BackupFact> {
        let phase = prop_oneof![
            1 => Just(None),
            1 => Just(Some(Phase::Pending)),
            1 => Just(Some(Phase::Running)),
            6 => Just(Some(Phase::Completed)),
            1 => Just(Some(Phase::Failed)),
        ];
        let proof = prop::sample::select(vec![Proof::Verified, Proof::Refuted, Proof::Unknown]);
        let second = prop_oneof![9 => NOW - 20..NOW, 1 => NOW..NOW + 1000];
        let leaving = prop::bool::weighted(0.1);
        let suspicious = prop::bool::weighted(0.2);
        ("[a-f]{1,3}", second, phase, leaving, proof, suspicious).prop_map(
            |(name, second, phase, leaving, proof, suspicious)| BackupFact {
                phase,
                leaving,
                proof,
                suspicious,
                ..completed(&name, second)
            },
        )
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let standard = prop::sample::select(vec![Standard::Verified, Standard::Completed]);
        (0u32..6, standard).prop_map(|(keep_last, standard)| keep(keep_last, standard))
    }

    proptest! {
        #[test]
        fn retention_keeps_what_it_promises(
            all in prop::collection::vec(any_fact(), 0..30),
            rule in any_rule(),
        ) {
            let verdicts = judge(&all, rule, now());
            let goes = |index: usize| verdicts[index] == Verdict::Goes;
            let future = |fact: &BackupFact| fact.taken_at > now() + CLOCK_SLACK;
            for (index, gone) in all.iter().enumerate().filter(|(index, _)| goes(*index)) {
                prop_assert!(gone.is_stored() && !future(gone));
                let younger_good_that_stay = all.iter().enumerate().filter(|(other, fact)| {
                    !goes(*other) && !future(fact) && fact.is_good(rule.standard)
                        && fact.age_order() >= gone.age_order() && *other != index
                });
                prop_assert!(younger_good_that_stay.count() >= rule.keep_last.max(1) as usize);
            }
        }

        #[test]
        fn the_last_verified_one_never_goes(
            all in prop::collection::vec(any_fact(), 0..30),
            rule in any_rule(),
        ) {
            let verdicts = judge(&all, rule, now());
            let verified = |fact: &BackupFact| {
                fact.is_stored() && fact.proof == Proof::Verified
                    && fact.taken_at <= now() + CLOCK_SLACK
            };
            let stays = |index: usize| verdicts[index] != Verdict::Goes;
            let kept = |fits: &dyn Fn(&BackupFact) -> bool| {
                all.iter().enumerate().any(|(index, fact)| fits(fact) && stays(index))
            };
            let trusted = |fact: &BackupFact| verified(fact) && !fact.suspicious;
            prop_assert_eq!(kept(&verified), all.iter().any(verified));
            prop_assert_eq!(kept(&trusted), all.iter().any(trusted));
        }

        #[test]
        fn what_is_no_good_displaces_nothing(
            all in prop::collection::vec(any_fact(), 0..30),
            rule in any_rule(),
        ) {
            let counts = |fact: &&BackupFact| {
                fact.is_good(rule.standard) && fact.taken_at <= now() + CLOCK_SLACK
            };
            let good: Vec<BackupFact> = all.iter().filter(counts).cloned().collect();
            let good_going = surplus(&good, rule, now()).len();
            let going = surplus(&all, rule, now());
            prop_assert_eq!(going.iter().filter(|fact| counts(fact)).count(), good_going);
        }

        #[test]
        fn nothing_more_goes_when_asked_again(
            all in prop::collection::vec(any_fact(), 0..30),
            rule in any_rule(),
        ) {
            let verdicts = judge(&all, rule, now());
            let rest: Vec<BackupFact> = all
                .into_iter()
                .zip(verdicts)
                .filter(|(_, verdict)| *verdict != Verdict::Goes)
                .map(|(fact, _)| fact)
                .collect();
            prop_assert!(surplus(&rest, rule, now()).is_empty());
        }
    }
}
