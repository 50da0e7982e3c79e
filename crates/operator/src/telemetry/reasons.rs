//! Reasons of conditions and Events, in one place.

/// A Backup or Restore waits for its checks.
pub const PENDING: &str = "Pending";
/// A run's Job is under way.
pub const RUNNING: &str = "Running";
/// A run's Job waits for its pod.
pub const STARTING: &str = "Starting";
/// A run's pod does not start.
pub const POD_PENDING: &str = "PodPending";
/// A run that fails is being stopped.
pub const STOPPING: &str = "Stopping";
/// What a failed run half wrote is being taken back.
pub const TAKING_BACK: &str = "TakingBack";
/// A run waits for its turn.
pub const QUEUED: &str = "Queued";
/// A run does not wait for its turn, or no longer.
pub const NOT_QUEUED: &str = "NotQueued";
/// A run ended well.
pub const COMPLETED: &str = "Completed";

/// A Backup stands for an archive that was in storage already.
pub const DISCOVERED: &str = "Discovered";
/// Event: a Backup stands for an archive that was in storage already.
pub const BACKUP_DISCOVERED: &str = "BackupDiscovered";
/// What is stored was read back and is as it was written.
pub const READ_BACK: &str = "ReadBack";
/// Nothing was read back.
pub const NOT_VERIFIED: &str = "NotVerified";
/// What is stored is damaged.
pub const ARCHIVE_DAMAGED: &str = "ArchiveDamaged";
/// What was stored is not there any more.
pub const ARCHIVE_MISSING: &str = "ArchiveMissing";
/// A Backup is like the one before it.
pub const AS_EXPECTED: &str = "AsExpected";
/// A person says that a suspicious Backup is as it should be.
pub const ACCEPTED: &str = "Accepted";
/// Event: a Backup is of an empty volume, or of one that shrank by much.
pub const BACKUP_SUSPICIOUS: &str = "BackupSuspicious";

/// A policy follows its schedule.
pub const SCHEDULED: &str = "Scheduled";
/// A policy starts no new backups.
pub const SUSPENDED: &str = "Suspended";
/// The API server does not take a due slot's Backup.
pub const BACKUP_REFUSED: &str = "BackupRefused";
/// A due slot waits for an earlier backup.
pub const WAITING_FOR_ACTIVE: &str = "WaitingForActive";
/// A schedule or time zone that cannot be followed.
pub const INVALID_SCHEDULE: &str = "InvalidSchedule";

/// A named BackupPolicy does not exist.
pub const POLICY_NOT_FOUND: &str = "PolicyNotFound";
/// A Backup names another PVC than its policy.
pub const TARGET_MISMATCH: &str = "TargetMismatch";
/// A PVC does not exist.
pub const PVC_NOT_FOUND: &str = "PVCNotFound";
/// A PVC has no volume yet, or lost it.
pub const PVC_NOT_BOUND: &str = "PVCNotBound";
/// A PVC is being deleted.
pub const PVC_TERMINATING: &str = "PVCTerminating";
/// A PVC of a raw block device.
pub const VOLUME_MODE_BLOCK: &str = "VolumeModeBlock";
/// The storage PVC does not exist.
pub const STORAGE_NOT_FOUND: &str = "StorageNotFound";
/// The storage PVC cannot be used.
pub const STORAGE_UNUSABLE: &str = "StorageUnusable";
/// The BackupStorage takes and gives nothing for now.
pub const STORAGE_SUSPENDED: &str = "StorageSuspended";
/// The BackupStorage takes no new data.
pub const STORAGE_READ_ONLY: &str = "StorageReadOnly";
/// The ClusterBackupStorage is not for this namespace.
pub const STORAGE_NOT_ALLOWED: &str = "StorageNotAllowed";
/// A volume would be saved into, or restored over, itself.
pub const STORAGE_IS_TARGET: &str = "StorageIsTarget";

/// Volumes that only one node can have are in use on different nodes.
pub const VOLUMES_APART: &str = "VolumesApart";
/// A volume that only one pod can have is in use.
pub const VOLUME_IN_USE: &str = "VolumeInUse";
/// A pod uses the volume that a Restore would write into.
pub const TARGET_IN_USE: &str = "TargetInUse";
/// The mover cannot run as root, and nobody tells as whom else.
pub const PRIVILEGE_UNKNOWN: &str = "PrivilegeUnknown";

/// The Backup to restore does not exist.
pub const BACKUP_NOT_FOUND: &str = "BackupNotFound";
/// The Backup to restore is not Completed.
pub const BACKUP_NOT_COMPLETED: &str = "BackupNotCompleted";
/// A PVC of the template's name exists and was not made by this Restore.
pub const TARGET_EXISTS: &str = "TargetExists";
/// The API server refuses the template.
pub const TARGET_REFUSED: &str = "TargetRefused";
/// The API server refuses the Job.
pub const JOB_REFUSED: &str = "JobRefused";

