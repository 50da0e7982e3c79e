//! Looking after the folder of one volume in storage.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidelock_protocol::{Failure, FolderReport, Household, Location, RunId};
use tidelock_storage::{Storage, StorageError};

use crate::failure::of_storage;

/// A temporary that was written to within this time is left alone, whoever it belongs to.
const MIN_AGE: Duration = Duration::from_secs(3600);
/// Ends the key of every manifest.
const MANIFEST: &str = ".manifest.json";

/// Removes what dead runs left unfinished in the folder of `own`, and tells which other backups
/// stand there.
///
/// # Guarantees
/// - A temporary goes only when the cluster knows of no run that may own it and when it was not
///   written to for an hour, by the clock of the storage. Objects are never removed.
/// - Memory is bounded by the request, however many backups there are.
pub(crate) fn look_after(
    storage: &dyn Storage,
    run: &RunId,
    own: &Location,
    household: &Household,
    stop: &AtomicBool,
) -> Result<FolderReport, Failure> {
    let mut folder = FolderReport::default();
    if let Some(active) = &household.active {
        let active: HashSet<&str> = active.iter().map(String::as_str).collect();
        let is_alive = |uid: &str| uid == run.uid || active.contains(uid);
        folder.swept = storage
            .sweep_dead(&own.archive_key(), &run.uid, MIN_AGE, &is_alive)
            .map_err(|e| of_storage(&e))?;
    }
    let known: Option<HashSet<&str>> = household
        .known
        .as_ref()
        .map(|known| known.iter().map(String::as_str).collect());
    let own_manifest = own.manifest_key();
    let prefix = folder_of(&own_manifest);
    let listed = storage.list(prefix, &mut |key, _| {
        if stop.load(Ordering::Relaxed) {
            let stopped = io::Error::from(io::ErrorKind::Interrupted);
            return Err(StorageError::of_os("list", prefix, stopped));
        }
        let name = key.strip_prefix(prefix).unwrap_or(key);
        let Some(name) = name.strip_suffix(MANIFEST).filter(|n| !n.contains('/')) else {
            return Ok(());
        };
        if key == own_manifest {
            return Ok(());
        }
        folder.archives += 1;
        if known.as_ref().is_some_and(|known| !known.contains(name)) {
            folder.unknown.push(name.as_bytes());
        }
        Ok(())
    });
    listed.map_err(|e| of_storage(&e))?;
    Ok(folder)
}

/// `key` up to its last slash.
fn folder_of(key: &str) -> &str {
    let end = key.rfind('/').map_or(0, |at| at + 1);
    &key[..end]
}

/// What [`look_after`] found; nothing when it failed, which keeps no backup from its work.
pub(crate) fn told(found: Result<FolderReport, Failure>) -> Option<FolderReport> {
    found
        .inspect_err(|failure| {
            tracing::warn!(error = failure.message, "the folder was not looked after");
        })
        .ok()
}
