//! Whether a backup that completed holds suspiciously little.

use jiff::Timestamp;

use crate::fact::{BackupFact, Holdings, Standard};
use crate::text;

/// Annotation on a Backup by which a person accepts it although it is suspicious.
pub const ACCEPT_ANNOTATION: &str = "tidelock.dev/accept-suspicious";

/// How little is suspicious.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// By how many percent bytes or files may shrink; 100 and more accept any shrinking.
    pub max_shrink_percent: u32,
    /// Whether an empty source is as it should be.
    pub allow_empty: bool,
}

/// What is suspicious.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There was nothing to back up.
    EmptySource,
    /// It holds far fewer bytes than the last good one.
    ShrunkBytes,
    /// It holds far fewer files than the last good one.
    ShrunkFiles,
}

impl Reason {
    /// The reason as a condition names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EmptySource => "EmptySource",
            Self::ShrunkBytes => "ShrunkBytes",
            Self::ShrunkFiles => "ShrunkFiles",
        }
    }
}

/// Why a backup is suspicious.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    /// One word.
    pub reason: Reason,
    /// Both figures, and what to do.
    pub message: String,
}

/// The backup that one taken at `taken` is compared with: the last good one before it whose content
/// is known.
pub fn baseline(
    backups: &[BackupFact],
    taken: Timestamp,
    standard: Standard,
) -> Option<&BackupFact> {
    backups
        .iter()
        .filter(|fact| fact.is_good(standard) && fact.holdings.is_some())
        .filter(|fact| fact.taken() < taken)
        .max_by_key(|fact| fact.age_order())
}

/// Why a backup that holds `this` is suspicious beside `baseline`, the last good one of its policy;
/// none where it is not.
///
/// # Guarantees
/// A backup that is as large as the last good one, or larger, is never suspicious. After a volume
/// shrank for good, every backup is suspicious until a person accepts one.
pub fn judge(baseline: Option<&BackupFact>, this: &Holdings, guard: Guard) -> Option<Suspicion> {
    let before = baseline.and_then(|fact| Some((fact.name.as_str(), fact.holdings?)));
    let was_empty = before.is_some_and(|(_, holdings)| is_empty(&holdings));
    if is_empty(this) {
        let expected = guard.allow_empty || was_empty;
        return (!expected).then(|| empty(before.map(|(name, holdings)| (name, holdings.files))));
    }
    let (name, before) = before?;
    if shrank_beyond(before.logical_bytes, this.logical_bytes, guard) {
        let sizes = (
            text::bytes(this.logical_bytes),
            text::bytes(before.logical_bytes),
        );
        return Some(shrunk(Reason::ShrunkBytes, sizes, name, guard));
    }
    if shrank_beyond(before.files, this.files, guard) {
        let sizes = (
            text::count(this.files, "file"),
            text::count(before.files, "file"),
        );
        return Some(shrunk(Reason::ShrunkFiles, sizes, name, guard));
    }
    None
}

/// Nothing but the root.
fn is_empty(holdings: &Holdings) -> bool {
    holdings.files == 0 && holdings.others <= 1
}

fn shrank_beyond(before: u64, now: u64, guard: Guard) -> bool {
    let lost = u128::from(before.saturating_sub(now));
    lost * 100 > u128::from(before) * u128::from(guard.max_shrink_percent)
}

fn empty(before: Option<(&str, u64)>) -> Suspicion {
    let beside = before.map_or_else(String::new, |(name, files)| {
        let files = text::count(files, "file");
        format!(", while the last good backup {name} holds {files}")
    });
    Suspicion {
        reason: Reason::EmptySource,
        message: format!(
            "The source was empty{beside}. Find out whether the volume lost its data or another one was mounted. {}, or set spec.guard.allowEmpty where an empty volume is no surprise.",
            accept()
        ),
    }
}

fn shrunk(
    reason: Reason,
    (now, before): (String, String),
    baseline: &str,
    guard: Guard,
) -> Suspicion {
    let share = guard.max_shrink_percent;
    Suspicion {
        reason,
        message: format!(
            "It holds {now}, and the last good backup {baseline} holds {before}: it shrank by more than spec.guard.maxShrinkPercent={share}. Find out what was deleted. {}, or raise maxShrinkPercent for backups to come.",
            accept()
        ),
    }
}

