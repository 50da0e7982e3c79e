//! Finding what belongs into the archive, and opening it where its name was looked up.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::conveyor::Halted;
use super::reader::{Found, Item, Shared};
use super::{Notice, READERS, entry_of};
use crate::entry::{Entry, EntryKind, MAX_PATH_BYTES};
use crate::links::{HardLinks, Seen};
use crate::manifest::Counts;
use crate::meta::{FileKind, Meta};
use crate::walk::{MAX_LOOKS, NameFault, Step, Walk};
use crate::xattr::{Handle, XattrReader, Xattrs};

/// Paths, link targets and attributes that one task holds at most.
const TASK_NAMES_BYTES: u64 = 1 << 20;
/// What an entry takes beside its content, its path and its attributes.
const ENTRY_BYTES: u64 = 1536;
/// Open files that one task holds at most.
const MOST_OPEN: u64 = 2048;
/// Open files for all else: directories, storage.
const OTHER_OPEN: u64 = 400;
/// Tasks that exist at once: those that are read, those that wait, and the one being made.
const TASKS: u64 = READERS as u64 + 3;

/// How many files one task may hold open, after asking for more than is usual.
fn open_files_of_a_task() -> u64 {
    let limits = getrlimit(Resource::Nofile);
    let wanted = OTHER_OPEN + TASKS * MOST_OPEN;
    let current = limits.current.unwrap_or(u64::MAX);
    let allowed = limits.maximum.unwrap_or(u64::MAX).min(wanted);
    let raised = Rlimit {
        current: Some(allowed),
        ..limits
    };
    let limit = if current < allowed && setrlimit(Resource::Nofile, raised).is_ok() {
        allowed
    } else {
        current
    };
    (limit.saturating_sub(OTHER_OPEN) / TASKS).clamp(8, MOST_OPEN)
}

/// Finds what belongs into the archive, in order.
pub(super) struct Walker<'w> {
    shared: &'w Shared<'w>,
    links: HardLinks,
    xattrs: XattrReader,
    pub(super) counts: Counts,
    /// The task that is being made, what it comes to, and how many files of it are open.
    pub(super) task: Vec<Item>,
    task_bytes: u64,
    task_names_bytes: u64,
    task_open: u64,
    most_open: u64,
}

impl<'w> Walker<'w> {
    pub(super) fn new(shared: &'w Shared<'w>) -> Self {
        Self {
            shared,
            links: HardLinks::default(),
            xattrs: XattrReader::new(),
            counts: Counts::default(),
            task: Vec::new(),
            task_bytes: 0,
            task_names_bytes: 0,
            task_open: 0,
            most_open: open_files_of_a_task(),
        }
    }

