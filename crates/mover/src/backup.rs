//! From a source directory to a published backup.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use tidelock_archive::{
    FORMAT_VERSION, Manifest, Notice, ObjectRef, PackError, Packed, Sample, Source, pack,
};
use tidelock_protocol::{
    BackupReport, BackupTask, Failure, FailureReason, FolderReport, Location, PathSample, RunId,
    Step, VerificationLevel,
};
use tidelock_storage::{ErrorClass, ObjectInfo, Storage, StorageError};

use crate::Control;
use crate::failure::{
    chain, corrupt, failure, of_pack, of_storage, of_storage_write, of_stored_io,
};
use crate::household;
use crate::progress::Total;
use crate::proof::{cost, not_proven, prove};
use crate::stored::{bounded, has_manifest, manifest_bytes, owner_uid, parse_manifest};
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
    let archive_key = task.location.archive_key(task.format);
    for key in [&archive_key, &task.location.manifest_key()] {
        storage.sweep(key, &run.uid).map_err(|e| of_storage(&e))?;
    }
    let found = household::look_after(storage, run, &task.location, &task.household, stop);
    let folder = household::told(found);
    let mut objects = Objects::new(storage, run, task);
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
    };
    let published = timed_proof(storage, &manifest, task.verification, control)
        .map_err(not_proven)
        .and_then(|verification| {
            manifest.finished_at = Timestamp::now();
            manifest.duration_ms = millis(clock);
            objects.publish_manifest(&manifest, verification.level)?;
            Ok(verification)
        });
    match published {
        Ok(verification) => Ok(report_of(&manifest, &task.location, verification, folder)),
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
            match timed_proof(storage, &manifest, task.verification, control) {
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
enum Published {
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
fn published_before(
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

/// The objects of one backup, on their way into storage.
struct Objects<'o> {
    storage: &'o dyn Storage,
    run: &'o RunId,
    location: &'o Location,
    task: &'o BackupTask,
    /// What this run has published, in order.
    published: Vec<(String, ObjectInfo)>,
}

impl<'o> Objects<'o> {
    fn new(storage: &'o dyn Storage, run: &'o RunId, task: &'o BackupTask) -> Self {
        Self {
            storage,
            run,
            location: &task.location,
            task,
            published: Vec::new(),
        }
    }

    fn archive_key(&self) -> String {
        self.location.archive_key(self.task.format)
    }

    /// Removes what runs that died before their manifest left in this place, in any format.
    fn clear_left_overs(&self) -> Result<(), Failure> {
        for key in self.location.data_keys() {
            if has_manifest(self.storage, self.location)? {
                return Err(self.published_elsewhere());
            }
            self.storage.delete(&key).map_err(|e| of_storage(&e))?;
        }
        Ok(())
    }

    /// Writes archive and index, then publishes archive, index and digest file.
    fn pack(&mut self, told: &mut Told, control: &Control<'_>) -> Result<Packed, Failure> {
        let source = open_source(&self.task.source_path)?;
        let storage = self.storage;
        let put = |key: &str| {
            storage
                .put(key, &self.run.uid)
                .map_err(|e| of_storage_write(&e))
        };
        let mut archive = put(&self.archive_key())?;
        let mut index = put(&self.location.index_key())?;
        let mut notify = |path: &[u8], notice: Notice| told.take(path, &notice);
        let meter = control.progress.meter();
        let packed = pack(
            source,
            words::codec(self.task.format),
            &mut archive,
            &mut index,
            &mut notify,
            meter,
            control.stop,
        )
        .map_err(|error| {
            let mut failure = of_pack(&error);
            if matches!(error, PackError::Unreadable(_)) {
                failure.message = format!(
                    "{}: {}; repair the volume's file system, or let the mover run with enough rights (mover.privilege)",
                    failure.message,
                    told.first_reason()
                );
                failure.paths = std::mem::take(&mut told.unreadable);
            }
            failure
        })?;
        let published = self.publish_data(archive, index, &packed);
        if published.is_err() {
            self.discard();
        }
        published.map(|()| packed)
    }

    fn publish_data(
        &mut self,
        archive: Box<dyn tidelock_storage::Upload + 'o>,
        index: Box<dyn tidelock_storage::Upload + 'o>,
        packed: &Packed,
    ) -> Result<(), Failure> {
        // Another run may have finished under this name since the first look.
        let published = published_before(self.storage, self.run, self.task)?;
        if !matches!(published, Published::Nothing) {
            return Err(self.published_elsewhere());
        }
        let key = self.archive_key();
        self.commit(key.clone(), archive)?;
        self.commit(self.location.index_key(), index)?;
        let name = key.rsplit('/').next().unwrap_or(&key);
        let line = format!("{}  {name}\n", packed.archive.1);
        let digest_key = self.location.digest_key(self.task.format);
        let mut digest = self
            .storage
            .put(&digest_key, &self.run.uid)
            .map_err(|e| of_storage_write(&e))?;
        digest
            .write_all(line.as_bytes())
            .map_err(|e| of_stored_io("write the digest file", &e))?;
        self.commit(digest_key, digest)
    }

    fn commit(
        &mut self,
        key: String,
        upload: Box<dyn tidelock_storage::Upload + 'o>,
    ) -> Result<(), Failure> {
        // Never in the place of another pod's: a pod that was away for long must not replace what
        // its successor has published meanwhile.
        let info = upload.commit().map_err(|e| self.conflict_or(&e))?;
        self.published.push((key, info));
        Ok(())
    }

    /// Publishes the manifest, and takes it back when another pod of the same run has replaced
    /// what it describes, or when it does not read back as it was written.
    fn publish_manifest(
        &self,
        manifest: &Manifest,
        level: VerificationLevel,
    ) -> Result<(), Failure> {
        self.check_published()?;
        let json = manifest.to_json().map_err(|e| {
            let text = format!("cannot write the manifest: {}", chain(&e));
            failure(FailureReason::Internal, text)
        })?;
        let key = self.location.manifest_key();
        let mut upload = self
            .storage
            .put(&key, &self.run.uid)
            .map_err(|e| of_storage_write(&e))?;
        upload
            .write_all(json.as_bytes())
            .map_err(|e| of_stored_io("write the manifest", &e))?;
        let own = upload.commit().map_err(|e| self.conflict_or(&e))?;
        let kept = self.check_published();
        let kept = kept.and_then(|()| self.check_manifest(json.as_bytes(), level));
        kept.inspect_err(|_| {
            // Best effort: a manifest that stays is caught by its digests.
            if self.storage.head(&key).is_ok_and(|found| found == own) {
                let _ = self.storage.delete(&key);
            }
        })
    }

    fn check_manifest(&self, json: &[u8], level: VerificationLevel) -> Result<(), Failure> {
        if level == VerificationLevel::None {
            return Ok(());
        }
        let key = self.location.manifest_key();
        let stored = self.storage.get_fresh(&key);
        let stored =
            bounded(stored.map_err(|e| of_storage_write(&e))?, &key).map_err(not_proven)?;
        if stored == json {
            return Ok(());
        }
        let what = format!("{key:?} does not have the bytes that were written");
        Err(not_proven(corrupt(&what)))
    }

    fn conflict_or(&self, error: &StorageError) -> Failure {
        if error.class == ErrorClass::AlreadyExists {
            self.published_elsewhere()
        } else {
            of_storage_write(error)
        }
    }

    /// Two pods of one run can overlap when a node is lost; the next try settles it.
    fn published_elsewhere(&self) -> Failure {
        failure(
            FailureReason::StorageUnavailable,
            format!(
                "{:?} was published by another pod at the same time; the next try looks again",
                self.location.manifest_key()
            ),
        )
    }

    fn check_published(&self) -> Result<(), Failure> {
        for (key, info) in &self.published {
            let found = self.storage.head(key).map_err(|e| of_storage_write(&e))?;
            if found != *info {
                return Err(failure(
                    FailureReason::StorageUnavailable,
                    format!(
                        "{key:?} was replaced by another pod meanwhile; the run is tried again"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Removes what this run has published, unless another pod has replaced it or made it part of
    /// a backup.
    fn discard(&mut self) {
        if !matches!(has_manifest(self.storage, self.location), Ok(false)) {
            return;
        }
        for (key, info) in self.published.drain(..).rev() {
            let own = self.storage.head(&key).is_ok_and(|found| found == info);
            if own && let Err(error) = self.storage.delete(&key) {
                tracing::warn!(key, error = chain(&error), "a left-over stays in storage");
            }
        }
    }
}

fn open_source(path: &str) -> Result<std::os::fd::OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(Path::new(path), flags, Mode::empty()).map_err(|error| {
        let mut failure = failure(
            FailureReason::SourceUnreadable,
            format!("cannot open the source volume: {error}"),
        );
        failure.paths.push(b".");
        failure
    })
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

fn report_of(
    manifest: &Manifest,
    location: &Location,
    verification: Verification,
    folder: Option<FolderReport>,
) -> BackupReport {
    let sample = |sample: &Sample| PathSample {
        total: sample.total,
        first: sample.first.clone(),
    };
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
        verification: verification.level,
        verification_ms: verification.millis,
        // The folder was looked at without this backup.
        folder: folder.map(|folder| FolderReport {
            archives: folder.archives + 1,
            ..folder
        }),
    }
}
