use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::{
    BackupVerification, DeletionPolicy, Format, Guard, MoverSpec, ObjectName, Phase, StorageRef,
    StorageUsed, TargetRef, VerificationLevel,
};
use crate::immutable;
use crate::policy::FolderStatus;

/// Fields of the spec that stay as they are.
const BACKUP_FIELDS: &[&str] = &[
    "policyRef",
    "target",
    "storage",
    "format",
    "deletionPolicy",
    "startDeadlineSeconds",
    "verification",
    "guard",
    "mover",
    "archive",
];

/// One backup of one PersistentVolumeClaim, made by a policy or by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidelock.dev",
    version = "v1alpha1",
    kind = "Backup",
    plural = "backups",
    shortname = "bkp",
    category = "tidelock",
    namespaced,
    status = "BackupStatus",
    derive = "PartialEq",
    doc = "Backup is one backup of one PersistentVolumeClaim, made by a BackupPolicy or by hand.",
    printcolumn(name = "PVC", type_ = "string", json_path = ".status.pvcName", description = "The PersistentVolumeClaim that was backed up"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where it stands"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why it stands there"),
    printcolumn(name = "Verified", type_ = "string", json_path = ".status.conditions[?(@.type==\"Verified\")].status", description = "Whether what is stored was read back and compared"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size.stored", description = "Size of the archive"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.size.files", description = "Regular files in the archive"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration", description = "How long it took"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.policyRef", priority = "1", description = "The BackupPolicy it belongs to"),
    printcolumn(name = "Suspicious", type_ = "string", json_path = ".status.conditions[?(@.type==\"Suspicious\")].status", priority = "1", description = "Whether the source was empty, or shrank by much"),
    printcolumn(name = "Location", type_ = "string", json_path = ".status.backupLocation", priority = "1", description = "Where the archive is"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress.summary", priority = "1", description = "How far it is while it runs"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = "1", description = "The whole story"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = immutable::rule(BACKUP_FIELDS, "spec is immutable but for cancel: a Backup is one run; make another Backup")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.target) || has(self.policyRef)").message("target or policyRef is required: name the PersistentVolumeClaim to back up in target.pvcName, or the BackupPolicy to run in policyRef"),
    validation = Rule::new("!has(self.target) || !has(self.storage) || !has(self.storage.pvcName) || self.target.pvcName != self.storage.pvcName").message("target.pvcName must not be the PersistentVolumeClaim that storage names: a backup cannot be kept inside what it saves"),
    validation = Rule::new("!has(self.archive) || (has(self.target) && has(self.storage) && !has(self.policyRef))").message("with archive, target and storage are required and policyRef is not allowed: it says what is in storage already, and retention has no say in it")
)]
pub struct BackupSpec {
    /// Name of the BackupPolicy this backup belongs to: its retention counts it, and what is unset
    /// here comes from it. Unset for a backup that stands alone and is never removed by retention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub policy_ref: Option<String>,
    /// What to back up; may be left out with `policyRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetRef>,
    /// Where to keep it; unset means the policy's storage, or the PersistentVolumeClaim
    /// `backup-storage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageRef>,
    /// The form of the archive; unset means as the policy says, or `TarGz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// What happens to the data when this object is deleted; unset means as the policy says when the
    /// run begins, or `Delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// How long it may wait for its pod to start before it fails, in seconds; unset means as the
    /// policy says, or 1800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub start_deadline_seconds: Option<u32>,
    /// How much is read back before it is called Completed; unset means as the policy says, or in
    /// full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<BackupVerification>,
    /// What makes it suspicious; unset means as the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// How the mover pod runs; unset means as the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mover: Option<Box<MoverSpec>>,
    /// An archive that is in storage already, made by a Backup that this cluster does not have: this
    /// object stands for it, and nothing is backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Box<StoredArchive>>,
    /// Ends the run if it has not ended: its pod is stopped, and what it half wrote is removed.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self || !oldSelf").message("cancel cannot be taken back: make another Backup"))]
    pub cancel: bool,
}

/// An archive that is in storage, as its manifest describes it. A restore relies on what stands here,
/// and refuses an archive that is anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredArchive {
    /// Name of the Backup that made it, by which it is found in storage.
    #[schemars(with = "ObjectName")]
    pub backup_name: String,
    /// UID of the Backup that made it (`source.uid` of the manifest).
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._-]+$')").message("backupUID must be letters, digits, '-', '_' and '.'"))]
    #[serde(rename = "backupUID")]
    pub backup_uid: String,
    /// Whether it is encrypted (the manifest has `encryption`).
    #[serde(default)]
    pub encrypted: bool,
    /// `sha256:` and 64 hex digits over the archive as it is stored (`archive.sha256`).
    #[schemars(length(min = 71, max = 71))]
    #[x_kube(validation = Rule::new("self.matches('^sha256:[0-9a-f]{64}$')").message("digest must be sha256: and 64 lower-case hex digits"))]
    pub digest: String,
    /// Size of the archive, in bytes (`archive.bytes`).
    #[schemars(range(min = 0))]
    pub stored_bytes: i64,
    /// Sum of the sizes of the files, in bytes (`logicalBytes`).
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub logical_bytes: i64,
    /// Regular files (`counts.files`).
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub files: i64,
    /// When the first byte was read (`startedAt`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the last byte was written (`finishedAt`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Until when the storage lets nobody remove it (`lockedUntil`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Time>,
}

