//! Backups that are not made, or not in time.

use tidelock_operator::telemetry::metrics::table as metric;

use super::{Case, Labels};

pub const POLICY: Labels<'_> = &[("namespace", "shop"), ("policy", "nightly")];
const PENDING: Labels<'_> = &[POLICY[0], POLICY[1], ("state", "Pending")];
const STOPPING: Labels<'_> = &[POLICY[0], POLICY[1], ("state", "Stopping")];
const QUEUED: Labels<'_> = &[POLICY[0], POLICY[1], ("state", "Queued")];
const RUNNING: Labels<'_> = &[POLICY[0], POLICY[1], ("state", "Running")];
const FULL: Labels<'_> = &[POLICY[0], POLICY[1], ("reason", "StorageFull")];
const CANCELLED: Labels<'_> = &[POLICY[0], POLICY[1], ("reason", "Cancelled")];
const REPLACED: Labels<'_> = &[POLICY[0], POLICY[1], ("reason", "Replaced")];

pub fn cases() -> Vec<Case> {
    let mut all = schedule();
    all.extend(failures());
    all.extend(delays());
    all
}

fn schedule() -> Vec<Case> {
    vec![
        Case::new("TidelockNeverRan", "a policy whose slot passed without a backup pages after a while, until one completes")
            .given(metric::POLICY_NEVER_RUN, POLICY, &[(Some(0), 10), (Some(1), 50), (Some(0), 30)])
            .quiet_at(9)
            .quiet_at(24)
            .fires_at(26, POLICY)
            .quiet_at(61),
        Case::new("TidelockNeverRan", "the first backup may take its time")
            .given(metric::POLICY_NEVER_RUN, POLICY, &[(Some(1), 90)])
            .given(metric::POLICY_ACTIVE_SINCE, RUNNING, &[(Some(0), 90)])
            .quiet_at(80),
        Case::new("TidelockNeverRan", "a change of the leader does not start the waiting anew, and two replicas do not page twice")
            .given_of("a", metric::POLICY_NEVER_RUN, POLICY, &[(Some(1), 10), (None, 60)])
            .given_of("b", metric::POLICY_NEVER_RUN, POLICY, &[(None, 10), (Some(1), 60)])
            .fires_at(16, POLICY),
        Case::new("TidelockScheduleMissed", "a slot may come a quarter of an hour late, and the alert clears with the next backup")
            .given(metric::POLICY_OVERDUE_SINCE, POLICY, &[(Some(0), 60), (None, 10)])
            .quiet_at(15)
            .fires_at(16, POLICY)
            .quiet_at(61),
        Case::new("TidelockScheduleMissed", "it fires at once when Prometheus or the operator comes back, and goes with the policy")
            .given(metric::POLICY_OVERDUE_SINCE, POLICY, &[(Some(-86_400), 3), (None, 10)])
            .fires_at(0, POLICY)
            .quiet_at(4),
        Case::new("TidelockScheduleInvalid", "a schedule that cannot be followed pages until it is mended")
            .given(metric::POLICY_SCHEDULE_INVALID, POLICY, &[(Some(0), 10), (Some(1), 50), (Some(0), 30)])
            .quiet_at(14)
            .fires_at(16, POLICY)
            .quiet_at(61),
        Case::new("TidelockPolicySuspended", "a suspension of a week is told until it ends")
            .given(metric::POLICY_SUSPENDED_SINCE, POLICY, &[(Some(-604_800), 60), (None, 10)])
            .quiet_at(0)
            .fires_at(1, POLICY)
            .quiet_at(61),
    ]
}

