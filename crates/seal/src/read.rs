//! Encrypted objects that are read.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;

use age::Decryptor;
use age::stream::StreamReader;
use sha2::{Digest, Sha256};
use tidelock_storage::{Storage, StorageError, storage_error_in};

use crate::{Identities, Stored, damaged};

/// Plain bytes of a chunk (source: age-encryption.org/v1, payload).
const CHUNK: u64 = 64 << 10;
/// Bytes of a chunk's tag.
const TAG: u64 = 16;
/// As much of an object as its header may take; a recipient takes some 100 bytes.
const MAX_HEADER_BYTES: u64 = 16 << 10;

type Object = Box<dyn Read + Send>;

/// Decrypts all of an object.
pub(crate) fn whole(
    key: &str,
    object: Object,
    identities: &Identities,
    expected: Expected,
) -> Result<Object, StorageError> {
    let compared = Compared {
        key: key.to_owned(),
        object,
        expected,
    };
    let reader = Decryptor::new(compared).and_then(|d| d.decrypt(identities.all()));
    let reader = reader.map_err(|error| of_decryption(key, error))?;
    Ok(Box::new(Told {
        key: key.to_owned(),
        reader,
    }))
}

fn of_decryption(key: &str, error: age::DecryptError) -> StorageError {
    match error {
        age::DecryptError::Io(error) => of_io(key, error),
        other => damaged("decrypt", key, other.to_string()),
    }
}

fn of_io(key: &str, error: io::Error) -> StorageError {
    match error.downcast::<StorageError>() {
        Ok(error) => error,
        Err(error) => damaged("decrypt", key, error.to_string()),
    }
}

/// What an object has to be as it is stored, and what it is as far as it was read.
pub(crate) struct Expected {
    wanted: Option<Stored>,
    bytes: u64,
    hash: Sha256,
}

impl Expected {
    pub(crate) fn of(wanted: Option<Stored>) -> Self {
        Self {
            wanted,
            bytes: 0,
            hash: Sha256::new(),
        }
    }

    /// Whether all that was read is what is wanted.
    fn is_met(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| {
            let sha256 = hex::encode(self.hash.clone().finalize());
            wanted.bytes == self.bytes && wanted.sha256 == sha256
        })
    }
}

/// An object that is compared at its end.
struct Compared {
    key: String,
    object: Object,
    expected: Expected,
}

impl Read for Compared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.object.read(buffer)?;
        if self.expected.wanted.is_none() || buffer.is_empty() {
            return Ok(read);
        }
        self.expected.bytes += read as u64;
        self.expected.hash.update(&buffer[..read]);
        if read == 0 && !self.expected.is_met() {
            let words = "its bytes are not those that were written";
            return Err(damaged("read", &self.key, words).into_io());
        }
        Ok(read)
    }
}

/// A decrypting reader whose errors are all of storage.
struct Told<R> {
    key: String,
    reader: StreamReader<R>,
}

impl<R: Read> Read for Told<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            if storage_error_in(&error).is_some() {
                return error;
            }
            of_io(&self.key, error).into_io()
        })
    }
}

/// The beginning of an object: header and nonce.
pub(crate) struct Head {
    bytes: Vec<u8>,
    stored_bytes: u64,
}

impl Head {
    /// Reads the beginning of the stored object `key`.
    pub(crate) fn read(inner: &dyn Storage, key: &str) -> Result<Self, StorageError> {
        let stored_bytes = inner.head(key)?.bytes;
        let most = stored_bytes.min(MAX_HEADER_BYTES);
        let mut bytes = Vec::new();
        let object = inner.get(key, Some(0..most))?;
        object
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(|error| of_io(key, error))?;
        let mut rest = Cursor::new(&bytes);
        Decryptor::new(&mut rest).map_err(|error| of_decryption(key, error))?;
        let length = usize::try_from(rest.position()).unwrap_or(usize::MAX);
        bytes.truncate(length);
        let head = Self {
            bytes,
            stored_bytes,
        };
        // The shortest payload is one empty chunk.
        if head.payload_bytes() < TAG {
            return Err(damaged("decrypt", key, "it ends behind its header"));
        }
        Ok(head)
    }

    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    fn payload_bytes(&self) -> u64 {
        self.stored_bytes.saturating_sub(self.bytes.len() as u64)
    }

    /// Size of the plain object, if it is whole.
    pub(crate) fn plain_bytes(&self) -> u64 {
        let payload = self.payload_bytes();
        payload.saturating_sub(payload.div_ceil(CHUNK + TAG) * TAG)
    }

    /// Decrypts a part of the stored object `key`.
    pub(crate) fn range(
        &self,
        inner: &dyn Storage,
        key: &str,
        range: Range<u64>,
        identities: &Identities,
    ) -> Result<Object, StorageError> {
        let end = range.end.min(self.plain_bytes());
        let Some(length) = end.checked_sub(range.start).filter(|length| *length > 0) else {
            return Ok(Box::new(io::empty()));
        };
        let chunk = range.start / CHUNK;
        let payload = self.bytes.len() as u64;
        let from = payload + chunk * (CHUNK + TAG);
        let last = (end - 1) / CHUNK + 1;
        let to = (payload + last * (CHUNK + TAG)).min(self.stored_bytes);
        let spliced = Spliced {
            head: self.bytes.clone(),
            from,
            end: self.stored_bytes,
            rest: inner.get(key, Some(from..to))?,
            position: 0,
        };
        let reader = Decryptor::new(spliced).and_then(|d| d.decrypt(identities.all()));
        let mut reader = reader.map_err(|error| of_decryption(key, error))?;
        let found = find(&mut reader, chunk * CHUNK, range.start);
        found.map_err(|error| of_io(key, error))?;
        let told = Told {
            key: key.to_owned(),
            reader,
        };
        Ok(Box::new(told.take(length)))
    }
}

/// Goes to `place` in the chunk that begins at `chunk`.
fn find<R: Read + Seek>(reader: &mut StreamReader<R>, chunk: u64, place: u64) -> io::Result<()> {
    if chunk > 0 {
        // To the very beginning of a chunk the reader only goes by way of the object's end.
        reader.seek(SeekFrom::Start(chunk + 1))?;
    } else {
        reader.read_exact(&mut [0; 1])?;
    }
    reader.seek(SeekFrom::Start(place))?;
    Ok(())
}

/// An object of which the head and a stretch are there.
struct Spliced {
    head: Vec<u8>,
    /// Where the stretch begins in the object.
    from: u64,
    /// Size of the object.
    end: u64,
    rest: Object,
    position: u64,
}

impl Read for Spliced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = usize::try_from(self.position).unwrap_or(usize::MAX);
        let read = match self.head.get(at..).filter(|head| !head.is_empty()) {
            Some(mut head) => head.read(buffer)?,
            None => self.rest.read(buffer)?,
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Spliced {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let wanted = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        match wanted {
            Some(place) if place == self.position || place == self.from => {
                self.position = place;
                Ok(place)
            }
            _ => Err(io::Error::other(
                "nothing of the object is there at that place",
            )),
        }
    }
}
