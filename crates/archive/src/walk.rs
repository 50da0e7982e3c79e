//! Walking a tree depth first without ever holding it.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::RawDir;
use rustix::io::Errno;

use crate::beneath::{DirStack, open_dir_beneath};
use crate::meta::{FileKind, Meta};

/// Names held at once over all directories that are being read.
const NAME_BUDGET_BYTES: usize = 8 << 20;
/// Least names that a directory may hold, also when the budget is spent.
const MIN_BATCH_BYTES: usize = 4 << 10;
/// Kernel buffer for directory entries; one of 255 bytes must fit.
const DENTS_BUFFER_BYTES: usize = 32 << 10;
/// How often a name is looked at that is something else each time it is opened.
pub(crate) const MAX_LOOKS: u32 = 3;

/// What the walk came to.
pub(crate) enum Step {
    /// Something at [`Walk::path`]; a directory's content follows directly after it.
    Found(Meta),
    /// A directory where another file system is mounted; its content is not walked.
    OtherMount(Meta),
    /// What is at [`Walk::path`] cannot be looked at, or not be listed (again).
    Unreadable(io::Error),
    /// It was listed, and gone when it was looked at.
    Vanished,
    /// The root's `lost+found`, as the file system made it.
    LostAndFound,
}

/// A depth-first walk; a directory comes before its children, and these come together.
///
/// # Guarantees
/// - Memory does not grow with the tree: names of one directory are read in sorted batches, open
///   directories are limited, and nothing is kept of what was left behind.
/// - Order within a directory is by bytes, as long as its names fit the budget (about 8 MiB).
/// - Symbolic links are never followed, and mounts inside the tree are not entered.
pub(crate) struct Walk {
    dirs: DirStack,
    frames: Vec<Frame>,
    /// Path of the current step.
    path: Vec<u8>,
    name: CString,
    /// Whether the current step is a directory that was entered.
    entered: bool,
    started: bool,
    mount: u64,
    held_names: usize,
    dents: Vec<MaybeUninit<u8>>,
}

/// A directory that is being read.
struct Frame {
    /// NUL-terminated names, one after the other.
    names: Vec<u8>,
    /// Where each unread name starts, the next one last.
    starts: Vec<u32>,
    /// There is more to read; a descriptor of its own keeps the position.
    unread: Option<OwnedFd>,
}

