//! What a schedule means where clocks change, by brute force over every minute.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rstest::rstest;
use tidelock_core::schedule::Schedule;

/// Zones, and days on which their clocks change.
const SHIFTS: [(&str, &str); 14] = [
    ("Europe/Berlin", "2026-03-29T00:00:00Z"),
    ("Europe/Berlin", "2026-10-25T00:00:00Z"),
    ("America/New_York", "2026-03-08T00:00:00Z"),
    ("America/New_York", "2026-11-01T00:00:00Z"),
    // Half an hour forth and back.
    ("Australia/Lord_Howe", "2026-10-04T00:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-05T00:00:00Z"),
    // Skipped the whole of 30 December.
    ("Pacific/Apia", "2011-12-30T00:00:00Z"),
    // A quarter of an hour, for good.
    ("Asia/Kathmandu", "1986-01-01T00:00:00Z"),
    // At midnight, so a day starts at one, and another has two ends.
    ("America/Sao_Paulo", "2018-11-04T00:00:00Z"),
    ("America/Sao_Paulo", "2019-02-17T00:00:00Z"),
    // Two hours.
    ("Antarctica/Troll", "2026-03-29T00:00:00Z"),
    ("Antarctica/Troll", "2026-10-25T00:00:00Z"),
    // Twice in one month, around Ramadan.
    ("Africa/Casablanca", "2026-02-15T00:00:00Z"),
    ("Africa/Casablanca", "2026-03-22T00:00:00Z"),
];

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Every slot in the four days on either side of `day`, from nothing but a walk over the minutes:
/// which civil times pass, when, and which never do. Days match as `matches` says of them in UTC.
fn slots_by_walking(expression: &str, zone: &str, day: Timestamp) -> BTreeSet<Timestamp> {
    let zone = TimeZone::get(zone).unwrap();
    let pattern = cronexpr::parse_crontab(&format!("{expression} UTC")).unwrap();
    let matches = |civil: DateTime| {
        let as_utc = civil.to_zoned(TimeZone::UTC).unwrap().timestamp();
        pattern.matches(as_utc).unwrap()
    };
    let every_hour = expression.split(' ').nth(1) == Some("*");
    let start = day - SignedDuration::from_hours(4 * 24);
    let mut passes: BTreeMap<DateTime, Vec<Timestamp>> = BTreeMap::new();
    for minute in 0..8 * 24 * 60 {
        let instant = start + MINUTE * minute;
        let civil = instant.to_zoned(zone.clone()).datetime();
        passes.entry(civil).or_default().push(instant);
    }
    let mut slots = BTreeSet::new();
    let (mut civil, last) = (
        *passes.keys().next().unwrap(),
        *passes.keys().last().unwrap(),
    );
    while civil <= last {
        if matches(civil) {
            match passes.get(&civil) {
                Some(instants) if every_hour => slots.extend(instants),
                Some(instants) => slots.extend(instants.first()),
                None => {
                    let (before, instants) = passes.range(..civil).next_back().unwrap();
                    let since = civil.duration_since(*before);
                    slots.insert(*instants.last().unwrap() + since);
                }
            }
        }
        civil = civil.checked_add(MINUTE).unwrap();
    }
    slots
}

fn schedule(expression: &str, zone: &str, day: Timestamp) -> Schedule {
    Schedule::parse(expression, Some(zone), "", day).unwrap()
}

fn slots_by_stepping(schedule: &Schedule, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let mut found = Vec::new();
    let mut cursor = from;
    while let Some(next) = schedule.next_after(cursor).filter(|next| *next <= to) {
        assert!(next > cursor);
        found.push(next);
        cursor = next;
    }
    found
}

fn minutes() -> impl Strategy<Value = String> {
    prop_oneof![
        (0u32..60).prop_map(|minute| minute.to_string()),
        prop::collection::btree_set(0u32..60, 1..4).prop_map(|set| join(&set)),
        (10u32..60).prop_map(|step| format!("*/{step}")),
    ]
}

fn hours() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just("*".to_owned()),
        3 => (0u32..4).prop_map(|hour| hour.to_string()),
        1 => prop::collection::btree_set(0u32..24, 1..5).prop_map(|set| join(&set)),
        1 => (2u32..24).prop_map(|step| format!("*/{step}")),
        1 => Just("0-23".to_owned()),
    ]
}

fn days() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("* * *".to_owned()),
        1 => (1u32..29).prop_map(|day| format!("{day} * *")),
        1 => (0u32..8).prop_map(|weekday| format!("* * {weekday}")),
        1 => (1u32..29, 0u32..8).prop_map(|(day, weekday)| format!("{day} * {weekday}")),
    ]
}

