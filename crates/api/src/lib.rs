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
mod policy;
mod restore;

pub use backup::{Backup, BackupSpec, BackupStatus, FailureStatus, SizeStatus};
pub use common::{
    ConcurrencyPolicy, DeletionPolicy, Format, MoverResources, MoverSpec, Phase, StorageRef,
    TargetRef, Toleration, TolerationEffect, TolerationOperator,
};
pub use policy::{BackupPolicy, BackupPolicySpec, BackupPolicyStatus, LastBackup, Retention};
pub use restore::{
    Restore, RestoreSpec, RestoreStatus, TargetTemplate, TargetTemplateMetadata,
    TargetTemplateResources, TargetTemplateSpec,
};

/// API group of every resource.
pub const GROUP: &str = "tidelock.dev";
/// API version of every resource.
pub const VERSION: &str = "v1alpha1";

/// Finalizer on a Backup: its data goes before the object does.
pub const DATA_FINALIZER: &str = "tidelock.dev/data";
/// Finalizer on a BackupPolicy: its Backups are released before the policy goes.
pub const POLICY_FINALIZER: &str = "tidelock.dev/release-backups";

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

/// The PVC that holds backups where nothing else is named.
pub const DEFAULT_STORAGE_PVC: &str = "backup-storage";
/// How long a run may wait for its pod before it fails, where nothing else is said: 30 minutes.
pub const DEFAULT_START_DEADLINE_SECONDS: u32 = 1800;

/// Type of the one condition that sums an object up (kstatus).
pub const READY: &str = "Ready";
