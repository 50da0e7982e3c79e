//! What a policy does, told as what happens to it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use tidelock_core::Phase;
use tidelock_core::policy::{Concurrency, LONGEST_SLEEP, PolicyDecision, PolicyFacts, decide};
use tidelock_core::retention::RetentionFact;
use tidelock_core::schedule::Schedule;

fn at(text: &str) -> Timestamp {
    format!("2026-11-23T{text}Z").parse().unwrap()
}

fn schedule(expression: &str) -> Schedule {
    Schedule::parse(expression, None, "", at("00:00:00")).unwrap()
}

fn facts(schedule: &Schedule) -> PolicyFacts<'_> {
    PolicyFacts {
        schedule,
        created: at("01:30:00"),
        dealt_with_until: None,
        starts_afresh: false,
        suspend: false,
        concurrency: Concurrency::Forbid,
        starting_deadline: None,
        keep_last: None,
        backups: &[],
    }
}

fn backup(name: &str, taken_at: &str, phase: Option<Phase>) -> RetentionFact {
    RetentionFact {
        name: name.to_owned(),
        phase,
        taken_at: at(taken_at),
        leaving: false,
    }
}

#[test]
fn a_new_policy_first_runs_at_the_first_slot_after_its_creation() {
    let hourly = schedule("0 * * * *");
    let policy = facts(&hourly);
    let on_creation = decide(&policy, at("01:30:00"));
    assert_eq!(on_creation.run, None);
    assert_eq!(on_creation.next, Some(at("02:00:00")));
    assert_eq!(decide(&policy, at("01:59:59")).run, None);
    assert_eq!(decide(&policy, at("02:00:00")).run, Some(at("02:00:00")));
}

#[test]
fn a_policy_made_on_a_slot_waits_for_the_next() {
    let hourly = schedule("0 * * * *");
    let mut policy = facts(&hourly);
    policy.created = at("02:00:00");
    assert_eq!(decide(&policy, at("02:00:00")).run, None);
}

#[test]
fn after_downtime_the_latest_slot_runs_once_and_late() {
    let minutely = schedule("* * * * *");
    let mut policy = facts(&minutely);
    policy.dealt_with_until = Some(at("02:00:00"));
    let back = decide(&policy, at("09:12:34"));
    assert_eq!(back.run, Some(at("09:12:00")));
    assert_eq!(back.dealt_with_until, at("09:12:00"));
    policy.dealt_with_until = Some(back.dealt_with_until);
    let settled = decide(&policy, at("09:12:35"));
    assert_eq!(settled.run, None);
    assert_eq!(settled.next, Some(at("09:13:00")));
}

#[test]
fn a_slot_past_its_starting_deadline_is_missed_and_never_run() {
    let daily = schedule("0 2 * * *");
    let mut policy = facts(&daily);
    policy.starting_deadline = Some(SignedDuration::from_mins(10));
    assert_eq!(decide(&policy, at("02:10:00")).run, Some(at("02:00:00")));
    let late = decide(&policy, at("02:10:01"));
    assert_eq!((late.run, late.missed), (None, Some(at("02:00:00"))));
    policy.dealt_with_until = Some(late.dealt_with_until);
    policy.starting_deadline = None;
    assert_eq!(decide(&policy, at("02:10:02")).run, None);
}

#[test]
fn a_suspended_policy_does_nothing_but_trim() {
    let hourly = schedule("0 * * * *");
    let backups = [
        backup("old", "00:10:00", Some(Phase::Completed)),
        backup("new", "00:20:00", Some(Phase::Completed)),
    ];
    let mut policy = facts(&hourly);
    policy.suspend = true;
    policy.keep_last = Some(1);
    policy.backups = &backups;
    let decision = decide(&policy, at("05:00:00"));
    assert_eq!(
        decision,
        PolicyDecision {
            run: None,
            missed: None,
            held: None,
            dealt_with_until: at("01:30:00"),
            next: None,
            remove: vec!["old".to_owned()],
            wake_at: None,
        }
    );
}

