//! Storage that misbehaves as a test wants.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidelock_storage::{Directory, ObjectInfo, Storage, StorageError, Upload};

use super::Place;

/// What happens before storage does something, told what and to which key.
type Before = Box<dyn Fn(&Directory, &str, &str) -> Result<(), StorageError> + Send + Sync>;
/// What reading an object back comes to, told its key and its bytes.
type Medium = Box<dyn Fn(&str, Vec<u8>) -> Result<Vec<u8>, StorageError> + Send + Sync>;

/// Up to which byte an object can be read, asked each time it is opened; none is to its end.
type Readable = Box<dyn Fn(&str) -> Option<u64> + Send + Sync>;

/// A directory with something between it and the mover.
pub struct Hooked {
    inner: Directory,
    before: Before,
    medium: Medium,
    readable: Readable,
    /// How often an object was read past the page cache.
    pub read_back: AtomicU64,
}

impl Hooked {
    /// Calls `hook` with the name of each call and its key, which may refuse it.
    pub fn before(
        place: &Place,
        hook: impl Fn(&Directory, &str, &str) -> Result<(), StorageError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: Directory::open(&place.storage()).unwrap(),
            before: Box::new(hook),
            medium: Box::new(|_, bytes| Ok(bytes)),
            readable: Box::new(|_| None),
            read_back: AtomicU64::new(0),
        }
    }

    /// Has a medium that holds something else than the page cache tells.
    pub fn medium(
        place: &Place,
        medium: impl Fn(&str, Vec<u8>) -> Result<Vec<u8>, StorageError> + Send + Sync + 'static,
    ) -> Self {
        let mut storage = Self::before(place, |_, _, _| Ok(()));
        storage.medium = Box::new(medium);
        storage
    }

    /// Has a medium that gives an object up to the byte that `readable` says, and then an I/O error.
    pub fn with_bad_sectors(
        place: &Place,
        readable: impl Fn(&str) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        let mut storage = Self::before(place, |_, _, _| Ok(()));
        storage.readable = Box::new(readable);
        storage
    }

    fn up_to_bad_sector(&self, key: &str, object: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        match (self.readable)(key) {
            Some(bytes) => Box::new(object.take(bytes).chain(BadSector(key.to_owned()))),
            None => object,
        }
    }

    /// Loses one byte late in the objects with this ending.
    pub fn losing_a_byte_of(place: &Place, ending: &'static str) -> Self {
        Self::medium(place, move |key, mut bytes| {
            if key.ends_with(ending) {
                let at = bytes.len() * 3 / 4;
                bytes[at] ^= 4;
            }
            Ok(bytes)
        })
    }

    fn call(&self, name: &str, key: &str) -> Result<(), StorageError> {
        (self.before)(&self.inner, name, key)
    }
}

/// The end of what can be read of the object with this key.
struct BadSector(String);

impl Read for BadSector {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let error = io::Error::from_raw_os_error(5);
        Err(StorageError::of_os("read", &self.0, error).into_io())
    }
}

/// What storage says that does not answer.
pub fn stale(key: &str) -> StorageError {
    StorageError::of_os("read", key, io::Error::other("stale handle"))
}