/// A Job ended well but left no report that can be believed.
pub const REPORT_MISSING: &str = "ReportMissing";
/// A report that does not fit what was asked for.
pub const REPORT_MISMATCH: &str = "ReportMismatch";
/// A mover ended without a report.
pub const MOVER_FAILED: &str = "MoverFailed";
/// A mover hit its memory limit.
pub const OUT_OF_MEMORY: &str = "OutOfMemory";
/// A run took longer than its time-out.
pub const TIMED_OUT: &str = "TimedOut";

/// A Backup is being deleted, and its data is on its way out.
pub const DELETING: &str = "Deleting";

/// A BackupStorage was looked at, and can be used.
pub const STORAGE_READY: &str = "StorageReady";
/// Event: a BackupStorage cannot be used.
pub const STORAGE_NOT_READY: &str = "StorageNotReady";
/// A BackupStorage is being looked at for the first time.
pub const STORAGE_CHECKING: &str = "Checking";
/// Event: Backups were made for archives that none stood for.
pub const BACKUPS_DISCOVERED: &str = "BackupsDiscovered";

/// Event: a reconcile fails again and again.
pub const RECONCILE_FAILED: &str = "ReconcileFailed";
/// Event: a Backup begins.
pub const BACKUP_STARTED: &str = "BackupStarted";
/// Event: a Job was made.
pub const JOB_CREATED: &str = "JobCreated";
/// Event: a Backup ended well.
pub const BACKUP_COMPLETED: &str = "BackupCompleted";
/// Event: a Backup failed.
pub const BACKUP_FAILED: &str = "BackupFailed";
/// Event: files changed while they were read.
pub const FILES_CHANGED: &str = "FilesChanged";
/// Event: sockets were left out.
pub const FILES_SKIPPED: &str = "FilesSkipped";
/// Event: a Backup waits for something.
pub const BACKUP_WAITING: &str = "BackupWaiting";
/// Event: a policy made a Backup.
pub const BACKUP_CREATED: &str = "BackupCreated";
/// Event: a slot was given up.
pub const MISSED_SCHEDULE: &str = "MissedSchedule";
/// Event: retention deleted Backups.
pub const CLEANUP_TRIGGERED: &str = "CleanupTriggered";
/// Event: data of a deleted Backup could not be removed yet.
pub const CLEANUP_FAILED: &str = "CleanupFailed";
/// Event: data of a deleted Backup is gone from storage.
pub const DATA_DELETED: &str = "DataDeleted";
/// Event: data of a deleted Backup stays in storage.
pub const DATA_RETAINED: &str = "DataRetained";
/// Event: data of a deleted Backup stays until a Restore has read it.
pub const DATA_HELD: &str = "DataHeld";
/// Event: a Restore was pinned to a Backup.
pub const BACKUP_CHOSEN: &str = "BackupChosen";
/// Event: a Restore completed without metadata that its target refused.
pub const METADATA_LOST: &str = "MetadataLost";
/// The Backup to restore was not read back, or was found damaged.
pub const BACKUP_NOT_VERIFIED: &str = "BackupNotVerified";
/// Event: a deleted policy let its Backups go.
pub const BACKUPS_RELEASED: &str = "BackupsReleased";
/// Event: a Restore begins.
pub const RESTORE_STARTED: &str = "RestoreStarted";
/// Event: a Restore waits for something.
pub const RESTORE_WAITING: &str = "RestoreWaiting";
/// Event: a PVC was made.
pub const TARGET_CREATED: &str = "TargetCreated";
/// Event: the target of a deleted Restore that had failed is as it was.
pub const TARGET_PUT_BACK: &str = "TargetPutBack";
/// Event: the target of a deleted Restore that had failed could not be put back.
pub const TARGET_LEFT: &str = "TargetLeft";
/// Event: a Restore ended well.
pub const RESTORE_COMPLETED: &str = "RestoreCompleted";
/// Event: a Restore failed.
pub const RESTORE_FAILED: &str = "RestoreFailed";

/// Whether no watch tells when this has passed, since it hangs on pods that are not ours.
pub fn is_unwatched(reason: &str) -> bool {
    matches!(
        reason,
        VOLUMES_APART
            | VOLUME_IN_USE
            | TARGET_IN_USE
            | PRIVILEGE_UNKNOWN
            | STORAGE_NOT_FOUND
            | STORAGE_SUSPENDED
            | STORAGE_NOT_ALLOWED
    )
}

/// Where an Event stands among those of the same second about the same object.
pub fn rank(reason: &str) -> u8 {
    match reason {
        BACKUP_WAITING | RESTORE_WAITING | BACKUP_CHOSEN | QUEUED => 0,
        BACKUP_STARTED | RESTORE_STARTED => 1,
        TARGET_CREATED => 2,
        JOB_CREATED => 3,
        FILES_CHANGED | FILES_SKIPPED | BACKUP_SUSPICIOUS | METADATA_LOST => 4,
        BACKUP_COMPLETED | BACKUP_FAILED | RESTORE_COMPLETED | RESTORE_FAILED => 5,
        _ => 6,
    }
}
