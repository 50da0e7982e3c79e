//! The custom resources of `tidelock.dev/v1alpha1`: what users write and read with kubectl.
//!
//! Validation that the API server can do stands here as schema and CEL; what only the cluster can
//! tell is a condition that the operator sets.

#![allow(
    clippy::duplicated_attributes,
    reason = "the lint takes the printer columns inside #[kube(…)] for repeats"
)]

mod backup;
mod common;
mod immutable;
mod policy;
mod restore;
mod storage;

pub use backup::{
    Backup, BackupSpec, BackupStatus, FailureStatus, ProgressStatus, ProgressStep,
    SecurityContextStatus, SizeStatus, StoredArchive, VerificationResult, VerificationStatus,
};
pub use common::{
    BackupVerification, ConcurrencyPolicy, DeletionPolicy, Format, Guard, MoverResources,
    MoverSpec, Phase, Privilege, StorageKind, StorageRef, StorageUsed, TargetRef, Toleration,
    TolerationEffect, TolerationOperator, VerificationLevel,
};
pub use policy::{
    BackupPolicy, BackupPolicySpec, BackupPolicyStatus, FolderStatus, LastBackup,
    PolicyVerification, Retention,
};
pub use restore::{
    ChangeStatus, ChangesStatus, MetadataLossStatus, Overwrite, Restore, RestoreFrom, RestoreSpec,
    RestoreStatus, TargetTemplate, TargetTemplateMetadata, TargetTemplateResources,
    TargetTemplateSpec,
};

pub use storage::{
    BackupStorage, BackupStorageSpec, BackupStorageStatus, CaBundle, ClusterBackupStorage,
    ClusterBackupStorageSpec, CredentialsRef, Encryption, IdentityRef, LockMode, ObjectLock,
    PvcStorage, S3Storage, ServerSideEncryption,
};

/// API group of every resource.
pub const GROUP: &str = "tidelock.dev";
/// API version of every resource.
pub const VERSION: &str = "v1alpha1";

/// Finalizer on a Backup: its data goes before the object does.
pub const DATA_FINALIZER: &str = "tidelock.dev/data";
/// Finalizer on a BackupPolicy: its Backups are released before the policy goes.
pub const POLICY_FINALIZER: &str = "tidelock.dev/release-backups";

/// Finalizer on a Restore: a target that is half written is put back before the object goes.
pub const RESTORE_FINALIZER: &str = "tidelock.dev/restore";

/// Label on a Backup: the policy it belongs to (shortened with a hash beyond 63 characters).
pub const POLICY_LABEL: &str = "tidelock.dev/policy";
/// Label on a Backup: the PVC it saves (shortened with a hash beyond 63 characters).
pub const PVC_LABEL: &str = "tidelock.dev/pvc";
/// Label on Jobs and Pods: the kind of object they work for.
pub const RUN_KIND_LABEL: &str = "tidelock.dev/run-kind";
/// Label on Jobs and Pods: the UID of the object they work for.
pub const RUN_UID_LABEL: &str = "tidelock.dev/run-uid";
/// Annotation on a Backup made by a schedule: the slot it stands for, RFC 3339.
pub const SLOT_ANNOTATION: &str = "tidelock.dev/scheduled-for";
/// Annotation on a PVC made from a template: the UID of the Restore that made it.
pub const RESTORE_UID_ANNOTATION: &str = "tidelock.dev/restore-uid";

/// Annotation on a Backup whose dates lie ahead, because a clock did: a moment by which it was
/// there. Retention places it by this.
pub const THERE_BY_ANNOTATION: &str = "tidelock.dev/there-by";

/// On a Backup that its policy cancelled: the slot, as RFC 3339, that it had to make room for
/// (`concurrencyPolicy: Replace`).
pub const REPLACED_ANNOTATION: &str = "tidelock.dev/replaced-for";

/// Annotation on a failed Restore whose target was not put back (`status.undoPending`): `"true"` says
/// that deleting it is to put the target back, and to take what was put into it since.
pub const PUT_BACK_ANNOTATION: &str = "tidelock.dev/put-back";

/// Annotation on a Backup with `spec.archive`: `"true"` says that deleting it removes the archive too,
/// which else stays.
pub const DELETE_DATA_ANNOTATION: &str = "tidelock.dev/delete-data";
/// Label on a Backup that was found in storage; its value is the name of the BackupStorage.
pub const DISCOVERED_LABEL: &str = "tidelock.dev/discovered-in";

/// Annotation on a suspicious Backup: `"true"` says that it is as it should be.
pub const ACCEPT_ANNOTATION: &str = "tidelock.dev/accept-suspicious";

/// The PVC that holds backups where nothing else is named.
pub const DEFAULT_STORAGE_PVC: &str = "backup-storage";
/// How long a run may wait for its pod before it fails, where nothing else is said: 30 minutes.
pub const DEFAULT_START_DEADLINE_SECONDS: u32 = 1800;
/// After how long without a moved byte a mover gives up, where nothing else is said: 30 minutes.
pub const DEFAULT_STALL_TIMEOUT_SECONDS: u32 = 1800;
/// By how much a volume may shrink before its backup is suspicious, where nothing else is said.
pub const DEFAULT_MAX_SHRINK_PERCENT: u32 = 50;

/// Type of the one condition that sums an object up (kstatus).
pub const READY: &str = "Ready";
/// Type of the condition, there only while it is True, that says that nothing more will come of the
/// object as it is (kstatus): a run has failed, or a schedule cannot be followed.
pub const STALLED: &str = "Stalled";
/// Type of the condition that says whether what is stored was read back and compared.
pub const VERIFIED: &str = "Verified";
/// Type of the condition that says whether a source was empty or shrank by much.
pub const SUSPICIOUS: &str = "Suspicious";
/// Type of the condition that says whether a run waits for its turn.
pub const QUEUED: &str = "Queued";
/// Type of the condition that says whether a policy is suspended.
pub const SUSPENDED: &str = "Suspended";
