//! An object that grows, in parts.

use std::io::{self, Write};

use bytes::BytesMut;
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::bucket::listing::PAUSES;
use crate::bucket::parts::{Parts, payload};
use crate::bucket::words::{fault, plain};
use crate::bucket::{Bucket, info_of};
use crate::keys::{piece_of, random};
use crate::{ErrorClass, ObjectInfo, StorageError, Upload};

/// Bytes of a part; a store takes no less than 5 MiB but for the last (source: S3, UploadPart).
pub(crate) const PART_BYTES: usize = 8 << 20;
/// Most parts of an upload (source: S3, multipart upload limits).
const MAX_PARTS: usize = 10_000;
/// Largest object (source: S3, the same).
const MAX_BYTES: u64 = 5 << 40;
/// Metadata by which an upload knows its own object again.
const UPLOAD_METADATA: &str = "tidelock-upload";

/// A small object is put at once, a larger one in parts while it grows. Beyond so many parts, each
/// further one is made by the store of an object that was written in parts itself, so that an object
/// may be as large as a store takes and memory is bounded all the same.
pub(crate) struct BucketUpload<'b> {
    bucket: &'b Bucket,
    key: String,
    path: Path,
    run: String,
    /// Tells the object of this upload from any other under its key.
    mark: String,
    part: BytesMut,
    begun: Option<Parts>,
    /// What is to be the next part.
    piece: Option<Parts>,
    bytes: u64,
}

impl<'b> BucketUpload<'b> {
    pub(crate) fn new(bucket: &'b Bucket, key: &str, path: Path, run: &str) -> Self {
        Self {
            bucket,
            key: key.to_owned(),
            path,
            run: run.to_owned(),
            mark: format!("{run}-{:016x}", random()),
            part: BytesMut::new(),
            begun: None,
            piece: None,
            bytes: 0,
        }
    }

    fn fault(&self, action: &'static str) -> impl Fn(object_store::Error) -> StorageError {
        let key = self.key.clone();
        move |error| fault(action, &key, &error)
    }

    fn attributes(&self) -> Attributes {
        let mut all = self.bucket.attributes();
        let name = Attribute::Metadata(UPLOAD_METADATA.into());
        all.insert(name, self.mark.clone().into());
        all
    }

    /// Sends the part that is full.
    fn send(&mut self) -> Result<(), StorageError> {
        if self.bytes > MAX_BYTES {
            let words = "no object of a store is larger than 5 TiB";
            return Err(plain("write", &self.key, ErrorClass::Full, words));
        }
        let bucket = self.bucket;
        let part = std::mem::take(&mut self.part);
        let direct = self
            .begun
            .as_ref()
            .is_none_or(|begun| begun.count() < bucket.composition.direct && self.piece.is_none());
        if direct {
            self.part = self.begun()?.send(bucket, part)?;
            return Ok(());
        }
        if self.piece.is_none() {
            let name = piece_of(&self.run);
            let path = bucket.beside(&self.path, &name);
            let place = (self.key.as_str(), &path);
            let begun = Parts::begin(
                bucket,
                &bucket.pieces,
                place,
                &self.run,
                bucket.attributes(),
            )?;
            self.piece = Some(begun);
        }
        if let Some(piece) = &mut self.piece {
            self.part = piece.send(bucket, part)?;
            if piece.count() >= bucket.composition.piece {
                self.take_piece()?;
            }
        }
        Ok(())
    }

    /// The upload of the object itself.
    fn begun(&mut self) -> Result<&mut Parts, StorageError> {
        let begun = match self.begun.take() {
            Some(begun) => begun,
            None => {
                let place = (self.key.as_str(), &self.path);
                Parts::begin(
                    self.bucket,
                    &self.bucket.store,
                    place,
                    &self.run,
                    self.attributes(),
                )?
            }
        };
        Ok(self.begun.insert(begun))
    }

