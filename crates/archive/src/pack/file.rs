//! Reading one regular file that may change meanwhile.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, openat};
use sha2::{Digest, Sha256};

use super::{Fault, Notice, PackError, Packer, entry_of, replaced};
use crate::archive_writer::EntryEnd;
use crate::digest::{hex_of, sha256};
use crate::entry::EntryKind;
use crate::meta::{FileKind, Meta, Time};
use crate::walk::NameFault;
use crate::xattr::{Handle, Xattrs};

/// Files up to this size are read whole before a byte of them is written.
const SMALL_BYTES: u64 = 1 << 20;
/// How often a file that changes while it is read is read.
const MAX_TRIES: u32 = 3;
/// Pieces that large files are read in.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// File systems stamp changes with the time of the last timer tick, at worst 10 ms old (source:
/// CONFIG_HZ=100). A change this soon after another one may not show.
const STAMP_GRAIN: Duration = Duration::from_millis(20);

/// A regular file, open and looked at.
struct Opened {
    file: File,
    meta: Meta,
    xattrs: Xattrs,
    /// The last change is long enough ago that another one would show.
    settled: bool,
}

impl Opened {
    /// Whether nothing changed since the file was opened, for certain.
    fn held_still(&self, now: &Meta) -> bool {
        self.settled && self.meta.unchanged(now)
    }

    /// Whether it still held one content: also when it was renamed or deleted meanwhile.
    fn kept_content(&self, now: &Meta) -> bool {
        self.settled && now.size == self.meta.size && now.mtime == self.meta.mtime
    }
}

/// Whether a change from now on would show as another time than `changed`.
fn is_settled(changed: Time) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = u64::try_from(changed.seconds).unwrap_or(0);
    let changed = Duration::new(seconds, changed.nanoseconds);
    // A time in the future comes from another clock and says nothing about this moment.
    changed + STAMP_GRAIN < now || changed > now + STAMP_GRAIN
}

/// What reading a file once came to.
enum Attempt {
    /// It is in the archive.
    Archived,
    /// It changed; read it again, from what is at its name now.
    Again(Opened),
}

