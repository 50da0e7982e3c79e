//! Removing backups from storage.

use std::sync::atomic::{AtomicBool, Ordering};

use tidelock_protocol::{DeleteFailure, DeleteItem, DeleteReport, DeleteTask, Failure};
use tidelock_storage::{ErrorClass, Storage};

use crate::failure::{of_storage, stopped};
use crate::stored::{has_manifest, manifest_bytes, owner_uid};

/// Items told in full; the rest are counted.
const MAX_TOLD: usize = 10;

/// Removes the backups of `task`; one that fails does not keep the others.
///
/// # Guarantees
/// - The manifest goes first: what is left of a deletion that was killed is no backup.
/// - A manifest of another UID, or one that cannot be read, protects its objects. The former
///   counts as done, because nothing of the item is left there; the latter as failed.
/// - Where there is no manifest, what stands there goes, and the temporaries of the item's run.
/// - Where only what was never finished is to go, a manifest protects its objects whoever's it is.
/// - It writes nothing, so it works on a full store.
///
/// # Assumptions
/// No pod of the items' runs is alive.
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

/// Removes one backup, or what a run that ended before its manifest left; gives the bytes it took.
fn delete_item(storage: &dyn Storage, item: &DeleteItem) -> Result<u64, Failure> {
    let location = &item.location;
    let mut freed = 0;
    if !item.unfinished_only && is_own(storage, item)? {
        freed += delete_object(storage, &location.manifest_key())?;
    }
    // Whatever the format: one that dies early is tried again, perhaps in another.
    for key in location.data_keys().iter().rev() {
        // A Backup that was made again under the same name may publish at any moment.
        if has_manifest(storage, location)? {
            tracing::warn!(%location, "a finished backup stands there and was left alone");
            break;
        }
        freed += delete_object(storage, key)?;
    }
    storage
        .sweep(&location.manifest_key(), &item.backup_uid)
        .map_err(|e| of_storage(&e))?;
    Ok(freed)
}

/// Whether the manifest at the item's place is the item's; false also where there is none.
///
/// # Errors
/// A manifest that does not tell whose it is.
fn is_own(storage: &dyn Storage, item: &DeleteItem) -> Result<bool, Failure> {
    let location = &item.location;
    let Some(bytes) = manifest_bytes(storage, location)? else {
        return Ok(false);
    };
    match owner_uid(&bytes) {
        Some(uid) => Ok(uid == item.backup_uid),
        None => {
            let what = format!(
                "{:?} is damaged, so nobody can tell whose backup it is",
                location.manifest_key()
            );
            let mut failure = crate::failure::corrupt(&what);
            failure.message = format!("{what}; remove its objects by hand");
            Err(failure)
        }
    }
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
