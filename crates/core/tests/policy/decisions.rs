//! Single looks at a policy.

use jiff::{SignedDuration, Timestamp};
use tidelock_core::Phase;
use tidelock_core::fact::BackupFact;
use tidelock_core::policy::{Concurrency, PolicyDecision, PolicyFacts, decide};
use tidelock_core::slots::Skipped;

use crate::{at, backup, facts, keep, schedule};

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
    policy.keep = keep(1);
    policy.backups = &backups;
    let decision = decide(&policy, at("05:00:00"));
    assert_eq!(
        decision,
        PolicyDecision {
            run: None,
            missed: None,
            held: None,
            cancel: vec![],
            skipped: None,
            clock_stepped_back: None,
            dealt_with_until: at("01:30:00"),
            next: None,
            misdated: vec![],
            remove: vec!["old".to_owned()],
            locked: vec![],
            wake_at: None,
        }
    );
}

#[test]
fn a_policy_wakes_when_a_lock_ends_suspended_or_not() {
    let daily = schedule("0 0 * * *");
    let mut locked = backup("old", "00:10:00", Some(Phase::Completed));
    locked.locked_until = Some(at("05:03:00"));
    let backups = [locked, backup("new", "00:20:00", Some(Phase::Completed))];
    let mut policy = facts(&daily);
    policy.keep = keep(1);
    policy.backups = &backups;
    for suspend in [true, false] {
        policy.suspend = suspend;
        let decision = decide(&policy, at("05:00:00"));
        assert!(decision.remove.is_empty(), "{suspend}");
        assert_eq!(decision.locked, ["old"]);
        assert_eq!(decision.wake_at, Some(at("05:04:00")));
        let later = decide(&policy, at("05:04:00"));
        assert_eq!(later.remove, ["old"]);
        assert!(later.locked.is_empty());
    }
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
        decide(&policy, at("04:10:00")).dealt_with_until,
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
    let backups: Vec<BackupFact> = (0..50)
        .map(|n| backup(&format!("b{n}"), "00:00:00", Some(Phase::Completed)))
        .collect();
    let mut policy = facts(&hourly);
    policy.backups = &backups;
    assert!(decide(&policy, at("01:31:00")).remove.is_empty());
    policy.keep = keep(3);
    assert_eq!(decide(&policy, at("01:31:00")).remove.len(), 47);
}

#[test]
fn what_passed_during_downtime_is_counted_once() {
    let minutely = schedule("* * * * *");
    let mut policy = facts(&minutely);
    policy.dealt_with_until = Some(at("02:00:00"));
    let back = decide(&policy, at("02:05:30"));
    assert_eq!(back.run, Some(at("02:05:00")));
    let skipped = Skipped {
        count: 4,
        at_least: false,
        from: at("02:01:00"),
        until: at("02:04:00"),
    };
    assert_eq!(back.skipped, Some(skipped));
    policy.dealt_with_until = Some(back.dealt_with_until);
    assert_eq!(decide(&policy, at("02:05:31")).skipped, None);
}

#[test]
fn a_slot_that_was_given_up_is_told_as_that_and_the_ones_before_as_skipped() {
    let hourly = schedule("0 * * * *");
    let mut policy = facts(&hourly);
    policy.starting_deadline = Some(SignedDuration::from_mins(1));
    let late = decide(&policy, at("04:30:00"));
    assert_eq!((late.run, late.missed), (None, Some(at("04:00:00"))));
    let skipped = late.skipped.unwrap();
    assert_eq!((skipped.count, skipped.from), (2, at("02:00:00")));
    assert_eq!(late.slots_without_backup(), 3);
}

#[test]
fn a_long_downtime_is_counted_up_to_a_bound() {
    let minutely = schedule("* * * * *");
    let mut policy = facts(&minutely);
    policy.dealt_with_until = Some("2020-01-01T00:00:00Z".parse().unwrap());
    let skipped = decide(&policy, at("02:05:30")).skipped.unwrap();
    assert_eq!((skipped.count, skipped.at_least), (10_000, true));
    assert_eq!(skipped.until, at("02:04:00"));
}

#[test]
fn neither_a_suspended_time_nor_a_changed_schedule_counts_as_skipped() {
    let minutely = schedule("* * * * *");
    let mut policy = facts(&minutely);
    policy.suspend = true;
    assert_eq!(decide(&policy, at("09:00:00")).skipped, None);
    policy.suspend = false;
    policy.starts_afresh = true;
    let resumed = decide(&policy, at("09:00:00"));
    assert_eq!((resumed.run, resumed.skipped), (None, None));
}

