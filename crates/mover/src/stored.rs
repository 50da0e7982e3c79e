//! Reading the manifest of a stored backup.

use std::io::Read;

use serde::Deserialize;
use tidelock_archive::{MAX_MANIFEST_BYTES, Manifest};
use tidelock_protocol::{Failure, Location};
use tidelock_storage::{ErrorClass, Storage};

use crate::failure::{corrupt, of_manifest, of_storage, of_stored_io};

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
    Ok(Some(bytes))
}

/// Reads a manifest and checks that it names the objects of its own place only.
pub(crate) fn parse_manifest(bytes: &[u8], location: &Location) -> Result<Manifest, Failure> {
    let manifest = Manifest::from_json(bytes).map_err(|error| {
        let mut failure = of_manifest(&error);
        failure.message = format!("{:?}: {}", location.manifest_key(), failure.message);
        failure
    })?;
    if manifest.archive.key != location.archive_key() || manifest.index.key != location.index_key()
    {
        return Err(corrupt(&format!(
            "{:?} names objects of another backup",
            location.manifest_key()
        )));
    }
    Ok(manifest)
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
