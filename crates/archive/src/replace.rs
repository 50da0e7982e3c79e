//! Keeping what a restore replaces until it has succeeded.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, RenameFlags, mkdirat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

use crate::beneath::open_dir_beneath;
use crate::error::RestoreError;
use crate::marker::{Finished, Overwrite, Stage};
use crate::names::{LOST_AND_FOUND, drain};
use crate::remove::remove_tree;
use crate::steps::step;
use crate::target::Target;

impl Target {
    /// Begins to write: with [`Overwrite::Replace`] what the target holds is moved aside first.
    ///
    /// # Crash window
    /// Names that were moved are moved no second time; nothing is written before all are.
    pub fn begin(&mut self) -> Result<(), RestoreError> {
        if self.marker()?.overwrite == Overwrite::Replace {
            self.set_aside()?;
        }
        self.advance(Stage::Writing, None)
    }

    /// Ends a restore that succeeded: what was moved aside goes, then the marker.
    pub fn finish(&mut self, result: Finished) -> Result<(), RestoreError> {
        self.advance(Stage::Finished, Some(result))?;
        self.complete().map(|_| ())
    }

    /// Does what is left to do of a restore that succeeded; gives what it did.
    pub fn complete(&mut self) -> Result<Finished, RestoreError> {
        let result = self.marker()?.result.clone().unwrap_or_default();
        remove_tree(self.root.as_fd(), self.names.replaced.as_bytes())?;
        self.release(result.root_mtime)?;
        Ok(result)
    }

    fn set_aside(&mut self) -> Result<(), RestoreError> {
        step()?;
        match mkdirat(&self.root, &self.names.replaced, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(self.folder_fault("create", e)),
        }
        let folder = self
            .replaced()?
            .ok_or_else(|| self.folder_fault("open", Errno::NOENT))?;
        let stays = |name: &[u8]| name == LOST_AND_FOUND || self.names.is_own(name);
        drain(self.root.as_fd(), stays, |name| {
            move_name(self.root.as_fd(), folder.as_fd(), name, "move aside")
        })
    }

    /// Moves back what was moved aside; tells how many names.
    pub(crate) fn put_back(&self) -> Result<u64, RestoreError> {
        let Some(folder) = self.replaced()? else {
            return Ok(0);
        };
        let mut moved = 0;
        drain(
            folder.as_fd(),
            |_| false,
            |name| {
                moved += 1;
                move_name(folder.as_fd(), self.root.as_fd(), name, "put back")
            },
        )?;
        step()?;
        unlinkat(&self.root, &self.names.replaced, AtFlags::REMOVEDIR)
            .map_err(|e| self.folder_fault("remove", e))?;
        Ok(moved)
    }

    /// The folder with what was moved aside; none when there is none.
    fn replaced(&self) -> Result<Option<OwnedFd>, RestoreError> {
        let opened = open_dir_beneath(self.root.as_fd(), self.names.replaced.as_bytes());
        match opened {
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NOENT) => Ok(None),
            other => other.map(Some).map_err(|e| self.folder_fault("open", e)),
        }
    }

    fn folder_fault(&self, action: &'static str, error: impl Into<io::Error>) -> RestoreError {
        RestoreError::target(action, self.names.replaced.as_bytes(), error)
    }
}

/// Moves a name to another directory of the same file system, where it must not be yet.
fn move_name(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &[u8],
    action: &'static str,
) -> Result<(), RestoreError> {
    step()?;
    let moved = match renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
        // File systems without that flag, NFS above all.
        Err(Errno::INVAL | Errno::NOSYS) => match statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => renameat(from, name, to, name),
            Err(e) => Err(e),
            Ok(_) => Err(Errno::EXIST),
        },
        other => other,
    };
    moved.map_err(|e| RestoreError::target(action, name, e))
}
