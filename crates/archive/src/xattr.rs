//! Extended attributes: what an archive keeps, how it is read and set.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr, getxattr, listxattr, setxattr};
use rustix::io::Errno;

/// Kept values of one file together; beyond this the file counts as unreadable.
pub(crate) const MAX_XATTR_BYTES: usize = 4 << 20;
/// The kernel's limits for a list of names and for one value (source: linux/limits.h).
const KERNEL_MAX_BYTES: usize = 64 << 10;

/// Extended attributes of one file: name and value.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads and sets extended attributes with one pair of scratch buffers.
pub(crate) struct XattrReader {
    names: Vec<u8>,
    value: Vec<u8>,
}

/// What was read, and how many attributes are not kept.
#[derive(Default)]
pub(crate) struct ReadXattrs {
    pub(crate) kept: Xattrs,
    pub(crate) left_out: u64,
}

/// How to name a file to the xattr calls.
pub(crate) enum Handle<'f> {
    /// Open for reading or writing.
    Open(BorrowedFd<'f>),
    /// Open with `O_PATH`, reached through /proc, so that a FIFO or device is never opened.
    Path(BorrowedFd<'f>),
}

/// Whether an archive keeps the attribute.
///
/// `trusted.*` and the labels of security modules belong to the system the volume is used on.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name == b"security.capability"
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
}

/// Whether setting it must wait for the final owner and mode, which a change of these would undo.
fn is_set_last(name: &[u8]) -> bool {
    !name.starts_with(b"user.")
}

impl XattrReader {
    pub(crate) fn new() -> Self {
        Self {
            names: vec![0; KERNEL_MAX_BYTES],
            value: vec![0; KERNEL_MAX_BYTES],
        }
    }

    /// Reads all attributes that an archive keeps, sorted by name.
    pub(crate) fn read(&mut self, file: &Handle<'_>) -> io::Result<ReadXattrs> {
        let mut found = ReadXattrs::default();
        let length = match list(file, &mut self.names) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(found),
            other => other?,
        };
        let mut bytes = 0;
        for name in self.names[..length].split(|b| *b == 0) {
            if name.is_empty() {
                continue;
            }
            if !is_kept(name) {
                found.left_out += 1;
                continue;
            }
            let size = match get(file, name, &mut self.value) {
                // Removed since it was listed.
                Err(Errno::NODATA) => continue,
                other => other?,
            };
            bytes += name.len() + size;
            if bytes > MAX_XATTR_BYTES {
                return Err(io::Error::other(format!(
                    "its extended attributes take more than {MAX_XATTR_BYTES} bytes"
                )));
            }
            found
                .kept
                .push((name.to_vec(), self.value[..size].to_vec()));
        }
        found.kept.sort();
        Ok(found)
    }
}

/// Sets the `user.*` attributes; before the final mode, which may forbid it.
pub(crate) fn set_first(file: &Handle<'_>, xattrs: &Xattrs) -> io::Result<()> {
    set_all(file, xattrs, |name| !is_set_last(name))
}

/// Sets capabilities and ACLs; after owner and mode, a change of which would drop them.
pub(crate) fn set_last(file: &Handle<'_>, xattrs: &Xattrs) -> io::Result<()> {
    set_all(file, xattrs, is_set_last)
}

fn set_all(file: &Handle<'_>, xattrs: &Xattrs, wanted: fn(&[u8]) -> bool) -> io::Result<()> {
    for (name, value) in xattrs.iter().filter(|(name, _)| wanted(name)) {
        set(file, name, value).map_err(|e| {
            let e = io::Error::from(e);
            let name = String::from_utf8_lossy(name);
            io::Error::new(e.kind(), format!("extended attribute {name}: {e}"))
        })?;
    }
    Ok(())
}

fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn list(file: &Handle<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    match file {
        Handle::Open(fd) => flistxattr(fd, buffer),
        Handle::Path(fd) => listxattr(proc_path(*fd), buffer),
    }
}

fn get(file: &Handle<'_>, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
    match file {
        Handle::Open(fd) => fgetxattr(fd, name, buffer),
        Handle::Path(fd) => getxattr(proc_path(*fd), name, buffer),
    }
}

fn set(file: &Handle<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match file {
        Handle::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
        Handle::Path(fd) => setxattr(proc_path(*fd), name, value, XattrFlags::empty()),
    }
}
