//! From an archive into a directory.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::beneath::{DirStack, open_beneath};
use crate::digest::hex_of;
use crate::entry::{Entry, EntryError, EntryKind, check_path, padding};
use crate::error::{Corrupt, Refused, RestoreError, shown};
use crate::index::{IndexEntry, IndexReader};
use crate::member::MemberReader;
use crate::meta::{FileKind, Time};
use crate::place;
use crate::target::Target;
use crate::verify::parent_of;
use crate::xattr::is_set_last;

/// Pieces that content is copied in.
const PIECE_BYTES: usize = 256 << 10;

/// What a finished unpack wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Regular files, each name of a hard-linked file counted.
    pub files: u64,
    /// Everything else.
    pub others: u64,
    /// Sum of the sizes of the regular files.
    pub logical_bytes: u64,
}

/// Unpacks a checked archive into a claimed target and releases the target.
///
/// `members` and `entries` are two readers of the same index. With `resume` the target holds
/// what an earlier try of the same restore wrote, and that is written over.
///
/// # Guarantees
/// - Whatever the archive holds, nothing outside the target is written: every file is made by a
///   plain name in a directory that this unpack made and holds open.
/// - It ends well only when every entry of the index was written and every file has its digest.
/// - Memory is bounded by one member, one header and the depth of the tree.
pub fn unpack(
    target: &Target,
    resume: bool,
    archive: impl Read,
    members: impl Read,
    entries: impl Read,
    stop: &AtomicBool,
) -> Result<Unpacked, RestoreError> {
    let stream = MemberReader::new(archive, IndexReader::new(members));
    let mut unpacker = Unpacker {
        target,
        resume,
        stream: Counted {
            inner: stream,
            position: 0,
        },
        index: IndexReader::new(entries),
        root: None,
        dirs: DirStack::new(target.root()?),
        pending: Vec::new(),
        buffer: vec![0; PIECE_BYTES],
        done: Unpacked::default(),
        stop,
    };
    while unpacker.next_entry()? {}
    let root_mtime = unpacker.finish()?;
    target.release(root_mtime)?;
    Ok(unpacker.done)
}

struct Unpacker<'u, R: Read, I: Read> {
    target: &'u Target,
    resume: bool,
    stream: Counted<R>,
    index: IndexReader<I>,
    /// The root's own entry.
    root: Option<Entry>,
    dirs: DirStack,
    /// Entries of the open directories below the root, without their paths and `user.*`
    /// attributes; what they say is set when they are left.
    pending: Vec<Entry>,
    buffer: Vec<u8>,
    done: Unpacked,
    stop: &'u AtomicBool,
}

