//! Storage whose objects are encrypted in the format of [age](https://age-encryption.org/v1).
//!
//! [`Sealed`] stands between whoever reads and writes objects and the [`Storage`] that holds them. An
//! object `x` is stored as `x.age`, which the `age` tool opens.

mod keys;
mod read;
mod write;

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidelock_storage::{ErrorClass, Lock, ObjectInfo, Storage, StorageError, Upload, pass_on};

pub use keys::{Identities, InvalidKey, Recipients};

use crate::read::{Expected, Head};
use crate::write::SealedUpload;

/// Ends the key of every encrypted object.
pub const ENDING: &str = ".age";

/// Size and SHA-256 of an object as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its size, in bytes.
    pub bytes: u64,
    /// 64 lower-case hex digits.
    pub sha256: String,
}

/// Storage that encrypts what is written and decrypts what is read.
///
/// # Guarantees
/// - Sizes and ranges are those of the plain objects. A ranged read takes no more of the store than the
///   chunks of 64 KiB that it touches, beside the object's head.
/// - What is not what was written is told as [`ErrorClass::Damaged`]; a plain byte is given out only
///   when its chunk is authentic.
/// - An object that is read from its start to its end is compared with what
///   [`Self::expect`] was told of it.
pub struct Sealed<'s> {
    inner: &'s dyn Storage,
    recipients: Recipients,
    identities: Identities,
    /// What this value has written, by plain key.
    written: Mutex<HashMap<String, Stored>>,
    /// What objects are expected to be, by plain key.
    expected: HashMap<String, Stored>,
    heads: Mutex<HashMap<String, Arc<Head>>>,
}

impl<'s> Sealed<'s> {
    /// Encrypts to `recipients`, and decrypts with `identities`.
    pub fn new(inner: &'s dyn Storage, recipients: Recipients, identities: Identities) -> Self {
        Self {
            inner,
            recipients,
            identities,
            written: Mutex::default(),
            expected: HashMap::new(),
            heads: Mutex::default(),
        }
    }

    /// Remembers what the object with the plain key `key` has to be as it is stored.
    pub fn expect(&mut self, key: &str, stored: Stored) {
        self.expected.insert(key.to_owned(), stored);
    }

    /// What the object with the plain key `key` is as it is stored, if this value has written it.
    pub fn written(&self, key: &str) -> Option<Stored> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(key).cloned()
    }

    /// The beginning of an object: read once.
    fn head_of(&self, key: &str) -> Result<Arc<Head>, StorageError> {
        let known = {
            let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
            heads.get(key).cloned()
        };
        if let Some(head) = known {
            return Ok(head);
        }
        let head = Arc::new(Head::read(self.inner, &sealed(key))?);
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.insert(key.to_owned(), Arc::clone(&head));
        Ok(head)
    }

    fn whole(
        &self,
        key: &str,
        object: Box<dyn Read + Send>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let expected = self.expected.get(key).cloned();
        read::whole(
            &sealed(key),
            object,
            &self.identities,
            Expected::of(expected),
        )
    }
}

/// The key under which the object `key` is stored.
pub fn sealed(key: &str) -> String {
    format!("{key}{ENDING}")
}

impl Storage for Sealed<'_> {
    fn put<'a>(&'a self, key: &str, run: &str) -> Result<Box<dyn Upload + 'a>, StorageError> {
        let inner = self.inner.put(&sealed(key), run)?;
        let upload = SealedUpload::begin(key, inner, &self.recipients, &self.written)?;
        Ok(Box::new(upload))
    }

    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        match range {
            None => self.whole(key, self.inner.get(&sealed(key), None)?),
            Some(range) => {
                let head = self.head_of(key)?;
                head.range(self.inner, &sealed(key), range, &self.identities)
            }
        }
    }

    fn get_fresh(&self, key: &str) -> Result<Box<dyn Read + Send>, StorageError> {
        self.whole(key, self.inner.get_fresh(&sealed(key))?)
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StorageError> {
        let info = self.inner.head(&sealed(key))?;
        let mut head = self.head_of(key)?;
        if info.bytes != head.stored_bytes() {
            self.heads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(key);
            head = self.head_of(key)?;
        }
        Ok(ObjectInfo {
            bytes: head.plain_bytes(),
            version: info.version,
        })
    }

    pass_on!(inner: list, free_bytes);

    fn delete(&self, key: &str) -> Result<bool, StorageError> {
        self.inner.delete(&sealed(key))
    }

    fn lock(&self, key: &str, lock: &Lock) -> Result<(), StorageError> {
        self.inner.lock(&sealed(key), lock)
    }

    fn sweep(&self, key: &str, run: &str) -> Result<u64, StorageError> {
        self.inner.sweep(&sealed(key), run)
    }

    fn sweep_dead(
        &self,
        key: &str,
        run: &str,
        min_age: Duration,
        is_alive: &dyn Fn(&str) -> bool,
    ) -> Result<u64, StorageError> {
        self.inner.sweep_dead(&sealed(key), run, min_age, is_alive)
    }
}

/// What is stored is not what was written.
pub(crate) fn damaged(action: &'static str, key: &str, words: impl Into<String>) -> StorageError {
    StorageError {
        action,
        key: key.to_owned(),
        class: ErrorClass::Damaged,
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, words.into()),
    }
}
