//! Every metric there is: name, type, labels and what it says. Alerts, dashboards and the reference
//! are made from these constants, so none can name what is not exported.

/// One metric, as `/metrics` tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The whole name, with unit and `_total`.
    pub name: &'static str,
    /// What its values mean.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its docstring.
    pub help: &'static str,
}

/// What the values of a metric mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows, until the process or the object goes.
    Counter,
    /// How often, and how much in all, by size.
    Histogram,
}

impl Kind {
    /// As the exposition writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

impl Metric {
    /// The base unit its name ends in, if it has one.
    pub fn unit(&self) -> Option<&'static str> {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        ["seconds", "bytes"]
            .into_iter()
            .find(|unit| name.ends_with(&format!("_{unit}")))
    }

    /// What its values say, as one sentence.
    pub fn sentence(&self) -> &'static str {
        self.help.trim()
    }

    /// The name without what the encoder appends: `_total` and the unit.
    pub fn stem(&self) -> &'static str {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        match self.unit() {
            Some(unit) => name
                .strip_suffix(unit)
                .and_then(|stem| stem.strip_suffix('_'))
                .unwrap_or(name),
            None => name,
        }
    }
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $id:ident: $kind:ident $name:literal [$($label:literal)*];)+) => {
        $($(#[doc = $help])+ pub const $id: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: concat!($($help),+),
        };)+

        /// All of them, in the order of the reference.
        pub const ALL: &[Metric] = &[$($id),+];
    };
}

