//! An object that grows, in parts.

use std::collections::VecDeque;
use std::io::{self, Write};

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, MultipartId, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload,
};
use tokio::task::JoinHandle;

use crate::bucket::listing::PAUSES;
use crate::bucket::words::{fault, plain};
use crate::bucket::{Bucket, info_of};
use crate::keys::{random, temporary_of};
use crate::{ErrorClass, ObjectInfo, StorageError, Upload};

/// Bytes of a part; a store takes no less than 5 MiB but for the last (source: S3, UploadPart).
pub(crate) const PART_BYTES: usize = 8 << 20;
/// Most parts of an upload (source: S3, multipart upload limits).
const MAX_PARTS: usize = 10_000;
/// Parts that are on their way at once; with the one that is filled they bound the memory.
const PARALLEL: usize = 3;
/// Metadata by which an upload knows its own object again.
const UPLOAD_METADATA: &str = "tidelock-upload";

/// An upload in parts that has begun.
struct Begun {
    id: MultipartId,
    /// The note beside the object that names run and upload, for a sweep after a kill.
    note: Path,
    parts: Vec<PartId>,
    under_way: VecDeque<JoinHandle<object_store::Result<PartId>>>,
    count: usize,
}

/// A small object is put at once, a larger one in parts while it grows.
pub(crate) struct BucketUpload<'b> {
    bucket: &'b Bucket,
    key: String,
    path: Path,
    run: String,
    /// Tells the object of this upload from any other under its key.
    mark: String,
    part: Vec<u8>,
    begun: Option<Begun>,
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
            part: Vec::new(),
            begun: None,
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

    /// Begins an upload in parts, and notes beside the object whose it is.
    ///
    /// # Crash window
    /// Before the note is there, the upload has no part, costs nothing, and is ended by age alone.
    fn begin(&mut self) -> Result<Begun, StorageError> {
        let store = &self.bucket.store;
        let options = PutMultipartOptions {
            attributes: self.attributes(),
            ..PutMultipartOptions::default()
        };
        let id = self
            .bucket
            .wait(store.create_multipart_opts(&self.path, options))
            .map_err(self.fault("write"))?;
        let note = self.bucket.beside(&self.path, &temporary_of(&self.run));
        let begun = Begun {
            id,
            note,
            parts: Vec::new(),
            under_way: VecDeque::new(),
            count: 0,
        };
        let noted = (self.bucket).wait(store.put(&begun.note, begun.id.clone().into()));
        if let Err(error) = noted {
            let fault = self.fault("write")(error);
            self.abort(begun);
            return Err(fault);
        }
        Ok(begun)
    }

    /// Sends the part that is full, once few enough are under way.
    fn send(&mut self) -> Result<(), StorageError> {
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => self.begin()?,
        };
        let sent = self.send_part(&mut begun);
        self.begun = Some(begun);
        sent
    }

    fn send_part(&mut self, begun: &mut Begun) -> Result<(), StorageError> {
        if begun.count == MAX_PARTS {
            let words = format!(
                "the object is larger than {MAX_PARTS} parts of {} MiB",
                PART_BYTES >> 20
            );
            return Err(plain("write", &self.key, ErrorClass::Full, words));
        }
        while begun.under_way.len() >= PARALLEL {
            self.take_part(begun)?;
        }
        let next = Vec::with_capacity(PART_BYTES);
        let part = Bytes::from(std::mem::replace(&mut self.part, next));
        let (store, path) = (self.bucket.store.clone(), self.path.clone());
        let (id, index) = (begun.id.clone(), begun.count);
        begun.count += 1;
        let put = async move {
            let payload = PutPayload::from_bytes(part);
            store.put_part(&path, &id, index, payload).await
        };
        begun.under_way.push_back(self.bucket.runtime.spawn(put));
        Ok(())
    }

    /// Waits for the oldest part that is under way.
    fn take_part(&self, begun: &mut Begun) -> Result<(), StorageError> {
        let Some(part) = begun.under_way.pop_front() else {
            return Ok(());
        };
        let part = self.bucket.wait(part).map_err(|error| {
            let words = format!("a part was not sent: {error}");
            plain("write", &self.key, ErrorClass::Unavailable, words)
        })?;
        begun.parts.push(part.map_err(self.fault("write"))?);
        Ok(())
    }

    /// Ends an upload in parts without an object; what cannot be ended now is found by its note.
    fn abort(&self, mut begun: Begun) {
        for part in begun.under_way.drain(..) {
            part.abort();
            let _ = self.bucket.wait(part);
        }
        let store = &self.bucket.store;
        let aborted = self
            .bucket
            .wait(store.abort_multipart(&self.path, &begun.id));
        if aborted.is_ok() || matches!(aborted, Err(object_store::Error::NotFound { .. })) {
            let _ = self.bucket.wait(store.delete(&begun.note));
        }
    }

    /// Publishes the object. An answer that was lost is asked for: an object with this upload's mark
    /// is the one.
    fn publish(&mut self) -> Result<(), StorageError> {
        let Some(mut begun) = self.begun.take() else {
            return self.publish_small();
        };
        let completed = self.complete(&mut begun);
        if let Err(fault) = completed
            && !self.is_published()
        {
            self.abort(begun);
            return Err(fault);
        }
        // What stays of the note is swept: it names an upload that has ended.
        let _ = self.bucket.wait(self.bucket.store.delete(&begun.note));
        Ok(())
    }

    fn complete(&mut self, begun: &mut Begun) -> Result<(), StorageError> {
        if !self.part.is_empty() {
            self.send_part(begun)?;
        }
        while !begun.under_way.is_empty() {
            self.take_part(begun)?;
        }
        let parts = std::mem::take(&mut begun.parts);
        let store = &self.bucket.store;
        self.bucket
            .wait(store.complete_multipart(&self.path, &begun.id, parts))
            .map_err(self.fault("publish"))?;
        Ok(())
    }

    /// Puts the object at once; again while the fault may pass, which the library leaves to us: an
    /// answer that was lost may have been a yes.
    fn publish_small(&mut self) -> Result<(), StorageError> {
        let payload = PutPayload::from_bytes(Bytes::from(std::mem::take(&mut self.part)));
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
        if let Some(begun) = self.begun.take() {
            self.abort(begun);
        }
    }
}
