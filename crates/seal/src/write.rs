//! An encrypted object that is being written.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use age::stream::StreamWriter;
use sha2::{Digest, Sha256};
use tidelock_storage::{ErrorClass, ObjectInfo, StorageError, Upload};

use crate::{Recipients, Stored};

type Written = Mutex<HashMap<String, Stored>>;

/// Encrypts on the way, and digests what goes into the store.
pub(crate) struct SealedUpload<'a> {
    key: String,
    writer: StreamWriter<Counted<'a>>,
    plain_bytes: u64,
    written: &'a Written,
}

impl<'a> SealedUpload<'a> {
    pub(crate) fn begin(
        key: &str,
        inner: Box<dyn Upload + 'a>,
        recipients: &Recipients,
        written: &'a Written,
    ) -> Result<Self, StorageError> {
        let counted = Counted {
            inner,
            bytes: 0,
            hash: Sha256::new(),
        };
        let begun = recipients
            .encryptor()
            .and_then(|encryptor| encryptor.wrap_output(counted));
        Ok(Self {
            key: key.to_owned(),
            writer: begun.map_err(|error| fault(key, error))?,
            plain_bytes: 0,
            written,
        })
    }
}

impl Write for SealedUpload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.plain_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Upload for SealedUpload<'_> {
    fn commit(self: Box<Self>) -> Result<ObjectInfo, StorageError> {
        let counted = self.writer.finish().map_err(|e| fault(&self.key, e))?;
        let stored = Stored {
            bytes: counted.bytes,
            sha256: hex::encode(counted.hash.finalize()),
        };
        let info = counted.inner.commit()?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(self.key, stored);
        Ok(ObjectInfo {
            bytes: self.plain_bytes,
            version: info.version,
        })
    }
}

/// The error of the store in it, or the one of the encryption.
fn fault(key: &str, error: io::Error) -> StorageError {
    match error.downcast::<StorageError>() {
        Ok(error) => error,
        Err(source) => StorageError {
            action: "encrypt",
            key: key.to_owned(),
            class: ErrorClass::Unavailable,
            source,
        },
    }
}

struct Counted<'a> {
    inner: Box<dyn Upload + 'a>,
    bytes: u64,
    hash: Sha256,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
