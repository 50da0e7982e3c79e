use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::{
    ConcurrencyPolicy, DeletionPolicy, Format, Guard, MoverSpec, Phase, StorageRef, TargetRef,
    VerificationLevel,
};

/// Backs up one PersistentVolumeClaim on a schedule and keeps the newest backups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidelock.dev",
    version = "v1alpha1",
    kind = "BackupPolicy",
    plural = "backuppolicies",
    shortname = "bpol",
    category = "tidelock",
    namespaced,
    status = "BackupPolicyStatus",
    derive = "PartialEq",
    doc = "BackupPolicy backs up one PersistentVolumeClaim on a schedule and keeps the newest backups.",
    printcolumn(
        name = "PVC",
        type_ = "string",
        json_path = ".spec.target.pvcName",
        description = "The PersistentVolumeClaim that is backed up"
    ),
    printcolumn(
        name = "Schedule",
        type_ = "string",
        json_path = ".spec.schedule",
        description = "When it is backed up"
    ),
    printcolumn(
        name = "Last",
        type_ = "string",
        json_path = ".status.lastBackup.phase",
        description = "How the last backup ended"
    ),
    printcolumn(
        name = "Last Success",
        type_ = "date",
        json_path = ".status.lastSuccessfulBackupTime",
        description = "How long ago the last good backup was completed"
    ),
    printcolumn(
        name = "Next",
        type_ = "string",
        json_path = ".status.nextScheduledBackup",
        description = "When the next backup is due"
    ),
    printcolumn(
        name = "Kept",
        type_ = "integer",
        json_path = ".status.completedBackups",
        description = "How many completed backups there are"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "What the policy is doing"
    ),
    printcolumn(
        name = "Zone",
        type_ = "string",
        json_path = ".spec.timeZone",
        priority = "1",
        description = "Time zone of the schedule"
    ),
    printcolumn(
        name = "Keep",
        type_ = "integer",
        json_path = ".spec.retention.keepLast",
        priority = "1",
        description = "How many completed backups are kept"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.target.pvcName != (has(self.storage) ? (has(self.storage.pvcName) ? self.storage.pvcName : '') : 'backup-storage')").message("target.pvcName must not be the PersistentVolumeClaim that storage names (backup-storage where unset): a backup cannot be kept inside what it saves")
)]
pub struct BackupPolicySpec {
    /// When to back up: five cron fields (`minute hour day-of-month month day-of-week`, names such
    /// as `MON` and `JAN` allowed), or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. `H`
    /// in a field stands for a value that is fixed for each policy, which spreads many policies
    /// over time.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = schedule_rule())]
    pub schedule: String,
    /// IANA time zone of the schedule, such as `Europe/Berlin`; unset means UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// What to back up; fixed for the life of the policy, so that retention never mixes volumes.
    #[x_kube(validation = Rule::new("self == oldSelf").message("target is immutable: make another BackupPolicy for another PersistentVolumeClaim"))]
    pub target: TargetRef,
    /// Which completed backups to keep; unset keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Starts no new backups while true.
    #[serde(default)]
    pub suspend: bool,
    /// What a due slot does while an earlier backup of this policy is still active.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// How late a missed slot may still start, in seconds; unset means however late. Of several
    /// missed slots only the latest runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub starting_deadline_seconds: Option<u32>,
    /// Where backups are kept; unset means the PersistentVolumeClaim `backup-storage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageRef>,
    /// The form of the archives.
    #[serde(default)]
    pub format: Format,
    /// What happens to the data of a backup when its Backup object is deleted by a person or by
    /// retention.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// How long a backup may wait for its pod to start before it fails, in seconds.
    #[serde(default = "default_start_deadline")]
    #[schemars(range(min = 1, max = 604_800))]
    pub start_deadline_seconds: u32,
    /// When and how much of the backups is read back from storage and compared; unset means every
    /// new backup in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<PolicyVerification>,
    /// What makes a backup suspicious; unset means an empty one, and one that shrank by more than
    /// half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// How the mover pods run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mover: Option<Box<MoverSpec>>,
}

/// What a schedule looks like; whether it ever comes due is told by a condition.
fn schedule_rule() -> Rule {
    Rule::new("self.startsWith('@') ? self in ['@hourly','@daily','@midnight','@weekly','@monthly','@yearly','@annually'] : self.matches('^\\\\S+( +\\\\S+){4}$')").message("schedule must be five cron fields such as \"0 2 * * *\", or one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually")
}

/// When and how much of the backups is read back from storage and compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyVerification {
    /// How much of a new backup is read back before it is called Completed. Unless this is `None`,
    /// retention counts only verified backups.
    #[serde(default)]
    pub on_backup: VerificationLevel,
    /// When stored backups are read again, those first that were not for the longest time: a
    /// schedule as above, in the same time zone; unset means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = schedule_rule())]
    pub schedule: Option<String>,
}

pub(crate) fn default_start_deadline() -> u32 {
    crate::DEFAULT_START_DEADLINE_SECONDS
}

/// Which completed backups are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// How many of the newest completed backups stay; running and failed ones are never counted.
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_last: u32,
}

/// What the operator knows of a policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicyStatus {
    /// The generation of the spec that this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The schedule and time zone that `lastScheduleTime` speaks of; after a change only slots
    /// from then on are run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed_schedule: Option<String>,
    /// Every slot up to this time is dealt with: run, or passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When the newest backup was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_time: Option<Time>,
    /// When the newest completed backup was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_backup_time: Option<Time>,
    /// When the next backup is due; unset while suspended or while the schedule is invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_scheduled_backup: Option<Time>,
    /// The newest backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// Names of the backups that are pending or running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<String>,
    /// How many completed backups of this policy there are.
    #[serde(default)]
    pub completed_backups: u32,
    /// How many of them are verified and not suspicious.
    #[serde(default)]
    pub good_backups: u32,
    /// How many slots passed without a backup, because the operator was away, an earlier backup was
    /// still active, or `startingDeadlineSeconds` was over; of several that passed only the latest is
    /// run.
    #[serde(default)]
    pub skipped_slots: i64,
    /// Every verification slot up to this time is dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verification_schedule_time: Option<Time>,
    /// When stored backups were last read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verification_time: Option<Time>,
    /// When stored backups will be read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_verification: Option<Time>,
    /// The Job that reads stored backups again, while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_job: Option<String>,
    /// What the last look into the volume's folder in storage found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Box<FolderStatus>>,
    /// `Ready`: the schedule is understood and followed, or, with the reason `Suspended`, held as
    /// `spec.suspend` says. `Suspended`: whether it is suspended, and since when, once it ever was.
    /// `Stalled`: there while the schedule, or that of the verification, cannot be understood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What stands in the folder of the volume in storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FolderStatus {
    /// When it was looked at.
    pub check_time: Time,
    /// How many backups stand there.
    pub archives: i64,
    /// How many archives stand there that no Backup object is known for, those that were never
    /// finished included; they are left alone.
    #[serde(default)]
    pub unknown_archives: i64,
    /// The first of those, by their names in storage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// How many temporary files of dead runs were removed.
    #[serde(default)]
    pub swept: i64,
}

/// The newest backup of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    /// Its name.
    pub name: String,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
}
