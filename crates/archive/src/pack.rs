//! From a directory to an archive.

mod file;
#[cfg(test)]
mod tests;

use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use self::file::PIECE_BYTES;

use crate::archive_writer::{ArchiveWriter, EntryEnd};
use crate::entry::{Entry, EntryKind, MAX_PATH_BYTES};
use crate::links::{HardLinks, Seen};
use crate::manifest::Counts;
use crate::meta::{FileKind, Meta};
use crate::meter::Meter;
use crate::walk::{MAX_LOOKS, NameFault, Step, Walk};
use crate::xattr::{Handle, XattrReader, Xattrs};

/// Something about a path that a backup tells.
#[derive(Debug)]
pub enum Notice<'n> {
    /// It cannot be read; the backup fails.
    Unreadable(&'n io::Error),
    /// It changed while it was read, in every try; what was read last is kept.
    Torn,
    /// A socket, which no archive holds.
    Socket,
    /// Another file system is mounted there; its content is not archived.
    OtherMount,
    /// It was listed, and gone when it was to be read.
    Vanished,
    /// So many of its extended attributes are not kept.
    XattrsLeftOut(u64),
    /// A name of a hard-linked file that is archived as a file of its own.
    HardLinkSplit,
}

/// What a finished pack wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Size and digest of the archive.
    pub archive: (u64, String),
    /// Size and digest of the index.
    pub index: (u64, String),
    /// Counts of the content.
    pub counts: Counts,
    /// Sum of the sizes of the regular files.
    pub logical_bytes: u64,
    /// Length of the tar stream.
    pub tar_bytes: u64,
}

/// Why a pack wrote nothing that counts.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Something in the source cannot be read; each was told as [`Notice::Unreadable`].
    #[error("{0} paths in the source cannot be read")]
    Unreadable(u64),
    /// The archive or the index could not be written.
    #[error("the archive cannot be written")]
    Output(#[source] io::Error),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// Archives the tree below `source`.
///
/// # Guarantees
/// - Memory is bounded whatever the tree.
/// - It ends well only when everything was read; it walks on after the first unreadable path to
///   name them all.
/// - A file that changes while it is read is read again; what is still torn is told.
pub fn pack(
    source: OwnedFd,
    archive: impl Write,
    index: impl Write,
    notify: &mut dyn FnMut(&[u8], Notice<'_>),
    meter: &Meter,
    stop: &AtomicBool,
) -> Result<Packed, PackError> {
    let mut walk = Walk::new(source);
    let mut packer = Packer {
        out: ArchiveWriter::new(archive, index),
        links: HardLinks::default(),
        xattrs: XattrReader::new(),
        buffer: vec![0; PIECE_BYTES],
        small: Vec::new(),
        counts: Counts::default(),
        logical_bytes: 0,
        unreadable: 0,
        notify,
        meter,
        stop,
    };
    while let Some(step) = walk.next() {
        packer.check_stop()?;
        packer.step(step, &mut walk)?;
    }
    if packer.unreadable > 0 {
        return Err(PackError::Unreadable(packer.unreadable));
    }
    let finished = packer.out.finish().map_err(PackError::Output)?;
    Ok(Packed {
        archive: finished.archive,
        index: finished.index,
        counts: Counts {
            entries: finished.end.entries,
            members: finished.end.members,
            ..packer.counts
        },
        logical_bytes: packer.logical_bytes,
        tar_bytes: finished.end.tar_bytes,
    })
}

struct Packer<'p, A: Write, I: Write> {
    out: ArchiveWriter<A, I>,
    links: HardLinks,
    xattrs: XattrReader,
    buffer: Vec<u8>,
    small: Vec<u8>,
    counts: Counts,
    logical_bytes: u64,
    unreadable: u64,
    notify: &'p mut dyn FnMut(&[u8], Notice<'_>),
    meter: &'p Meter,
    stop: &'p AtomicBool,
}

