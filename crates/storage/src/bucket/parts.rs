//! An upload in parts.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Attributes, MultipartId, ObjectStoreExt, PutMultipartOptions, PutPayload};
use tokio::task::JoinHandle;

use crate::bucket::Bucket;
use crate::bucket::upload::PART_BYTES;
use crate::bucket::words::{fault, plain};
use crate::keys::temporary_of;
use crate::{ErrorClass, StorageError};

/// Parts that are on their way at once; with the one that is filled they bound the memory.
const PARALLEL: usize = 3;

/// The client copies what it is given at once into a buffer of its connection where that encrypts.
const FRAME_BYTES: usize = 64 << 10;

/// What is sent, in frames that the client takes one after the other.
pub(crate) fn payload(bytes: &Bytes) -> PutPayload {
    let starts = (0..bytes.len()).step_by(FRAME_BYTES);
    let frame = |start: usize| bytes.slice(start..bytes.len().min(start + FRAME_BYTES));
    starts.map(frame).collect()
}

/// An upload in parts that has begun, and not ended.
pub(crate) struct Parts {
    /// Of the object that is written, for what is told.
    key: String,
    store: Arc<AmazonS3>,
    path: Path,
    id: MultipartId,
    /// The note beside the object that names run and upload, for a sweep after a kill.
    note: Path,
    done: Vec<PartId>,
    /// What is sent, and what will come of it.
    under_way: VecDeque<(Bytes, JoinHandle<object_store::Result<PartId>>)>,
    /// Buffers of parts that were sent.
    spare: Vec<BytesMut>,
    count: usize,
    bytes: u64,
}

impl Parts {
    /// Begins an upload of `run` to `path`, and notes beside it whose it is.
    ///
    /// # Crash window
    /// Before the note is there, the upload has no part, costs nothing, and is ended by age alone.
    pub(crate) fn begin(
        bucket: &Bucket,
        store: &Arc<AmazonS3>,
        (key, path): (&str, &Path),
        run: &str,
        attributes: Attributes,
    ) -> Result<Self, StorageError> {
        let options = PutMultipartOptions {
            attributes,
            ..PutMultipartOptions::default()
        };
        let id = bucket
            .wait(store.create_multipart_opts(path, options))
            .map_err(|error| fault("write", key, &error))?;
        let begun = Self {
            key: key.to_owned(),
            store: Arc::clone(store),
            path: path.clone(),
            note: bucket.beside(path, &temporary_of(run)),
            id,
            done: Vec::new(),
            under_way: VecDeque::new(),
            spare: Vec::new(),
            count: 0,
            bytes: 0,
        };
        let noted = bucket.wait(bucket.store.put(&begun.note, begun.id.clone().into()));
        if let Err(error) = noted {
            begun.abort(bucket);
            return Err(fault("write", key, &error));
        }
        Ok(begun)
    }

    /// How many parts it has, those included that are on their way.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many bytes were sent to it.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it leads.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Sends the next part, once few enough are under way; an empty buffer for the one after it.
    ///
    /// # Guarantees
    /// Buffers are used again: an allocator that gives and takes blocks of this size keeps a multiple of
    /// them.
    pub(crate) fn send(
        &mut self,
        bucket: &Bucket,
        part: BytesMut,
    ) -> Result<BytesMut, StorageError> {
        while self.under_way.len() >= PARALLEL {
            self.take(bucket)?;
        }
        let part = part.freeze();
        let (store, path) = (Arc::clone(&self.store), self.path.clone());
        let (id, index) = (self.id.clone(), self.count);
        self.count += 1;
        self.bytes += part.len() as u64;
        let payload = payload(&part);
        let put = async move { store.put_part(&path, &id, index, payload).await };
        let put = bucket.runtime.spawn(put);
        self.under_way.push_back((part, put));
        let spare = self.spare.pop();
        Ok(spare.unwrap_or_else(|| BytesMut::with_capacity(PART_BYTES)))
    }

    /// Lets the object at `piece` be the next part.
    pub(crate) fn copy(&mut self, bucket: &Bucket, piece: &Path) -> Result<(), StorageError> {
        self.settle(bucket)?;
        let target = (&self.path, self.id.as_str(), self.count);
        let part = bucket.copy_part(&self.key, target, piece)?;
        self.done.push(part);
        self.count += 1;
        Ok(())
    }

    /// Waits for all parts that are under way.
    fn settle(&mut self, bucket: &Bucket) -> Result<(), StorageError> {
        while !self.under_way.is_empty() {
            self.take(bucket)?;
        }
        Ok(())
    }

    /// Waits for the oldest part that is under way.
    fn take(&mut self, bucket: &Bucket) -> Result<(), StorageError> {
        let Some((sent, part)) = self.under_way.pop_front() else {
            return Ok(());
        };
        let part = bucket.wait(part).map_err(|error| {
            let words = format!("a part was not sent: {error}");
            plain("write", &self.key, ErrorClass::Unavailable, words)
        })?;
        let part = part.map_err(|error| fault("write", &self.key, &error))?;
        self.done.push(part);
        if let Ok(mut buffer) = sent.try_into_mut() {
            buffer.clear();
            self.spare.push(buffer);
        }
        Ok(())
    }

    /// Makes the object of its parts. It is to be ended by [`Self::forget`] or [`Self::abort`] after.
    pub(crate) fn complete(&mut self, bucket: &Bucket) -> Result<(), StorageError> {
        self.settle(bucket)?;
        let parts = std::mem::take(&mut self.done);
        let completed = self.store.complete_multipart(&self.path, &self.id, parts);
        let completed = bucket.wait(completed);
        completed.map_err(|error| fault("publish", &self.key, &error))?;
        Ok(())
    }

    /// Removes the note of an upload that has ended; one that stays is swept.
    pub(crate) fn forget(self, bucket: &Bucket) {
        let _ = bucket.remove_own(&self.key, &self.note);
    }

    /// Ends the upload without an object; what cannot be ended now is found by its note.
    pub(crate) fn abort(mut self, bucket: &Bucket) {
        for (_, part) in self.under_way.drain(..) {
            part.abort();
            let _ = bucket.wait(part);
        }
        let aborted = bucket.wait(self.store.abort_multipart(&self.path, &self.id));
        if aborted.is_ok() || matches!(aborted, Err(object_store::Error::NotFound { .. })) {
            let _ = bucket.remove_own(&self.key, &self.note);
        }
    }
}
