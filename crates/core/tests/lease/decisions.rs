use std::time::Duration;

use tidelock_core::lease::{Elector, Lost, Record, Step, Timing, TimingError, Versioned};

use crate::{at, timing, wall};

fn elector() -> Elector {
    Elector::new("me".to_owned(), timing(), at(0))
}

fn held_by(holder: Option<&str>, renewed: i64) -> Record {
    Record {
        holder: holder.map(str::to_owned),
        lasts: Some(Duration::from_secs(15)),
        acquired: Some(wall(-100)),
        renewed: Some(wall(renewed)),
        transitions: 4,
    }
}

fn version(record: Record, version: &str) -> Versioned {
    Versioned {
        record,
        version: version.to_owned(),
    }
}

fn written(step: Step) -> (Record, Option<String>) {
    match step {
        Step::Write { record, version } => (record, version),
        other => panic!("{other:?} is no write"),
    }
}

/// One that took a free lease at second 0.
fn leader() -> Elector {
    let mut elector = elector();
    elector.saw(None, at(0));
    let (record, _) = written(elector.next(at(0), wall(0)));
    elector.wrote(version(record, "1"), at(0));
    elector
}

#[test]
fn a_lease_that_is_not_there_is_made() {
    let mut elector = elector();
    assert_eq!(elector.next(at(0), wall(0)), Step::Look);
    elector.saw(None, at(0));
    let (record, over) = written(elector.next(at(0), wall(7)));
    assert_eq!(over, None);
    assert_eq!(record.holder.as_deref(), Some("me"));
    assert_eq!(record.lasts, Some(Duration::from_secs(15)));
    assert_eq!(record.acquired, Some(wall(7)));
    assert_eq!(record.renewed, Some(wall(7)));
    assert_eq!(record.transitions, 0);
    assert_eq!(
        elector.writes_until(),
        None,
        "asking for it is not having it"
    );
}

#[test]
fn a_lease_that_was_released_is_taken_at_once_and_counted() {
    let mut elector = elector();
    elector.saw(Some(version(held_by(None, 0), "7")), at(3));
    let (record, over) = written(elector.next(at(3), wall(50)));
    assert_eq!(over.as_deref(), Some("7"));
    assert_eq!(record.transitions, 5);
    assert_eq!(record.acquired, Some(wall(50)));
}

#[test]
fn a_held_lease_is_taken_when_it_was_not_seen_to_change_for_as_long_as_it_lasts() {
    let mut elector = elector();
    // Its times lie years back or ahead: they are the holder's, and say nothing here.
    for renewed in [-1_000_000_000, 1_000_000_000] {
        elector.saw(Some(version(held_by(Some("other"), renewed), "7")), at(100));
        assert_eq!(elector.next(at(100), wall(0)), Step::Wait(at(102)));
    }
    elector.saw(
        Some(version(held_by(Some("other"), 1_000_000_000), "7")),
        at(114),
    );
    assert_eq!(elector.next(at(114), wall(0)), Step::Wait(at(115)));
    let (record, over) = written(elector.next(at(115), wall(0)));
    assert_eq!((over.as_deref(), record.transitions), (Some("7"), 5));
}

#[test]
fn what_others_write_beside_the_record_does_not_prolong_it() {
    let mut elector = elector();
    elector.saw(Some(version(held_by(Some("other"), 0), "7")), at(100));
    elector.saw(Some(version(held_by(Some("other"), 0), "8")), at(114));
    let (_, over) = written(elector.next(at(115), wall(0)));
    assert_eq!(over.as_deref(), Some("8"));
}

#[test]
fn a_renewal_of_the_other_starts_the_wait_anew() {
    let mut elector = elector();
    elector.saw(Some(version(held_by(Some("other"), 0), "7")), at(100));
    elector.saw(Some(version(held_by(Some("other"), 2), "8")), at(114));
    assert_eq!(elector.next(at(115), wall(0)), Step::Wait(at(116)));
    assert_eq!(elector.next(at(116), wall(0)), Step::Look);
}

#[test]
fn the_time_that_the_holder_names_is_waited_for() {
    let mut elector = elector();
    let mut record = held_by(Some("other"), 0);
    record.lasts = Some(Duration::from_secs(60));
    elector.saw(Some(version(record.clone(), "7")), at(100));
    elector.saw(Some(version(record.clone(), "7")), at(159));
    assert!(matches!(elector.next(at(159), wall(0)), Step::Wait(_)));
    written(elector.next(at(160), wall(0)));
    record.lasts = None;
    elector.saw(Some(version(record, "8")), at(200));
    assert!(matches!(elector.next(at(201), wall(0)), Step::Wait(_)));
    written(elector.next(at(215), wall(0)));
}

#[test]
fn a_leader_renews_every_two_seconds_and_keeps_the_beginning() {
    let mut elector = leader();
    assert_eq!(elector.writes_until(), Some(at(10)));
    assert_eq!(elector.next(at(1), wall(1)), Step::Wait(at(2)));
    let (record, over) = written(elector.next(at(2), wall(2)));
    assert_eq!(over.as_deref(), Some("1"));
    assert_eq!(
        (record.acquired, record.renewed, record.transitions),
        (Some(wall(0)), Some(wall(2)), 0)
    );
    elector.wrote(version(record, "2"), at(2));
    assert_eq!(elector.writes_until(), Some(at(12)));
}

#[test]
fn a_renewal_is_a_change_even_when_the_clock_steps_back_or_stands() {
    let mut elector = leader();
    for (second, clock) in [(2, -3600), (4, -3600), (6, -3600)] {
        let before = wall(0);
        let (record, _) = written(elector.next(at(second), wall(clock)));
        assert!(record.renewed.unwrap() > before);
        let last = record.renewed;
        elector.wrote(version(record, "x"), at(second));
        let (next, _) = written(elector.next(at(second + 2), wall(clock)));
        assert!(next.renewed > last);
    }
}