impl Storage for Hooked {
    fn put<'a>(&'a self, key: &str, run: &str) -> Result<Box<dyn Upload + 'a>, StorageError> {
        self.call("put", key)?;
        Ok(Box::new(HookedUpload {
            storage: self,
            key: key.to_owned(),
            inner: self.inner.put(key, run)?,
        }))
    }

    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        self.call("get", key)?;
        let object = self.inner.get(key, range)?;
        Ok(self.up_to_bad_sector(key, object))
    }

    fn get_fresh(&self, key: &str) -> Result<Box<dyn Read + Send>, StorageError> {
        self.call("get_fresh", key)?;
        self.read_back.fetch_add(1, Ordering::SeqCst);
        let mut bytes = Vec::new();
        let read = self.inner.get_fresh(key)?.read_to_end(&mut bytes);
        read.map_err(|e| StorageError::of_os("read", key, e))?;
        let object = Box::new(Cursor::new((self.medium)(key, bytes)?));
        Ok(self.up_to_bad_sector(key, object))
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StorageError> {
        self.call("head", key)?;
        self.inner.head(key)
    }

    fn list(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(&str, ObjectInfo) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.call("list", prefix)?;
        self.inner.list(prefix, visit)
    }

    fn delete(&self, key: &str) -> Result<bool, StorageError> {
        self.call("delete", key)?;
        self.inner.delete(key)
    }

    fn sweep(&self, key: &str, run: &str) -> Result<u64, StorageError> {
        self.call("sweep", key)?;
        self.inner.sweep(key, run)
    }

    fn sweep_dead(
        &self,
        key: &str,
        run: &str,
        min_age: Duration,
        is_alive: &dyn Fn(&str) -> bool,
    ) -> Result<u64, StorageError> {
        self.call("sweep_dead", key)?;
        self.inner.sweep_dead(key, run, min_age, is_alive)
    }
}

struct HookedUpload<'a> {
    storage: &'a Hooked,
    key: String,
    inner: Box<dyn Upload + 'a>,
}

impl Write for HookedUpload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let called = self.storage.call("write", &self.key);
        called.map_err(StorageError::into_io)?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Upload for HookedUpload<'_> {
    fn commit(self: Box<Self>) -> Result<ObjectInfo, StorageError> {
        self.storage.call("commit", &self.key)?;
        self.inner.commit()
    }
}

/// Objects in memory, to be read only.
pub struct Memory(pub BTreeMap<String, Vec<u8>>);

impl Memory {
    /// What the directory of a place holds.
    pub fn of(place: &Place) -> Self {
        let storage = Directory::open(&place.storage()).unwrap();
        let mut keys = Vec::new();
        let mut note = |key: &str, _| {
            keys.push(key.to_owned());
            Ok(())
        };
        storage.list("", &mut note).unwrap();
        let read = |key: String| {
            let mut bytes = Vec::new();
            let mut object = storage.get(&key, None).unwrap();
            object.read_to_end(&mut bytes).unwrap();
            (key, bytes)
        };
        Self(keys.into_iter().map(read).collect())
    }

    fn object(&self, key: &str) -> Result<&Vec<u8>, StorageError> {
        let none = || StorageError::of_os("read", key, io::Error::from_raw_os_error(2));
        self.0.get(key).ok_or_else(none)
    }
}

fn read_only<T>(key: &str) -> Result<T, StorageError> {
    let error = io::Error::from_raw_os_error(30);
    Err(StorageError::of_os("write", key, error))
}

impl Storage for Memory {
    fn put<'a>(&'a self, key: &str, _: &str) -> Result<Box<dyn Upload + 'a>, StorageError> {
        read_only(key)
    }

    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let bytes = self.object(key)?;
        let end = bytes.len();
        let at = |place: u64| usize::try_from(place).map_or(end, |place| place.min(end));
        let range = range.map_or(0..end, |range| at(range.start)..at(range.end));
        Ok(Box::new(Cursor::new(bytes[range].to_vec())))
    }

    fn get_fresh(&self, key: &str) -> Result<Box<dyn Read + Send>, StorageError> {
        self.get(key, None)
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StorageError> {
        Ok(ObjectInfo {
            bytes: self.object(key)?.len() as u64,
            version: String::new(),
        })
    }

    fn list(
        &self,
        _: &str,
        _: &mut dyn FnMut(&str, ObjectInfo) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<bool, StorageError> {
        read_only(key)
    }

    fn sweep(&self, key: &str, _: &str) -> Result<u64, StorageError> {
        read_only(key)
    }

    fn sweep_dead(
        &self,
        key: &str,
        _: &str,
        _: Duration,
        _: &dyn Fn(&str) -> bool,
    ) -> Result<u64, StorageError> {
        read_only(key)
    }
}
