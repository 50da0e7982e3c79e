//! Looking up the entries of an archive in a target, without following links.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::beneath::{DirStack, open_dir_beneath};
use crate::entry::{is_within, name_of};
use crate::meta::Meta;
use crate::verify::parent_of;

/// Goes down and up in a target's directories as the entries of an archive do.
///
/// # Assumptions
/// Entries come depth first, as [`crate::verify_index`] checks.
pub(crate) struct Follow {
    dirs: DirStack,
    /// A folder of the archive that is no directory in the target.
    absent: Option<Vec<u8>>,
}

impl Follow {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self {
            dirs: DirStack::new(root),
            absent: None,
        }
    }

    /// Whether the next entry is outside the directory it stands in, so that this is to be left.
    pub(crate) fn is_past(&self, path: &[u8]) -> bool {
        self.dirs.depth() > 0 && !is_within(parent_of(path), self.dirs.path())
    }

    pub(crate) fn leave(&mut self) {
        self.dirs.pop();
    }

    pub(crate) fn depth(&self) -> usize {
        self.dirs.depth()
    }

    /// The path of the directory it stands in, empty at the root.
    pub(crate) fn path(&self) -> &[u8] {
        self.dirs.path()
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.dirs.root()
    }

    pub(crate) fn dir(&mut self) -> io::Result<BorrowedFd<'_>> {
        self.dirs.top()
    }

    /// What the target has at the path of an entry; none when it has nothing.
    ///
    /// # Assumptions
    /// Directories that it is past were left.
    pub(crate) fn look(&mut self, path: &[u8]) -> io::Result<Option<Meta>> {
        if path == b"." {
            return Meta::of(self.dirs.root()).map(Some);
        }
        if self
            .absent
            .as_ref()
            .is_some_and(|absent| !is_within(path, absent))
        {
            self.absent = None;
        }
        if self.absent.is_some() || self.dirs.path() != parent_of(path) {
            return Ok(None);
        }
        let dir = self.dirs.top()?;
        match Meta::at(dir, name_of(path)) {
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Goes into the directory of an entry below the root.
    pub(crate) fn enter(&mut self, path: &[u8]) -> io::Result<()> {
        let name = name_of(path);
        let fd = open_dir_beneath(self.dirs.top()?, name)?;
        let meta = Meta::of(&fd)?;
        self.dirs.push(name, fd, &meta);
        Ok(())
    }

    /// Takes note that the target has no directory for this folder of the archive.
    pub(crate) fn skip(&mut self, path: &[u8]) {
        if self.absent.is_none() {
            self.absent = Some(path.to_vec());
        }
    }
}
