//! Where the bytes of a backup live.
//!
//! [`Storage`] is what a backup needs of a store: streamed put with atomic publication, ranged
//! get, listing, deletion. [`Directory`] is a mounted volume; a bucket implements the same trait.

mod bucket;
mod directory;
mod error;
mod fresh;
mod keys;
mod layer;
mod upload;

use std::io::{Read, Write};
use std::ops::Range;
use std::time::Duration;

pub use bucket::{Bucket, BucketConfig, Composition, Credentials, Encryption};
pub use directory::Directory;
pub use error::{ErrorClass, StorageError, storage_error_in};

/// A store of immutable objects under keys such as `shop/data/nightly.tar.gz`.
///
/// # Guarantees
/// - An object is visible under its key whole or not at all: [`Upload::commit`] publishes it in
///   one step, and what it acknowledged survives a crash.
/// - No key leads outside the store; a key with an empty part, `.`, `..`, a part that starts with
///   `.`, or a control character is refused as [`ErrorClass::InvalidKey`].
/// - Every `io::Error` of a reader or an [`Upload`] carries a [`StorageError`]; see
///   [`storage_error_in`].
pub trait Storage: Send + Sync {
    /// Starts writing the object `key` for the run `run`; nothing shows under `key` until
    /// [`Upload::commit`].
    ///
    /// `run` marks what the upload leaves behind when its process dies, so that [`Self::sweep`]
    /// finds it.
    fn put<'a>(&'a self, key: &str, run: &str) -> Result<Box<dyn Upload + 'a>, StorageError>;

    /// Reads `range` of the object, or all of it.
    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StorageError>;

    /// Reads all of the object as its medium has it, not as this host remembers it.
    ///
    /// # Guarantees
    /// Before the first read, what was written has reached the medium, and what the host's page
    /// cache holds of the object is dropped, as far as the file system follows such advice; those
    /// on local disks do. Caches of disks, controllers and file servers are not passed. What is
    /// read is dropped again behind the reader.
    fn get_fresh(&self, key: &str) -> Result<Box<dyn Read + Send>, StorageError>;

    /// Size and version of the object; [`ErrorClass::NotFound`] when there is none.
    fn head(&self, key: &str) -> Result<ObjectInfo, StorageError>;

    /// Calls `visit` for every object whose key starts with `prefix`, in no set order.
    ///
    /// Unfinished uploads are not objects.
    fn list(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(&str, ObjectInfo) -> Result<(), StorageError>,
    ) -> Result<(), StorageError>;

    /// Removes the object; true when there was one.
    fn delete(&self, key: &str) -> Result<bool, StorageError>;

    /// Keeps anybody from removing the object before a day that is set.
    ///
    /// # Errors
    /// [`ErrorClass::Denied`] where the store cannot.
    fn lock(&self, key: &str, _lock: &Lock) -> Result<(), StorageError> {
        Err(StorageError {
            action: "lock",
            key: key.to_owned(),
            class: ErrorClass::Denied,
            source: std::io::Error::other("this kind of storage locks no objects"),
        })
    }

    /// Removes what dead uploads of the run `run` left beside `key`; returns how many.
    ///
    /// Uploads of other runs are never touched.
    fn sweep(&self, key: &str, run: &str) -> Result<u64, StorageError>;

    /// Removes what dead uploads of any run left beside `key`; returns how many.
    ///
    /// Dead is one that was not written to for longer than `min_age`, and whose run `is_alive`
    /// denies. `run` marks what this call itself may leave behind.
    ///
    /// # Guarantees
    /// Age is told by the clock of the store, never by that of this host.
    fn sweep_dead(
        &self,
        key: &str,
        run: &str,
        min_age: Duration,
        is_alive: &dyn Fn(&str) -> bool,
    ) -> Result<u64, StorageError>;

    /// Bytes that can still be written, where the store tells; buckets do not.
    fn free_bytes(&self) -> Result<Option<u64>, StorageError> {
        Ok(None)
    }
}

/// An object that is being written. Dropping it without a commit discards it.
pub trait Upload: Write + Send {
    /// Makes the object durable and publishes it under its key, which nothing may have: an object
    /// is never replaced.
    ///
    /// # Errors
    /// [`ErrorClass::AlreadyExists`] when the key is taken; the object that
    /// has it is untouched.
    fn commit(self: Box<Self>) -> Result<ObjectInfo, StorageError>;
}

/// A lock on an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// Who may take it off.
    pub mode: LockMode,
    /// When it ends.
    pub until: jiff::Timestamp,
}

/// Who may take a lock off (source: S3 Object Lock, retention modes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Who has a right of its own to.
    Governance,
    /// Nobody.
    Compliance,
}

/// What a store knows of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Size in bytes.
    pub bytes: u64,
    /// Differs between any two objects that were ever published under one key.
    pub version: String,
}