    /// Lets the piece be the next part of the object, and removes it.
    ///
    /// # Crash window
    /// A piece that stays is swept by its run's name, as a note is.
    fn take_piece(&mut self) -> Result<(), StorageError> {
        let Some(mut piece) = self.piece.take() else {
            return Ok(());
        };
        let (bucket, path) = (self.bucket, piece.path().clone());
        let completed = piece.complete(bucket).or_else(|fault| {
            // An answer that was lost: no other object has that name.
            let found = bucket.wait(bucket.store.head(&path));
            found
                .is_ok_and(|found| found.size == piece.bytes())
                .then_some(())
                .ok_or(fault)
        });
        if let Err(fault) = completed {
            piece.abort(bucket);
            return Err(fault);
        }
        let begun = self.begun()?;
        let copied = if begun.count() < MAX_PARTS {
            begun.copy(bucket, &path)
        } else {
            let words = format!("no store takes more than {MAX_PARTS} parts");
            Err(plain("write", &self.key, ErrorClass::Full, words))
        };
        piece.forget(bucket);
        let _ = bucket.remove_own(&self.key, &path);
        copied
    }

    /// Publishes the object. An answer that was lost is asked for: an object with this upload's mark
    /// is the one.
    fn publish(&mut self) -> Result<(), StorageError> {
        if self.begun.is_none() {
            return self.publish_small();
        }
        let completed = self.complete();
        let Some(begun) = self.begun.take() else {
            return completed;
        };
        if let Err(fault) = completed
            && !self.is_published()
        {
            begun.abort(self.bucket);
            return Err(fault);
        }
        // What stays of the note is swept: it names an upload that has ended.
        begun.forget(self.bucket);
        Ok(())
    }

    fn complete(&mut self) -> Result<(), StorageError> {
        if !self.part.is_empty() {
            self.send()?;
        }
        self.take_piece()?;
        let bucket = self.bucket;
        self.begun()?.complete(bucket)
    }

    /// Puts the object at once; again while the fault may pass, which the library leaves to us: an
    /// answer that was lost may have been a yes.
    fn publish_small(&mut self) -> Result<(), StorageError> {
        let payload = payload(&std::mem::take(&mut self.part).freeze());
        let mut pauses = PAUSES.iter();
        loop {
            let options = PutOptions {
                mode: PutMode::Create,
                attributes: self.attributes(),
                ..PutOptions::default()
            };
            let put = (self.bucket.store).put_opts(&self.path, payload.clone(), options);
            let Err(error) = self.bucket.wait(put) else {
                return Ok(());
            };
            if self.is_published() {
                return Ok(());
            }
            let fault = self.fault("publish")(error);
            match pauses.next() {
                Some(pause) if fault.class == ErrorClass::Unavailable => std::thread::sleep(*pause),
                _ => return Err(fault),
            }
        }
    }

    /// Whether the object under the key is this upload's.
    fn is_published(&self) -> bool {
        let get = self.bucket.store.get_opts(
            &self.path,
            object_store::GetOptions {
                head: true,
                ..object_store::GetOptions::default()
            },
        );
        let name = Attribute::Metadata(UPLOAD_METADATA.into());
        self.bucket.wait(get).is_ok_and(|found| {
            let mark = found.attributes.get(&name).map(AsRef::as_ref);
            mark == Some(self.mark.as_str()) && found.meta.size == self.bytes
        })
    }
}

impl Write for BucketUpload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.len() == PART_BYTES {
            self.send().map_err(StorageError::into_io)?;
        }
        let taken = bytes.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        self.bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for BucketUpload<'_> {
    fn commit(mut self: Box<Self>) -> Result<ObjectInfo, StorageError> {
        self.publish()?;
        let head = self.bucket.wait(self.bucket.store.head(&self.path));
        let info = info_of(&head.map_err(self.fault("publish"))?);
        if info.bytes != self.bytes {
            let words = format!("{} bytes were sent, {} are there", self.bytes, info.bytes);
            return Err(plain("publish", &self.key, ErrorClass::Unavailable, words));
        }
        Ok(info)
    }
}

impl Drop for BucketUpload<'_> {
    fn drop(&mut self) {
        for begun in [self.piece.take(), self.begun.take()].into_iter().flatten() {
            begun.abort(self.bucket);
        }
    }
}
