//! What a schedule means where clocks do not change, and which expressions are refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rstest::rstest;
use tidelock_core::schedule::{Schedule, ScheduleError};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn parse(expression: &str) -> Result<Schedule, ScheduleError> {
    Schedule::parse(expression, None, "shop/nightly", at("2026-11-23T00:00:00Z"))
}

fn slots(schedule: &Schedule, after: Timestamp, count: usize) -> Vec<Timestamp> {
    let mut cursor = after;
    let mut found = Vec::new();
    while found.len() < count {
        cursor = schedule.next_after(cursor).unwrap();
        found.push(cursor);
    }
    found
}

fn item(low: u32, high: u32) -> impl Strategy<Value = String> {
    let range = (low..=high).prop_flat_map(move |from| (Just(from), from..=high));
    prop_oneof![
        3 => (low..=high).prop_map(|value| value.to_string()),
        2 => range.clone().prop_map(|(from, to)| format!("{from}-{to}")),
        1 => (range, 1..=high).prop_map(|((from, to), step)| format!("{from}-{to}/{step}")),
    ]
}

fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        1 => (2..=high).prop_map(|step| format!("*/{step}")),
        4 => prop::collection::vec(item(low, high), 1..4).prop_map(|items| items.join(",")),
    ]
}

/// Day fields never start with `*` unless they are `*`: cronexpr counts `*/2` as unrestricted, as
/// Vixie cron does, and Kubernetes' CronJob (which this follows) does not.
fn day_field(low: u32, high: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        4 => prop::collection::vec(item(low, high), 1..4).prop_map(|items| items.join(",")),
    ]
}

prop_compose! {
    fn expression()(
        minute in field(0, 59),
        hour in field(0, 23),
        // From the 28th down, so that every generated day exists in every month.
        day in day_field(1, 28),
        month in field(1, 12),
        weekday in day_field(0, 7),
    ) -> String {
        format!("{minute} {hour} {day} {month} {weekday}")
    }
}

proptest! {
    #[test]
    fn slots_equal_those_of_a_second_implementation(
        expression in expression(),
        zone in prop::sample::select(vec!["UTC", "Asia/Kathmandu", "Asia/Tokyo", "America/Phoenix"]),
        // From 2001 to 2033; none of these zones changes its clocks then.
        second in 1_000_000_000i64..2_000_000_000,
    ) {
        let start = Timestamp::from_second(second).unwrap();
        let ours = Schedule::parse(&expression, Some(zone), "", start).unwrap();
        let theirs = cronexpr::parse_crontab(&format!("{expression} {zone}")).unwrap();
        let mut cursor = start;
        for _ in 0..20 {
            let expected = theirs.find_next(cursor).unwrap().timestamp();
            prop_assert_eq!(ours.next_after(cursor), Some(expected), "after {}", cursor);
            cursor = expected;
        }
    }

    #[test]
    fn nothing_panics_and_time_only_moves_forward(
        expression in prop_oneof![
            expression(),
            "[0-9*/,@HLW#?()A-Z -]{0,24}",
            "([0-9*/,H-]{1,4} ){4}[0-9*/,H-]{1,4}",
            ".*",
        ],
        zone in prop_oneof![
            prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia",
                "Asia/Kathmandu", "Africa/Casablanca", "Antarctica/Troll", "Etc/GMT+12",
            ]).prop_map(str::to_owned),
            ".{0,12}",
        ],
        seed in ".{0,8}",
        second in Timestamp::MIN.as_second()..=Timestamp::MAX.as_second(),
        nanosecond in 0i32..1_000_000_000,
    ) {
        let start = Timestamp::new(second, nanosecond).unwrap_or(Timestamp::MAX);
        let parsed = Schedule::parse(&expression, Some(&zone), &seed, at("2026-11-23T00:00:00Z"));
        let Ok(schedule) = parsed else { return Ok(()) };
        let mut cursor = start;
        for _ in 0..5 {
            let Some(next) = schedule.next_after(cursor) else { break };
            prop_assert!(next > cursor);
            cursor = next;
        }
    }

    #[test]
    fn the_latest_slot_of_a_span_is_the_last_that_stepping_finds(
        expression in expression(),
        second in 1_000_000_000i64..2_000_000_000,
        length in 0i64..200_000,
    ) {
        let after = Timestamp::from_second(second).unwrap();
        let until = after + SignedDuration::from_secs(length);
        let schedule = Schedule::parse(&expression, None, "", after).unwrap();
        let mut stepped = None;
        let mut cursor = after;
        while let Some(next) = schedule.next_after(cursor).filter(|next| *next <= until) {
            stepped = Some(next);
            cursor = next;
        }
        prop_assert_eq!(schedule.latest_between(after, until), stepped);
    }

    #[test]
    fn a_hashed_field_is_stable_and_in_range(seed in ".{0,40}") {
        let start = at("2026-11-23T00:00:00Z");
        let of = |expression: &str| Schedule::parse(expression, None, &seed, start).unwrap();
        let minutes = |expression: &str, count| -> Vec<u32> {
            let found = slots(&of(expression), start, count);
            assert_eq!(found, slots(&of(expression), start, count), "one seed, other slots");
            found.iter().map(|slot| u32::try_from(slot.as_second() / 60 % 60).unwrap()).collect()
        };
        let hourly = minutes("H * * * *", 24);
        prop_assert!(hourly.iter().all(|minute| *minute == hourly[0] && *minute < 60));
        let low = minutes("H(0-29) 2 * * *", 7);
        prop_assert!(low.iter().all(|minute| *minute == low[0] && *minute < 30));
        let quarters: BTreeSet<u32> = minutes("H/15 * * * *", 96).into_iter().collect();
        let first = *quarters.first().unwrap();
        prop_assert!(first < 15);
        prop_assert_eq!(quarters, BTreeSet::from([first, first + 15, first + 30, first + 45]));
        let months = slots(&of("H H H * *"), start, 24);
        prop_assert_eq!(months.len(), 24, "a day that every month has");
    }
}

