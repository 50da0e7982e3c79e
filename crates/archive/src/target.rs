//! The directory that a restore writes into.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FlockOperation, Mode, OFlags, Timespec, Timestamps, flock, fstat, fsync,
    ftruncate, futimens, openat, renameat, statat, syncfs, unlinkat,
};
use rustix::io::Errno;

use crate::error::{RestoreError, shown};
use crate::marker::{Finished, MAX_MARKER_BYTES, Marker, Overwrite, RootBefore, Stage};
use crate::meta::{Meta, Time};
use crate::names::{LOST_AND_FOUND, Names, is_of_a_restore};
use crate::steps::step;
use crate::xattr::{Handle, XattrReader};

/// A directory to restore into.
///
/// A marker file `.tidelock-restore-<uid>` is made before the first write and removed after the
/// last, so that a restore that was killed finds what it wrote itself, and nobody else takes the
/// half of it for the whole.
pub struct Target {
    pub(crate) root: OwnedFd,
    pub(crate) names: Names,
    /// The marker, once it is this process's.
    held: Option<Held>,
}

struct Held {
    marker: Marker,
    /// The marker's file, locked for as long as this restore is at work.
    _lock: OwnedFd,
}

/// What a target holds, files of this restore's own aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing, `lost+found` aside.
    Nothing,
    /// What another restore wrote and did not finish; the name that tells.
    ForeignLeftOver(String),
    /// Something else; one name of it.
    Foreign(String),
}