#[test]
fn a_leader_that_cannot_renew_steps_down_before_others_may_take_over() {
    let mut elector = leader();
    for second in [2, 4, 6, 8] {
        assert!(!matches!(
            elector.next(at(second), wall(0)),
            Step::StepDown(_)
        ));
        elector.failed(at(second));
    }
    let end = Step::StepDown(Lost::RanOut(Duration::from_secs(10)));
    assert_eq!(elector.next(at(9), wall(0)), Step::Wait(at(10)));
    assert_eq!(elector.next(at(10), wall(0)), end);
    assert_eq!(elector.next(at(3600), wall(0)), end, "it slept, and wakes");
    assert_eq!(elector.writes_until(), Some(at(10)));
}

#[test]
fn the_term_counts_from_when_the_renewal_was_sent() {
    let mut elector = leader();
    let (record, _) = written(elector.next(at(2), wall(2)));
    // The answer came at second 9, and changes nothing.
    elector.wrote(version(record, "2"), at(2));
    assert_eq!(elector.writes_until(), Some(at(12)));
}

#[test]
fn answers_that_take_half_a_term_keep_the_lease() {
    let mut elector = leader();
    let mut now = at(0);
    for _ in 0..10 {
        if let Step::Wait(until) = elector.next(now, wall(0)) {
            now = until;
        }
        let (record, _) = written(elector.next(now, wall(0)));
        let sent = now;
        now = now + timing().patience();
        elector.wrote(version(record, "x"), sent);
        assert_eq!(elector.writes_until(), Some(sent + Duration::from_secs(10)));
    }
}

#[test]
fn one_request_without_an_answer_leaves_time_to_look_and_renew() {
    let mut elector = leader();
    written(elector.next(at(2), wall(2)));
    elector.failed(at(2));
    let now = at(2) + timing().patience();
    assert_eq!(elector.next(now, wall(7)), Step::Look);
    elector.saw(Some(version(held_by(Some("me"), 0), "2")), now);
    let (record, _) = written(elector.next(now, wall(7)));
    elector.wrote(version(record, "3"), now);
    assert_eq!(elector.writes_until(), Some(at(17)));
}

#[test]
fn a_leader_whose_write_conflicts_looks_at_once_and_goes_on_or_steps_down() {
    let mut elector = leader();
    elector.conflicted(at(2));
    assert_eq!(elector.next(at(2), wall(2)), Step::Look);
    let mut other = elector.clone();
    // Somebody annotated the lease.
    let own = held_by(Some("me"), 0);
    elector.saw(Some(version(own, "9")), at(2));
    let (record, over) = written(elector.next(at(2), wall(2)));
    assert_eq!((over.as_deref(), record.transitions), (Some("9"), 4));
    other.saw(Some(version(held_by(Some("other"), 1), "9")), at(2));
    assert_eq!(
        other.next(at(2), wall(2)),
        Step::StepDown(Lost::Taken("other".to_owned()))
    );
}

#[test]
fn a_contender_whose_answer_was_lost_finds_that_it_holds_the_lease() {
    let mut elector = elector();
    elector.saw(None, at(0));
    let (record, _) = written(elector.next(at(0), wall(0)));
    elector.failed(at(0));
    assert_eq!(elector.next(at(0), wall(0)), Step::Wait(at(2)));
    assert_eq!(elector.next(at(2), wall(2)), Step::Look);
    elector.saw(Some(version(record, "1")), at(2));
    assert_eq!(elector.writes_until(), None);
    let (record, over) = written(elector.next(at(2), wall(2)));
    assert_eq!((over.as_deref(), record.transitions), (Some("1"), 0));
    assert_eq!(record.acquired, Some(wall(0)));
}

#[test]
fn a_lease_that_somebody_deletes_is_waited_for_like_one_that_is_held() {
    let mut elector = elector();
    elector.saw(Some(version(held_by(Some("other"), 0), "7")), at(100));
    elector.saw(None, at(102));
    for second in [104, 110, 116] {
        assert_eq!(elector.next(at(second), wall(0)), Step::Look);
        elector.saw(None, at(second));
    }
    let (_, over) = written(elector.next(at(117), wall(0)));
    assert_eq!(over, None);
    let mut holder = leader();
    holder.conflicted(at(2));
    holder.saw(None, at(2));
    let (record, over) = written(holder.next(at(2), wall(2)));
    assert_eq!((over, record.holder.as_deref()), (None, Some("me")));
}

#[test]
fn a_release_frees_the_lease_and_ends_the_term() {
    let mut elector = leader();
    let (record, over) = elector.release(wall(3)).unwrap();
    assert_eq!((record.holder, over.as_str()), (None, "1"));
    assert_eq!(record.renewed, Some(wall(3)));
    assert_eq!(elector.writes_until(), None);
    let mut standby = self::elector();
    standby.saw(Some(version(held_by(Some("other"), 0), "7")), at(0));
    assert_eq!(standby.release(wall(3)), None);
}

#[test]
fn times_that_make_no_election_are_refused() {
    let short = TimingError::LeaseTooShort {
        lease_seconds: 11,
        renew_seconds: 10,
    };
    assert_eq!(Timing::new(11, 10, 2), Err(short));
    for retry_seconds in [0, 6] {
        let error = Timing::new(15, 10, retry_seconds).unwrap_err();
        assert!(error.to_string().contains("at most half"), "{error}");
    }
}