impl<R: Read, I: Read> Unpacker<'_, R, I> {
    /// Restores one entry; false at the end of the stream.
    fn next_entry(&mut self) -> Result<bool, RestoreError> {
        self.check_stop()?;
        let at = self.stream.position;
        let entry = match Entry::read(&mut self.stream, at) {
            Ok(entry) => entry,
            Err(EntryError::Corrupt(corrupt)) => return Err(corrupt.into()),
            Err(EntryError::Read(error)) => return Err(error.into()),
        };
        match (entry, self.index.next_entry()?) {
            (None, None) => Ok(false),
            (Some(entry), Some(listed)) => {
                check_same(&entry, &listed, at)?;
                self.restore(entry, &listed)?;
                Ok(true)
            }
            _ => Err(corrupt_at(at, "the tar stream and the index end apart")),
        }
    }

    fn restore(&mut self, entry: Entry, listed: &IndexEntry) -> Result<(), RestoreError> {
        let path = &entry.path;
        let fault = |what: &str| RestoreError::Corrupt(Corrupt::new(shown(path), what));
        check_path(path).map_err(fault)?;
        if self.target.is_marker(path) {
            return Err(fault("has the name of this restore's marker"));
        }
        if path == b"." {
            if self.root.is_some() || entry.kind != EntryKind::Directory {
                return Err(fault("the root comes twice, or is no directory"));
            }
            place::start_dir(self.dirs.root(), &entry).map_err(|e| refused(b".", e))?;
            self.root = Some(entry);
            self.done.others += 1;
            return Ok(());
        }
        self.leave_until(parent_of(path))?;
        match entry.kind {
            EntryKind::File => self.file(&entry, listed)?,
            EntryKind::Directory => return self.directory(entry),
            EntryKind::HardLink => self.hard_link(&entry)?,
            EntryKind::Symlink | EntryKind::Fifo => self.special(&entry)?,
            EntryKind::CharDevice | EntryKind::BlockDevice => self.special(&entry)?,
        }
        Ok(())
    }

    /// Leaves directories until it stands in `parent`.
    fn leave_until(&mut self, parent: &[u8]) -> Result<(), RestoreError> {
        while !is_within(parent, self.dirs.path()) {
            self.leave()?;
        }
        if self.dirs.path() != parent {
            return Err(RestoreError::Corrupt(Corrupt::new(
                shown(parent),
                "entries of a directory that does not come before them",
            )));
        }
        Ok(())
    }

    /// Leaves the innermost directory, whose content is complete.
    fn leave(&mut self) -> Result<(), RestoreError> {
        if let Some(entry) = self.pending.pop() {
            let finished = match self.dirs.top() {
                Ok(dir) => place::finish_dir(dir, &entry),
                Err(e) => Err(("open".into(), e)),
            };
            finished.map_err(|e| refused(self.dirs.path(), e))?;
        }
        self.dirs.pop();
        Ok(())
    }

    fn directory(&mut self, mut entry: Entry) -> Result<(), RestoreError> {
        // The file system makes lost+found itself, so an archive's finds it there.
        let replace = self.resume || entry.path == b"lost+found";
        let dir = top(&mut self.dirs, &entry)?;
        let (fd, meta) = place::make_dir(dir, name_of(&entry.path), replace)
            .map_err(|e| refused(&entry.path, e))?;
        place::start_dir(fd.as_fd(), &entry).map_err(|e| refused(&entry.path, e))?;
        self.dirs.push(name_of(&entry.path), fd, &meta);
        // A path for each level would take memory with the square of the depth, and an archive
        // may give each directory megabytes of attributes.
        entry.path = Vec::new();
        entry.xattrs.retain(|(name, _)| is_set_last(name));
        entry.xattrs.shrink_to_fit();
        self.pending.push(entry);
        self.done.others += 1;
        Ok(())
    }

    fn special(&mut self, entry: &Entry) -> Result<(), RestoreError> {
        let dir = top(&mut self.dirs, entry)?;
        let name = name_of(&entry.path);
        let made = match entry.kind {
            EntryKind::Symlink => place::make_symlink(dir, name, entry, self.resume),
            _ => place::make_special(dir, name, entry, self.resume),
        };
        made.map_err(|e| refused(&entry.path, e))?;
        self.done.others += 1;
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry) -> Result<(), RestoreError> {
        let fault = |what: &str| RestoreError::Corrupt(Corrupt::new(shown(&entry.path), what));
        check_path(&entry.link).map_err(|what| fault(&format!("links to a path that {what}")))?;
        if self.target.is_marker(&entry.link) || entry.link == b"." {
            return Err(fault("links to what is no part of the archive"));
        }
        let target_dir = self
            .open_parent(&entry.link)
            .map_err(|_| fault("links to a file that was not restored"))?;
        let target = name_of(&entry.link);
        let dir = top(&mut self.dirs, entry)?;
        let name = name_of(&entry.path);
        let made = place::make_hard_link(target_dir.as_fd(), target, dir, name, self.resume);
        match made {
            Ok(FileKind::File) => self.done.files += 1,
            Ok(_) => self.done.others += 1,
            Err((_, e)) if Errno::from_io_error(&e) == Some(Errno::NOENT) => {
                return Err(fault("links to a file that was not restored"));
            }
            Err(e) => return Err(refused(&entry.path, e)),
        }
        Ok(())
    }

    /// Opens the directory of a path from the root, following no link.
    fn open_parent(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let parent = match parent_of(path) {
            b"" => b".",
            parent => parent,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        open_beneath(self.dirs.root(), parent, flags, Mode::empty())
    }

    fn file(&mut self, entry: &Entry, listed: &IndexEntry) -> Result<(), RestoreError> {
        let mut file = if listed.superseded {
            None
        } else {
            let dir = top(&mut self.dirs, entry)?;
            let created = place::create_file(dir, name_of(&entry.path), self.resume);
            Some(created.map_err(|e| refused(&entry.path, e))?)
        };
        let digest = self.copy_content(entry, file.as_mut())?;
        if listed.sha256.as_ref() != Some(&digest) {
            return Err(RestoreError::Corrupt(Corrupt::new(
                shown(&entry.path),
                "its content does not have the digest of the index",
            )));
        }
        if let Some(file) = file {
            place::finish_file(&file, entry).map_err(|e| refused(&entry.path, e))?;
            self.done.files += 1;
            self.done.logical_bytes += entry.size;
        }
        Ok(())
    }

    /// Copies the content of an entry into `file`, or nowhere; gives its digest.
    fn copy_content(
        &mut self,
        entry: &Entry,
        mut file: Option<&mut std::fs::File>,
    ) -> Result<String, RestoreError> {
        let mut hash = Sha256::new();
        let mut left = entry.size;
        while left > 0 {
            self.check_stop()?;
            let want = usize::try_from(left).map_or(PIECE_BYTES, |n| n.min(PIECE_BYTES));
            self.stream.read_exact(&mut self.buffer[..want])?;
            hash.update(&self.buffer[..want]);
            if let Some(file) = &mut file {
                file.write_all(&self.buffer[..want])
                    .map_err(|e| RestoreError::target("write", &entry.path, e))?;
            }
            left -= want as u64;
        }
        let fill = padding(entry.size);
        self.stream.read_exact(&mut self.buffer[..fill])?;
        Ok(hex_of(hash))
    }

    /// Sets what waits until all content is there; gives the root's time.
    fn finish(&mut self) -> Result<Time, RestoreError> {
        if self.stream.read(&mut [0])? != 0 {
            let at = self.stream.position;
            return Err(corrupt_at(at, "data after the end of the tar stream"));
        }
        while self.dirs.depth() > 0 {
            self.leave()?;
        }
        let Some(root) = self.root.take() else {
            return Err(corrupt_at(0, "the archive has no entry for the root"));
        };
        place::finish_dir(self.dirs.root(), &root).map_err(|e| refused(b".", e))?;
        Ok(root.mtime)
    }

    fn check_stop(&self) -> Result<(), RestoreError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(RestoreError::Stopped);
        }
        Ok(())
    }
}