impl<A: Write, I: Write> Packer<'_, A, I> {
    /// A regular file, read until it holds still or the tries are spent; tells which file it was.
    pub(super) fn file(
        &mut self,
        path: &[u8],
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<Meta, Fault> {
        let mut opened = self.open_file(path, dir, name)?;
        let mut archived = opened.meta.clone();
        if self.unreadable > 0 {
            // Nothing will be published: it is enough to know which files can be opened.
            return Ok(archived);
        }
        for try_number in 1.. {
            let last = try_number >= MAX_TRIES;
            let mut reopen = |packer: &mut Self| {
                if last {
                    return None;
                }
                packer.open_file(path, dir, name).ok()
            };
            let attempt = if opened.meta.size <= SMALL_BYTES {
                self.small_file(path, opened, &mut reopen)?
            } else {
                self.large_file(path, opened, &mut reopen)?
            };
            match attempt {
                Attempt::Archived => break,
                Attempt::Again(again) => opened = again,
            }
            archived = opened.meta.clone();
        }
        self.counts.files += 1;
        self.meter.file_done();
        Ok(archived)
    }

    fn open_file(
        &mut self,
        path: &[u8],
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<Opened, Fault> {
        // NONBLOCK, lest a FIFO that takes the file's place stops the walk.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = openat(dir, name, flags, Mode::empty()).map_err(NameFault::of)?;
        let mut meta = Meta::of(&fd)?;
        if meta.kind != FileKind::File {
            return Err(replaced());
        }
        let mut settled = is_settled(meta.ctime);
        if !settled {
            std::thread::sleep(STAMP_GRAIN);
            meta = Meta::of(&fd)?;
            settled = is_settled(meta.ctime);
        }
        let xattrs = self.read_xattrs(path, &Handle::Open(fd.as_fd()))?;
        Ok(Opened {
            file: File::from(fd),
            meta,
            xattrs,
            settled,
        })
    }

    /// Reads a small file whole, and writes it once it held still.
    fn small_file(
        &mut self,
        path: &[u8],
        mut opened: Opened,
        reopen: &mut dyn FnMut(&mut Self) -> Option<Opened>,
    ) -> Result<Attempt, Fault> {
        self.small.clear();
        (&mut opened.file)
            .take(opened.meta.size + 1)
            .read_to_end(&mut self.small)?;
        self.meter.moved(self.small.len());
        let after = Meta::of(&opened.file)?;
        let whole = self.small.len() as u64 == opened.meta.size;
        let stable = whole && opened.held_still(&after);
        if !stable && let Some(again) = reopen(self) {
            return Ok(Attempt::Again(again));
        }
        let torn = !(whole && opened.kept_content(&after));
        let mut entry = entry_of(path.to_vec(), EntryKind::File, &opened.meta, opened.xattrs);
        entry.size = self.small.len() as u64;
        self.logical_bytes += entry.size;
        let end = EntryEnd {
            sha256: Some(sha256(&self.small)),
            torn,
            superseded: false,
        };
        if torn {
            (self.notify)(path, Notice::Torn);
        }
        self.out.begin(&entry).map_err(PackError::Output)?;
        self.out.content(&self.small).map_err(PackError::Output)?;
        self.out.end(entry, end).map_err(PackError::Output)?;
        Ok(Attempt::Archived)
    }

    /// Streams a large file; when it changed meanwhile, it is written once more behind itself.
    fn large_file(
        &mut self,
        path: &[u8],
        mut opened: Opened,
        reopen: &mut dyn FnMut(&mut Self) -> Option<Opened>,
    ) -> Result<Attempt, Fault> {
        let entry = entry_of(
            path.to_vec(),
            EntryKind::File,
            &opened.meta,
            std::mem::take(&mut opened.xattrs),
        );
        let size = entry.size;
        self.out.begin(&entry).map_err(PackError::Output)?;
        let (digest, whole) = self.stream_content(&mut opened.file, size)?;
        let after = Meta::of(&opened.file)?;
        let stable = whole && opened.held_still(&after);
        let again = if stable { None } else { reopen(self) };
        let end = EntryEnd {
            sha256: Some(digest),
            superseded: again.is_some(),
            torn: again.is_none() && !(whole && opened.kept_content(&after)),
        };
        if end.torn {
            (self.notify)(path, Notice::Torn);
        }
        self.out.end(entry, end).map_err(PackError::Output)?;
        match again {
            Some(again) => Ok(Attempt::Again(again)),
            None => {
                self.logical_bytes += size;
                Ok(Attempt::Archived)
            }
        }
    }

    /// Copies exactly `size` bytes, zeros for what is missing; tells their digest and whether
    /// the file ended where it should.
    fn stream_content(&mut self, file: &mut File, size: u64) -> Result<(String, bool), Fault> {
        let mut hash = Sha256::new();
        let mut left = size;
        file.seek(SeekFrom::Start(0))?;
        while left > 0 {
            self.check_stop()?;
            let want = usize::try_from(left).map_or(PIECE_BYTES, |n| n.min(PIECE_BYTES));
            let read = match file.read(&mut self.buffer[..want]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if read == 0 {
                break;
            }
            hash.update(&self.buffer[..read]);
            self.out
                .content(&self.buffer[..read])
                .map_err(PackError::Output)?;
            self.meter.moved(read);
            left -= read as u64;
        }
        self.buffer.fill(0);
        let whole = left == 0 && file.read(&mut self.buffer[..1])? == 0;
        self.buffer[0] = 0;
        let mut missing = left;
        while missing > 0 {
            let now = usize::try_from(missing).map_or(PIECE_BYTES, |n| n.min(PIECE_BYTES));
            hash.update(&self.buffer[..now]);
            missing -= now as u64;
        }
        self.out.zeros(left).map_err(PackError::Output)?;
        Ok((hex_of(hash), whole))
    }
}