#[test]
fn taking_a_policy_up_again_starts_no_surprise_run() {
    let hourly = schedule("0 * * * *");
    let mut policy = facts(&hourly);
    policy.dealt_with_until = Some(at("02:00:00"));
    policy.starts_afresh = true;
    let resumed = decide(&policy, at("07:30:00"));
    assert_eq!((resumed.run, resumed.missed), (None, None));
    assert_eq!(resumed.dealt_with_until, at("07:30:00"));
    policy.dealt_with_until = Some(resumed.dealt_with_until);
    policy.starts_afresh = false;
    assert_eq!(decide(&policy, at("07:30:01")).run, None);
    assert_eq!(decide(&policy, at("08:00:00")).run, Some(at("08:00:00")));
}

#[test]
fn a_changed_schedule_starts_no_surprise_run() {
    let (daily, minutely) = (schedule("0 2 * * *"), schedule("* * * * *"));
    let mut policy = facts(&daily);
    policy.dealt_with_until = Some(at("02:00:00"));
    policy.schedule = &minutely;
    policy.starts_afresh = true;
    let changed = decide(&policy, at("12:00:30"));
    assert_eq!(changed.run, None);
    assert_eq!(changed.next, Some(at("12:01:00")));
}

#[test]
fn a_fresh_start_with_a_clock_that_went_back_forgets_nothing() {
    let hourly = schedule("0 * * * *");
    let mut policy = facts(&hourly);
    policy.dealt_with_until = Some(at("05:00:00"));
    policy.starts_afresh = true;
    assert_eq!(
        decide(&policy, at("03:00:00")).dealt_with_until,
        at("05:00:00")
    );
}

#[test]
fn forbid_holds_a_slot_until_the_active_run_has_ended() {
    let hourly = schedule("0 * * * *");
    for active in [None, Some(Phase::Pending), Some(Phase::Running)] {
        let backups = [backup("active", "02:00:00", active)];
        let mut policy = facts(&hourly);
        policy.dealt_with_until = Some(at("02:00:00"));
        policy.backups = &backups;
        let held = decide(&policy, at("04:30:00"));
        assert_eq!((held.run, held.held), (None, Some(at("04:00:00"))));
        assert_eq!(held.dealt_with_until, at("02:00:00"));
        for ended in [Phase::Completed, Phase::Failed] {
            let backups = [backup("active", "02:00:00", Some(ended))];
            let policy = PolicyFacts {
                backups: &backups,
                ..policy.clone()
            };
            assert_eq!(decide(&policy, at("04:31:00")).run, Some(at("04:00:00")));
        }
    }
}

#[test]
fn a_backup_that_is_being_deleted_holds_nothing() {
    let hourly = schedule("0 * * * *");
    let mut leaving = backup("leaving", "01:00:00", Some(Phase::Running));
    leaving.leaving = true;
    let backups = [leaving];
    let mut policy = facts(&hourly);
    policy.backups = &backups;
    assert_eq!(decide(&policy, at("02:00:00")).run, Some(at("02:00:00")));
}

#[test]
fn allow_runs_beside_an_active_run() {
    let hourly = schedule("0 * * * *");
    let backups = [backup("active", "01:00:00", Some(Phase::Running))];
    let mut policy = facts(&hourly);
    policy.concurrency = Concurrency::Allow;
    policy.backups = &backups;
    assert_eq!(decide(&policy, at("02:00:00")).run, Some(at("02:00:00")));
}

#[test]
fn a_held_slot_that_grows_too_old_is_missed() {
    let hourly = schedule("0 * * * *");
    let backups = [backup("active", "01:00:00", Some(Phase::Running))];
    let mut policy = facts(&hourly);
    policy.starting_deadline = Some(SignedDuration::from_mins(5));
    policy.backups = &backups;
    assert_eq!(decide(&policy, at("02:05:00")).held, Some(at("02:00:00")));
    assert_eq!(decide(&policy, at("02:05:01")).missed, Some(at("02:00:00")));
}

#[test]
fn no_retention_removes_nothing() {
    let hourly = schedule("0 * * * *");
    let backups: Vec<RetentionFact> = (0..50)
        .map(|n| backup(&format!("b{n}"), "00:00:00", Some(Phase::Completed)))
        .collect();
    let mut policy = facts(&hourly);
    policy.backups = &backups;
    assert!(decide(&policy, at("01:31:00")).remove.is_empty());
    policy.keep_last = Some(3);
    assert_eq!(decide(&policy, at("01:31:00")).remove.len(), 47);
}