fn accept() -> String {
    format!(
        "Until it is accepted it displaces no other backup; to accept it, annotate it with {ACCEPT_ANNOTATION}=true"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fact::completed;

    const GUARD: Guard = Guard {
        max_shrink_percent: 50,
        allow_empty: false,
    };

    fn holds(files: u64, others: u64, logical_bytes: u64) -> Holdings {
        Holdings {
            files,
            others,
            logical_bytes,
        }
    }

    fn last_good(holdings: Holdings) -> BackupFact {
        BackupFact {
            holdings: Some(holdings),
            ..completed("monday", 1)
        }
    }

    fn reason(before: Option<Holdings>, this: Holdings, guard: Guard) -> Option<Reason> {
        let before = before.map(last_good);
        judge(before.as_ref(), &this, guard).map(|suspicion| suspicion.reason)
    }

    #[test]
    fn an_empty_source_is_told_from_the_first_backup_on() {
        let empty = holds(0, 1, 0);
        assert_eq!(reason(None, empty, GUARD), Some(Reason::EmptySource));
        let full = Some(holds(3, 1, 30));
        assert_eq!(reason(full, empty, GUARD), Some(Reason::EmptySource));
    }

    #[test]
    fn an_empty_source_is_fine_where_it_was_empty_or_may_be() {
        let empty = holds(0, 1, 0);
        assert_eq!(reason(Some(empty), empty, GUARD), None);
        let allowing = Guard {
            allow_empty: true,
            ..GUARD
        };
        assert_eq!(reason(Some(holds(3, 1, 30)), empty, allowing), None);
    }

    #[test]
    fn a_directory_or_link_alone_is_not_empty() {
        assert_eq!(reason(None, holds(0, 2, 0), GUARD), None);
    }

    #[test]
    fn exactly_the_share_is_let_pass_and_a_byte_more_is_not() {
        let before = Some(holds(10, 1, 1000));
        assert_eq!(reason(before, holds(10, 1, 500), GUARD), None);
        let smaller = holds(10, 1, 499);
        assert_eq!(reason(before, smaller, GUARD), Some(Reason::ShrunkBytes));
        assert_eq!(reason(before, holds(5, 1, 1000), GUARD), None);
        let fewer = holds(4, 1, 1000);
        assert_eq!(reason(before, fewer, GUARD), Some(Reason::ShrunkFiles));
    }

    #[test]
    fn a_hundred_percent_turns_the_comparison_off() {
        let any = Guard {
            max_shrink_percent: 100,
            ..GUARD
        };
        let before = Some(holds(u64::MAX, 1, u64::MAX));
        assert_eq!(reason(before, holds(0, 2, 0), any), None);
    }

    #[test]
    fn the_message_holds_both_figures_and_the_way_out() {
        let before = last_good(holds(10, 1, 4096));
        let told = judge(Some(&before), &holds(1, 1, 1024), GUARD).unwrap();
        for part in [
            "1.0 KiB",
            "4.0 KiB",
            "monday",
            "tidelock.dev/accept-suspicious=true",
            "maxShrinkPercent=50",
        ] {
            assert!(told.message.contains(part), "{}", told.message);
        }
    }

    #[test]
    fn the_baseline_is_the_last_good_one_before() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let known = |name: &str, second| BackupFact {
            holdings: Some(Holdings::default()),
            ..completed(name, second)
        };
        let suspicious = BackupFact {
            suspicious: true,
            ..known("suspicious", 3)
        };
        let all = [
            known("a", 1),
            known("b", 2),
            suspicious,
            completed("unknown", 4),
            known("itself", 5),
            known("later", 6),
        ];
        let found = baseline(&all, at(5), Standard::Verified);
        assert_eq!(found.map(|fact| fact.name.as_str()), Some("b"));
        assert_eq!(baseline(&all, at(1), Standard::Verified), None);
    }

    proptest! {
        #[test]
        fn what_did_not_shrink_is_never_suspicious(
            files in any::<u64>(), bytes in any::<u64>(),
            more_files in any::<u64>(), more_bytes in any::<u64>(),
            share in 0u32..200,
        ) {
            let guard = Guard { max_shrink_percent: share, allow_empty: false };
            let before = last_good(holds(files, 2, bytes));
            let this = holds(files.saturating_add(more_files), 2, bytes.saturating_add(more_bytes));
            prop_assert_eq!(judge(Some(&before), &this, guard), None);
        }

        #[test]
        fn whatever_shrank_beyond_the_share_is_told(
            bytes in 1u64..u64::MAX, lost in 0.0f64..1.0, share in 0u32..100,
        ) {
            let guard = Guard { max_shrink_percent: share, allow_empty: false };
            let now = bytes - (bytes as f64 * lost) as u64;
            let told = judge(Some(&last_good(holds(1, 1, bytes))), &holds(1, 1, now), guard);
            let beyond = u128::from(bytes - now) * 100 > u128::from(bytes) * u128::from(share);
            prop_assert_eq!(told.is_some(), beyond);
        }
    }
}