metrics! {
    /// Always 1; its labels name the claim that the policy backs up and the one that keeps the backups.
    POLICY_INFO: Gauge "tidelock_policy_info" ["namespace" "policy" "pvc" "storage_pvc"];
    /// When the policy was made.
    POLICY_CREATED: Gauge "tidelock_policy_created_timestamp_seconds" ["namespace" "policy"];
    /// Whether the policy's Ready condition is True, as it also is while the policy is suspended.
    POLICY_READY: Gauge "tidelock_policy_ready" ["namespace" "policy"];
    /// Whether the policy is suspended.
    POLICY_SUSPENDED: Gauge "tidelock_policy_suspended" ["namespace" "policy"];
    /// Since when the policy is suspended, as its condition Suspended records; only while it is.
    POLICY_SUSPENDED_SINCE: Gauge "tidelock_policy_suspended_since_timestamp_seconds" ["namespace" "policy"];
    /// Whether a schedule of the policy, for backups or for reading them again, cannot be followed.
    POLICY_SCHEDULE_INVALID: Gauge "tidelock_policy_schedule_invalid" ["namespace" "policy"];
    /// When the next backup is due; none while the policy is suspended or its schedule is invalid.
    POLICY_NEXT_SCHEDULE: Gauge "tidelock_policy_next_schedule_timestamp_seconds" ["namespace" "policy"];
    /// The slot that has passed without a backup being made since; only while there is one.
    POLICY_OVERDUE_SINCE: Gauge "tidelock_policy_overdue_since_timestamp_seconds" ["namespace" "policy"];
    /// How many slots passed without a backup because the operator was away or an earlier backup was still active.
    POLICY_SKIPPED_SLOTS: Counter "tidelock_policy_skipped_slots_total" ["namespace" "policy"];
    /// Whether a backup was expected and none has ever completed; 0 while the policy is suspended.
    POLICY_NEVER_RUN: Gauge "tidelock_policy_never_run" ["namespace" "policy"];
    /// When the newest backup was made.
    POLICY_LAST_ATTEMPT: Gauge "tidelock_policy_last_attempt_timestamp_seconds" ["namespace" "policy"];
    /// Whether the newest backup that has ended completed.
    POLICY_LAST_ATTEMPT_SUCCEEDED: Gauge "tidelock_policy_last_attempt_succeeded" ["namespace" "policy"];
    /// 1 for the reason of the failure, where the newest backup that has ended failed: Cancelled where a person told it to end, Replaced where the next slot did (concurrencyPolicy Replace). A reason that is not Tidelock's own is Other.
    POLICY_LAST_FAILURE: Gauge "tidelock_policy_last_failure" ["namespace" "policy" "reason"];
    /// How many backups in a row, up to the newest that has ended, failed. One that the next slot replaced counts; one that a person cancelled is passed over.
    POLICY_CONSECUTIVE_FAILURES: Gauge "tidelock_policy_consecutive_failures" ["namespace" "policy"];
    /// When the newest completed backup was completed.
    POLICY_LAST_SUCCESS: Gauge "tidelock_policy_last_success_timestamp_seconds" ["namespace" "policy"];
    /// How long the newest completed backup took.
    POLICY_LAST_DURATION: Gauge "tidelock_policy_last_backup_duration_seconds" ["namespace" "policy"];
    /// Sum of the sizes of the files in the newest completed backup.
    POLICY_LAST_LOGICAL: Gauge "tidelock_policy_last_backup_logical_bytes" ["namespace" "policy"];
    /// Size of the archive of the newest completed backup.
    POLICY_LAST_STORED: Gauge "tidelock_policy_last_backup_stored_bytes" ["namespace" "policy"];
    /// Regular files in the newest completed backup.
    POLICY_LAST_FILES: Gauge "tidelock_policy_last_backup_files" ["namespace" "policy"];
    /// Files that changed while the newest completed backup read them.
    POLICY_LAST_CHANGED_FILES: Gauge "tidelock_policy_last_backup_changed_files" ["namespace" "policy"];
    /// Whether the newest completed backup is suspicious (empty, or much smaller than the one before) and nobody has accepted it.
    POLICY_LAST_SUSPICIOUS: Gauge "tidelock_policy_last_backup_suspicious" ["namespace" "policy"];
    /// How many Backups of the policy there are, by phase.
    POLICY_BACKUPS: Gauge "tidelock_policy_backups" ["namespace" "policy" "phase"];
    /// How many backups can be relied on: completed, not suspicious, and verified where verification is on.
    POLICY_GOOD_BACKUPS: Gauge "tidelock_policy_good_backups" ["namespace" "policy"];
    /// When the newest good backup was taken: a restore would bring back the state of that moment. None where there is no good one.
    POLICY_NEWEST_GOOD: Gauge "tidelock_policy_newest_good_backup_timestamp_seconds" ["namespace" "policy"];
    /// How many good backups retention keeps; none where it keeps all.
    POLICY_KEEP_LAST: Gauge "tidelock_policy_keep_last_backups" ["namespace" "policy"];
    /// How many stored backups are suspicious and not accepted.
    POLICY_SUSPICIOUS_BACKUPS: Gauge "tidelock_policy_suspicious_backups" ["namespace" "policy"];
    /// How many stored backups were found damaged or missing when they were read back.
    POLICY_DAMAGED_BACKUPS: Gauge "tidelock_policy_damaged_backups" ["namespace" "policy"];
    /// Size of the archives of all stored backups.
    POLICY_STORED: Gauge "tidelock_policy_stored_bytes" ["namespace" "policy"];
    /// Whether new backups are read back before they are called completed.
    POLICY_VERIFIES: Gauge "tidelock_policy_verifies" ["namespace" "policy"];
    /// When a stored backup that is still whole was last read back.
    POLICY_LAST_VERIFIED: Gauge "tidelock_policy_last_verified_timestamp_seconds" ["namespace" "policy"];
    /// The slot for reading stored backups again that has passed without any being read since; only while there is one.
    POLICY_VERIFICATION_OVERDUE_SINCE: Gauge "tidelock_policy_verification_overdue_since_timestamp_seconds" ["namespace" "policy"];
    /// Archives in the volume's folder in storage that no Backup names, when it was last looked at.
    POLICY_UNKNOWN_ARCHIVES: Gauge "tidelock_policy_unknown_archives" ["namespace" "policy"];
    /// Since when the oldest backup in that state is in it. Pending waits for something that is missing: since its last turn in the queue, else since it was made; Queued waits for its turn; Starting waits for its pod, and as Running counts from when the Job was asked for; Stopping is brought to its end.
    POLICY_ACTIVE_SINCE: Gauge "tidelock_policy_active_since_timestamp_seconds" ["namespace" "policy" "state"];
    /// How many backups have not started, by what they wait for; a reason that is not Tidelock's own is Other.
    POLICY_WAITING: Gauge "tidelock_policy_waiting_backups" ["namespace" "policy" "reason"];

    /// How many Backups belong to no policy, by namespace and phase.
    UNOWNED_BACKUPS: Gauge "tidelock_unowned_backups" ["namespace" "phase"];

    /// Always 1; its label names the claim that is filled.
    RESTORE_INFO: Gauge "tidelock_restore_info" ["namespace" "restore" "pvc"];
    /// When the Restore was made.
    RESTORE_CREATED: Gauge "tidelock_restore_created_timestamp_seconds" ["namespace" "restore"];
    /// 1 for the phase that the restore is in.
    RESTORE_PHASE: Gauge "tidelock_restore_phase" ["namespace" "restore" "phase"];
    /// 1 for the reason of the failure, where the restore failed; none for a dry run, which brings nothing back. A reason that is not Tidelock's own is Other.
    RESTORE_FAILURE: Gauge "tidelock_restore_failure" ["namespace" "restore" "reason"];
    /// Since when the restore is in the state that it is in, counted as for backups; only until it has ended.
    RESTORE_ACTIVE_SINCE: Gauge "tidelock_restore_active_since_timestamp_seconds" ["namespace" "restore" "state"];
    /// When the restore ended.
    RESTORE_ENDED: Gauge "tidelock_restore_ended_timestamp_seconds" ["namespace" "restore"];
    /// Whether a younger Restore into the same claim has completed.
    RESTORE_SUPERSEDED: Gauge "tidelock_restore_superseded" ["namespace" "restore"];
    /// How long the restore took.
    RESTORE_DURATION: Gauge "tidelock_restore_duration_seconds" ["namespace" "restore"];
    /// How much the restore wrote.
    RESTORE_WRITTEN: Gauge "tidelock_restore_written_bytes" ["namespace" "restore"];
    /// Regular files that the restore wrote.
    RESTORE_FILES: Gauge "tidelock_restore_written_files" ["namespace" "restore"];

    /// Whether the BackupStorage can be used, as the last look at it has shown.
    STORAGE_READY: Gauge "tidelock_storage_ready" ["namespace" "storage"];
    /// Since when the BackupStorage cannot be used; only while that is so, and not while it is suspended.
    STORAGE_UNUSABLE_SINCE: Gauge "tidelock_storage_unusable_since_timestamp_seconds" ["namespace" "storage"];
    /// When the BackupStorage was last looked at.
    STORAGE_LAST_CHECK: Gauge "tidelock_storage_last_check_timestamp_seconds" ["namespace" "storage"];
    /// Backups of its namespace that the BackupStorage holds.
    STORAGE_BACKUPS: Gauge "tidelock_storage_backups" ["namespace" "storage"];
    /// How much all of its namespace takes there.
    STORAGE_STORED: Gauge "tidelock_storage_stored_bytes" ["namespace" "storage"];
    /// Those of its backups that no Backup stands for.
    STORAGE_UNKNOWN_ARCHIVES: Gauge "tidelock_storage_unknown_archives" ["namespace" "storage"];
    /// Free space, where the BackupStorage is a volume.
    STORAGE_FREE: Gauge "tidelock_storage_free_bytes" ["namespace" "storage"];

    /// Objects without series, because there are more of their kind than are exported.
    LEFT_OUT: Gauge "tidelock_objects_left_out" ["kind"];
    /// How many movers wait for their turn, by what they do.
    QUEUED_MOVERS: Gauge "tidelock_queued_movers" ["kind"];
    /// How many movers run.
    RUNNING_MOVERS: Gauge "tidelock_running_movers" [];
    /// How many movers may run at once: in all, on one node, on one storage.
    MOVER_LIMIT: Gauge "tidelock_movers_limit" ["scope"];
    /// How many objects fail to be reconciled again and again: three times in a row or more.
    FAILING_OBJECTS: Gauge "tidelock_failing_objects" ["kind"];

    /// Always 1; its labels are the operator's version and the namespace that it looks after, empty where that is all of them.
    BUILD_INFO: Gauge "tidelock_build_info" ["version" "watches"];
    /// Whether this replica leads: it acts, and exports the series of objects. Of those with the same `watches`, one should.
    LEADER: Gauge "tidelock_leader" ["watches"];
    /// Whether this replica's caches are filled.
    CACHES_FILLED: Gauge "tidelock_caches_filled" ["watches"];
    /// The operator's clock when it was scraped.
    CLOCK: Gauge "tidelock_clock_timestamp_seconds" [];
    /// Reconciles that have ended, by kind of object.
    RECONCILES: Counter "tidelock_reconciles_total" ["kind"];
    /// Reconciles that failed, by kind of object; Conflict is somebody else's write that came first, and harmless.
    RECONCILE_ERRORS: Counter "tidelock_reconcile_errors_total" ["kind" "class"];
    /// How long reconciles took, by kind of object.
    RECONCILE_DURATION: Histogram "tidelock_reconcile_duration_seconds" ["kind"];
    /// Requests to the API server, by verb, resource and HTTP status; the code of one that got no answer or was given up is error, a resource that is not used by Tidelock is other.
    API_REQUESTS: Counter "tidelock_api_requests_total" ["verb" "resource" "code"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_prometheus_conventions_and_are_told_once() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("tidelock_"), "{name}");
            assert_eq!(
                metric.kind == Kind::Counter,
                name.ends_with("_total"),
                "{name}"
            );
            for reserved in ["_count", "_sum", "_bucket", "_created"] {
                assert!(!name.ends_with(reserved), "{name}");
            }
            assert!(metric.help.trim().ends_with('.'), "{name}: {}", metric.help);
            for unit in ["_minutes", "_hours", "_milliseconds", "_ms", "_kib"] {
                assert!(!name.contains(unit), "{name}");
            }
        }
    }

    #[test]
    fn a_name_comes_apart_into_stem_and_unit() {
        assert_eq!(POLICY_STORED.stem(), "tidelock_policy_stored");
        assert_eq!(POLICY_STORED.unit(), Some("bytes"));
        assert_eq!(RECONCILES.stem(), "tidelock_reconciles");
        assert_eq!(RECONCILES.unit(), None);
        assert_eq!(LEADER.stem(), "tidelock_leader");
    }
}
