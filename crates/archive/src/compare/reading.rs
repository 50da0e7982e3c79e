//! Reading content to compare it, with and without holes.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{SeekFrom, seek};
use sha2::{Digest, Sha256};

use super::{PIECE_BYTES, Unread};
use crate::digest::hex_of;
use crate::error::RestoreError;
use crate::sparse::SparseMap;

/// Gives a file's content to `sink`; with a map only the data that it tells of.
///
/// False where the file ends before that, or holds something beside it.
pub(super) fn read_all(
    file: &mut File,
    map: Option<&SparseMap>,
    stop: &AtomicBool,
    mut sink: impl FnMut(&[u8]),
) -> Result<bool, Unread> {
    let mut buffer = vec![0; PIECE_BYTES];
    let Some(map) = map else {
        while let Some(bytes) = read(file, &mut buffer, u64::MAX, stop)? {
            sink(bytes);
        }
        return Ok(true);
    };
    let mut at = 0;
    for segment in map.data() {
        if !is_empty(file, at, segment.offset, stop)? {
            return Ok(false);
        }
        file.seek(io::SeekFrom::Start(segment.offset))?;
        let mut left = segment.length;
        while left > 0 {
            let Some(bytes) = read(file, &mut buffer, left, stop)? else {
                return Ok(false);
            };
            sink(bytes);
            left -= bytes.len() as u64;
        }
        at = segment.end();
    }
    is_empty(file, at, map.size(), stop)
}

/// The next bytes of a file, at most `limit`; none at its end.
fn read<'b>(
    file: &mut File,
    buffer: &'b mut [u8],
    limit: u64,
    stop: &AtomicBool,
) -> Result<Option<&'b [u8]>, Unread> {
    let most = usize::try_from(limit).map_or(buffer.len(), |limit| limit.min(buffer.len()));
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Unread::Stopped);
        }
        match file.read(&mut buffer[..most]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
            Ok(read) => return Ok((read > 0).then(|| &buffer[..read])),
        }
    }
}

/// Whether a stretch of a file holds nothing but zeros.
fn is_empty(file: &mut File, start: u64, end: u64, stop: &AtomicBool) -> Result<bool, Unread> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = start;
    while at < end {
        // Where the file system tells of no holes, all is data.
        let data = match seek(&*file, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => return Ok(true),
            found => found.unwrap_or(at).max(at),
        };
        if data >= end {
            break;
        }
        file.seek(io::SeekFrom::Start(data))?;
        match read(file, &mut buffer, end - data, stop)? {
            None => break,
            Some(bytes) if bytes.iter().any(|byte| *byte != 0) => return Ok(false),
            Some(bytes) => at = data + bytes.len() as u64,
        }
    }
    Ok(true)
}

/// The digest of all content of a file that comes with its holes left out.
#[derive(Default)]
pub(super) struct Expanded {
    hash: Sha256,
    at: u64,
}

impl Expanded {
    /// Takes the next piece and where it stands.
    pub(super) fn piece(
        &mut self,
        at: u64,
        piece: &[u8],
        stop: &AtomicBool,
    ) -> Result<(), RestoreError> {
        self.zeros_until(at, stop)?;
        self.hash.update(piece);
        self.at = at + piece.len() as u64;
        Ok(())
    }

    /// The digest of a file of this size.
    pub(super) fn finish(mut self, size: u64, stop: &AtomicBool) -> Result<String, RestoreError> {
        self.zeros_until(size, stop)?;
        Ok(hex_of(self.hash))
    }

    fn zeros_until(&mut self, end: u64, stop: &AtomicBool) -> Result<(), RestoreError> {
        let zeros = vec![0; PIECE_BYTES];
        while self.at < end {
            if stop.load(Ordering::Relaxed) {
                return Err(RestoreError::Stopped);
            }
            let length = usize::try_from(end - self.at).map_or(PIECE_BYTES, |n| n.min(PIECE_BYTES));
            self.hash.update(&zeros[..length]);
            self.at += length as u64;
        }
        Ok(())
    }
}
