//! What killed runs left half uploaded.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use object_store::ObjectStoreExt;
use object_store::multipart::MultipartStore;
use object_store::path::Path;

use crate::bucket::Bucket;
use crate::bucket::listing::{Object, Parts, UploadListed, Uploads, page};
use crate::bucket::words::{fault, plain};
use crate::keys::{TEMPORARY_PREFIX, owner_of, owner_of_piece};
use crate::{ErrorClass, StorageError};

/// An upload that a run noted, or a piece that it left.
pub(crate) struct Noted {
    note: Path,
    /// The object that it would become; none once the upload has ended.
    upload: Option<(Path, String)>,
    /// When it began, and when its newest part came, in seconds by the store's clock.
    touched: i64,
}

impl Bucket {
    /// Ends the uploads beside `path` of which `is_left` says so, told their run and their state.
    pub(crate) fn sweep_notes(
        &self,
        key: &str,
        path: &Path,
        is_left: impl Fn(&str, &Noted) -> Result<bool, StorageError>,
    ) -> Result<u64, StorageError> {
        let folder = folder(path);
        let uploads = self.uploads(key, &folder)?;
        let mut removed = 0;
        for (owner, note) in self.notes(key, path)? {
            let Some(noted) = self.noted(key, &note, &uploads)? else {
                continue;
            };
            if is_left(&owner, &noted)? {
                self.end(key, &noted)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Ends the uploads beside `path` that nobody has written to for longer than `min_age`: those of
    /// runs that `is_alive` denies, and those without a note and without a part, which a run left
    /// that was killed before it could make either.
    pub(crate) fn sweep_old(
        &self,
        key: &str,
        path: &Path,
        min_age: Duration,
        is_alive: &dyn Fn(&str) -> bool,
    ) -> Result<u64, StorageError> {
        // The listing that comes first has told the clock.
        let folder = folder(path);
        let uploads = self.uploads(key, &folder)?;
        let now = self.connector.clock().ok_or_else(|| {
            let words = "the store tells no date with its answers";
            plain("sweep", key, ErrorClass::Unavailable, words)
        })?;
        let is_old = |since: i64| {
            u64::try_from(now.saturating_sub(since)).is_ok_and(|age| age > min_age.as_secs())
        };
        let mut known = BTreeSet::new();
        let mut removed = 0;
        for (owner, note) in self.notes(key, path)? {
            let Some(noted) = self.noted(key, &note, &uploads)? else {
                continue;
            };
            known.extend(noted.upload.iter().map(|(_, id)| id.clone()));
            if is_old(noted.touched) && !is_alive(&owner) {
                self.end(key, &noted)?;
                removed += 1;
            }
        }
        for upload in uploads.iter().filter(|u| !known.contains(&u.upload_id)) {
            let Some(path) = self.path_of(upload) else {
                continue;
            };
            let (parts, _) = self.parts(key, &path, &upload.upload_id)?;
            if parts == 0 && seconds(&upload.initiated).is_some_and(is_old) {
                self.abort(key, &path, &upload.upload_id)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The notes and pieces in the folder of `path`, with the runs that made them.
    fn notes(&self, key: &str, path: &Path) -> Result<Vec<(String, Object)>, StorageError> {
        let start = self.beside(path, TEMPORARY_PREFIX).to_string();
        let mut notes = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let found = self.listed(key, &start, None, token.as_deref())?;
            for object in found.contents {
                let name = object.key.rsplit('/').next().unwrap_or_default();
                let below = object.key.strip_prefix(&start).unwrap_or_default();
                let owner = owner_of(name).or_else(|| owner_of_piece(name));
                if let Some(owner) = owner.filter(|_| !below.contains('/')) {
                    notes.push((owner.to_owned(), object));
                }
            }
            match found.next_continuation_token {
                Some(next) if Some(&next) != token.as_ref() => token = Some(next),
                _ => return Ok(notes),
            }
        }
    }

    /// What a note tells, or a piece by being there; none when it is gone meanwhile.
    fn noted(
        &self,
        key: &str,
        note: &Object,
        uploads: &[UploadListed],
    ) -> Result<Option<Noted>, StorageError> {
        let Ok(at) = Path::parse(&note.key) else {
            return Ok(None);
        };
        if owner_of_piece(note.key.rsplit('/').next().unwrap_or_default()).is_some() {
            return Ok(Some(Noted {
                note: at,
                upload: None,
                touched: seconds(&note.last_modified).unwrap_or(i64::MAX),
            }));
        }
        let id = match self.wait(async { self.store.get(&at).await?.bytes().await }) {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            other => other.map_err(|error| fault("sweep", key, &error))?,
        };
        let mut touched = seconds(&note.last_modified).unwrap_or(i64::MAX);
        let open = uploads.iter().find(|u| u.upload_id.as_bytes() == &id[..]);
        let upload = open.and_then(|upload| Some((self.path_of(upload)?, upload)));
        if let Some((path, upload)) = &upload {
            let (_, newest) = self.parts(key, path, &upload.upload_id)?;
            touched = touched.max(newest);
        }
        Ok(Some(Noted {
            note: at,
            upload: upload.map(|(path, upload)| (path, upload.upload_id.clone())),
            touched,
        }))
    }

    fn end(&self, key: &str, noted: &Noted) -> Result<(), StorageError> {
        if let Some((path, id)) = &noted.upload {
            self.abort(key, path, id)?;
        }
        match self.remove_own(key, &noted.note) {
            Err(fault) if fault.class == ErrorClass::NotFound => Ok(()),
            other => other,
        }
    }

    fn abort(&self, key: &str, path: &Path, id: &str) -> Result<(), StorageError> {
        let id = id.to_owned();
        match self.wait(self.store.abort_multipart(path, &id)) {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            other => other.map_err(|error| fault("sweep", key, &error)),
        }
    }

    fn path_of(&self, upload: &UploadListed) -> Option<Path> {
        let (folder, name) = upload.key.rsplit_once('/').unwrap_or(("", &upload.key));
        let of_object = match owner_of_piece(name) {
            Some(_) => format!("{folder}/piece"),
            None => upload.key.clone(),
        };
        self.own(&of_object)?;
        Path::parse(&upload.key).ok()
    }

    /// The uploads in parts below `folder` that have not ended.
    fn uploads(&self, key: &str, folder: &str) -> Result<Vec<UploadListed>, StorageError> {
        let mut all = Vec::new();
        let mut marker: Option<(String, String)> = None;
        loop {
            let mut query = vec![("uploads", ""), ("prefix", folder)];
            if let Some((key_marker, id_marker)) = &marker {
                query.push(("key-marker", key_marker));
                query.push(("upload-id-marker", id_marker));
            }
            let root = Path::default();
            let asked = page::<Uploads>(&*self.store, &self.client, &root, &query, key);
            let found = self.wait(asked)?;
            let last = found
                .uploads
                .last()
                .map(|u| (u.key.clone(), u.upload_id.clone()));
            let told = found.next_key_marker.zip(found.next_upload_id_marker);
            all.extend(found.uploads);
            match told.or(last).filter(|_| found.is_truncated) {
                Some(next) if Some(&next) != marker.as_ref() => marker = Some(next),
                _ => return Ok(all),
            }
        }
    }

    /// How many parts an upload has, and when the newest came.
    fn parts(&self, key: &str, path: &Path, id: &str) -> Result<(usize, i64), StorageError> {
        let (mut count, mut newest) = (0, 0);
        let mut marker: Option<String> = None;
        loop {
            let mut query = vec![("uploadId", id)];
            query.extend(
                marker
                    .as_deref()
                    .map(|marker| ("part-number-marker", marker)),
            );
            let asked = page::<Parts>(&*self.store, &self.client, path, &query, key);
            let found = match self.wait(asked) {
                Err(fault) if fault.class == ErrorClass::NotFound => return Ok((count, newest)),
                other => other?,
            };
            count += found.parts.len();
            let times = found
                .parts
                .iter()
                .filter_map(|part| seconds(&part.last_modified));
            newest = times.fold(newest, i64::max);
            match found.next_part_number_marker.filter(|_| found.is_truncated) {
                Some(next) if Some(&next) != marker.as_ref() => marker = Some(next),
                _ => return Ok((count, newest)),
            }
        }
    }
}

/// The folder of `path`, with the slash that ends it; empty for the root of the bucket.
fn folder(path: &Path) -> String {
    let path = path.as_ref();
    let end = path.rfind('/').map_or(0, |at| at + 1);
    path[..end].to_owned()
}

fn seconds(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(Timestamp::as_second)
}
