//! Backups that are not made, or not in time.

use tidelock_operator::telemetry::metrics::table as metric;

use super::{Alert, DAY, HOUR, MINUTE, Severity};
use crate::query::{age, object, of};

/// How long a backup may wait for its start.
const START: u64 = 15 * MINUTE;
/// How long a backup may be brought to its end, or its data be removed: the operator's own limit
/// for taking back is two hours.
const END: u64 = 2 * HOUR + 15 * MINUTE;

pub fn alerts() -> Vec<Alert> {
    vec![
        Alert {
            name: "TidelockNeverRan",
            severity: Severity::Critical,
            holds_for: 15 * MINUTE,
            expr: |_| {
                let never = object(metric::POLICY_NEVER_RUN, "");
                let running = object(metric::POLICY_ACTIVE_SINCE, "state=\"Running\"");
                format!("{never} == 1 unless on (namespace, policy) {running}")
            },
            summary: "BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} has never made a backup",
            description: "A backup was due and none has ever completed, so nothing protects this volume. Look at: kubectl --namespace {{ $labels.namespace }} describe backuppolicy {{ $labels.policy }}",
        },
        Alert {
            name: "TidelockScheduleMissed",
            severity: Severity::Warning,
            holds_for: 0,
            expr: |pace| {
                let late = age(metric::POLICY_OVERDUE_SINCE, "");
                format!("{late} > {}", pace.seconds(15 * MINUTE))
            },
            summary: "BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} missed its schedule",
            description: "A backup was due more than 15 minutes ago and was not made. Look at: kubectl --namespace {{ $labels.namespace }} describe backuppolicy {{ $labels.policy }}",
        },
        Alert {
            name: "TidelockScheduleInvalid",
            severity: Severity::Critical,
            holds_for: 5 * MINUTE,
            expr: |_| format!("{} == 1", of(metric::POLICY_SCHEDULE_INVALID, "")),
            summary: "BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} has a schedule that cannot be followed",
            description: "The schedule or time zone for backups, or the one for reading them again, is not understood, so that is not done. Its Ready condition says what to write instead: kubectl --namespace {{ $labels.namespace }} describe backuppolicy {{ $labels.policy }}",
        },
        Alert {
            name: "TidelockPolicySuspended",
            severity: Severity::Warning,
            holds_for: 0,
            expr: |pace| {
                let suspended = age(metric::POLICY_SUSPENDED_SINCE, "");
                format!("{suspended} > {}", pace.seconds(7 * DAY))
            },
            summary: "BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} has been suspended for more than 7 days",
            description: "No backups are made while spec.suspend is true. Resume it, or delete the policy if the volume needs none (its backups stay).",
        },
        Alert {
            name: "TidelockBackupFailed",
            severity: Severity::Warning,
            holds_for: 0,
            expr: |_| {
                let failed = of(metric::POLICY_LAST_FAILURE, "reason!=\"Cancelled\"");
                let again = object(metric::POLICY_CONSECUTIVE_FAILURES, "");
                format!("{failed} == 1 unless on (namespace, policy) {again} >= 3")
            },
            summary: "The last backup of BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} failed: {{ $labels.reason }}",
            description: "The next slot tries again. What happened, and what to do, stands in the newest failed Backup: kubectl --namespace {{ $labels.namespace }} get backups --output=wide",
        },
        Alert {
            name: "TidelockBackupFailing",
            severity: Severity::Critical,
            holds_for: 0,
            expr: |_| format!("{} >= 3", of(metric::POLICY_CONSECUTIVE_FAILURES, "")),
            summary: "The last three or more backups of BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} failed",
            description: "It does not heal by itself, and the newest good backup grows old. What happened, and what to do, stands in the newest failed Backup: kubectl --namespace {{ $labels.namespace }} get backups --output=wide",
        },
        Alert {
            name: "TidelockBackupStuck",
            severity: Severity::Warning,
            holds_for: 0,
            expr: |pace| {
                let start = age(metric::POLICY_ACTIVE_SINCE, "state=~\"Pending|Starting\"");
                let end = age(metric::POLICY_ACTIVE_SINCE, "state=~\"Stopping|Deleting\"");
                let (soon, late) = (pace.seconds(START), pace.seconds(END));
                format!("{start} > {soon} or {end} > {late}")
            },
            summary: "A backup of BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} is stuck ({{ $labels.state }})",
            description: "It waits for something that does not come: a volume, a node, an image, or storage. Its Ready condition says for what: kubectl --namespace {{ $labels.namespace }} get backups --output=wide",
        },
        Alert {
            name: "TidelockBackupQueued",
            severity: Severity::Warning,
            holds_for: 0,
            expr: |pace| {
                let queued = age(metric::POLICY_ACTIVE_SINCE, "state=\"Queued\"");
                format!("{queued} > {}", pace.seconds(HOUR))
            },
            summary: "A backup of BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} has waited for its turn for more than an hour",
            description: "More movers are wanted than may run at once. Spread the schedules (write H for the minute), or raise the operator's limits.",
        },
        Alert {
            name: "TidelockBackupSlow",
            severity: Severity::Warning,
            holds_for: 0,
            expr: |pace| {
                let since = object(metric::POLICY_ACTIVE_SINCE, "state=\"Running\"");
                let usual = object(metric::POLICY_LAST_DURATION, "");
                let (hour, day) = (pace.seconds(HOUR), pace.seconds(DAY));
                format!(
                    "time() - {since} > {hour} and time() - {since} > 3 * {usual} or time() - {since} > {day}"
                )
            },
            summary: "A backup of BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} runs for far longer than usual",
            description: "It has run for more than an hour and three times as long as the last one, or for more than a day. Look at its Job's log: kubectl --namespace {{ $labels.namespace }} get jobs",
        },
    ]
}