fn failures() -> Vec<Case> {
    vec![
        Case::new(
            "TidelockBackupFailed",
            "a failed backup is told at once, until one completes",
        )
        .given(
            metric::POLICY_LAST_FAILURE,
            FULL,
            &[(None, 10), (Some(1), 20), (None, 10)],
        )
        .given(
            metric::POLICY_CONSECUTIVE_FAILURES,
            POLICY,
            &[(Some(0), 10), (Some(1), 20), (Some(0), 10)],
        )
        .quiet_at(9)
        .fires_at(10, FULL)
        .quiet_at(30),
        Case::new(
            "TidelockBackupFailed",
            "what a person cancelled did not fail",
        )
        .given(metric::POLICY_LAST_FAILURE, CANCELLED, &[(Some(1), 20)])
        .given(
            metric::POLICY_CONSECUTIVE_FAILURES,
            POLICY,
            &[(Some(1), 20)],
        )
        .quiet_at(10),
        Case::new(
            "TidelockBackupFailed",
            "what the next slot replaced did fail, until one completes",
        )
        .given(
            metric::POLICY_LAST_FAILURE,
            REPLACED,
            &[(None, 10), (Some(1), 20), (None, 10)],
        )
        .given(
            metric::POLICY_CONSECUTIVE_FAILURES,
            POLICY,
            &[(Some(0), 10), (Some(1), 20), (Some(0), 10)],
        )
        .quiet_at(9)
        .fires_at(10, REPLACED)
        .quiet_at(30),
        Case::new(
            "TidelockBackupFailing",
            "three in a row of which each was replaced by the next slot page",
        )
        .given(metric::POLICY_LAST_FAILURE, REPLACED, &[(Some(1), 30)])
        .given(
            metric::POLICY_CONSECUTIVE_FAILURES,
            POLICY,
            &[(Some(1), 10), (Some(2), 10), (Some(3), 10)],
        )
        .quiet_at(19)
        .fires_at(20, POLICY),
        Case::new(
            "TidelockBackupFailed",
            "the third failure in a row is told by another alert alone",
        )
        .given(metric::POLICY_LAST_FAILURE, FULL, &[(Some(1), 20)])
        .given(
            metric::POLICY_CONSECUTIVE_FAILURES,
            POLICY,
            &[(Some(2), 10), (Some(3), 10)],
        )
        .fires_at(9, FULL)
        .quiet_at(10),
        Case::new(
            "TidelockBackupFailing",
            "the third failure in a row pages, until one completes",
        )
        .given(
            metric::POLICY_CONSECUTIVE_FAILURES,
            POLICY,
            &[(Some(2), 10), (Some(3), 10), (Some(4), 10), (Some(0), 10)],
        )
        .quiet_at(9)
        .fires_at(10, POLICY)
        .fires_at(25, POLICY)
        .quiet_at(30),
    ]
}

fn delays() -> Vec<Case> {
    vec![
        Case::new(
            "TidelockBackupStuck",
            "a backup that does not start for a quarter of an hour is told until it does",
        )
        .given(
            metric::POLICY_ACTIVE_SINCE,
            PENDING,
            &[(Some(0), 40), (None, 10)],
        )
        .quiet_at(15)
        .fires_at(16, PENDING)
        .quiet_at(41),
        Case::new(
            "TidelockBackupStuck",
            "bringing one to its end may take two hours",
        )
        .given(metric::POLICY_ACTIVE_SINCE, STOPPING, &[(Some(0), 150)])
        .quiet_at(135)
        .fires_at(136, STOPPING),
        Case::new(
            "TidelockBackupStuck",
            "one that runs or waits for its turn is not stuck",
        )
        .given(metric::POLICY_ACTIVE_SINCE, RUNNING, &[(Some(0), 300)])
        .given(metric::POLICY_ACTIVE_SINCE, QUEUED, &[(Some(0), 300)])
        .quiet_at(290),
        Case::new("TidelockBackupQueued", "an hour in the queue is too long")
            .given(
                metric::POLICY_ACTIVE_SINCE,
                QUEUED,
                &[(Some(0), 80), (None, 10)],
            )
            .quiet_at(60)
            .fires_at(61, QUEUED)
            .quiet_at(81),
        Case::new(
            "TidelockBackupSlow",
            "three times the last duration is slow, once an hour has passed",
        )
        .given(
            metric::POLICY_ACTIVE_SINCE,
            RUNNING,
            &[(Some(0), 120), (None, 10)],
        )
        .given(metric::POLICY_LAST_DURATION, POLICY, &[(Some(1500), 130)])
        .quiet_at(70)
        .fires_at(76, POLICY)
        .quiet_at(121),
        Case::new("TidelockBackupSlow", "a quick one may take an hour")
            .given(metric::POLICY_ACTIVE_SINCE, RUNNING, &[(Some(0), 90)])
            .given(metric::POLICY_LAST_DURATION, POLICY, &[(Some(2), 90)])
            .quiet_at(60)
            .fires_at(61, POLICY),
        Case::new(
            "TidelockBackupSlow",
            "where nobody knows the usual time, a day is too long",
        )
        .given(metric::POLICY_ACTIVE_SINCE, RUNNING, &[(Some(-85_800), 30)])
        .quiet_at(10)
        .fires_at(11, POLICY),
    ]
}
