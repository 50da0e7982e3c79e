//! Label values that are not names of objects: all of them are written here.

use tidelock_api::Phase;
use tidelock_protocol::FailureReason;

use crate::telemetry::reasons;

/// The phases, in the order in which a run goes through them.
pub const PHASES: [&str; 4] = ["Pending", "Running", "Completed", "Failed"];

/// Why a run failed that its policy cancelled for the next one's sake.
pub const REPLACED: &str = "Replaced";

/// What stands for a word that is not ours.
pub const OTHER: &str = "Other";

/// Reasons for which a run waits or fails, beside those that the mover reports.
const RUN_REASONS: [&str; 38] = [
    reasons::PENDING,
    reasons::QUEUED,
    reasons::POLICY_NOT_FOUND,
    reasons::TARGET_MISMATCH,
    reasons::PVC_NOT_FOUND,
    reasons::PVC_NOT_BOUND,
    reasons::PVC_TERMINATING,
    reasons::VOLUME_MODE_BLOCK,
    reasons::STORAGE_NOT_FOUND,
    reasons::STORAGE_UNUSABLE,
    reasons::STORAGE_IS_TARGET,
    reasons::STORAGE_SUSPENDED,
    reasons::STORAGE_READ_ONLY,
    reasons::STORAGE_NOT_ALLOWED,
    reasons::VOLUMES_APART,
    reasons::VOLUME_IN_USE,
    reasons::TARGET_IN_USE,
    reasons::PRIVILEGE_UNKNOWN,
    reasons::BACKUP_NOT_FOUND,
    reasons::BACKUP_NOT_COMPLETED,
    reasons::BACKUP_NOT_VERIFIED,
    reasons::TARGET_EXISTS,
    reasons::TARGET_REFUSED,
    reasons::JOB_REFUSED,
    reasons::REPORT_MISSING,
    reasons::REPORT_MISMATCH,
    reasons::MOVER_FAILED,
    reasons::OUT_OF_MEMORY,
    reasons::TIMED_OUT,
    reasons::POD_PENDING,
    tidelock_core::run::CANCELLED,
    "StartDeadlineExceeded",
    "PreviousJobLeaving",
    "JobConflict",
    "JobLost",
    "PrivilegeForbidden",
    reasons::DELETING,
    OTHER,
];

/// Reasons of storage that is not there or refuses its work.
pub const STORAGE_REASONS: [&str; 5] = [
    reasons::STORAGE_NOT_FOUND,
    reasons::STORAGE_UNUSABLE,
    "StorageFull",
    "StorageUnavailable",
    "StorageDenied",
];

/// `reason` where it is one of ours, else [`OTHER`]: a status can be written by others, and their
/// words must not become label values.
pub fn reason(reason: &str) -> &'static str {
    let own = RUN_REASONS.into_iter().find(|known| *known == reason);
    let of_mover = || {
        let all = FailureReason::ALL.iter().map(|known| known.as_str());
        all.into_iter().find(|known| *known == reason)
    };
    own.or_else(of_mover).unwrap_or(OTHER)
}

/// Where a phase stands in [`PHASES`]; what the operator has not seen yet is Pending.
pub fn phase_index(phase: Option<Phase>) -> usize {
    match phase {
        None | Some(Phase::Pending) => 0,
        Some(Phase::Running) => 1,
        Some(Phase::Completed) => 2,
        Some(Phase::Failed) => 3,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn words_of_others_do_not_become_label_values() {
        assert_eq!(reason("PVCNotFound"), "PVCNotFound");
        assert_eq!(reason("StorageFull"), "StorageFull");
        assert_eq!(reason("<script>"), OTHER);
        assert_eq!(reason(""), OTHER);
    }

    #[test]
    fn every_storage_reason_is_a_known_one() {
        for known in STORAGE_REASONS {
            assert_eq!(reason(known), known);
        }
    }

    /// Reasons of conditions for which no run waits or fails.
    const OF_OTHER_THINGS: [&str; 20] = [
        reasons::RUNNING,
        reasons::STARTING,
        reasons::STOPPING,
        reasons::TAKING_BACK,
        reasons::NOT_QUEUED,
        reasons::COMPLETED,
        reasons::READ_BACK,
        reasons::NOT_VERIFIED,
        reasons::ARCHIVE_DAMAGED,
        reasons::ARCHIVE_MISSING,
        reasons::AS_EXPECTED,
        reasons::ACCEPTED,
        reasons::SCHEDULED,
        reasons::SUSPENDED,
        reasons::BACKUP_REFUSED,
        reasons::WAITING_FOR_ACTIVE,
        reasons::INVALID_SCHEDULE,
        reasons::DISCOVERED,
        reasons::STORAGE_READY,
        reasons::STORAGE_CHECKING,
    ];

    /// The constants of `reasons.rs` that no Event alone has.
    fn reasons_of_conditions() -> Vec<&'static str> {
        let source = include_str!("../reasons.rs");
        let lines: Vec<&str> = source.lines().collect();
        let constants = lines.windows(2).filter_map(|pair| {
            let (_, value) = pair[1].strip_prefix("pub const ")?.split_once(" = \"")?;
            let of_event = pair[0].starts_with("/// Event:");
            (!of_event).then(|| value.trim_end_matches("\";"))
        });
        constants.collect()
    }

    #[test]
    fn every_reason_for_which_a_run_waits_or_fails_is_known() {
        let all = reasons_of_conditions();
        assert!(all.len() > 40, "{all:?}");
        for given in all {
            let foreign = OF_OTHER_THINGS.contains(&given);
            assert!(foreign || reason(given) == given, "{given} would be Other");
        }
        for of_mover in FailureReason::ALL {
            assert_eq!(reason(of_mover.as_str()), of_mover.as_str());
        }
    }

    /// The lines of code, without tests, of all files below `folder`.
    fn code(folder: &Path) -> Vec<String> {
        let mut code = Vec::new();
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                code.extend(self::code(&path));
            } else if !path.to_string_lossy().ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
                code.extend(lines.map(str::to_owned));
            }
        }
        code
    }

    #[test]
    fn every_reason_that_is_written_where_it_is_given_is_known() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut code = code(&here.join("../core/src"));
        code.extend(self::code(&here.join("src")));
        let mut found = 0;
        for line in code {
            for before in [
                "reason: \"",
                "RunFailure::new(\"",
                "blocked(\"",
                "refused(\"",
            ] {
                let Some((_, rest)) = line.split_once(before) else {
                    continue;
                };
                let given = rest.split('"').next().unwrap();
                assert_eq!(reason(given), given, "{line}");
                found += 1;
            }
        }
        assert!(found > 8, "only {found} were found");
    }
}
