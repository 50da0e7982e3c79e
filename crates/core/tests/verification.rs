//! When stored backups are read again, and which.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use tidelock_core::Phase;
use tidelock_core::fact::{BackupFact, Proof};
use tidelock_core::schedule::Schedule;
use tidelock_core::slots::LONGEST_SILENCE;
use tidelock_core::verification::{BATCH, VerificationDecision, VerificationFacts, decide};

fn at(text: &str) -> Timestamp {
    format!("2026-11-23T{text}Z").parse().unwrap()
}

fn schedule(expression: &str) -> Schedule {
    Schedule::parse(expression, None, "", at("00:00:00")).unwrap()
}

fn stored(name: &str, second: i64, proved_second: Option<i64>) -> BackupFact {
    let at = |second| Timestamp::from_second(second).unwrap();
    BackupFact {
        name: name.to_owned(),
        phase: Some(Phase::Completed),
        leaving: false,
        taken_at: at(second),
        there_by: None,
        completed_at: Some(at(second)),
        proof: Proof::Verified,
        proved_at: proved_second.map(at),
        suspicious: false,
        storage: "backup-storage".to_owned(),
        holdings: None,
        locked_until: None,
    }
}

fn facts<'a>(schedule: &'a Schedule, backups: &'a [BackupFact]) -> VerificationFacts<'a> {
    VerificationFacts {
        schedule,
        dealt_with_until: None,
        announced: None,
        suspend: false,
        busy: false,
        backups,
    }
}

fn names(decision: &VerificationDecision) -> Vec<&str> {
    let batch = decision.run.iter();
    batch
        .flat_map(|batch| batch.backups.iter().map(String::as_str))
        .collect()
}

#[test]
fn a_new_schedule_first_announces_and_then_runs() {
    let hourly = schedule("0 * * * *");
    let backups = [stored("a", 1, None)];
    let mut policy = facts(&hourly, &backups);
    let first = decide(&policy, at("05:30:00"));
    assert_eq!((first.run, first.next), (None, Some(at("06:00:00"))));
    policy.announced = first.next;
    assert_eq!(decide(&policy, at("05:59:59")).run, None);
    let due = decide(&policy, at("06:00:00"));
    assert_eq!(names(&due), ["a"]);
    assert_eq!(due.dealt_with_until, Some(at("06:00:00")));
    assert_eq!(due.next, Some(at("07:00:00")));
}

#[test]
fn a_changed_schedule_starts_no_surprise_run() {
    let (minutely, daily) = (schedule("* * * * *"), schedule("30 3 * * *"));
    let backups = [stored("a", 1, None)];
    let mut policy = facts(&minutely, &backups);
    policy.announced = Some("2026-11-24T02:00:00Z".parse().unwrap());
    let faster = decide(&policy, at("05:30:30"));
    assert_eq!((faster.run, faster.next), (None, Some(at("05:31:00"))));
    policy.schedule = &daily;
    policy.announced = Some(at("05:31:00"));
    assert_eq!(decide(&policy, at("05:40:00")).run, None);
    let other = schedule("*/5 * * * *");
    policy.schedule = &other;
    let changed = decide(&policy, at("05:40:00"));
    assert_eq!((changed.run, changed.next), (None, Some(at("05:45:00"))));
}

#[test]
fn after_downtime_one_late_batch_is_read() {
    let hourly = schedule("0 * * * *");
    let backups = [stored("a", 1, None)];
    let mut policy = facts(&hourly, &backups);
    policy.announced = Some(at("06:00:00"));
    let back = decide(&policy, at("11:45:00"));
    assert_eq!(back.run.as_ref().unwrap().slot, at("11:00:00"));
    policy.dealt_with_until = back.dealt_with_until;
    policy.announced = back.next;
    assert_eq!(decide(&policy, at("11:45:01")).run, None);
}

#[test]
fn a_batch_waits_for_the_one_before_it() {
    let hourly = schedule("0 * * * *");
    let backups = [stored("a", 1, None)];
    let mut policy = facts(&hourly, &backups);
    policy.announced = Some(at("06:00:00"));
    policy.busy = true;
    let waits = decide(&policy, at("06:30:00"));
    assert_eq!((&waits.run, waits.next), (&None, Some(at("06:00:00"))));
    policy.busy = false;
    assert!(decide(&policy, at("06:30:00")).run.is_some());
}

#[test]
fn a_suspended_policy_reads_nothing_and_no_surprise_follows() {
    let hourly = schedule("0 * * * *");
    let backups = [stored("a", 1, None)];
    let mut policy = facts(&hourly, &backups);
    policy.announced = Some(at("06:00:00"));
    policy.suspend = true;
    let held = decide(&policy, at("06:30:00"));
    assert_eq!((&held.run, held.next, held.wake_at), (&None, None, None));
    policy.suspend = false;
    policy.announced = held.next;
    let resumed = decide(&policy, at("09:30:00"));
    assert_eq!((resumed.run, resumed.next), (None, Some(at("10:00:00"))));
}

