//! The directory that a restore writes into.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FlockOperation, Mode, OFlags, Timespec, Timestamps, flock, fstat, fsync,
    futimens, openat, syncfs, unlinkat,
};
use rustix::io::Errno;

use crate::error::{RestoreError, shown};
use crate::meta::Time;

/// What a file system makes in the root of a new volume.
const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Starts the name of the marker of a restore that is not finished.
const MARKER_PREFIX: &str = ".tidelock-restore-";

/// A directory to restore into.
///
/// A marker file `.tidelock-restore-<uid>` is made before the first write and removed after the
/// last, so that a restore that was killed finds what it wrote itself, and nobody else takes the
/// half of it for the whole.
pub struct Target {
    root: OwnedFd,
    marker: String,
    /// The marker, locked for as long as this restore is at work.
    lock: Option<OwnedFd>,
}

/// What a target holds before a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing, `lost+found` aside.
    Nothing,
    /// What an earlier try of the same restore wrote.
    OwnLeftOver,
    /// What another restore wrote and did not finish.
    ForeignLeftOver,
    /// Something else; one name of it.
    Foreign(String),
}

impl Content {
    /// What is there, `name` included.
    fn with(self, name: &[u8]) -> Self {
        if name.starts_with(MARKER_PREFIX.as_bytes()) {
            Self::ForeignLeftOver
        } else if self == Self::Nothing {
            Self::Foreign(shown(name))
        } else {
            self
        }
    }
}

impl Target {
    /// Opens the directory for the restore with the UID `uid`.
    pub fn open(path: &Path, uid: &str) -> Result<Self, RestoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| RestoreError::target("open", path.as_os_str().as_encoded_bytes(), e))?;
        Ok(Self {
            root,
            marker: format!("{MARKER_PREFIX}{uid}"),
            lock: None,
        })
    }

    /// Looks at what is there.
    pub fn content(&self) -> Result<Content, RestoreError> {
        let mut content = Content::Nothing;
        let own = self.each_name(|name| content = content.clone().with(name))?;
        Ok(if own { Content::OwnLeftOver } else { content })
    }

    /// Looks at what is there beside the own marker.
    pub fn content_beside_marker(&self) -> Result<Content, RestoreError> {
        let mut content = Content::Nothing;
        self.each_name(|name| content = content.clone().with(name))?;
        Ok(content)
    }

    /// Calls `visit` with each name but the own marker and `lost+found`; true when the marker is
    /// there.
    fn each_name(&self, mut visit: impl FnMut(&[u8])) -> Result<bool, RestoreError> {
        let fault = |e: Errno| RestoreError::target("list", b".", e);
        let mut own = false;
        for entry in Dir::read_from(&self.root).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            match entry.file_name().to_bytes() {
                b"." | b".." | LOST_AND_FOUND => {}
                name if name == self.marker.as_bytes() => own = true,
                name => visit(name),
            }
        }
        Ok(own)
    }

    /// Makes the marker, durably, and locks it: two pods of one restore never write at once.
    ///
    /// # Errors
    /// `EAGAIN` while another pod of this restore is at work, or has just ended it.
    ///
    /// # Assumptions
    /// A file system without locks (some NFS) takes the marker alone.
    pub fn claim(&mut self) -> Result<(), RestoreError> {
        let fault = |e: Errno| RestoreError::target("create", self.marker.as_bytes(), e);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.root, &self.marker, flags, Mode::RUSR).map_err(fault)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {}
            Err(busy) => return Err(RestoreError::target("lock", self.marker.as_bytes(), busy)),
        }
        if fstat(&file).map_err(fault)?.st_nlink == 0 {
            let marker = self.marker.as_bytes();
            return Err(RestoreError::target("lock", marker, Errno::AGAIN));
        }
        fsync(&file).map_err(fault)?;
        fsync(&self.root).map_err(fault)?;
        self.lock = Some(file);
        Ok(())
    }

    /// Removes the marker of a restore that has written nothing.
    pub fn give_back(&mut self) {
        if self.lock.take().is_some() {
            // One that stays says that a restore began here, which is true.
            let _ = unlinkat(&self.root, &self.marker, AtFlags::empty());
        }
    }

    /// Makes what was written durable, then removes the marker.
    ///
    /// # Crash window
    /// A run that dies after this and before its report is read leaves a whole restore without
    /// its marker; the next try then finds a target that is not empty, and says so.
    pub(crate) fn release(&self, root_mtime: Time) -> Result<(), RestoreError> {
        let fault = |e: Errno| RestoreError::target("sync", b".", e);
        syncfs(&self.root).map_err(fault)?;
        unlinkat(&self.root, &self.marker, AtFlags::empty())
            .map_err(|e| RestoreError::target("remove", self.marker.as_bytes(), e))?;
        // Removing the marker changed the root's time.
        set_times(self.root.as_fd(), root_mtime)
            .map_err(|e| RestoreError::target("set the time of", b".", e))?;
        fsync(&self.root).map_err(fault)
    }

    /// A descriptor of its own of the root.
    pub(crate) fn root(&self) -> Result<OwnedFd, RestoreError> {
        let fault = |e: io::Error| RestoreError::target("open", b".", e);
        self.root.try_clone().map_err(fault)
    }

    /// Whether a path is the marker, which no archive may touch.
    pub(crate) fn is_marker(&self, path: &[u8]) -> bool {
        path == self.marker.as_bytes()
    }
}

/// Sets the time of the last change; the time of the last access as well, as nothing keeps it.
pub(crate) fn set_times(file: BorrowedFd<'_>, mtime: Time) -> io::Result<()> {
    Ok(futimens(file, &timestamps(mtime))?)
}

pub(crate) fn timestamps(mtime: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
