//! Objects of which the medium does not give all bytes.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use tidelock_protocol::{Failure, Format, Location};
use tidelock_storage::{Storage, StorageError, pass_on, storage_error_in};

use crate::failure::corrupt;

/// Enough of an object to see that its medium gives it.
const FIRST_BYTES: u64 = 512;

/// Where the bytes of an object cannot be read.
pub(crate) struct Unreadable {
    key: String,
    offset: u64,
    /// The words of the system.
    words: String,
}

impl Unreadable {
    /// Whether both are about one object.
    pub(crate) fn is_again(&self, earlier: &Self) -> bool {
        self.key == earlier.key
    }

    /// Whether it is this object alone: the medium gives another one of the backup at `location`.
    /// What is known of an object without reading it shows nothing, since a host remembers that of
    /// a disk that is gone.
    pub(crate) fn is_alone(&self, storage: &dyn Storage, location: &Location) -> bool {
        let archives = Format::ALL.map(|format| location.archive_key(format));
        let all = [location.manifest_key(), location.index_key()]
            .into_iter()
            .chain(archives);
        let mut others = all.filter(|key| *key != self.key);
        others.any(|key| first_bytes(storage, &key).is_ok_and(|bytes| !bytes.is_empty()))
    }

    /// It as damage.
    pub(crate) fn to_failure(&self) -> Failure {
        corrupt(&format!(
            "{:?} cannot be read: {} at byte {}, and again at a second try",
            self.key, self.words, self.offset
        ))
    }
}

fn first_bytes(storage: &dyn Storage, key: &str) -> io::Result<Vec<u8>> {
    let object = storage.get_fresh(key).map_err(StorageError::into_io)?;
    let mut bytes = Vec::new();
    object.take(FIRST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

type Found = Arc<Mutex<Option<Unreadable>>>;

/// Storage that notes where an object could not be read.
pub(crate) struct Noting<'s> {
    inner: &'s dyn Storage,
    found: Found,
}

impl<'s> Noting<'s> {
    pub(crate) fn new(inner: &'s dyn Storage) -> Self {
        Self {
            inner,
            found: Found::default(),
        }
    }

    /// Where the medium failed, if it did; the first place.
    pub(crate) fn found(self) -> Option<Unreadable> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.take()
    }

    fn reader(
        &self,
        key: &str,
        offset: u64,
        opened: Result<Box<dyn Read + Send>, StorageError>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let inner = opened.inspect_err(|error| note(&self.found, key, offset, error))?;
        Ok(Box::new(NotingReader {
            inner,
            key: key.to_owned(),
            offset,
            found: Arc::clone(&self.found),
        }))
    }
}

fn note(found: &Found, key: &str, offset: u64, error: &StorageError) {
    if error.is_of_medium() {
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get_or_insert_with(|| Unreadable {
            key: key.to_owned(),
            offset,
            words: error.source.to_string(),
        });
    }
}

struct NotingReader {
    inner: Box<dyn Read + Send>,
    key: String,
    offset: u64,
    found: Found,
}

impl Read for NotingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer).inspect_err(|error| {
            if let Some(error) = storage_error_in(error) {
                note(&self.found, &self.key, self.offset, error);
            }
        })?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Storage for Noting<'_> {
    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let offset = range.as_ref().map_or(0, |range| range.start);
        self.reader(key, offset, self.inner.get(key, range))
    }

    fn get_fresh(&self, key: &str) -> Result<Box<dyn Read + Send>, StorageError> {
        self.reader(key, 0, self.inner.get_fresh(key))
    }

    pass_on!(inner: put, head, list, delete, lock, sweep, sweep_dead, free_bytes);
}
