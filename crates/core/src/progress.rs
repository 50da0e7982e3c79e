//! What a mover's counters mean: rate, share and remaining time.

use jiff::{SignedDuration, Timestamp};

use crate::text;

/// Shortest and longest pause between two questions to one mover.
const SHORTEST_PAUSE: SignedDuration = SignedDuration::from_secs(5);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(60);

/// Counters of one step of a run at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// What is being done, such as `Saving`.
    pub step: &'static str,
    /// When this was so.
    pub at: Timestamp,
    /// Bytes done.
    pub bytes: u64,
    /// Files done.
    pub files: u64,
}

/// How much a step is expected to come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// Bytes in all.
    pub bytes: Option<u64>,
    /// Files in all.
    pub files: Option<u64>,
    /// Whether that is a guess from an earlier run.
    pub is_guess: bool,
}

/// What can be said of a step under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Since the last look; none at the first of a step, or when nothing moved.
    pub bytes_per_second: Option<u64>,
    /// When the step ends at that rate.
    pub step_end: Option<Timestamp>,
    /// All of it for a person, in a line.
    pub summary: String,
}

/// When to ask a mover again that has been at work since `started`: the longer it runs, the less
/// often, so that a status is written some dozens of times for a run however long.
pub fn pause(started: Timestamp, now: Timestamp) -> SignedDuration {
    let age = now.duration_since(started);
    (age / 20).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// What `now_counted` means, given what was counted `before` and what is expected.
pub fn outlook(now_counted: &Counted, before: Option<&Counted>, expected: Expected) -> Outlook {
    let rate = before.and_then(|before| rate(before, now_counted));
    let total = expected
        .bytes
        .filter(|total| *total >= now_counted.bytes && *total > 0);
    let left = rate.zip(total).map(|(rate, total)| {
        let seconds = (total - now_counted.bytes).div_ceil(rate);
        SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
    });
    Outlook {
        bytes_per_second: rate,
        step_end: left.and_then(|left| now_counted.at.checked_add(left).ok()),
        summary: summary(now_counted, total, expected.is_guess, rate, left),
    }
}

fn rate(before: &Counted, now: &Counted) -> Option<u64> {
    let moved = now.bytes.checked_sub(before.bytes)?;
    let millis = u64::try_from(now.at.duration_since(before.at).as_millis()).ok()?;
    let rate = moved.saturating_mul(1000).checked_div(millis)?;
    (before.step == now.step && rate > 0).then_some(rate)
}

fn summary(
    counted: &Counted,
    total: Option<u64>,
    is_guess: bool,
    rate: Option<u64>,
    left: Option<SignedDuration>,
) -> String {
    let done = text::bytes(counted.bytes);
    let mut parts = vec![match total {
        Some(total) => {
            let percent = u128::from(counted.bytes) * 100 / u128::from(total);
            let about = if is_guess { "about " } else { "" };
            format!("{percent}%: {done} of {about}{}", text::bytes(total))
        }
        None => done,
    }];
    if counted.files > 0 {
        parts.push(text::count(counted.files, "file"));
    }
    if let Some(rate) = rate {
        parts.push(format!("{}/s", text::bytes(rate)));
    }
    if let Some(left) = left {
        parts.push(format!("about {} left", text::duration(left)));
    }
    format!("{} {}", counted.step, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(second: i64, bytes: u64) -> Counted {
        Counted {
            step: "Saving",
            at: Timestamp::from_second(second).unwrap(),
            bytes,
            files: 7,
        }
    }

    fn of(bytes: u64) -> Expected {
        Expected {
            bytes: Some(bytes),
            ..Expected::default()
        }
    }

    #[test]
    fn rate_and_end_come_from_two_looks_at_one_step() {
        let (before, now) = (counted(0, 10 << 20), counted(10, 110 << 20));
        let seen = outlook(&now, Some(&before), of(210 << 20));
        assert_eq!(seen.bytes_per_second, Some(10 << 20));
        assert_eq!(seen.step_end, Some(Timestamp::from_second(20).unwrap()));
        assert_eq!(
            seen.summary,
            "Saving 52%: 110.0 MiB of 210.0 MiB, 7 files, 10.0 MiB/s, about 10s left"
        );
        let other = Counted {
            step: "Verifying",
            ..before
        };
        assert_eq!(outlook(&now, Some(&other), of(1)).bytes_per_second, None);
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let first = outlook(&counted(3, 5), None, Expected::default());
        assert_eq!((first.bytes_per_second, first.step_end), (None, None));
        assert_eq!(first.summary, "Saving 5 B, 7 files");
        // More than was expected, a clock that stands or went back, counters that began anew.
        let more = outlook(&counted(3, 5), Some(&counted(2, 1)), of(4));
        assert_eq!((more.bytes_per_second, more.step_end), (Some(4), None));
        for before in [counted(3, 1), counted(9, 1), counted(1, 9), counted(1, 5)] {
            assert_eq!(
                outlook(&counted(3, 5), Some(&before), of(9)).bytes_per_second,
                None
            );
        }
        let guess = Expected {
            is_guess: true,
            ..of(u64::MAX)
        };
        assert!(
            outlook(&counted(3, u64::MAX), None, guess)
                .summary
                .contains("100%: 16.0 EiB of about")
        );
    }

    #[test]
    fn long_runs_are_asked_less_often() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(pause(at(0), at(1)).as_secs(), 5);
        assert_eq!(pause(at(0), at(600)).as_secs(), 30);
        assert_eq!(pause(at(0), at(90_000)).as_secs(), 60);
        assert_eq!(pause(at(9), at(0)).as_secs(), 5);
    }
}
