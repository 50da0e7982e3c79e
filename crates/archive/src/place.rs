//! Making single files in a target, each by its name in an open directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fchmod, fchown, linkat,
    makedev, mkdirat, mknodat, openat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::beneath::{open_beneath, open_dir_beneath};
use crate::entry::{Entry, EntryKind};
use crate::error::Refused;
use crate::meta::{FileKind, Meta};
use crate::target::{set_times, timestamps};
use crate::xattr::{self, Handle};

/// Names a step for the error of it.
fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Refused {
    move |error| (step.into(), error.into())
}

/// Runs `make`; what an earlier try of the same restore left at `name` is removed first when
/// `replace` says so.
fn make_new<T>(
    dir: BorrowedFd<'_>,
    name: &[u8],
    replace: bool,
    make: impl Fn() -> io::Result<T>,
) -> io::Result<T> {
    match make() {
        Err(e) if replace && Errno::from_io_error(&e) == Some(Errno::EXIST) => {
            unlinkat(dir, name, AtFlags::empty())?;
            make()
        }
        other => other,
    }
}

/// Makes an empty file and opens it for writing.
pub(crate) fn create_file(
    dir: BorrowedFd<'_>,
    name: &[u8],
    replace: bool,
) -> Result<File, Refused> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mode = Mode::RUSR | Mode::WUSR;
    make_new(dir, name, replace, || open_beneath(dir, name, flags, mode))
        .map(File::from)
        .map_err(at("create"))
}

/// Sets what is kept of a file: owner, mode, extended attributes, time.
pub(crate) fn finish_file(file: &File, entry: &Entry) -> Result<(), Refused> {
    xattr::set_first(&Handle::Open(file.as_fd()), &entry.xattrs)?;
    finish_open(file.as_fd(), entry)
}

/// Makes a directory, or takes one that is there when `replace` says so, and opens it.
pub(crate) fn make_dir(
    dir: BorrowedFd<'_>,
    name: &[u8],
    replace: bool,
) -> Result<(OwnedFd, Meta), Refused> {
    match mkdirat(dir, name, Mode::RWXU) {
        Err(Errno::EXIST) if replace => {}
        other => other.map_err(at("create"))?,
    }
    let fd = open_dir_beneath(dir, name).map_err(at("open"))?;
    let meta = Meta::of(&fd).map_err(at("open"))?;
    Ok((fd, meta))
}

/// Sets the attributes of a new directory that do not change what is made inside it.
pub(crate) fn start_dir(dir: BorrowedFd<'_>, entry: &Entry) -> Result<(), Refused> {
    xattr::set_first(&Handle::Open(dir), &entry.xattrs)
}

/// Sets what is kept of a directory; its content is complete.
pub(crate) fn finish_dir(dir: BorrowedFd<'_>, entry: &Entry) -> Result<(), Refused> {
    finish_open(dir, entry)
}

fn finish_open(file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Refused> {
    let (uid, gid) = owner_of(entry);
    let handle = Handle::Open(file);
    fchown(file, uid, gid).map_err(at("set the owner of"))?;
    // Before the mode, whose group bits an ACL would take for its mask.
    remove_foreign_acls(&handle, entry)?;
    fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(at("set the mode of"))?;
    xattr::set_last(&handle, &entry.xattrs)?;
    set_times(file, entry.mtime).map_err(at("set the time of"))
}

/// Removes the ACLs that the entry does not carry: inherited from a default ACL of the target, or
/// left by an earlier try.
fn remove_foreign_acls(file: &Handle<'_>, entry: &Entry) -> Result<(), Refused> {
    let acls: &[&[u8]] = match entry.kind {
        EntryKind::Directory => &[xattr::ACL, xattr::DEFAULT_ACL],
        _ => &[xattr::ACL],
    };
    for acl in acls {
        if !entry.xattrs.iter().any(|(name, _)| name == acl) {
            xattr::remove(file, acl).map_err(at("remove an inherited ACL of"))?;
        }
    }
    Ok(())
}

/// Makes a symbolic link.
pub(crate) fn make_symlink(
    dir: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    replace: bool,
) -> Result<(), Refused> {
    make_new(dir, name, replace, || {
        Ok(symlinkat(entry.link.as_slice(), dir, name)?)
    })
    .map_err(at("create"))?;
    let (uid, gid) = owner_of(entry);
    chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(at("set the owner of"))?;
    utimensat(
        dir,
        name,
        &timestamps(entry.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(at("set the time of"))
}

/// Makes a FIFO or a device node.
pub(crate) fn make_special(
    dir: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    replace: bool,
) -> Result<(), Refused> {
    let kind = match entry.kind {
        EntryKind::CharDevice => FileType::CharacterDevice,
        EntryKind::BlockDevice => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let device = makedev(entry.device.0, entry.device.1);
    make_new(dir, name, replace, || {
        Ok(mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, device)?)
    })
    .map_err(at("create"))?;
    // Opening a FIFO would wait and opening a device could act; a path descriptor does neither.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(dir, name, flags, Mode::empty()).map_err(at("open"))?;
    let (uid, gid) = owner_of(entry);
    chownat(&fd, c"", uid, gid, AtFlags::EMPTY_PATH).map_err(at("set the owner of"))?;
    let handle = Handle::Path(fd.as_fd());
    remove_foreign_acls(&handle, entry)?;
    let by_proc = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mode = Mode::from_raw_mode(entry.mode);
    chmodat(CWD, by_proc, mode, AtFlags::empty()).map_err(at("set the mode of"))?;
    xattr::set_last(&handle, &entry.xattrs)?;
    utimensat(
        dir,
        name,
        &timestamps(entry.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(at("set the time of"))
}

/// Gives the file `target`, in the directory `target_dir`, another name; tells what it is.
pub(crate) fn make_hard_link(
    target_dir: BorrowedFd<'_>,
    target: &[u8],
    dir: BorrowedFd<'_>,
    name: &[u8],
    replace: bool,
) -> Result<FileKind, Refused> {
    make_new(dir, name, replace, || {
        Ok(linkat(target_dir, target, dir, name, AtFlags::empty())?)
    })
    .map_err(at("link"))?;
    Meta::at(dir, name)
        .map(|meta| meta.kind)
        .map_err(at("look at"))
}

fn owner_of(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )
}