/// The directory that an entry is made in.
fn top<'d>(
    dirs: &'d mut DirStack,
    entry: &Entry,
) -> Result<std::os::fd::BorrowedFd<'d>, RestoreError> {
    dirs.top()
        .map_err(|e| RestoreError::target("open the directory of", &entry.path, e))
}

fn refused(path: &[u8], (step, error): Refused) -> RestoreError {
    RestoreError::target(step, path, error)
}

fn corrupt_at(at: u64, what: &str) -> RestoreError {
    RestoreError::Corrupt(Corrupt::new(format!("tar offset {at}"), what))
}

/// Whether `path` is `dir` or below it.
fn is_within(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty()
        || path
            .strip_prefix(dir)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn name_of(path: &[u8]) -> &[u8] {
    let start = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    &path[start..]
}

/// Checks that the index tells of this entry.
fn check_same(entry: &Entry, listed: &IndexEntry, at: u64) -> Result<(), RestoreError> {
    let link = listed.link.as_deref().unwrap_or_default();
    let same = entry.path == listed.path
        && entry.kind == listed.kind
        && entry.size == listed.size
        && entry.link == link
        && listed.offset == at;
    if same {
        return Ok(());
    }
    Err(corrupt_at(at, "the entry is not the one of the index"))
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    position: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}