#[test]
fn hashed_fields_spread_over_seeds() {
    let start = at("2026-11-23T00:00:00Z");
    let mut per_minute = [0u32; 60];
    for number in 0..6000 {
        let seed = format!("shop/policy-{number}");
        let schedule = Schedule::parse("H * * * *", None, &seed, start).unwrap();
        let slot = schedule.next_after(start).unwrap();
        per_minute[usize::try_from(slot.as_second() / 60 % 60).unwrap()] += 1;
    }
    let (least, most) = (per_minute.iter().min(), per_minute.iter().max());
    assert!(
        least >= Some(&50) && most <= Some(&150),
        "a hundred were expected in each minute: {per_minute:?}"
    );
}

#[rstest]
#[case("@hourly", "2026-11-23T01:00:00Z")]
#[case("@daily", "2026-11-24T00:00:00Z")]
#[case("@midnight", "2026-11-24T00:00:00Z")]
#[case("@weekly", "2026-11-29T00:00:00Z")]
#[case("@monthly", "2026-12-01T00:00:00Z")]
#[case("@yearly", "2027-01-01T00:00:00Z")]
#[case("@annually", "2027-01-01T00:00:00Z")]
#[case("0 2 * * *", "2026-11-23T02:00:00Z")]
#[case("30 4 * * mon", "2026-11-23T04:30:00Z")]
#[case("0 0 1 jan-MAR *", "2027-01-01T00:00:00Z")]
#[case("0 0 * * 7", "2026-11-29T00:00:00Z")]
#[case("0 0 * * SAT-SUN", "2026-11-28T00:00:00Z")]
#[case("0 0 13 * FRI", "2026-11-27T00:00:00Z")]
#[case("0 0 29 2 *", "2028-02-29T00:00:00Z")]
#[case("*/1 */1 1 * *", "2026-12-01T00:00:00Z")]
#[case("0 0 1 * */1", "2026-12-01T00:00:00Z")]
fn expressions_mean_what_they_mean_in_a_cronjob(#[case] expression: &str, #[case] first: &str) {
    let schedule = parse(expression).unwrap();
    assert_eq!(
        schedule.next_after(at("2026-11-23T00:00:00Z")),
        Some(at(first))
    );
}

const FIVE: &str = "five cron fields";