    pub(super) fn walk(&mut self, mut walk: Walk) -> Result<(), Halted> {
        while let Some(step) = walk.next() {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(Halted);
            }
            self.step(step, &mut walk);
            if self.is_task_full() {
                self.hand_over()?;
            }
        }
        self.task.push(Item::End);
        self.hand_over()?;
        self.shared.conveyor.close();
        Ok(())
    }

    fn is_task_full(&self) -> bool {
        self.task_bytes >= self.shared.piece_size.target_bytes as u64
            || self.task_names_bytes >= TASK_NAMES_BYTES
            || self.task_open >= self.most_open
    }

    fn hand_over(&mut self) -> Result<(), Halted> {
        self.task_bytes = 0;
        self.task_names_bytes = 0;
        self.task_open = 0;
        self.shared.conveyor.give(std::mem::take(&mut self.task))
    }

    fn tell(&mut self, path: &[u8], notice: Notice) {
        self.count(path.len(), ENTRY_BYTES / 4);
        self.task.push(Item::Told(path.to_vec(), notice));
    }

    /// Counts what an item adds to the task: names and attributes, and what else it becomes.
    fn count(&mut self, names: usize, other: u64) {
        self.task_names_bytes += names as u64;
        self.task_bytes = self
            .task_bytes
            .saturating_add(other)
            .saturating_add(names as u64);
    }

    pub(super) fn step(&mut self, step: Step, walk: &mut Walk) {
        let path = if walk.path().is_empty() {
            b".".to_vec()
        } else {
            walk.path().to_vec()
        };
        let mut step = step;
        let mut looks = 1;
        loop {
            match self.try_step(&path, step, walk) {
                Ok(()) => return,
                Err(Fault::Name(NameFault::Changed(_))) if looks < MAX_LOOKS => {
                    looks += 1;
                    step = walk.look();
                }
                Err(fault) => return self.fault(&path, fault),
            }
        }
    }

    /// Tells why a path is not in the archive: only a name that is not there has vanished.
    pub(super) fn fault(&mut self, path: &[u8], fault: Fault) {
        let notice = match fault {
            Fault::Name(NameFault::Gone) => {
                self.counts.vanished += 1;
                Notice::Vanished
            }
            Fault::Name(NameFault::Changed(error) | NameFault::Other(error))
            | Fault::Source(error) => self.shared.unreadable(error),
        };
        self.tell(path, notice);
    }

    fn try_step(&mut self, path: &[u8], step: Step, walk: &mut Walk) -> Result<(), Fault> {
        match step {
            Step::Found(_) | Step::OtherMount(_) if path.len() > MAX_PATH_BYTES => {
                Err(Fault::Source(Errno::NAMETOOLONG.into()))
            }
            Step::Found(meta) => self.found(path, &meta, walk),
            Step::OtherMount(meta) => {
                self.tell(path, Notice::OtherMount);
                let entry = entry_of(path.to_vec(), EntryKind::Directory, &meta, Vec::new());
                self.plain(entry);
                Ok(())
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
            self.tell(path, Notice::Socket);
            return Ok(());
        }
        if meta.kind != FileKind::Directory && meta.nlink > 1 {
            match self.links.see(meta, path) {
                Seen::Before(first) => {
                    self.hard_link(path.to_vec(), first, meta);
                    return Ok(());
                }
                Seen::FirstNotKept => {
                    self.counts.hard_links_split += 1;
                    self.tell(path, Notice::HardLinkSplit);
                }
                Seen::First => {}
            }
        }
        let written = match meta.kind {
            FileKind::Directory if entered => self.directory(path, meta, dir),
            FileKind::Symlink => self.symlink(path, meta, dir, &name),
            FileKind::File => match self.file(path, dir, &name) {
                // Another file took the name: its content is not that of the other names.
                Ok(opened) if !opened.same_file(meta) => {
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
        self.plain(entry);
        Ok(())
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
        self.plain(entry);
        Ok(())
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
        self.plain(entry);
        Ok(())
    }

    /// A regular file: it is opened here, where its name was looked up, and read elsewhere; tells
    /// which file it is.
    fn file(&mut self, path: &[u8], dir: BorrowedFd<'_>, name: &CStr) -> Result<Meta, Fault> {
        // NONBLOCK, lest a FIFO that takes the file's place stops the walk.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = openat(dir, name, flags, Mode::empty()).map_err(NameFault::of)?;
        let meta = Meta::of(&fd)?;
        if meta.kind != FileKind::File {
            return Err(replaced());
        }
        self.counts.files += 1;
        self.count(path.len(), ENTRY_BYTES.saturating_add(meta.size));
        self.task_open += 1;
        self.task.push(Item::File(Found {
            path: path.to_vec(),
            file: File::from(fd),
            meta: meta.clone(),
        }));
        Ok(meta)
    }

    fn hard_link(&mut self, path: Vec<u8>, first: Vec<u8>, meta: &Meta) {
        let mut entry = entry_of(path, EntryKind::HardLink, meta, Vec::new());
        entry.link = first;
        match meta.kind {
            FileKind::File => self.counts.files += 1,
            _ => self.counts.others += 1,
        }
        self.push(entry);
    }

    fn plain(&mut self, entry: Entry) {
        self.counts.others += 1;
        self.push(entry);
    }

    fn push(&mut self, entry: Entry) {
        let names = entry.path.len() + entry.link.len();
        let xattrs = entry
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len());
        self.count(names + xattrs.sum::<usize>(), ENTRY_BYTES);
        self.task.push(Item::Plain(entry));
    }

    fn read_xattrs(&mut self, path: &[u8], file: &Handle<'_>) -> io::Result<Xattrs> {
        let read = self.xattrs.read(file)?;
        if read.left_out > 0 {
            self.counts.xattrs_left_out += read.left_out;
            self.tell(path, Notice::XattrsLeftOut(read.left_out));
        }
        Ok(read.kept)
    }
}

/// Why one path could not be archived.
pub(super) enum Fault {
    /// The name could not be looked up.
    Name(NameFault),
    /// What was opened could not be read.
    Source(io::Error),
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