impl<A: Write, I: Write> Packer<'_, A, I> {
    fn step(&mut self, step: Step, walk: &mut Walk) -> Result<(), PackError> {
        let path = if walk.path().is_empty() {
            b".".to_vec()
        } else {
            walk.path().to_vec()
        };
        let mut step = step;
        let mut looks = 1;
        loop {
            match self.try_step(&path, step, walk) {
                Ok(()) => return Ok(()),
                Err(Fault::Name(NameFault::Changed(_))) if looks < MAX_LOOKS => {
                    looks += 1;
                    step = walk.look();
                }
                Err(fault) => return self.tell(&path, fault),
            }
        }
    }

    /// Tells why a path is not in the archive: only a name that is not there has vanished.
    fn tell(&mut self, path: &[u8], fault: Fault) -> Result<(), PackError> {
        match fault {
            Fault::Fatal(error) => return Err(error),
            Fault::Name(NameFault::Gone) => {
                self.counts.vanished += 1;
                (self.notify)(path, Notice::Vanished);
            }
            Fault::Name(NameFault::Changed(error) | NameFault::Other(error))
            | Fault::Source(error) => {
                self.unreadable += 1;
                (self.notify)(path, Notice::Unreadable(&error));
            }
        }
        Ok(())
    }

    fn try_step(&mut self, path: &[u8], step: Step, walk: &mut Walk) -> Result<(), Fault> {
        match step {
            Step::Found(_) | Step::OtherMount(_) if path.len() > MAX_PATH_BYTES => {
                Err(Fault::Source(Errno::NAMETOOLONG.into()))
            }
            Step::Found(meta) => self.found(path, &meta, walk),
            Step::OtherMount(meta) => {
                (self.notify)(path, Notice::OtherMount);
                let entry = entry_of(path.to_vec(), EntryKind::Directory, &meta, Vec::new());
                Ok(self.write_plain(entry)?)
            }
            Step::Unreadable(error) => Err(Fault::Source(error)),
            Step::Vanished => Err(Fault::Name(NameFault::Gone)),
            Step::LostAndFound => Ok(()),
        }
    }

    fn found(&mut self, path: &[u8], meta: &Meta, walk: &mut Walk) -> Result<(), Fault> {
        let entered = walk.entered();
        let name = walk.name().to_owned();
        let dir = walk.dir()?;
        if meta.kind == FileKind::Socket {
            (self.notify)(path, Notice::Socket);
            return Ok(());
        }
        if meta.kind != FileKind::Directory && meta.nlink > 1 {
            match self.links.see(meta, path) {
                Seen::Before(first) => return Ok(self.hard_link(path.to_vec(), first, meta)?),
                Seen::FirstNotKept => {
                    self.counts.hard_links_split += 1;
                    (self.notify)(path, Notice::HardLinkSplit);
                }
                Seen::First => {}
            }
        }
        let written = match meta.kind {
            FileKind::Directory if entered => self.directory(path, meta, dir),
            FileKind::Symlink => self.symlink(path, meta, dir, &name),
            FileKind::File => match self.file(path, dir, &name) {
                // Another file took the name: its content is not that of the other names.
                Ok(archived) if !archived.same_file(meta) => {
                    self.links.forget_first(meta);
                    Ok(())
                }
                other => other.map(|_| ()),
            },
            _ => self.special(path, meta, dir, &name),
        };
        if written.is_err() && meta.nlink > 1 {
            self.links.forget_first(meta);
        }
        written
    }

    fn directory(&mut self, path: &[u8], meta: &Meta, dir: BorrowedFd<'_>) -> Result<(), Fault> {
        let xattrs = self.read_xattrs(path, &Handle::Open(dir))?;
        let entry = entry_of(path.to_vec(), EntryKind::Directory, meta, xattrs);
        Ok(self.write_plain(entry)?)
    }

    fn symlink(
        &mut self,
        path: &[u8],
        meta: &Meta,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<(), Fault> {
        let target = readlinkat(dir, name, Vec::new()).map_err(NameFault::of)?;
        let mut entry = entry_of(path.to_vec(), EntryKind::Symlink, meta, Vec::new());
        entry.link = target.into_bytes();
        Ok(self.write_plain(entry)?)
    }

    /// A FIFO or a device node; it is never opened for reading.
    fn special(
        &mut self,
        path: &[u8],
        meta: &Meta,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<(), Fault> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(dir, name, flags, Mode::empty()).map_err(NameFault::of)?;
        if !Meta::of(&fd)?.same_file(meta) {
            return Err(replaced());
        }
        let xattrs = self.read_xattrs(path, &Handle::Path(fd.as_fd()))?;
        let kind = match meta.kind {
            FileKind::CharDevice => EntryKind::CharDevice,
            FileKind::BlockDevice => EntryKind::BlockDevice,
            _ => EntryKind::Fifo,
        };
        let mut entry = entry_of(path.to_vec(), kind, meta, xattrs);
        if kind != EntryKind::Fifo {
            entry.device = meta.rdev;
        }
        Ok(self.write_plain(entry)?)
    }

    fn hard_link(&mut self, path: Vec<u8>, first: Vec<u8>, meta: &Meta) -> Result<(), PackError> {
        let mut entry = entry_of(path, EntryKind::HardLink, meta, Vec::new());
        entry.link = first;
        self.write_entry(entry)?;
        match meta.kind {
            FileKind::File => self.counts.files += 1,
            _ => self.counts.others += 1,
        }
        Ok(())
    }

    fn write_plain(&mut self, entry: Entry) -> Result<(), PackError> {
        self.counts.others += 1;
        self.write_entry(entry)
    }

    fn write_entry(&mut self, entry: Entry) -> Result<(), PackError> {
        if self.unreadable > 0 {
            return Ok(());
        }
        self.out.begin(&entry).map_err(PackError::Output)?;
        self.out
            .end(entry, EntryEnd::default())
            .map_err(PackError::Output)
    }

    fn read_xattrs(&mut self, path: &[u8], file: &Handle<'_>) -> io::Result<Xattrs> {
        let read = self.xattrs.read(file)?;
        if read.left_out > 0 {
            self.counts.xattrs_left_out += read.left_out;
            (self.notify)(path, Notice::XattrsLeftOut(read.left_out));
        }
        Ok(read.kept)
    }

    fn check_stop(&self) -> Result<(), PackError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(PackError::Stopped);
        }
        Ok(())
    }
}

/// Why one path could not be archived: the path's own fault, or the end of the run.
enum Fault {
    /// The name could not be looked up; nothing of it is in the archive yet.
    Name(NameFault),
    /// What was opened could not be read.
    Source(io::Error),
    Fatal(PackError),
}

/// The fault of a name that was given to something else between two looks.
fn replaced() -> Fault {
    let error = io::Error::other("it was replaced each time it was looked at");
    Fault::Name(NameFault::Changed(error))
}

impl From<NameFault> for Fault {
    fn from(fault: NameFault) -> Self {
        Self::Name(fault)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Source(error)
    }
}

impl From<PackError> for Fault {
    fn from(error: PackError) -> Self {
        Self::Fatal(error)
    }
}

fn entry_of(path: Vec<u8>, kind: EntryKind, meta: &Meta, xattrs: Xattrs) -> Entry {
    Entry {
        path,
        kind,
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime: meta.mtime,
        size: if kind == EntryKind::File {
            meta.size
        } else {
            0
        },
        link: Vec::new(),
        device: (0, 0),
        xattrs,
    }
}
