//! Backups that were made and cannot be relied on, and where they are kept.

use tidelock_operator::telemetry::metrics::known::STORAGE_REASONS;
use tidelock_operator::telemetry::metrics::table as metric;

use super::{Alert, DAY, MINUTE, Severity};
use crate::names::{KUBELET_AVAILABLE, KUBELET_CAPACITY};
use crate::query::{age, any, by, object, of};

pub fn alerts() -> Vec<Alert> {
    vec![
        Alert {
            name: "TidelockVerificationFailed",
            severity: Severity::Critical,
            holds_for: 0,
            expr: |_| format!("{} > 0", of(metric::POLICY_DAMAGED_BACKUPS, "")),
            summary: "Stored backups of BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} are damaged or missing",
            description: "They were read again and are not what was written; they will not be restored, and no longer count. Storage loses data: check it before the next one rots. Which ones: kubectl --namespace {{ $labels.namespace }} get backups",
        },
        Alert {
            name: "TidelockVerificationStale",
            severity: Severity::Warning,
            holds_for: 0,
            expr: |pace| {
                let overdue = age(metric::POLICY_VERIFICATION_OVERDUE_SINCE, "");
                let read = age(metric::POLICY_LAST_VERIFIED, "");
                let verifies = of(metric::POLICY_VERIFIES, "");
                let suspended = of(metric::POLICY_SUSPENDED, "");
                let (day, long) = (pace.seconds(DAY), pace.seconds(35 * DAY));
                format!(
                    "{overdue} > {day} or ({read} > {long} and {verifies} == 1 unless {suspended} == 1)"
                )
            },
            summary: "Backups of BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} have not been read back for too long",
            description: "They were to be read again a day ago and were not, or none was for 35 days. Whether they are still whole is not known. Look at: kubectl --namespace {{ $labels.namespace }} describe backuppolicy {{ $labels.policy }}",
        },
        Alert {
            name: "TidelockBackupSuspicious",
            severity: Severity::Warning,
            holds_for: 0,
            expr: |_| format!("{} == 1", of(metric::POLICY_LAST_SUSPICIOUS, "")),
            summary: "The last backup of BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} is empty, or shrank by much",
            description: "It completed, but the volume holds far less than before: was it emptied, or the wrong one mounted? The older good backups are kept. Restore one, or accept the new state: kubectl --namespace {{ $labels.namespace }} annotate backup <name> tidelock.dev/accept-suspicious=true",
        },
        Alert {
            name: "TidelockFewGoodBackups",
            severity: Severity::Critical,
            holds_for: 5 * MINUTE,
            expr: |_| {
                let good = of(metric::POLICY_GOOD_BACKUPS, "");
                let keep = of(metric::POLICY_KEEP_LAST, "");
                let ended = of(metric::POLICY_BACKUPS, "phase=~\"Completed|Failed\"");
                let success = of(metric::POLICY_LAST_SUCCESS, "");
                format!(
                    "{good} <= 1 and {keep} > 1 and sum by (namespace, policy) ({ended}) >= 3 or {good} == 0 and {success}"
                )
            },
            summary: "BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} keeps nearly no good backup",
            description: "At most one backup can be relied on though more are to be kept, or none at all. Others failed, are damaged or suspicious, or were deleted: kubectl --namespace {{ $labels.namespace }} get backups",
        },
        Alert {
            name: "TidelockStorageNotReady",
            severity: Severity::Critical,
            holds_for: 5 * MINUTE,
            expr: |_| {
                let reasons = format!("reason=~\"{}\"", any(&STORAGE_REASONS));
                let waiting = of(metric::POLICY_WAITING, &reasons);
                let failed = of(metric::POLICY_LAST_FAILURE, &reasons);
                format!("{waiting} > 0 or {failed} == 1")
            },
            summary: "The storage of BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} takes no backups: {{ $labels.reason }}",
            description: "The claim that keeps the backups is missing, full, read-only, or does not answer. Its name is in spec.storage.pvcName of the policy (backup-storage where unset).",
        },
        Alert {
            name: "TidelockBackupStorageNotReady",
            severity: Severity::Critical,
            holds_for: 0,
            expr: |pace| {
                let unusable = age(metric::STORAGE_UNUSABLE_SINCE, "");
                format!("{unusable} > {}", pace.seconds(15 * MINUTE))
            },
            summary: "BackupStorage {{ $labels.namespace }}/{{ $labels.storage }} cannot be used",
            description: "A Job looked at it and could not write, read, list and remove an object there. Backups that go there will fail. Why: kubectl --namespace {{ $labels.namespace }} describe backupstorage {{ $labels.storage }}",
        },
        Alert {
            name: "TidelockStorageNearlyFull",
            severity: Severity::Warning,
            holds_for: 0,
            expr: |_| {
                // Each node on which a mover was says what it saw last; the newest word counts, or a
                // node that no mover comes to again would hold on to what it once saw.
                let seen = format!("max_over_time(timestamp({KUBELET_AVAILABLE})[6h:1m])");
                let claim = "namespace, persistentvolumeclaim";
                let share = format!(
                    "last_over_time({KUBELET_AVAILABLE}[6h]) / last_over_time({KUBELET_CAPACITY}[6h]) and ({seen} == on ({claim}) group_left max by ({claim}) ({seen}))"
                );
                let used = by(metric::POLICY_INFO, &["namespace", "storage_pvc"], "");
                format!(
                    "min by (namespace, storage_pvc) (label_replace({share}, \"storage_pvc\", \"$1\", \"persistentvolumeclaim\", \"(.*)\")) < 0.1 and on (namespace, storage_pvc) {used}"
                )
            },
            summary: "Storage {{ $labels.namespace }}/{{ $labels.storage_pvc }} is more than 90 % full",
            description: "Backups fail when it is full. Enlarge the claim, or keep fewer backups. Known only where the kubelet reports on the volume, which is while a pod mounts it.",
        },
        Alert {
            name: "TidelockUnknownArchives",
            severity: Severity::Info,
            holds_for: 0,
            expr: |_| format!("{} > 0", object(metric::POLICY_UNKNOWN_ARCHIVES, "")),
            summary: "Storage of BackupPolicy {{ $labels.namespace }}/{{ $labels.policy }} holds archives that no Backup names",
            description: "They are left alone and take space. Their names are in status.storage.unknown of the policy, or status.folder.unknown of its newest Backup.",
        },
    ]
}