/// One thing that happens to a policy between two looks at it.
#[derive(Debug, Clone)]
enum Happening {
    TimePasses(i64),
    ClockStepsBack(i64),
    RunsEnd(Phase),
    Suspended(bool),
    Rescheduled(usize),
    /// The operator dies after it made the Backup and before it wrote the status.
    StatusIsLost,
}

const EXPRESSIONS: [&str; 4] = ["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *"];

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0i64..200).prop_map(Happening::TimePasses),
        2 => (0i64..400_000).prop_map(Happening::TimePasses),
        1 => (1i64..10_000).prop_map(Happening::ClockStepsBack),
        4 => prop::sample::select(vec![Phase::Completed, Phase::Failed])
            .prop_map(Happening::RunsEnd),
        1 => any::<bool>().prop_map(Happening::Suspended),
        1 => (0..EXPRESSIONS.len()).prop_map(Happening::Rescheduled),
        1 => Just(Happening::StatusIsLost),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// A policy's life, with the state kept as the operator keeps it: a Backup's name is its slot,
    /// so a lost status may decide on a slot again but never makes a second Backup of it.
    #[test]
    fn whatever_happens_a_slot_runs_at_most_once_and_is_never_a_surprise(
        happenings in prop::collection::vec(happening(), 1..400),
        allow in any::<bool>(),
        deadline in prop::option::of(1i64..5_000),
        keep_last in prop::option::of(0u32..4),
    ) {
        let zone = Some("Europe/Berlin");
        let start: Timestamp = "2026-10-24T20:00:00Z".parse().unwrap();
        let schedules = EXPRESSIONS.map(|e| Schedule::parse(e, zone, "", start).unwrap());
        let (mut now, mut suspend, mut chosen) = (start, false, 0);
        let (mut saved, mut followed) = (None, Some(0));
        let mut backups: Vec<RetentionFact> = Vec::new();
        let mut ran: Vec<Timestamp> = Vec::new();
        for happening in happenings {
            let status_is_lost = matches!(happening, Happening::StatusIsLost);
            match happening {
                Happening::TimePasses(seconds) => now += SignedDuration::from_secs(seconds),
                Happening::ClockStepsBack(seconds) => now -= SignedDuration::from_secs(seconds),
                Happening::RunsEnd(phase) => backups.iter_mut()
                    .filter(|b| !b.phase.is_some_and(Phase::is_terminal))
                    .for_each(|b| b.phase = Some(phase)),
                Happening::Suspended(to) => suspend = to,
                Happening::Rescheduled(to) => chosen = to,
                Happening::StatusIsLost => {}
            }
            let decision = decide(&PolicyFacts {
                schedule: &schedules[chosen],
                created: start,
                dealt_with_until: saved,
                starts_afresh: followed != Some(chosen),
                suspend,
                concurrency: if allow { Concurrency::Allow } else { Concurrency::Forbid },
                starting_deadline: deadline.map(SignedDuration::from_secs),
                keep_last,
                backups: &backups,
            }, now);
            let outcomes = [decision.run, decision.missed, decision.held];
            prop_assert!(outcomes.iter().flatten().count() <= 1);
            prop_assert!(saved.is_none_or(|until| decision.dealt_with_until >= until));
            if let Some(slot) = decision.run {
                prop_assert!(!suspend && slot > start && slot <= now);
                prop_assert!(saved.is_none_or(|until| slot > until));
                prop_assert_eq!(followed, Some(chosen));
                let name = slot.to_string();
                if !backups.iter().any(|b| b.name == name) {
                    prop_assert!(!ran.contains(&slot), "{} ran twice", slot);
                    ran.push(slot);
                    backups.push(RetentionFact { name, phase: None, taken_at: now, leaving: false });
                }
            }
            if let Some(wake_at) = decision.wake_at {
                prop_assert!(wake_at > now && wake_at <= now + LONGEST_SLEEP);
                prop_assert!(decision.next.is_some_and(|next| next >= wake_at));
            }
            prop_assert_eq!(decision.next.is_none(), suspend);
            prop_assert!(keep_last.is_some() || decision.remove.is_empty());
            if !status_is_lost {
                saved = Some(decision.dealt_with_until);
                followed = (!suspend).then_some(chosen);
                backups.retain(|b| !decision.remove.contains(&b.name));
            }
        }
    }
}
