//! An object as it comes.

use std::io::{self, Read};

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::GetResult;
use tokio::runtime::Handle;

use crate::bucket::words::{fault, plain};
use crate::{ErrorClass, StorageError};

/// Reads what was asked for, and is not content with less.
pub(crate) struct ObjectReader {
    key: String,
    handle: Handle,
    stream: BoxStream<'static, object_store::Result<bytes::Bytes>>,
    chunk: bytes::Bytes,
    left: u64,
}

impl ObjectReader {
    pub(crate) fn new(key: &str, handle: Handle, result: GetResult) -> Self {
        Self {
            key: key.to_owned(),
            handle,
            left: result.range.end.saturating_sub(result.range.start),
            stream: result.into_stream(),
            chunk: bytes::Bytes::new(),
        }
    }

    fn next(&mut self) -> Result<(), StorageError> {
        let short = |words: &str| plain("read", &self.key, ErrorClass::Unavailable, words);
        let chunk = match self.handle.block_on(self.stream.next()) {
            Some(chunk) => chunk.map_err(|error| fault("read", &self.key, &error))?,
            None => return Err(short("the store sent less than the object holds")),
        };
        self.left = (self.left)
            .checked_sub(chunk.len() as u64)
            .ok_or_else(|| short("the store sent more than was asked for"))?;
        self.chunk = chunk;
        Ok(())
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && self.left > 0 {
            self.next().map_err(StorageError::into_io)?;
        }
        let taken = self.chunk.split_to(buffer.len().min(self.chunk.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}
