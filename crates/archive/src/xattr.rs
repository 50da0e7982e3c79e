//! Extended attributes: what an archive keeps, how it is read and set.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, getxattr, listxattr, removexattr,
    setxattr,
};
use rustix::io::Errno;

use crate::error::{Refused, shown};
use crate::loss::{Lost, MetadataKind};

/// Kept values of one file together; beyond this the file counts as unreadable.
pub(crate) const MAX_XATTR_BYTES: usize = 4 << 20;
/// The kernel's limits for a list of names and for one value (source: linux/limits.h).
const KERNEL_MAX_BYTES: usize = 64 << 10;

/// Who may do what with a file, beyond its mode.
pub(crate) const ACL: &[u8] = b"system.posix_acl_access";
/// The ACL that what is made in a directory inherits.
pub(crate) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

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
        || name == ACL
        || name == DEFAULT_ACL
}

/// Whether setting it must wait for the final owner and mode, which a change of these would undo.
pub(crate) fn is_set_last(name: &[u8]) -> bool {
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
        // A list that changes meanwhile may name one twice; readers refuse that.
        found.kept.dedup_by(|a, b| a.0 == b.0);
        Ok(found)
    }
}

/// Sets the `user.*` attributes; before the final mode, which may forbid it.
pub(crate) fn set_first(
    file: &Handle<'_>,
    xattrs: &Xattrs,
    lost: &mut Lost,
) -> Result<(), Refused> {
    set_all(file, xattrs, |name| !is_set_last(name), lost)
}

/// Sets capabilities and ACLs; after owner and mode, a change of which would drop them.
pub(crate) fn set_last(file: &Handle<'_>, xattrs: &Xattrs, lost: &mut Lost) -> Result<(), Refused> {
    set_all(file, xattrs, is_set_last, lost)
}

fn set_all(
    file: &Handle<'_>,
    xattrs: &Xattrs,
    wanted: fn(&[u8]) -> bool,
    lost: &mut Lost,
) -> Result<(), Refused> {
    for (name, value) in xattrs.iter().filter(|(name, _)| wanted(name)) {
        let set = set(file, name, value).map_err(|error| {
            let action = format!("set the extended attribute {} of", shown(name));
            // The system's own error, by which a full volume is told from a refusal.
            (action.into(), error.into())
        });
        lost.tolerate(MetadataKind::Xattr, set)?;
    }
    Ok(())
}

/// Removes what an archive would keep and `wanted` does not have, ACLs aside.
pub(crate) fn remove_others(
    file: &Handle<'_>,
    wanted: &Xattrs,
    lost: &mut Lost,
) -> Result<(), Refused> {
    let mut names = vec![0; KERNEL_MAX_BYTES];
    let length = match list(file, &mut names) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
        other => other.map_err(|e| ("list the extended attributes of".into(), e.into()))?,
    };
    for name in names[..length].split(|b| *b == 0) {
        let is_acl = name == ACL || name == DEFAULT_ACL;
        if !is_kept(name) || is_acl || wanted.iter().any(|(other, _)| other == name) {
            continue;
        }
        let removed = remove(file, name).map_err(|error| {
            let action = format!("remove the extended attribute {} of", shown(name));
            (action.into(), error)
        });
        lost.tolerate(MetadataKind::Xattr, removed)?;
    }
    Ok(())
}

/// Whether a file has an attribute, or may have it: an answer that is no plain no is none.
pub(crate) fn is_there(file: &Handle<'_>, name: &[u8]) -> bool {
    !matches!(
        get(file, name, &mut []),
        Err(Errno::NODATA | Errno::OPNOTSUPP)
    )
}

/// Removes an attribute, which need not be there, nor be known to the file system.
pub(crate) fn remove(file: &Handle<'_>, name: &[u8]) -> io::Result<()> {
    let removed = match file {
        Handle::Open(fd) => fremovexattr(fd, name),
        Handle::Path(fd) => removexattr(proc_path(*fd), name),
    };
    match removed {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        // Who does not own a file is refused though there is nothing to remove.
        Err(Errno::PERM | Errno::ACCESS) if !is_there(file, name) => Ok(()),
        other => Ok(other?),
    }
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
