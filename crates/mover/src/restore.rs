//! From a stored backup into an empty directory.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tidelock_archive::{
    Content, Manifest, ObjectRef, Target, unpack, verify_archive, verify_index, verify_object,
};
use tidelock_protocol::{Failure, FailureReason, Location, RestoreReport, RestoreTask, RunId};
use tidelock_storage::{ErrorClass, Storage};

use crate::failure::{corrupt, failure, of_restore, of_storage};
use crate::stored::{manifest_bytes, parse_manifest};

/// Checks the backup of `task`, then unpacks it into the empty target.
///
/// # Guarantees
/// Before the first write: the manifest is whole, known and the one the cluster expects; index
/// and archive have its digests; the target is empty, or holds what this very run wrote before.
pub(crate) fn restore(
    storage: &dyn Storage,
    run: &RunId,
    task: &RestoreTask,
    stop: &AtomicBool,
) -> Result<RestoreReport, Failure> {
    let clock = Instant::now();
    let mut target = Target::open(Path::new(&task.target_path), &run.uid)
        .map_err(|e| touched(of_restore(&e), false))?;
    let resume = check_target(
        &target
            .content()
            .map_err(|e| touched(of_restore(&e), false))?,
    )
    .map_err(|failure| touched(failure, false))?;
    let [archive, members, entries] = ready(storage, task, &mut target, resume, stop)
        .map_err(|failure| touched(failure, resume))?;
    let done = unpack(&target, resume, archive, members, entries, stop)
        .map_err(|e| touched(of_restore(&e), true))?;
    Ok(RestoreReport {
        logical_bytes: done.logical_bytes,
        files: done.files,
        others: done.others,
        duration_ms: u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// `failure`, saying whether anything of the backup is in the target.
fn touched(mut failure: Failure, touched: bool) -> Failure {
    failure.target_touched = Some(touched);
    failure
}

/// All checks, then the claim of the target, then a last look at it: the checks read the whole
/// archive, and something may have come into the target meanwhile.
fn ready(
    storage: &dyn Storage,
    task: &RestoreTask,
    target: &mut Target,
    resume: bool,
    stop: &AtomicBool,
) -> Result<[Object; 3], Failure> {
    let manifest = checked_manifest(storage, task)?;
    verify(storage, &manifest, stop)?;
    let objects = open_all(storage, &manifest)?;
    target.claim().map_err(|e| of_restore(&e))?;
    if !resume {
        let content = target.content_beside_marker().map_err(|e| of_restore(&e));
        let checked = content.and_then(|content| check_target(&content));
        if let Err(failure) = checked {
            target.give_back();
            return Err(failure);
        }
    }
    Ok(objects)
}

/// The manifest, checked against what the cluster says of the backup.
fn checked_manifest(storage: &dyn Storage, task: &RestoreTask) -> Result<Manifest, Failure> {
    let location = &task.location;
    let bytes = manifest_bytes(storage, location)?.ok_or_else(|| not_found(location))?;
    let manifest = parse_manifest(&bytes, location)?;
    let expected = &task.expected;
    let differs = |what: &str, stored: &str, wanted: &str| {
        corrupt(&format!(
            "{:?} says {what} {stored}, the cluster says {wanted}",
            location.manifest_key()
        ))
    };
    if manifest.source.uid != expected.backup_uid {
        return Err(differs(
            "Backup UID",
            &manifest.source.uid,
            &expected.backup_uid,
        ));
    }
    let digest = format!("sha256:{}", manifest.archive.sha256);
    if digest != expected.digest {
        return Err(differs("digest", &digest, &expected.digest));
    }
    if manifest.archive.bytes != expected.stored_bytes {
        let (stored, wanted) = (manifest.archive.bytes, expected.stored_bytes);
        return Err(differs("size", &stored.to_string(), &wanted.to_string()));
    }
    Ok(manifest)
}

fn not_found(location: &Location) -> Failure {
    failure(
        FailureReason::ArchiveNotFound,
        format!(
            "there is no {:?} in storage, so there is no backup; check that the storage volume is the right one",
            location.manifest_key()
        ),
    )
}

/// Whether the restore goes on with its own left-over; anything else in the target is refused.
fn check_target(content: &Content) -> Result<bool, Failure> {
    let (message, name) = match content {
        Content::Nothing => return Ok(false),
        Content::OwnLeftOver => return Ok(true),
        Content::ForeignLeftOver => (
            "the target volume holds what another restore wrote and did not finish; empty it or take another one".to_owned(),
            ".",
        ),
        Content::Foreign(name) => (
            format!(
                "the target volume holds {name:?} and perhaps more; restore into an empty volume"
            ),
            name.as_str(),
        ),
    };
    let mut failure = failure(FailureReason::TargetNotEmpty, message);
    failure.paths.push(name.as_bytes());
    Err(failure)
}

/// Compares index and archive with the manifest.
fn verify(storage: &dyn Storage, manifest: &Manifest, stop: &AtomicBool) -> Result<(), Failure> {
    let fault = |e| of_restore(&e);
    for object in [&manifest.index, &manifest.archive] {
        check_size(storage, object)?;
    }
    verify_object(get(storage, &manifest.index)?, &manifest.index, stop).map_err(fault)?;
    verify_index(get(storage, &manifest.index)?, manifest, stop).map_err(fault)?;
    let archive = get(storage, &manifest.archive)?;
    let index = get(storage, &manifest.index)?;
    verify_archive(archive, index, &manifest.archive, stop).map_err(fault)
}

/// A size that differs is found without reading a whole archive.
fn check_size(storage: &dyn Storage, object: &ObjectRef) -> Result<(), Failure> {
    let found = storage.head(&object.key).map_err(|e| of_storage(&e))?.bytes;
    if found != object.bytes {
        return Err(corrupt(&format!(
            "{:?} has {found} bytes instead of {}",
            object.key, object.bytes
        )));
    }
    Ok(())
}

type Object = Box<dyn Read + Send>;

fn get(storage: &dyn Storage, object: &ObjectRef) -> Result<Object, Failure> {
    storage.get(&object.key, None).map_err(|error| {
        let mut failure = of_storage(&error);
        if error.class == ErrorClass::NotFound {
            failure.reason = FailureReason::ArchiveNotFound;
        }
        failure
    })
}

fn open_all(storage: &dyn Storage, manifest: &Manifest) -> Result<[Object; 3], Failure> {
    Ok([
        get(storage, &manifest.archive)?,
        get(storage, &manifest.index)?,
        get(storage, &manifest.index)?,
    ])
}
