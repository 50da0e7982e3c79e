//! From a source directory to a published backup.

use std::time::Instant;

use jiff::Timestamp;
use tidelock_archive::{FORMAT_VERSION, Manifest, ObjectRef, Sample, Source};
use tidelock_protocol::{
    BackupReport, BackupTask, Failure, FailureReason, FolderReport, Location, PathSample, RunId,
    Step, VerificationLevel,
};
use tidelock_storage::{ErrorClass, Storage};

use crate::Control;
use crate::failure::{failure, of_storage};
use crate::household;
use crate::lock;
use crate::objects::Objects;
use crate::progress::Total;
use crate::proof::{cost, not_proven, prove};
use crate::sealing::{Sealing, without_key};
use crate::stored::{manifest_bytes, owner_uid, parse_manifest};
use crate::told::Told;
use crate::words;

/// Archives the source of `task` and publishes the backup.
///
/// # Guarantees
/// - A backup of the same run that is whole is reported, not repeated; one of another run is left
///   untouched.
/// - The manifest comes last and never replaces another: what has none is no backup.
/// - What was stored is read back as `task.verification` asks before the manifest is published,
///   and the manifest after; a backup that does not read back is removed again.
///
/// # Crash window
/// A run that dies before the manifest leaves objects that nothing trusts, and temporaries that
/// the next try of the same run sweeps.
pub(crate) fn backup(
    storage: &dyn Storage,
    run: &RunId,
    task: &BackupTask,
    control: &Control<'_>,
) -> Result<BackupReport, Failure> {
    let stop = control.stop;
    let clock = Instant::now();
    let started_at = Timestamp::now();
    if let Some(report) = already_done(storage, run, task, control)? {
        return Ok(report);
    }
    let sealing = Sealing::begin(storage, &task.recipients)?;
    let archive_key = task.location.archive_key(task.format);
    let stored_key = task
        .location
        .stored_archive_key(task.format, sealing.is_some());
    for key in [&stored_key, &task.location.manifest_key()] {
        storage.sweep(key, &run.uid).map_err(|e| of_storage(&e))?;
    }
    let found = household::look_after(storage, run, &task.location, &task.household, stop);
    let folder = household::told(found);
    let mut objects = Objects::new(storage, run, task, sealing.as_ref());
    objects.clear_left_overs()?;
    let mut told = Told::default();
    control.progress.begin(Step::Saving, Total::default());
    let packed = objects.pack(&mut told, control)?;
    let mut manifest = Manifest {
        format_version: FORMAT_VERSION,
        codec: words::codec(task.format),
        features: packed.features,
        archive: object_ref(archive_key, &packed.archive),
        index: object_ref(task.location.index_key(), &packed.index),
        counts: packed.counts,
        logical_bytes: packed.logical_bytes,
        tar_bytes: packed.tar_bytes,
        source: Source {
            namespace: run.namespace.clone(),
            pvc: task.pvc_name.clone(),
            backup: run.name.clone(),
            uid: run.uid.clone(),
            policy: task.policy_name.clone(),
        },
        started_at,
        finished_at: started_at,
        duration_ms: 0,
        tool: concat!("tidelock-mover ", env!("CARGO_PKG_VERSION")).to_owned(),
        torn: sample_of(&told.torn),
        skipped: sample_of(&told.skipped),
        encryption: None,
        locked_until: None,
    };
    let published = timed_proof(objects.data(), &manifest, task.verification, control)
        .map_err(not_proven)
        .and_then(|verification| {
            manifest.finished_at = Timestamp::now();
            manifest.duration_ms = millis(clock);
            manifest.locked_until = task.lock.map(|lock| lock::end(lock, manifest.finished_at));
            let stored = match &sealing {
                Some(sealing) => sealing.cover(&manifest)?,
                None => manifest.clone(),
            };
            objects.publish_manifest(&stored, verification.level)?;
            objects.lock(&stored)?;
            Ok((stored, verification))
        });
    match published {
        Ok((stored, verification)) => Ok(BackupReport {
            torn: sample(&manifest.torn),
            skipped: sample(&manifest.skipped),
            ..report_of(&stored, &task.location, verification, folder)
        }),
        Err(failure) => {
            objects.discard();
            Err(failure)
        }
    }
}

/// How much was read back, and how long that took.
struct Verification {
    level: VerificationLevel,
    millis: u64,
}

fn timed_proof(
    storage: &dyn Storage,
    manifest: &Manifest,
    level: VerificationLevel,
    control: &Control<'_>,
) -> Result<Verification, Failure> {
    let clock = Instant::now();
    let total = Total::of_bytes(cost(manifest, level));
    control.progress.begin(Step::Verifying, total);
    prove(storage, manifest, level, control)?;
    let millis = millis(clock);
    tracing::info!(?level, millis, "read back what is stored");
    Ok(Verification { level, millis })
}

