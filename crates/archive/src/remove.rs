//! Removing trees of any depth.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, chmodat, fchmod, openat2, unlinkat,
};
use rustix::io::Errno;

use crate::beneath::DirStack;
use crate::entry::name_of;
use crate::error::RestoreError;
use crate::meta::{FileKind, Meta};
use crate::steps::step;

/// Removes `name` in `dir` with everything below it; nothing there is removed already.
///
/// # Guarantees
/// - No symbolic link is followed and no other mount is entered.
/// - Memory does not grow with the number of names, only with the depth.
pub(crate) fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), RestoreError> {
    let fault = |path: &[u8], e: io::Error| RestoreError::target("remove", path, e);
    step()?;
    let Some(fd) = remove_or_open(dir, name).map_err(|e| fault(name, e))? else {
        return Ok(());
    };
    let mut dirs = DirStack::new(fd);
    loop {
        let path = |dirs: &DirStack| [name, b"/", dirs.path()].concat();
        let below = dirs.top().and_then(remove_files);
        match below.map_err(|e| fault(&path(&dirs), e))? {
            Some((inner, fd)) => {
                let meta = Meta::of(&fd).map_err(|e| fault(&path(&dirs), e))?;
                dirs.push(&inner, fd, &meta);
            }
            None if dirs.depth() == 0 => break,
            None => {
                let inner = name_of(dirs.path()).to_vec();
                dirs.pop();
                let removed = dirs.top().and_then(|top| remove_dir(top, &inner));
                removed.map_err(|e| fault(&path(&dirs), e))?;
            }
        }
        step()?;
    }
    remove_dir(dir, name).map_err(|e| fault(name, e))
}

/// Removes everything in `dir` that is no directory; gives a directory in it, open.
fn remove_files(dir: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, OwnedFd)>> {
    loop {
        let mut is_empty = true;
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            is_empty = false;
            if let Some(fd) = remove_or_open(dir, name)? {
                return Ok(Some((name.to_vec(), fd)));
            }
        }
        // A name may be passed over while others go.
        if is_empty {
            return Ok(None);
        }
    }
}

/// Removes a file; opens a directory.
fn remove_or_open(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<OwnedFd>> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(error @ (Errno::ISDIR | Errno::PERM | Errno::ACCESS)) => {
            match Meta::at(dir, name)?.kind {
                FileKind::Directory => open_doomed(dir, name).map(Some),
                _ => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn open_doomed(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    const INSIDE: ResolveFlags = ResolveFlags::BENEATH
        .union(ResolveFlags::NO_SYMLINKS)
        .union(ResolveFlags::NO_XDEV);
    let open = |access: OFlags| {
        let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(dir, name, flags, Mode::empty(), INSIDE)
    };
    let fd = match open(OFlags::RDONLY) {
        Err(Errno::ACCESS) => {
            let path = open(OFlags::PATH)?;
            let by_proc = format!("/proc/self/fd/{}", path.as_raw_fd());
            chmodat(CWD, by_proc, Mode::RWXU, AtFlags::empty())?;
            open(OFlags::RDONLY)?
        }
        other => other?,
    };
    // An ordinary user may write in his own folder only when its mode says so.
    let _ = fchmod(fd.as_fd(), Mode::RWXU);
    Ok(fd)
}

fn remove_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
