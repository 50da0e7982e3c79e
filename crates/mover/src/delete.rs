//! Removing backups from storage.

use std::sync::atomic::{AtomicBool, Ordering};

use tidelock_protocol::{DeleteFailure, DeleteItem, DeleteReport, DeleteTask, Failure};
use tidelock_storage::{ErrorClass, Storage};

use crate::failure::{of_storage, stopped};
use crate::stored::{manifest_bytes, owner_uid};

/// Items told in full; the rest are counted.
const MAX_TOLD: usize = 10;

/// Removes the backups of `task`; one that fails does not keep the others.
///
/// # Guarantees
/// - The manifest goes first: what is left of a deletion that was killed is no backup.
/// - A manifest of another UID, or one that cannot be read, protects its objects. The former
///   counts as done, because nothing of the item is left there; the latter as failed.
pub(crate) fn delete(
    storage: &dyn Storage,
    task: &DeleteTask,
    stop: &AtomicBool,
) -> Result<DeleteReport, Failure> {
    let mut report = DeleteReport {
        deleted: 0,
        freed_bytes: 0,
        failed: Vec::new(),
        failed_total: 0,
    };
    for item in &task.items {
        if stop.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        match delete_item(storage, item) {
            Ok(freed) => {
                report.deleted += 1;
                report.freed_bytes += freed;
                tracing::info!(location = %item.location, freed_bytes = freed, "deleted");
            }
            Err(failure) => {
                report.failed_total += 1;
                tracing::error!(location = %item.location, error = failure.message, "not deleted");
                if report.failed.len() < MAX_TOLD {
                    report.failed.push(DeleteFailure {
                        location: item.location.clone(),
                        message: failure.message,
                    });
                }
            }
        }
    }
    Ok(report)
}

/// Removes one backup; gives the bytes it took.
fn delete_item(storage: &dyn Storage, item: &DeleteItem) -> Result<u64, Failure> {
    let location = &item.location;
    if let Some(bytes) = manifest_bytes(storage, location)? {
        match owner_uid(&bytes) {
            Some(uid) if uid == item.backup_uid => {}
            Some(uid) => {
                tracing::warn!(%location, uid, "belongs to another Backup and was left alone");
                return Ok(0);
            }
            None => {
                let what = format!(
                    "{:?} is damaged, so nobody can tell whose backup it is",
                    location.manifest_key()
                );
                let mut failure = crate::failure::corrupt(&what);
                failure.message = format!("{what}; remove its objects by hand");
                return Err(failure);
            }
        }
    }
    let mut freed = 0;
    for key in [
        location.manifest_key(),
        location.digest_key(),
        location.index_key(),
        location.archive_key(),
    ] {
        freed += delete_object(storage, &key)?;
    }
    storage
        .sweep(&location.archive_key(), &item.backup_uid)
        .map_err(|e| of_storage(&e))?;
    Ok(freed)
}

fn delete_object(storage: &dyn Storage, key: &str) -> Result<u64, Failure> {
    let bytes = match storage.head(key) {
        Ok(info) => info.bytes,
        Err(error) if error.class == ErrorClass::NotFound => return Ok(0),
        Err(error) => return Err(of_storage(&error)),
    };
    let there = storage.delete(key).map_err(|e| of_storage(&e))?;
    Ok(if there { bytes } else { 0 })
}
