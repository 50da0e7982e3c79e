//! Restores.

use tidelock_operator::telemetry::metrics::table as metric;

use super::{Case, Labels};

const RESTORE: Labels<'_> = &[("namespace", "shop"), ("restore", "back")];
const FAILED: Labels<'_> = &[RESTORE[0], RESTORE[1], ("phase", "Failed")];
const FULL: Labels<'_> = &[RESTORE[0], RESTORE[1], ("reason", "TargetFull")];
const CANCELLED: Labels<'_> = &[RESTORE[0], RESTORE[1], ("reason", "Cancelled")];
const PENDING: Labels<'_> = &[RESTORE[0], RESTORE[1], ("state", "Pending")];
const QUEUED: Labels<'_> = &[RESTORE[0], RESTORE[1], ("state", "Queued")];
const STOPPING: Labels<'_> = &[RESTORE[0], RESTORE[1], ("state", "Stopping")];
const RUNNING: Labels<'_> = &[RESTORE[0], RESTORE[1], ("state", "Running")];

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "TidelockRestoreFailed",
            "a failed restore pages until it is deleted",
        )
        .given(
            metric::RESTORE_FAILURE,
            FULL,
            &[(None, 10), (Some(1), 20), (None, 10)],
        )
        .given(
            metric::RESTORE_ENDED,
            RESTORE,
            &[(None, 10), (Some(600), 20), (None, 10)],
        )
        .given(metric::RESTORE_SUPERSEDED, RESTORE, &[(Some(0), 40)])
        .quiet_at(9)
        .fires_at(10, FULL)
        .quiet_at(31),
        Case::new(
            "TidelockRestoreFailed",
            "it clears when a later one fills the same claim",
        )
        .given(metric::RESTORE_FAILURE, FULL, &[(Some(1), 40)])
        .given(metric::RESTORE_ENDED, RESTORE, &[(Some(0), 40)])
        .given(
            metric::RESTORE_SUPERSEDED,
            RESTORE,
            &[(Some(0), 20), (Some(1), 20)],
        )
        .fires_at(19, FULL)
        .quiet_at(20),
        Case::new("TidelockRestoreFailed", "it clears after a day")
            .given(metric::RESTORE_FAILURE, FULL, &[(Some(1), 40)])
            .given(metric::RESTORE_ENDED, RESTORE, &[(Some(-85_800), 40)])
            .given(metric::RESTORE_SUPERSEDED, RESTORE, &[(Some(0), 40)])
            .fires_at(9, FULL)
            .quiet_at(10),
        Case::new(
            "TidelockRestoreFailed",
            "what a person cancelled did not fail",
        )
        .given(metric::RESTORE_FAILURE, CANCELLED, &[(Some(1), 20)])
        .given(metric::RESTORE_PHASE, FAILED, &[(Some(1), 20)])
        .given(metric::RESTORE_ENDED, RESTORE, &[(Some(0), 20)])
        .given(metric::RESTORE_SUPERSEDED, RESTORE, &[(Some(0), 20)])
        .quiet_at(10),
        Case::new(
            "TidelockRestoreFailed",
            "a dry run that failed, which has no series of a failure, pages nobody",
        )
        .given(metric::RESTORE_PHASE, FAILED, &[(Some(1), 20)])
        .given(metric::RESTORE_ENDED, RESTORE, &[(Some(0), 20)])
        .given(metric::RESTORE_SUPERSEDED, RESTORE, &[(Some(0), 20)])
        .quiet_at(10),
        Case::new(
            "TidelockRestoreStuck",
            "a restore that does not start for a quarter of an hour pages until it does",
        )
        .given(
            metric::RESTORE_ACTIVE_SINCE,
            PENDING,
            &[(Some(0), 30), (None, 10)],
        )
        .quiet_at(15)
        .fires_at(16, PENDING)
        .quiet_at(31),
        Case::new("TidelockRestoreStuck", "one that runs has a day")
            .given(
                metric::RESTORE_ACTIVE_SINCE,
                RUNNING,
                &[(Some(-85_800), 40)],
            )
            .quiet_at(10)
            .fires_at(11, RUNNING),
        Case::new(
            "TidelockRestoreStuck",
            "one that waits for its turn has an hour",
        )
        .given(metric::RESTORE_ACTIVE_SINCE, QUEUED, &[(Some(0), 80)])
        .quiet_at(60)
        .fires_at(61, QUEUED),
        Case::new(
            "TidelockRestoreStuck",
            "one that is taken back has two hours",
        )
        .given(metric::RESTORE_ACTIVE_SINCE, STOPPING, &[(Some(0), 150)])
        .quiet_at(135)
        .fires_at(136, STOPPING),
    ]
}
