//! Reading the objects of a stored backup.

use std::io::{self, Read};

use serde::Deserialize;
use tidelock_archive::{Archive, ENCRYPTED, MAX_MANIFEST_BYTES, Manifest, ObjectRef};
use tidelock_protocol::{ExpectedArchive, Failure, FailureReason, Location};
use tidelock_storage::{ErrorClass, Storage, StorageError};

use crate::failure::{corrupt, failure, of_manifest, of_storage, of_stored_io};
use crate::words;

/// The bytes of the manifest at `location`; none when there is no backup.
pub(crate) fn manifest_bytes(
    storage: &dyn Storage,
    location: &Location,
) -> Result<Option<Vec<u8>>, Failure> {
    let key = location.manifest_key();
    let object = match storage.get(&key, None) {
        Err(error) if error.class == ErrorClass::NotFound => return Ok(None),
        other => other.map_err(|e| of_storage(&e))?,
    };
    bounded(object, &key).map(Some)
}

/// Whether a manifest stands at `location`, whatever it says.
pub(crate) fn has_manifest(storage: &dyn Storage, location: &Location) -> Result<bool, Failure> {
    match storage.head(&location.manifest_key()) {
        Ok(_) => Ok(true),
        Err(error) if error.class == ErrorClass::NotFound => Ok(false),
        Err(error) => Err(of_storage(&error)),
    }
}

/// The bytes of the manifest `key`, none longer than a manifest may be.
pub(crate) fn bounded(object: Object, key: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    object
        .take(MAX_MANIFEST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| of_stored_io("read the manifest", &e))?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(corrupt(&format!(
            "{key:?} has more than {MAX_MANIFEST_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

/// Reads a manifest and checks that it names the objects of its own place only.
pub(crate) fn parse_manifest(bytes: &[u8], location: &Location) -> Result<Manifest, Failure> {
    let manifest = Manifest::from_json(bytes).map_err(|error| {
        let mut failure = of_manifest(&error);
        failure.message = format!("{:?}: {}", location.manifest_key(), failure.message);
        failure
    })?;
    let encrypted = manifest.encryption.is_some();
    if encrypted != manifest.features.iter().any(|feature| feature == ENCRYPTED) {
        let key = location.manifest_key();
        return Err(corrupt(&format!(
            "{key:?} does not say whether it is encrypted"
        )));
    }
    let archive_key = location.stored_archive_key(words::format(manifest.codec), encrypted);
    let index_key = location.stored_index_key(encrypted);
    if manifest.archive.key != archive_key || manifest.index.key != index_key {
        return Err(corrupt(&format!(
            "{:?} names objects of another backup",
            location.manifest_key()
        )));
    }
    Ok(manifest)
}

/// The manifest at `location`, checked against what the cluster says of the backup.
pub(crate) fn expected_manifest(
    storage: &dyn Storage,
    location: &Location,
    expected: &ExpectedArchive,
) -> Result<Manifest, Failure> {
    let bytes = manifest_bytes(storage, location)?.ok_or_else(|| not_found(location))?;
    let manifest = parse_manifest(&bytes, location)?;
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
            "there is no {:?} in storage, so there is no backup; check that the storage is the right one",
            location.manifest_key()
        ),
    )
}

/// Whose backup a manifest is of, also when the rest of it means nothing here.
pub(crate) fn owner_uid(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Owned {
        source: Source,
    }
    #[derive(Deserialize)]
    struct Source {
        uid: String,
    }
    let owned: Owned = serde_json::from_slice(bytes).ok()?;
    Some(owned.source.uid)
}

/// A size that differs is found without reading a whole archive.
pub(crate) fn check_size(storage: &dyn Storage, object: &ObjectRef) -> Result<(), Failure> {
    let found = storage.head(&object.key).map_err(|e| of_storage(&e))?.bytes;
    if found != object.bytes {
        return Err(corrupt(&format!(
            "{:?} has {found} bytes instead of {}",
            object.key, object.bytes
        )));
    }
    Ok(())
}

/// The bytes of a stored object.
pub(crate) type Object = Box<dyn Read + Send>;

/// Reads an object that the manifest names.
pub(crate) fn get(storage: &dyn Storage, object: &ObjectRef) -> Result<Object, Failure> {
    storage.get(&object.key, None).map_err(|e| of_storage(&e))
}

/// Reads an object that the manifest names, past the page cache.
pub(crate) fn get_fresh(storage: &dyn Storage, object: &ObjectRef) -> Result<Object, Failure> {
    storage.get_fresh(&object.key).map_err(|e| of_storage(&e))
}

/// Bytes that are read rather than asked for anew, when they are to be passed over.
const PASSED_BY_READING: u64 = 256 << 10;

/// A stored archive that is read where it is needed, and asked for only then.
pub(crate) struct Stretches<'s> {
    storage: &'s dyn Storage,
    object: &'s ObjectRef,
    position: u64,
    open: Option<Object>,
}

impl<'s> Stretches<'s> {
    pub(crate) fn new(storage: &'s dyn Storage, object: &'s ObjectRef) -> Self {
        Self {
            storage,
            object,
            position: 0,
            open: None,
        }
    }
}

impl Read for Stretches<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let rest = self.position..self.object.bytes.max(self.position);
                self.storage
                    .get(&self.object.key, Some(rest))
                    .map_err(StorageError::into_io)?
            }
        };
        let read = open.read(buffer);
        self.open = Some(open);
        self.position += *read.as_ref().unwrap_or(&0) as u64;
        read
    }
}

impl Archive for Stretches<'_> {
    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        if bytes <= PASSED_BY_READING && self.open.is_some() {
            return io::copy(&mut self.take(bytes), &mut io::sink()).map(drop);
        }
        self.position = self.position.saturating_add(bytes);
        self.open = None;
        Ok(())
    }
}
