//! The objects of one backup, on their way into storage.

use std::io::Write;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use tidelock_archive::{Manifest, Notice, PackError, Packed, pack};
use tidelock_protocol::{BackupTask, Failure, FailureReason, Location, RunId, VerificationLevel};
use tidelock_storage::{ErrorClass, ObjectInfo, Storage, StorageError, Upload};

use crate::Control;
use crate::backup::{Published, published_before};
use crate::failure::{
    chain, corrupt, failure, of_pack, of_storage, of_storage_write, of_stored_io,
};
use crate::lock;
use crate::proof::not_proven;
use crate::sealing::Sealing;
use crate::stored::{bounded, has_manifest};
use crate::told::Told;
use crate::words;

/// The objects of one backup, on their way into storage.
pub(crate) struct Objects<'o> {
    storage: &'o dyn Storage,
    run: &'o RunId,
    location: &'o Location,
    task: &'o BackupTask,
    /// What encrypts archive and index; none where they are in clear.
    sealing: Option<&'o Sealing<'o>>,
    /// What this run has published, in order.
    published: Vec<(&'o dyn Storage, String, ObjectInfo)>,
}

impl<'o> Objects<'o> {
    pub(crate) fn new(
        storage: &'o dyn Storage,
        run: &'o RunId,
        task: &'o BackupTask,
        sealing: Option<&'o Sealing<'o>>,
    ) -> Self {
        Self {
            storage,
            run,
            location: &task.location,
            task,
            sealing,
            published: Vec::new(),
        }
    }

    fn archive_key(&self) -> String {
        self.location.archive_key(self.task.format)
    }

    /// Where plain archives and indexes are written to and read from.
    pub(crate) fn data(&self) -> &'o dyn Storage {
        match self.sealing {
            Some(sealing) => &sealing.storage,
            None => self.storage,
        }
    }

    /// Removes what runs that died before their manifest left in this place, in any format.
    pub(crate) fn clear_left_overs(&self) -> Result<(), Failure> {
        for key in self.location.data_keys() {
            if has_manifest(self.storage, self.location)? {
                return Err(self.published_elsewhere());
            }
            self.storage.delete(&key).map_err(|e| of_storage(&e))?;
        }
        Ok(())
    }

    /// Writes archive and index, then publishes archive, index and digest file.
    pub(crate) fn pack(
        &mut self,
        told: &mut Told,
        control: &Control<'_>,
    ) -> Result<Packed, Failure> {
        let source = open_source(&self.task.source_path)?;
        let storage = self.data();
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
        archive: Box<dyn Upload + 'o>,
        index: Box<dyn Upload + 'o>,
        packed: &Packed,
    ) -> Result<(), Failure> {
        // Another run may have finished under this name since the first look.
        let published = published_before(self.storage, self.run, self.task)?;
        if !matches!(published, Published::Nothing) {
            return Err(self.published_elsewhere());
        }
        let key = self.archive_key();
        let data = self.data();
        self.commit(data, key.clone(), archive)?;
        self.commit(data, self.location.index_key(), index)?;
        let written = self
            .sealing
            .and_then(|sealing| sealing.storage.written(&key));
        let sha256 = written.map_or_else(|| packed.archive.1.clone(), |stored| stored.sha256);
        let (format, encrypted) = (self.task.format, self.sealing.is_some());
        let key = self.location.stored_archive_key(format, encrypted);
        let name = key.rsplit('/').next().unwrap_or(&key);
        let line = format!("{sha256}  {name}\n");
        let digest_key = self.location.digest_key(format, encrypted);
        let mut digest = self
            .storage
            .put(&digest_key, &self.run.uid)
            .map_err(|e| of_storage_write(&e))?;
        digest
            .write_all(line.as_bytes())
            .map_err(|e| of_stored_io("write the digest file", &e))?;
        self.commit(self.storage, digest_key, digest)
    }

    fn commit(
        &mut self,
        storage: &'o dyn Storage,
        key: String,
        upload: Box<dyn Upload + 'o>,
    ) -> Result<(), Failure> {
        // Never in the place of another pod's: a pod that was away for long must not replace what
        // its successor has published meanwhile.
        let info = upload.commit().map_err(|e| self.conflict_or(&e))?;
        self.published.push((storage, key, info));
        Ok(())
    }

    /// Publishes the manifest, and takes it back when another pod of the same run has replaced
    /// what it describes, or when it does not read back as it was written.
    pub(crate) fn publish_manifest(
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

    /// Locks the published backup where that is wanted; one that may not be locked is taken back.
    pub(crate) fn lock(&self, manifest: &Manifest) -> Result<(), Failure> {
        lock::all(self.storage, manifest, self.task).inspect_err(|failure| {
            if failure.reason == FailureReason::StorageDenied {
                // Best effort: what stays is whole, and of a run that failed.
                let _ = self.storage.delete(&self.location.manifest_key());
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
        for (storage, key, info) in &self.published {
            let found = storage.head(key).map_err(|e| of_storage_write(&e))?;
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
    pub(crate) fn discard(&mut self) {
        if !matches!(has_manifest(self.storage, self.location), Ok(false)) {
            return;
        }
        for (storage, key, info) in self.published.drain(..).rev() {
            let own = storage.head(&key).is_ok_and(|found| found == info);
            if own && let Err(error) = storage.delete(&key) {
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
