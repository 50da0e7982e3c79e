//! From a source directory to a published backup.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use tidelock_archive::{Manifest, Notice, ObjectRef, PackError, Packed, Sample, Source, pack};
use tidelock_protocol::{
    BackupReport, BackupTask, Failure, FailureReason, Location, PathSample, RunId,
};
use tidelock_storage::{ErrorClass, ObjectInfo, Storage, StorageError};

use crate::failure::{chain, failure, of_pack, of_storage, of_storage_write, of_stored_io};
use crate::stored::{manifest_bytes, owner_uid, parse_manifest};
use crate::told::Told;

/// Archives the source of `task` and publishes the backup.
///
/// # Guarantees
/// - A backup of the same run that is whole is reported, not repeated; one of another run is left
///   untouched.
/// - The manifest comes last and never replaces another: what has none is no backup.
///
/// # Crash window
/// A run that dies before the manifest leaves objects that nothing trusts, and temporaries that
/// the next try of the same run sweeps.
pub(crate) fn backup(
    storage: &dyn Storage,
    run: &RunId,
    task: &BackupTask,
    stop: &AtomicBool,
) -> Result<BackupReport, Failure> {
    let clock = Instant::now();
    let started_at = Timestamp::now();
    if let Some(report) = already_done(storage, run, &task.location)? {
        return Ok(report);
    }
    for key in [task.location.archive_key(), task.location.manifest_key()] {
        storage.sweep(&key, &run.uid).map_err(|e| of_storage(&e))?;
    }
    let mut objects = Objects::new(storage, run, &task.location);
    objects.clear_left_overs()?;
    let mut told = Told::default();
    let packed = objects.pack(task, &mut told, stop)?;
    let (format_version, codec, features) = Manifest::format();
    let manifest = Manifest {
        format_version,
        codec,
        features,
        archive: object_ref(task.location.archive_key(), &packed.archive),
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
        finished_at: Timestamp::now(),
        duration_ms: u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX),
        tool: concat!("tidelock-mover ", env!("CARGO_PKG_VERSION")).to_owned(),
        torn: sample_of(&told.torn),
        skipped: sample_of(&told.skipped),
    };
    match objects.publish_manifest(&manifest) {
        Ok(()) => Ok(report_of(&manifest, &task.location)),
        Err(failure) => {
            objects.discard();
            Err(failure)
        }
    }
}

/// The report of a backup that this run has already published; none when there is work to do.
fn already_done(
    storage: &dyn Storage,
    run: &RunId,
    location: &Location,
) -> Result<Option<BackupReport>, Failure> {
    let Some(bytes) = manifest_bytes(storage, location)? else {
        return Ok(None);
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
    if let Ok(manifest) = parse_manifest(&bytes, location)
        && is_there(storage, &manifest.archive)?
        && is_there(storage, &manifest.index)?
    {
        tracing::info!(%location, "this run has published its backup before");
        return Ok(Some(report_of(&manifest, location)));
    }
    tracing::warn!(%location, "this run's earlier backup is damaged; writing it again");
    storage
        .delete(&location.manifest_key())
        .map_err(|e| of_storage(&e))?;
    Ok(None)
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
    /// What this run has published, in order.
    published: Vec<(String, ObjectInfo)>,
}

impl<'o> Objects<'o> {
    fn new(storage: &'o dyn Storage, run: &'o RunId, location: &'o Location) -> Self {
        Self {
            storage,
            run,
            location,
            published: Vec::new(),
        }
    }

    /// Removes what runs that died before their manifest left in this place.
    fn clear_left_overs(&self) -> Result<(), Failure> {
        let location = self.location;
        for key in [
            location.archive_key(),
            location.index_key(),
            location.digest_key(),
        ] {
            if self.has_manifest()? {
                return Err(self.published_elsewhere());
            }
            self.storage.delete(&key).map_err(|e| of_storage(&e))?;
        }
        Ok(())
    }

    fn has_manifest(&self) -> Result<bool, Failure> {
        match self.storage.head(&self.location.manifest_key()) {
            Ok(_) => Ok(true),
            Err(error) if error.class == ErrorClass::NotFound => Ok(false),
            Err(error) => Err(of_storage(&error)),
        }
    }

    /// Writes archive and index, then publishes archive, index and digest file.
    fn pack(
        &mut self,
        task: &BackupTask,
        told: &mut Told,
        stop: &AtomicBool,
    ) -> Result<Packed, Failure> {
        let source = open_source(&task.source_path)?;
        let storage = self.storage;
        let put = |key: &str| {
            storage
                .put(key, &self.run.uid)
                .map_err(|e| of_storage_write(&e))
        };
        let mut archive = put(&self.location.archive_key())?;
        let mut index = put(&self.location.index_key())?;
        let mut notify = |path: &[u8], notice: Notice<'_>| told.take(path, &notice);
        let packed =
            pack(source, &mut archive, &mut index, &mut notify, stop).map_err(|error| {
                let mut failure = of_pack(&error);
                if matches!(error, PackError::Unreadable(_)) {
                    failure.message = format!("{}: {}", failure.message, told.first_reason());
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
        if already_done(self.storage, self.run, self.location)?.is_some() {
            return Err(self.published_elsewhere());
        }
        let location = self.location;
        self.commit(location.archive_key(), archive)?;
        self.commit(location.index_key(), index)?;
        let key = location.archive_key();
        let name = key.rsplit('/').next().unwrap_or(&key);
        let line = format!("{}  {name}\n", packed.archive.1);
        let mut digest = self
            .storage
            .put(&location.digest_key(), &self.run.uid)
            .map_err(|e| of_storage_write(&e))?;
        digest
            .write_all(line.as_bytes())
            .map_err(|e| of_stored_io("write the digest file", &e))?;
        self.commit(location.digest_key(), digest)
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
    /// what it describes.
    fn publish_manifest(&self, manifest: &Manifest) -> Result<(), Failure> {
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
        self.check_published().inspect_err(|_| {
            // Best effort: a manifest that stays is caught by its digests.
            if self.storage.head(&key).is_ok_and(|found| found == own) {
                let _ = self.storage.delete(&key);
            }
        })
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
        if !matches!(self.has_manifest(), Ok(false)) {
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

fn report_of(manifest: &Manifest, location: &Location) -> BackupReport {
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
    }
}