#[rstest]
#[case("", FIVE)]
#[case("   ", FIVE)]
#[case("0 2 * *", FIVE)]
#[case("* * * * * *", FIVE)]
#[case("0 0 2 * * * 2026", FIVE)]
#[case("@reboot", "@hourly")]
#[case("@every 5m", "@hourly")]
#[case("@DAILY", "@daily")]
#[case("run every day at two", "minute field \"RUN\"")]
#[case(
    "61 * * * *",
    "minute field \"61\" is not understood: write numbers from 0 to 59"
)]
#[case("-1 * * * *", "minute field")]
#[case(
    "0 24 * * *",
    "hour field \"24\" is not understood: write numbers from 0 to 23"
)]
#[case(
    "0 0 0 * *",
    "day-of-month field \"0\" is not understood: write numbers from 1 to 31"
)]
#[case("0 0 32 * *", "day-of-month field")]
#[case(
    "0 0 * 13 *",
    "month field \"13\" is not understood: write numbers from 1 to 12 or JAN to DEC"
)]
#[case("0 0 * 0 *", "month field")]
#[case(
    "0 0 * * 8",
    "day-of-week field \"8\" is not understood: write numbers from 0 to 7 or SUN to SAT"
)]
#[case("a b c d e", "minute field \"A\"")]
#[case("0 0 * FOO *", "month field \"FOO\"")]
#[case("0 0 * * MONDAY", "day-of-week field \"MONDAY\"")]
#[case("0 0 MON * *", "day-of-month field \"MON\"")]
#[case("*/0 * * * *", "minute field \"*/0\"")]
#[case("*/90 * * * *", "minute field \"*/90\"")]
#[case("0 */24 * * *", "hour field \"*/24\"")]
#[case("5/10 * * * *", "minute field \"5/10\"")]
#[case("/5 * * * *", "minute field \"/5\"")]
#[case("5-1 * * * *", "minute field \"5-1\"")]
#[case("0 0 * * FRI-MON", "day-of-week field \"FRI-MON\"")]
#[case("1,,2 * * * *", "minute field \"1,,2\"")]
#[case("1, * * * *", "minute field \"1,\"")]
#[case("** * * * *", "minute field \"**\"")]
#[case("+5 * * * *", "minute field \"+5\"")]
#[case("0 0 L * *", "day-of-month field \"L\"")]
#[case("0 0 15W * *", "day-of-month field \"15W\"")]
#[case("0 0 ? * *", "day-of-month field \"?\"")]
#[case("0 0 * * 5#3", "day-of-week field \"5#3\"")]
#[case("0 0 * * +1", "day-of-week field \"+1\"")]
#[case("H/0 * * * *", "H is used as H, H/step or H(from-to)")]
#[case("H/60 * * * *", "H is used as H, H/step or H(from-to)")]
#[case("H(30-70) * * * *", "H is used as H, H/step or H(from-to)")]
#[case("H(9-1) * * * *", "H is used as H, H/step or H(from-to)")]
#[case("H-5 * * * *", "minute field \"H-5\"")]
#[case("０ ２ * * *", "minute field \"０\"")]
#[case("ß * * * *", "minute field")]
#[case("0 0 * \u{131}\u{307}an *", "month field")]
#[case("0\u{0} 2 * * *", "minute field")]
#[case("99999999999999999999 * * * *", "minute field")]
#[case("0 2 30 2 *", "never comes due: no calendar day matches it")]
#[case("0 2 31 2,4,6,9,11 *", "never comes due")]
fn nonsense_is_refused_by_field(#[case] expression: &str, #[case] says: &str) {
    let message = parse(expression).map(drop).unwrap_err().to_string();
    assert!(message.contains(says), "{message}");
    assert!(message.starts_with("schedule "), "{message}");
}

#[rstest]
#[case("")]
#[case("Mars/Olympus")]
#[case("Europe/Berlin ")]
#[case("Europe")]
#[case("../../etc/passwd")]
#[case("Local")]
#[case("+02:00")]
#[case("Europe/Bérlin")]
fn a_zone_that_is_none_is_refused(#[case] zone: &str) {
    let error = Schedule::parse("0 2 * * *", Some(zone), "", at("2026-11-23T00:00:00Z"));
    let message = error.map(drop).unwrap_err().to_string();
    assert!(message.contains("timeZone"), "{message}");
    assert!(message.contains("Europe/Berlin"), "{message}");
}
