//! Looking after the folder of one volume in storage.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidelock_protocol::{Failure, FolderReport, Household, Location, RunId};
use tidelock_storage::{ErrorClass, Storage, StorageError};

use crate::failure::of_storage;

/// A temporary that was written to within this time is left alone, whoever it belongs to.
const MIN_AGE: Duration = Duration::from_secs(3600);
/// Ends the key of every manifest.
const MANIFEST: &str = Location::MANIFEST_ENDING;
/// End the keys of the other objects of a backup, whatever its format.
const DATA: &[&str] = &Location::DATA_ENDINGS;

/// Removes what dead runs left unfinished in the folder of `own`, and tells which other backups
/// stand there, and which archives that were never finished.
///
/// # Guarantees
/// - A temporary goes only when the cluster knows of no run that may own it and when it was not
///   written to for an hour, by the clock of the storage. Objects are never removed.
/// - What is told as unfinished is of no run that the cluster knows of.
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
            .sweep_dead(&own.manifest_key(), &run.uid, MIN_AGE, &is_alive)
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
        let file = key.strip_prefix(prefix).unwrap_or(key);
        if file.contains('/') {
            return Ok(());
        }
        let is_unknown = |name| known.as_ref().is_some_and(|known| !known.contains(name));
        if let Some(name) = file.strip_suffix(MANIFEST) {
            if key != own_manifest {
                folder.archives += 1;
                if is_unknown(name) {
                    folder.unknown.push(name.as_bytes());
                }
            }
        } else if let Some(part) = part_of(file)
            && is_unknown(part.1)
            && let Some(name) = left_over(storage, prefix, part)?
            && own_manifest.strip_prefix(prefix) != Some(&format!("{name}{MANIFEST}"))
        {
            folder.unknown.push(name.as_bytes());
        }
        Ok(())
    });
    listed.map_err(|e| of_storage(&e))?;
    Ok(folder)
}

/// Which part of which backup the object `file` is.
fn part_of(file: &str) -> Option<(usize, &str)> {
    let mut parts = DATA.iter().enumerate();
    parts.find_map(|(nth, ending)| Some((nth, file.strip_suffix(ending)?)))
}

/// The name of the backup that has the object in the folder `prefix` as its part of that number, where
/// it has no manifest; none for any but the first of its parts, so that each is told once.
fn left_over<'f>(
    storage: &dyn Storage,
    prefix: &str,
    (nth, name): (usize, &'f str),
) -> Result<Option<&'f str>, StorageError> {
    for before in [MANIFEST].iter().chain(&DATA[..nth]) {
        match storage.head(&format!("{prefix}{name}{before}")) {
            Ok(_) => return Ok(None),
            Err(error) if error.class == ErrorClass::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(name))
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