impl Walk {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self {
            dirs: DirStack::new(root),
            frames: Vec::new(),
            path: Vec::new(),
            name: CString::default(),
            entered: false,
            started: false,
            mount: 0,
            held_names: 0,
            dents: vec![MaybeUninit::uninit(); DENTS_BUFFER_BYTES],
        }
    }

    /// Path of the current step relative to the root; empty for the root.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Name of the current step in [`Self::dir`].
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// The directory that holds the current step; for a directory that was entered, itself.
    pub(crate) fn dir(&mut self) -> io::Result<BorrowedFd<'_>> {
        self.dirs.top()
    }

    /// Whether the current step is an entered directory, so that [`Self::dir`] is it.
    pub(crate) fn entered(&self) -> bool {
        self.entered
    }

    /// The next step; none at the end.
    pub(crate) fn next(&mut self) -> Option<Step> {
        self.entered = false;
        if !self.started {
            self.started = true;
            return Some(self.start());
        }
        loop {
            let frame = self.frames.last_mut()?;
            if let Some(start) = frame.starts.pop() {
                let bytes = &frame.names[start as usize..];
                let name = CStr::from_bytes_until_nul(bytes).unwrap_or_default();
                self.name = name.to_owned();
                self.path.clear();
                self.path.extend_from_slice(self.dirs.path());
                if !self.path.is_empty() {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(self.name.as_bytes());
                return Some(self.look());
            }
            if frame.unread.is_some() {
                if let Err(error) = self.refill() {
                    self.path.clear();
                    self.path.extend_from_slice(self.dirs.path());
                    return Some(Step::Unreadable(error));
                }
            } else {
                self.leave();
            }
        }
    }

    fn start(&mut self) -> Step {
        let root = self.dirs.root();
        let opened = Meta::of(root).and_then(|meta| Ok((meta, open_dir_beneath(root, b".")?)));
        match opened {
            Ok((meta, fd)) => {
                self.mount = meta.mount;
                self.frames.push(Frame::new(fd));
                self.entered = true;
                Step::Found(meta)
            }
            Err(error) => Step::Unreadable(error),
        }
    }

    /// Looks at the current name (again), and enters it when it is a directory.
    ///
    /// # Assumptions
    /// The current step was not entered.
    pub(crate) fn look(&mut self) -> Step {
        let mut looks = 1;
        loop {
            match self.look_once() {
                Ok(step) => return step,
                Err(NameFault::Gone) => return Step::Vanished,
                Err(NameFault::Changed(_)) if looks < MAX_LOOKS => looks += 1,
                Err(NameFault::Changed(error) | NameFault::Other(error)) => {
                    return Step::Unreadable(error);
                }
            }
        }
    }

    fn look_once(&mut self) -> Result<Step, NameFault> {
        let at_root = self.dirs.depth() == 0;
        let meta = self
            .dirs
            .top()
            .and_then(|dir| Meta::at(dir, self.name.as_c_str()))
            .map_err(NameFault::of)?;
        if meta.kind != FileKind::Directory {
            return Ok(Step::Found(meta));
        }
        let lost_and_found = at_root && meta.uid == 0 && self.name.as_bytes() == b"lost+found";
        match self.enter() {
            Ok(Some(opened)) if lost_and_found => Ok(self.keep_unless_empty(opened)),
            Ok(Some(opened)) => {
                self.entered = true;
                Ok(Step::Found(opened))
            }
            Ok(None) => Ok(Step::OtherMount(meta)),
            Err(NameFault::Other(error)) if lost_and_found && is_denied(&error) => {
                Ok(Step::LostAndFound)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Opens the current directory and stands in it; none when it is another mount.
    fn enter(&mut self) -> Result<Option<Meta>, NameFault> {
        let fd = self
            .dirs
            .top()
            .and_then(|dir| open_dir_beneath(dir, self.name.as_bytes()))
            .map_err(NameFault::of)?;
        let meta = Meta::of(&fd).map_err(NameFault::Other)?;
        if meta.mount != self.mount {
            return Ok(None);
        }
        let reader = open_dir_beneath(fd.as_fd(), b".").map_err(NameFault::Other)?;
        self.dirs.push(self.name.as_bytes(), fd, &meta);
        self.frames.push(Frame::new(reader));
        Ok(Some(meta))
    }

    fn leave(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.held_names -= frame.names.len();
            if !self.frames.is_empty() {
                self.dirs.pop();
            }
        }
    }

    /// Leaves the `lost+found` just entered again when nothing was ever found.
    fn keep_unless_empty(&mut self, opened: Meta) -> Step {
        match self.refill() {
            Ok(()) if self.innermost_is_empty() => {
                self.leave();
                Step::LostAndFound
            }
            Ok(()) => {
                self.entered = true;
                Step::Found(opened)
            }
            Err(error) => {
                self.leave();
                Step::Unreadable(error)
            }
        }
    }

    fn innermost_is_empty(&self) -> bool {
        let unread = |frame: &Frame| !frame.starts.is_empty() || frame.unread.is_some();
        !self.frames.last().is_some_and(unread)
    }

    /// Reads the next batch of names of the innermost directory.
    fn refill(&mut self) -> io::Result<()> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        self.held_names -= frame.names.len();
        frame.names.clear();
        let free = NAME_BUDGET_BYTES.saturating_sub(self.held_names);
        let read = frame.read_batch((free / 2).max(MIN_BATCH_BYTES), &mut self.dents);
        self.held_names += frame.names.len();
        read
    }
}

impl Frame {
    fn new(unread: OwnedFd) -> Self {
        Self {
            names: Vec::new(),
            starts: Vec::new(),
            unread: Some(unread),
        }
    }

    fn read_batch(&mut self, limit: usize, dents: &mut [MaybeUninit<u8>]) -> io::Result<()> {
        let Some(fd) = self.unread.take() else {
            return Ok(());
        };
        let mut more = true;
        while more && self.names.len() < limit {
            let mut reader = RawDir::new(&fd, dents);
            // One kernel buffer is read to its end: what is left in it would be lost.
            loop {
                let entry = match reader.next() {
                    // A directory that was deleted meanwhile has no names any more.
                    None | Some(Err(Errno::NOENT)) => {
                        more = false;
                        break;
                    }
                    Some(entry) => entry?,
                };
                let name = entry.file_name().to_bytes_with_nul();
                if name != b".\0" && name != b"..\0" {
                    let start = u32::try_from(self.names.len()).map_err(io::Error::other)?;
                    self.starts.push(start);
                    self.names.extend_from_slice(name);
                }
                if reader.is_buffer_empty() {
                    break;
                }
            }
        }
        self.sort();
        self.names.shrink_to_fit();
        self.starts.shrink_to_fit();
        if more {
            self.unread = Some(fd);
        }
        Ok(())
    }

    /// Puts the names of a batch in order, each once.
    ///
    /// One that is deleted and made anew while the directory is read may be listed twice.
    fn sort(&mut self) {
        let names = &self.names;
        let name_at =
            |start: u32| CStr::from_bytes_until_nul(&names[start as usize..]).unwrap_or_default();
        self.starts
            .sort_unstable_by(|a, b| name_at(*b).cmp(name_at(*a)));
        self.starts.dedup_by(|a, b| name_at(*a) == name_at(*b));
    }
}

/// Why a name that was listed cannot be looked up.
pub(crate) enum NameFault {
    /// It was deleted.
    Gone,
    /// It was given to something of another type, so it never ceased to exist.
    Changed(io::Error),
    Other(io::Error),
}

impl NameFault {
    /// What an error means of a call that was given the name.
    ///
    /// Errors of what is open already mean nothing of the kind: they are [`Self::Other`].
    pub(crate) fn of(error: impl Into<io::Error>) -> Self {
        let error = error.into();
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Self::Gone,
            // In turn: no directory, a symbolic link, no symbolic link, a socket.
            Some(Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::NXIO) => Self::Changed(error),
            _ => Self::Other(error),
        }
    }
}

fn is_denied(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ACCESS | Errno::PERM)
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_deleted_while_it_is_walked_is_at_its_end() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("d")).unwrap();
        let mut walk = Walk::new(fs::File::open(tree.path()).unwrap().into());
        assert!(matches!(walk.next(), Some(Step::Found(_))));
        assert!(matches!(walk.next(), Some(Step::Found(_))));
        assert_eq!(walk.path(), b"d");
        fs::remove_dir(tree.path().join("d")).unwrap();
        let rest = walk.next().map(|step| match step {
            Step::Unreadable(error) => error.to_string(),
            _ => "another step".to_owned(),
        });
        assert_eq!(rest, None);
    }

    #[test]
    fn a_name_that_is_listed_twice_comes_once() {
        let mut frame = Frame {
            names: b"b\0a\0b\0ab\0".to_vec(),
            starts: vec![0, 2, 4, 6],
            unread: None,
        };
        frame.sort();
        let name_at =
            |start: &u32| CStr::from_bytes_until_nul(&frame.names[*start as usize..]).unwrap();
        let names: Vec<_> = frame.starts.iter().rev().map(name_at).collect();
        assert_eq!(names, [c"a", c"ab", c"b"]);
    }
}
