//! Locks on what a backup stored, where its store has them.

use jiff::{SignedDuration, Timestamp};
use tidelock_archive::Manifest;
use tidelock_protocol::{BackupTask, Failure, ObjectLock};
use tidelock_storage::{Lock, LockMode, Storage};

use crate::failure::of_storage_write;

/// When the lock of a backup ends that was finished at `finished`.
pub(crate) fn end(lock: ObjectLock, finished: Timestamp) -> Timestamp {
    let days = SignedDuration::from_hours(24 * i64::from(lock.days));
    let end = finished.checked_add(days).unwrap_or(Timestamp::MAX);
    // Stores keep whole seconds.
    Timestamp::from_second(end.as_second()).unwrap_or(end)
}

/// Locks all that `manifest` makes a backup; nothing where that is not wanted.
///
/// # Crash window
/// Only what is proved and published is locked, so that nothing a failed run leaves is. A run that dies
/// before all is locked is tried again, finds its backup there, and locks it.
pub(crate) fn all(
    storage: &dyn Storage,
    manifest: &Manifest,
    task: &BackupTask,
) -> Result<(), Failure> {
    let (Some(until), Some(wanted)) = (manifest.locked_until, task.lock) else {
        return Ok(());
    };
    let mode = match wanted.mode {
        tidelock_protocol::LockMode::Governance => LockMode::Governance,
        tidelock_protocol::LockMode::Compliance => LockMode::Compliance,
    };
    let lock = Lock { mode, until };
    let is_encrypted = manifest.encryption.is_some();
    let keys = [
        &manifest.archive.key,
        &manifest.index.key,
        &task.location.digest_key(task.format, is_encrypted),
        &task.location.manifest_key(),
    ];
    keys.iter()
        .try_for_each(|key| storage.lock(key, &lock))
        .map_err(|error| of_storage_write(&error))
}