fn millis(clock: Instant) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The report of a backup that this run has already published, read back again; none when there
/// is work to do.
fn already_done(
    storage: &dyn Storage,
    run: &RunId,
    task: &BackupTask,
    control: &Control<'_>,
) -> Result<Option<BackupReport>, Failure> {
    let location = &task.location;
    let proven = match published_before(storage, run, task)? {
        Published::Nothing => return Ok(None),
        Published::Damaged => None,
        Published::Whole(manifest) => {
            // The key of that moment is gone: of an encrypted one the digests are compared.
            let level = match &manifest.encryption {
                Some(_) => without_key(task.verification),
                None => task.verification,
            };
            match timed_proof(storage, &manifest, level, control) {
                Ok(verification) => Some((manifest, verification)),
                Err(failure) if is_damage(&failure) => {
                    tracing::warn!(%location, error = failure.message, "damaged");
                    None
                }
                Err(failure) => return Err(failure),
            }
        }
    };
    if let Some((manifest, verification)) = proven {
        tracing::info!(%location, "this run has published its backup before");
        lock::all(storage, &manifest, task)?;
        let found = household::look_after(storage, run, location, &task.household, control.stop);
        let folder = household::told(found);
        return Ok(Some(report_of(&manifest, location, verification, folder)));
    }
    tracing::warn!(%location, "this run's earlier backup is damaged; writing it again");
    storage
        .delete(&location.manifest_key())
        .map_err(|e| of_storage(&e))?;
    Ok(None)
}

fn is_damage(failure: &Failure) -> bool {
    matches!(
        failure.reason,
        FailureReason::ArchiveCorrupt | FailureReason::ArchiveNotFound
    )
}

/// What stands at the place of a backup, at a first look.
pub(crate) enum Published {
    /// No backup.
    Nothing,
    /// A backup of this very run, of which something is not as its manifest or the task says.
    Damaged,
    /// A backup of this very run, all there by name and size.
    Whole(Box<Manifest>),
}

/// What stands at the task's location. A backup in another format than the one that is asked for is
/// none that can be reported.
///
/// # Errors
/// `ArchiveConflict` when it is the backup of another run.
pub(crate) fn published_before(
    storage: &dyn Storage,
    run: &RunId,
    task: &BackupTask,
) -> Result<Published, Failure> {
    let location = &task.location;
    let Some(bytes) = manifest_bytes(storage, location)? else {
        return Ok(Published::Nothing);
    };
    if owner_uid(&bytes).is_none_or(|uid| uid != run.uid) {
        return Err(failure(
            FailureReason::ArchiveConflict,
            format!(
                "{:?} is the manifest of another backup, which was left untouched; remove it or give this backup another name",
                location.manifest_key()
            ),
        ));
    }
    Ok(match parse_manifest(&bytes, location) {
        Ok(manifest)
            if manifest.codec == words::codec(task.format)
                && manifest.encryption.is_some() != task.recipients.is_empty()
                && is_there(storage, &manifest.archive)?
                && is_there(storage, &manifest.index)? =>
        {
            Published::Whole(Box::new(manifest))
        }
        _ => Published::Damaged,
    })
}

fn is_there(storage: &dyn Storage, object: &ObjectRef) -> Result<bool, Failure> {
    match storage.head(&object.key) {
        Ok(info) => Ok(info.bytes == object.bytes),
        Err(error) if error.class == ErrorClass::NotFound => Ok(false),
        Err(error) => Err(of_storage(&error)),
    }
}

fn object_ref(key: String, (bytes, sha256): &(u64, String)) -> ObjectRef {
    ObjectRef {
        key,
        bytes: *bytes,
        sha256: sha256.clone(),
    }
}

fn sample_of(sample: &PathSample) -> Sample {
    Sample {
        total: sample.total,
        first: sample.first.clone(),
    }
}

fn sample(sample: &Sample) -> PathSample {
    PathSample {
        total: sample.total,
        first: sample.first.clone(),
    }
}

fn report_of(
    manifest: &Manifest,
    location: &Location,
    verification: Verification,
    folder: Option<FolderReport>,
) -> BackupReport {
    BackupReport {
        location: location.clone(),
        digest: format!("sha256:{}", manifest.archive.sha256),
        stored_bytes: manifest.archive.bytes,
        logical_bytes: manifest.logical_bytes,
        files: manifest.counts.files,
        others: manifest.counts.others,
        torn: sample(&manifest.torn),
        skipped: sample(&manifest.skipped),
        duration_ms: manifest.duration_ms,
        encrypted: manifest.encryption.is_some(),
        locked_until: manifest.locked_until.map(Timestamp::as_second),
        verification: verification.level,
        verification_ms: verification.millis,
        // The folder was looked at without this backup.
        folder: folder.map(|folder| FolderReport {
            archives: folder.archives + 1,
            ..folder
        }),
    }
}