#[test]
fn the_longest_unread_come_first_and_those_never_read_before_all() {
    let hourly = schedule("0 * * * *");
    let backups = [
        stored("read-last", 1, Some(900)),
        stored("never-new", 5, None),
        stored("read-first", 3, Some(100)),
        stored("never-old", 2, None),
    ];
    let mut policy = facts(&hourly, &backups);
    policy.announced = Some(at("06:00:00"));
    let due = decide(&policy, at("06:00:00"));
    let order = ["never-old", "never-new", "read-first", "read-last"];
    assert_eq!(names(&due), order);
}

#[test]
fn one_that_was_read_by_a_clock_that_was_ahead_is_read_again_soon() {
    let hourly = schedule("0 * * * *");
    let ahead = at("06:00:00").as_second() + 86_400;
    let backups = [
        stored("read", 1, Some(900)),
        stored("ahead", 2, Some(ahead)),
    ];
    let mut policy = facts(&hourly, &backups);
    policy.announced = Some(at("06:00:00"));
    let due = decide(&policy, at("06:00:00"));
    assert_eq!(names(&due), ["ahead", "read"]);
}

#[test]
fn only_what_is_stored_is_read_and_a_batch_is_of_one_storage() {
    let hourly = schedule("0 * * * *");
    let mut backups = [
        stored("failed", 1, None),
        stored("leaving", 1, None),
        stored("nowhere", 1, None),
        stored("first", 2, None),
        stored("elsewhere", 3, None),
        stored("beside", 4, None),
    ];
    backups[0].phase = Some(Phase::Failed);
    backups[1].leaving = true;
    backups[2].storage = String::new();
    backups[4].storage = "other".to_owned();
    let mut policy = facts(&hourly, &backups);
    policy.announced = Some(at("06:00:00"));
    let due = decide(&policy, at("06:00:00"));
    assert_eq!(names(&due), ["first", "beside"]);
    assert_eq!(due.run.unwrap().storage, "backup-storage");
}

#[test]
fn with_nothing_stored_the_slot_passes() {
    let hourly = schedule("0 * * * *");
    let mut policy = facts(&hourly, &[]);
    policy.announced = Some(at("06:00:00"));
    let due = decide(&policy, at("06:00:00"));
    assert_eq!((due.run, due.next), (None, Some(at("07:00:00"))));
    assert_eq!(due.dealt_with_until, Some(at("06:00:00")));
}

#[test]
fn every_stored_backup_has_its_turn() {
    let hourly = schedule("0 * * * *");
    let names: Vec<String> = (0..170).map(|n| format!("b{n}")).collect();
    let mut backups: Vec<BackupFact> = (0..)
        .zip(&names)
        .map(|(n, name)| stored(name, n, None))
        .collect();
    let (mut now, mut announced) = (at("05:30:00"), None);
    let mut read: BTreeSet<String> = BTreeSet::new();
    for _ in 0..5 {
        let mut policy = facts(&hourly, &backups);
        policy.announced = announced;
        let decision = decide(&policy, now);
        announced = decision.next;
        now = decision.next.unwrap();
        for name in decision.run.into_iter().flat_map(|batch| batch.backups) {
            let fact = backups.iter_mut().find(|fact| fact.name == name).unwrap();
            fact.proved_at = Some(now);
            read.insert(name);
        }
    }
    assert_eq!(read.len(), 170);
}

proptest! {
    /// A clock that walks, a Job that takes its time, an operator that forgets its last status.
    #[test]
    fn no_storm_and_no_silence_whatever_the_clock_does(
        steps in prop::collection::vec((-20_000i64..20_000, any::<bool>(), any::<bool>()), 1..200),
    ) {
        let hourly = schedule("0 * * * *");
        let backups: Vec<BackupFact> = (0..60).map(|n| stored(&n.to_string(), n, None)).collect();
        let mut now = at("05:30:00");
        let (mut dealt_with_until, mut announced) = (None, None);
        for (seconds, busy, status_is_lost) in steps {
            now += SignedDuration::from_secs(seconds);
            let mut policy = facts(&hourly, &backups);
            (policy.dealt_with_until, policy.announced) = (dealt_with_until, announced);
            policy.busy = busy;
            let decision = decide(&policy, now);
            if let Some(batch) = &decision.run {
                prop_assert!(!busy && batch.slot <= now);
                prop_assert!(announced.is_some_and(|slot| slot <= batch.slot));
                prop_assert!(dealt_with_until.is_none_or(|until| until < batch.slot
                    || until.duration_since(now) > LONGEST_SILENCE));
                prop_assert!(batch.backups.len() <= BATCH);
            }
            if !status_is_lost {
                dealt_with_until = decision.dealt_with_until;
                announced = decision.next;
            }
            if let (false, Some(next)) = (busy, decision.next) {
                let longest = LONGEST_SILENCE + SignedDuration::from_hours(1);
                prop_assert!(next > now && next.duration_since(now) <= longest);
            }
        }
    }
}