/// What the operator knows of a backup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Where it stands; `Completed` and `Failed` are final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The generation of the spec that this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When its Job was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// How long it took, such as `1m6s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The PersistentVolumeClaim that is backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc_name: Option<String>,
    /// The PersistentVolumeClaim that holds the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_pvc_name: Option<String>,
    /// The BackupStorage or ClusterBackupStorage it is kept at; unset for a PersistentVolumeClaim
    /// that was named itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageUsed>,
    /// `<namespace>/<pvc>/<backup>.tar.gz`, or `.tar.zst`, below the storage's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_location: Option<String>,
    /// The Job that does the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// The form of the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// What happens to the data when this object is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// User and groups that the mover ran as; unset where it was root. Who restores or removes the
    /// archive in a restricted namespace runs as they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Box<SecurityContextStatus>>,
    /// How much was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeStatus>,
    /// Until when its storage lets nobody remove its data; unset where it is not locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Time>,
    /// `sha256:` and 64 hex digits over the archive as it is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When it was last read back from storage, how much of it, and with what result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationStatus>,
    /// What stood in the volume's folder in storage when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<Box<FolderStatus>>,
    /// Since when it is being brought to its end: its pod is stopped, and what it half wrote is
    /// taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending_since: Option<Time>,
    /// The Job that takes back what it half wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_job_name: Option<String>,
    /// How far it is while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Box<ProgressStatus>>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Box<FailureStatus>>,
    /// `Ready`: True once completed, False with the reason otherwise. `Verified`: whether what is
    /// stored was read back and is as it was written. `Suspicious`: whether the source was empty
    /// or shrank by much. `Queued`: whether it waits for its turn, and since when, once it ever did.
    /// `Stalled`: there once it has failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The last reading back of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerificationStatus {
    /// When.
    pub time: Time,
    /// How much was read.
    pub level: VerificationLevel,
    /// What came of it.
    pub result: VerificationResult,
    /// What is wrong, and where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What came of reading a backup back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum VerificationResult {
    /// It is as it was written.
    Passed,
    /// It is damaged.
    Failed,
    /// It is not there.
    Missing,
}

/// User and groups of a mover that was not root, named as in a pod's securityContext.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContextStatus {
    /// User ID.
    pub run_as_user: i64,
    /// Group ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_group: Option<i64>,
    /// Group that owns the volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_group: Option<i64>,
    /// Further groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supplemental_groups: Vec<i64>,
}

/// How far a run under way was when its mover was last heard. It is missing where the mover cannot
/// be reached, which does not disturb the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressStatus {
    /// When that was.
    pub time: Time,
    /// What is being done.
    pub step: ProgressStep,
    /// Bytes done in this step: of files while saving or restoring, else of storage.
    pub bytes: i64,
    /// How many it will be; while saving, as many as the newest backup of the claim held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
    /// Files done in this step.
    pub files: i64,
    /// How many it will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_files: Option<i64>,
    /// Bytes per second since it was heard before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<i64>,
    /// When this step ends at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_step_end: Option<Time>,
    /// All of it in a line.
    pub summary: String,
}

/// What a run does one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ProgressStep {
    /// It looks at storage, source or target.
    Preparing,
    /// It reads the source and writes the archive.
    Saving,
    /// It reads back what was stored.
    Verifying,
    /// It reads the stored backup before a restore.
    Checking,
    /// It writes the target.
    Restoring,
    /// It compares the target with the backup.
    Comparing,
}

/// How much was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SizeStatus {
    /// Sum of the sizes of the files, in bytes.
    pub logical_bytes: i64,
    /// Size of the archive, in bytes.
    pub stored_bytes: i64,
    /// Size of the archive for a person, such as `12.3 MiB`.
    pub stored: String,
    /// Regular files.
    pub files: i64,
    /// Everything else, such as folders and links, the volume's root included; 0 where that was not
    /// counted.
    #[serde(default)]
    pub others: i64,
    /// Files that changed while they were read, and still did when read again; their copies may
    /// mix old and new content.
    #[serde(default)]
    pub changed_files: i64,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureStatus {
    /// One word.
    pub reason: String,
    /// What happened, to what, and what to do.
    pub message: String,
    /// The first paths it happened to, relative to the volume's root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// How many paths it happened to in all.
    #[serde(default)]
    pub paths_total: i64,
}
