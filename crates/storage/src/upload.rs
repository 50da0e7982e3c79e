use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, RenameFlags, fstat, fsync, linkat, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::directory::info_of;
use crate::{ObjectInfo, StorageError, Upload};

/// A temporary file beside the final one.
pub(crate) struct FileUpload {
    pub(crate) key: String,
    pub(crate) dir: OwnedFd,
    pub(crate) file: File,
    pub(crate) temporary: String,
    pub(crate) name: String,
    /// Whether the temporary name still stands.
    pub(crate) pending: bool,
}

impl Write for FileUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file
            .write(bytes)
            .map_err(|e| StorageError::of_os("write", &self.key, e).into_io())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for FileUpload {
    fn commit(mut self: Box<Self>) -> Result<ObjectInfo, StorageError> {
        let fault = |action, errno: Errno| StorageError::of_os(action, &self.key, errno);
        fsync(&self.file).map_err(|e| fault("write", e))?;
        self.publish().map_err(|e| fault("publish", e))?;
        self.pending = false;
        fsync(&self.dir).map_err(|e| StorageError::of_os("publish", &self.key, e))?;
        let stat = fstat(&self.file).map_err(|e| StorageError::of_os("publish", &self.key, e))?;
        Ok(info_of(&stat))
    }
}

impl FileUpload {
    /// Gives the file its name unless that is taken.
    fn publish(&self) -> Result<(), Errno> {
        let renamed = renameat_with(
            &self.dir,
            &self.temporary,
            &self.dir,
            &self.name,
            RenameFlags::NOREPLACE,
        );
        match renamed {
            // NFS and some FUSE file systems know no NOREPLACE; a link never replaces either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_new(),
            other => other,
        }
    }

    fn link_new(&self) -> Result<(), Errno> {
        match linkat(
            &self.dir,
            &self.temporary,
            &self.dir,
            &self.name,
            AtFlags::empty(),
        ) {
            // An NFS server may carry out a link, lose its answer and refuse the repetition.
            Err(Errno::EXIST) if fstat(&self.file)?.st_nlink == 2 => {}
            other => other?,
        }
        unlinkat(&self.dir, &self.temporary, AtFlags::empty())
    }
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        if self.pending {
            // What cannot be removed now is found by the next sweep of this run.
            let _ = unlinkat(&self.dir, &self.temporary, AtFlags::empty());
        }
    }
}