#[test]
fn replace_cancels_the_active_runs_and_takes_the_slot_when_they_have_ended() {
    let hourly = schedule("0 * * * *");
    let mut backups = [
        backup("b", "02:00:00", Some(Phase::Running)),
        backup("a", "02:00:00", None),
        backup("done", "01:00:00", Some(Phase::Completed)),
    ];
    let mut policy = facts(&hourly);
    policy.concurrency = Concurrency::Replace;
    policy.dealt_with_until = Some(at("02:00:00"));
    policy.backups = &backups;
    let waits = decide(&policy, at("03:00:01"));
    assert_eq!((waits.run, waits.held), (None, Some(at("03:00:00"))));
    assert_eq!(waits.cancel, ["a", "b"]);
    assert_eq!(waits.dealt_with_until, at("02:00:00"));
    backups[0].phase = Some(Phase::Failed);
    backups[1].leaving = true;
    let policy = PolicyFacts {
        concurrency: Concurrency::Replace,
        dealt_with_until: Some(at("02:00:00")),
        backups: &backups,
        ..facts(&hourly)
    };
    let runs = decide(&policy, at("03:00:09"));
    assert_eq!((runs.run, runs.held), (Some(at("03:00:00")), None));
    assert!(runs.cancel.is_empty());
}

#[test]
fn replace_cancels_nothing_for_a_slot_that_is_too_late() {
    let hourly = schedule("0 * * * *");
    let backups = [backup("a", "02:00:00", Some(Phase::Running))];
    let mut policy = facts(&hourly);
    policy.concurrency = Concurrency::Replace;
    policy.starting_deadline = Some(SignedDuration::from_mins(1));
    policy.backups = &backups;
    let late = decide(&policy, at("03:05:00"));
    assert_eq!(late.missed, Some(at("03:00:00")));
    assert!(late.cancel.is_empty());
}

#[test]
fn a_small_step_back_repeats_nothing() {
    let hourly = schedule("0 * * * *");
    let mut policy = facts(&hourly);
    policy.dealt_with_until = Some(at("05:00:00"));
    for now in ["04:00:00", "04:30:00", "04:59:59", "05:00:00"] {
        let decision = decide(&policy, at(now));
        assert_eq!((decision.run, decision.clock_stepped_back), (None, None));
        assert_eq!(decision.next, Some(at("06:00:00")));
    }
}

#[test]
fn a_clock_that_was_far_ahead_does_not_silence_the_policy() {
    let hourly = schedule("0 * * * *");
    let mut policy = facts(&hourly);
    let ahead: Timestamp = "2031-01-01T00:00:00Z".parse().unwrap();
    policy.dealt_with_until = Some(ahead);
    let corrected = decide(&policy, at("03:30:00"));
    assert_eq!(corrected.run, None);
    assert_eq!(corrected.clock_stepped_back, Some(ahead));
    assert_eq!(corrected.dealt_with_until, at("03:30:00"));
    assert_eq!(corrected.next, Some(at("04:00:00")));
    policy.dealt_with_until = Some(corrected.dealt_with_until);
    let settled = decide(&policy, at("04:00:00"));
    assert_eq!(settled.run, Some(at("04:00:00")));
    assert_eq!(settled.clock_stepped_back, None);
}

#[test]
fn a_policy_that_was_made_while_the_clock_was_ahead_is_not_silent() {
    let hourly = schedule("0 * * * *");
    let mut policy = facts(&hourly);
    policy.created = "2031-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(decide(&policy, at("03:30:00")).next, Some(at("04:00:00")));
}

#[test]
fn a_clock_that_jumps_years_ahead_runs_once() {
    let minutely = schedule("* * * * *");
    let mut policy = facts(&minutely);
    let later: Timestamp = "2029-11-23T02:00:30Z".parse().unwrap();
    let jumped = decide(&policy, later);
    assert!(jumped.run.is_some());
    policy.dealt_with_until = Some(jumped.dealt_with_until);
    assert_eq!(decide(&policy, later).run, None);
}

#[test]
fn a_slot_that_has_its_backup_is_neither_held_up_nor_replaced_nor_missed() {
    let hourly = schedule("0 * * * *");
    let backups = [backup("of-the-slot", "03:00:01", Some(Phase::Running))];
    for concurrency in [Concurrency::Forbid, Concurrency::Replace] {
        let policy = PolicyFacts {
            concurrency,
            dealt_with_until: Some(at("01:00:00")),
            made: Some(at("03:00:00")),
            starting_deadline: Some(SignedDuration::from_secs(60)),
            backups: &backups,
            ..facts(&hourly)
        };
        let again = decide(&policy, at("03:20:00"));
        assert_eq!(again.run, Some(at("03:00:00")));
        assert_eq!((again.held, again.missed), (None, None));
        assert!(again.cancel.is_empty());
        assert_eq!(again.skipped.map(|skipped| skipped.count), Some(1));
        assert_eq!(again.dealt_with_until, at("03:00:00"));
    }
}
