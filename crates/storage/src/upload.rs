use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;

use rustix::fs::{
    Advice, AtFlags, RenameFlags, fadvise, fstat, fsync, linkat, renameat_with, unlinkat,
};
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
    pub(crate) behind: WriteBehind,
}

/// Bytes that are written before the kernel is told to begin with them.
const BEHIND_BYTES: u64 = 8 << 20;

/// Lets the kernel write a growing file back as it grows, and not all of it at the end.
#[derive(Default)]
pub(crate) struct WriteBehind {
    written: u64,
    told: u64,
}

impl WriteBehind {
    fn wrote(&mut self, file: &File, bytes: usize) {
        self.written += bytes as u64;
        if self.written - self.told < BEHIND_BYTES {
            return;
        }
        // What is dirty cannot be dropped, so this begins to write it, and waits for nothing.
        let length = NonZeroU64::new(self.written - self.told);
        let _ = fadvise(file, self.told, length, Advice::DontNeed);
        self.told = self.written;
    }
}

impl Write for FileUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fault = |e| StorageError::of_os("write", &self.key, e).into_io();
        let written = self.file.write(bytes).map_err(fault)?;
        self.behind.wrote(&self.file, written);
        Ok(written)
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
