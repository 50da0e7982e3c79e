use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise, fsync};
use rustix::io::Errno;

/// What has been read is dropped from the page cache in steps of this many bytes.
const DROP_BYTES: u64 = 8 << 20;

/// Reads a file from its medium and leaves nothing of it in the page cache.
///
/// A file system that keeps its own cache, or whose medium is memory, takes the advice as it
/// likes; a page that something else holds at that moment stays.
pub(crate) struct FreshFile {
    file: File,
    position: u64,
    /// Up to where the page cache was told to drop the file.
    dropped: u64,
}

impl FreshFile {
    /// Writes back what is dirty, since only clean pages can be dropped, and drops all.
    pub(crate) fn new(file: File) -> Result<Self, Errno> {
        match fsync(&file) {
            // A read-only file system has nothing to write back.
            Ok(()) | Err(Errno::ROFS | Errno::INVAL) => {}
            Err(e) => return Err(e),
        }
        let _ = fadvise(&file, 0, None, Advice::Sequential);
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        Ok(Self {
            file,
            position: 0,
            dropped: 0,
        })
    }

    fn drop_behind(&mut self) {
        let length = NonZeroU64::new(self.position - self.dropped);
        if length.is_some() {
            let _ = fadvise(&self.file, self.dropped, length, Advice::DontNeed);
        }
        self.dropped = self.position;
    }
}

impl Read for FreshFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.position += read as u64;
        if self.position - self.dropped >= DROP_BYTES || (read == 0 && !buffer.is_empty()) {
            self.drop_behind();
        }
        Ok(read)
    }
}