impl Target {
    /// Opens the directory for the restore with the UID `uid`.
    pub fn open(path: &Path, uid: &str) -> Result<Self, RestoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| RestoreError::target("open", path.as_os_str().as_encoded_bytes(), e))?;
        Ok(Self {
            root,
            names: Names::new(uid),
            held: None,
        })
    }

    /// Looks at what is there beside this restore's own.
    pub fn content(&self) -> Result<Content, RestoreError> {
        let fault = |e: Errno| RestoreError::target("list", b".", e);
        let mut content = Content::Nothing;
        for entry in Dir::read_from(&self.root).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            match entry.file_name().to_bytes() {
                b"." | b".." | LOST_AND_FOUND => {}
                name if self.names.is_own(name) => {}
                name if is_of_a_restore(name) => {
                    return Ok(Content::ForeignLeftOver(shown(name)));
                }
                name if content == Content::Nothing => content = Content::Foreign(shown(name)),
                _ => {}
            }
        }
        Ok(content)
    }

    /// How far an earlier try of this restore got; none when none has begun here.
    pub fn begun(&self) -> Result<Option<Stage>, RestoreError> {
        Ok(self.read_marker()?.map(|(_, marker)| marker.stage))
    }

    /// Makes the marker, durably, or takes that of an earlier try, and locks it: two pods of one
    /// restore never write at once. Tells how far the restore is.
    ///
    /// # Errors
    /// `EAGAIN` while another pod of this restore is at work, or has just ended it.
    ///
    /// # Assumptions
    /// A file system without locks (some NFS) takes the marker alone.
    pub fn claim(&mut self, overwrite: Overwrite) -> Result<Stage, RestoreError> {
        if !self.take()? {
            let root = self.root_before()?;
            self.write_marker(Marker {
                overwrite,
                stage: Stage::Preparing,
                root,
                result: None,
            })?;
        }
        let marker = self.marker()?;
        if marker.overwrite != overwrite {
            let text = format!("it was made with overwrite {:?}", marker.overwrite);
            return Err(self.marker_fault("use", io::Error::other(text)));
        }
        Ok(marker.stage)
    }

    /// Takes and locks the marker of an earlier try; false when there is none.
    pub(crate) fn take(&mut self) -> Result<bool, RestoreError> {
        let Some((file, _)) = self.read_marker()? else {
            return Ok(false);
        };
        self.lock(&file)?;
        if fstat(&file)
            .map_err(|e| self.marker_fault("look at", e))?
            .st_nlink
            == 0
        {
            return Err(self.marker_fault("lock", Errno::AGAIN));
        }
        // What it said before it was locked may be old.
        let marker = self.parse(&file)?;
        self.held = Some(Held {
            marker,
            _lock: file,
        });
        Ok(true)
    }

    /// Removes the marker of a restore that has written nothing.
    pub fn give_back(&mut self) {
        if let Some(held) = self.held.take() {
            // One that stays says that a restore began here, which is true.
            let _ = unlinkat(&self.root, &self.names.marker, AtFlags::empty());
            let _ = set_times(self.root.as_fd(), held.marker.root.mtime);
        }
    }

    /// Removes a marker that was never finished, before which nothing is touched.
    pub(crate) fn forget_new_marker(&self) -> Result<(), RestoreError> {
        match unlinkat(&self.root, &self.names.new_marker, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.marker_fault("remove", e)),
        }
    }

    /// The marker that this process holds.
    pub(crate) fn marker(&self) -> Result<&Marker, RestoreError> {
        let held = self.held.as_ref().map(|held| &held.marker);
        held.ok_or_else(|| self.marker_fault("use", io::Error::other("it was not claimed")))
    }

    /// Records how far the restore is, durably, after everything before it is durable.
    pub(crate) fn advance(
        &mut self,
        stage: Stage,
        result: Option<Finished>,
    ) -> Result<(), RestoreError> {
        self.sync()?;
        let marker = Marker {
            stage,
            result,
            ..self.marker()?.clone()
        };
        self.write_marker(marker)
    }

    /// Makes all that was written durable.
    pub(crate) fn sync(&self) -> Result<(), RestoreError> {
        syncfs(&self.root).map_err(|e| RestoreError::target("sync", b".", e))
    }

    /// Removes the marker and gives the root the time that this changed.
    ///
    /// # Crash window
    /// A run that dies after this and before its report is read leaves a whole restore without
    /// its marker; the next try then finds a target that is not empty, and says so.
    pub(crate) fn release(&mut self, root_mtime: Option<Time>) -> Result<(), RestoreError> {
        self.sync()?;
        self.forget_new_marker()?;
        step()?;
        unlinkat(&self.root, &self.names.marker, AtFlags::empty())
            .map_err(|e| self.marker_fault("remove", e))?;
        self.held = None;
        if let Some(mtime) = root_mtime {
            set_times(self.root.as_fd(), mtime)
                .map_err(|e| RestoreError::target("set the time of", b".", e))?;
        }
        fsync(&self.root).map_err(|e| RestoreError::target("sync", b".", e))
    }

    /// A descriptor of its own of the root.
    pub(crate) fn root(&self) -> Result<OwnedFd, RestoreError> {
        let fault = |e: io::Error| RestoreError::target("open", b".", e);
        self.root.try_clone().map_err(fault)
    }

    fn root_before(&self) -> Result<RootBefore, RestoreError> {
        let fault = |e: io::Error| RestoreError::target("look at", b".", e);
        let meta = Meta::of(&self.root).map_err(fault)?;
        let handle = Handle::Open(self.root.as_fd());
        let xattrs = XattrReader::new().read(&handle).map_err(fault)?.kept;
        Ok(RootBefore::new(&meta, &xattrs))
    }

    /// The marker's file and what it says; none when there is none.
    fn read_marker(&self) -> Result<Option<(OwnedFd, Marker)>, RestoreError> {
        // For writing, which locks need on some file systems; a dry run has a read-only target.
        let open = |access: OFlags| {
            let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            openat(&self.root, &self.names.marker, flags, Mode::empty())
        };
        let opened = match open(OFlags::RDWR) {
            Err(Errno::ROFS) => open(OFlags::RDONLY),
            other => other,
        };
        let file = match opened {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(|e| self.marker_fault("open", e))?,
        };
        let marker = self.parse(&file)?;
        Ok(Some((file, marker)))
    }

    fn parse(&self, file: &OwnedFd) -> Result<Marker, RestoreError> {
        let fault = |e: io::Error| self.marker_fault("read", e);
        let mut file = std::fs::File::from(file.try_clone().map_err(fault)?);
        io::Seek::rewind(&mut file).map_err(fault)?;
        let mut text = Vec::new();
        file.take(MAX_MARKER_BYTES)
            .read_to_end(&mut text)
            .map_err(fault)?;
        serde_json::from_slice(&text).map_err(|e| fault(e.into()))
    }

    /// Puts a marker in the place of the one that is there, durably and at once.
    fn write_marker(&mut self, marker: Marker) -> Result<(), RestoreError> {
        step()?;
        let new = &self.names.new_marker;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.root, new, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| self.marker_fault("create", e))?;
        self.lock(&file)?;
        self.check_unrivalled(&file)?;
        step()?;
        let fault = |e: io::Error| self.marker_fault("write", e);
        let text = serde_json::to_vec(&marker).map_err(|e| fault(e.into()))?;
        ftruncate(&file, 0).map_err(|e| fault(e.into()))?;
        let mut writer = std::fs::File::from(file);
        writer.write_all(&text).map_err(fault)?;
        writer.sync_all().map_err(fault)?;
        step()?;
        renameat(&self.root, new, &self.root, &self.names.marker).map_err(|e| fault(e.into()))?;
        fsync(&self.root).map_err(|e| fault(e.into()))?;
        self.held = Some(Held {
            marker,
            _lock: writer.into(),
        });
        Ok(())
    }

    /// Checks that no other pod has made the marker while this one came to lock a new one.
    fn check_unrivalled(&self, locked: &OwnedFd) -> Result<(), RestoreError> {
        let at = |name: &str| statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW);
        let own = fstat(locked).map_err(|e| self.marker_fault("look at", e))?;
        let still_there = at(&self.names.new_marker)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino));
        let is_made = self.held.is_none() && at(&self.names.marker).is_ok();
        if still_there && !is_made {
            return Ok(());
        }
        Err(self.marker_fault("lock", Errno::AGAIN))
    }

    fn lock(&self, file: &OwnedFd) -> Result<(), RestoreError> {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
            Err(busy) => Err(self.marker_fault("lock", busy)),
        }
    }

    fn marker_fault(&self, action: &'static str, error: impl Into<io::Error>) -> RestoreError {
        RestoreError::target(action, self.names.marker.as_bytes(), error)
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