fn join(set: &BTreeSet<u32>) -> String {
    let items: Vec<String> = set.iter().map(u32::to_string).collect();
    items.join(",")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn slots_around_a_shift_are_those_that_walking_finds(
        (zone, day) in prop::sample::select(SHIFTS.to_vec()),
        minute in minutes(),
        hour in hours(),
        days in days(),
        offset in -86_400i64 * 2..86_400 * 2,
    ) {
        let expression = format!("{minute} {hour} {days}");
        let day: Timestamp = day.parse().unwrap();
        let walked = slots_by_walking(&expression, zone, day);
        let schedule = schedule(&expression, zone, day - SignedDuration::from_hours(24 * 400));
        let (from, to) = (day - SignedDuration::from_hours(60), day + SignedDuration::from_hours(60));
        let expected: Vec<Timestamp> = walked
            .iter()
            .copied()
            .filter(|slot| *slot > from && *slot <= to)
            .collect();
        prop_assert_eq!(slots_by_stepping(&schedule, from, to), expected);

        let anywhere = day + SignedDuration::from_secs(offset);
        let following = walked.iter().copied().find(|slot| *slot > anywhere);
        if following.is_some() {
            prop_assert_eq!(schedule.next_after(anywhere), following, "after {}", anywhere);
        }
        let preceding = walked.iter().copied().rfind(|slot| *slot > from && *slot <= anywhere);
        if anywhere > from {
            prop_assert_eq!(schedule.latest_between(from, anywhere), preceding);
        }
    }
}

#[rstest]
#[case::a_skipped_slot_runs_an_hour_later("30 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z",
    &["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"])]
#[case::a_doubled_slot_runs_the_first_time("30 2 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z",
    &["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"])]
#[case::new_york_skips("30 2 * * *", "America/New_York", "2026-03-08T00:00:00Z",
    &["2026-03-07T07:30:00Z", "2026-03-08T07:30:00Z", "2026-03-09T06:30:00Z"])]
#[case::new_york_doubles("30 1 * * *", "America/New_York", "2026-11-01T00:00:00Z",
    &["2026-10-31T05:30:00Z", "2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"])]
#[case::half_an_hour_is_skipped("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z",
    &["2026-10-02T15:45:00Z", "2026-10-03T15:45:00Z", "2026-10-04T15:15:00Z"])]
#[case::a_skipped_friday_runs_on_saturday("0 2 * * FRI", "Pacific/Apia", "2011-12-30T00:00:00Z",
    &["2011-12-30T12:00:00Z"])]
#[case::a_day_that_never_was_adds_none("0 2 * * *", "Pacific/Apia", "2011-12-30T00:00:00Z",
    &["2011-12-28T12:00:00Z", "2011-12-29T12:00:00Z", "2011-12-30T12:00:00Z", "2011-12-31T12:00:00Z"])]
#[case::midnight_does_not_exist("@daily", "America/Sao_Paulo", "2018-11-04T00:00:00Z",
    &["2018-11-02T03:00:00Z", "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"])]
fn shifts_by_example(
    #[case] expression: &str,
    #[case] zone: &str,
    #[case] day: &str,
    #[case] expected: &[&str],
) {
    let day: Timestamp = day.parse().unwrap();
    let around = SignedDuration::from_hours(48);
    let found = slots_by_stepping(&schedule(expression, zone, day), day - around, day + around);
    let expected: Vec<Timestamp> = expected.iter().map(|slot| slot.parse().unwrap()).collect();
    let first = expected[0];
    let found: Vec<Timestamp> = found.into_iter().filter(|slot| *slot >= first).collect();
    assert_eq!(found[..expected.len()], expected, "{found:?}");
}

/// A schedule whose hour is `*` means every hour that passes: 25 on the long day, 23 on the short.
#[rstest]
#[case("0 * * * *", "2026-10-25", 25)]
#[case("0 */1 * * *", "2026-10-25", 25)]
#[case("0 0-23 * * *", "2026-10-25", 24)]
#[case("0 * * * *", "2026-03-29", 23)]
#[case("*/30 * * * *", "2026-10-25", 50)]
fn every_hour_counts_the_hours_that_pass(
    #[case] expression: &str,
    #[case] day: &str,
    #[case] count: usize,
) {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let midnight = |date: jiff::civil::Date| date.to_zoned(zone.clone()).unwrap().timestamp();
    let date: jiff::civil::Date = day.parse().unwrap();
    let (from, to) = (midnight(date), midnight(date.tomorrow().unwrap()));
    let second = SignedDuration::from_secs(1);
    let schedule = schedule(expression, "Europe/Berlin", from);
    assert_eq!(
        slots_by_stepping(&schedule, from - second, to - second).len(),
        count
    );
}

#[test]
fn a_backlog_across_a_shift_is_found_in_no_time() {
    let day: Timestamp = "2026-03-29T01:00:00Z".parse().unwrap();
    let schedule = schedule("* * * * *", "Europe/Berlin", day);
    let after = day - SignedDuration::from_hours(24 * 365);
    assert_eq!(schedule.latest_between(after, day), Some(day));
}
