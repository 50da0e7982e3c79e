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
use crate::loss::{Lost, MetadataKind};
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

/// Makes an empty file and opens it for writing. It has the permissions of `mode` at once, as far as
/// the umask lets it.
pub(crate) fn create_file(
    dir: BorrowedFd<'_>,
    name: &[u8],
    mode: u32,
    replace: bool,
) -> Result<File, Refused> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    // Some network file systems ask at each write whether the file may be written.
    let mode = Mode::from_raw_mode(mode & 0o777) | Mode::WUSR;
    make_new(dir, name, replace, || open_beneath(dir, name, flags, mode))
        .map(File::from)
        .map_err(at("create"))
}

/// Sets what is kept of a file that was made in a directory: owner, mode, extended attributes,
/// time. Where the directory has no default ACL, `inherits` need not be set.
pub(crate) fn finish_file(
    file: &File,
    entry: &Entry,
    inherits: bool,
    lost: &mut Lost,
) -> Result<(), Refused> {
    xattr::set_first(&Handle::Open(file.as_fd()), &entry.xattrs, lost)?;
    finish_open(file.as_fd(), entry, inherits, lost)
}

/// Whether what is made in the directory may get an ACL from it.
pub(crate) fn has_default_acl(dir: BorrowedFd<'_>) -> bool {
    xattr::is_there(&Handle::Open(dir), xattr::DEFAULT_ACL)
}

/// A directory in a target, open.
pub(crate) struct MadeDir {
    pub(crate) fd: OwnedFd,
    pub(crate) meta: Meta,
    /// Whether it was there before.
    pub(crate) existed: bool,
}

/// Makes a directory, or takes one that is there when `replace` says so, and opens it.
pub(crate) fn make_dir(
    dir: BorrowedFd<'_>,
    name: &[u8],
    replace: bool,
) -> Result<MadeDir, Refused> {
    let existed = match mkdirat(dir, name, Mode::RWXU) {
        Err(Errno::EXIST) if replace => true,
        other => other.map(|()| false).map_err(at("create"))?,
    };
    let fd = open_dir_beneath(dir, name).map_err(at("open"))?;
    let meta = Meta::of(&fd).map_err(at("open"))?;
    Ok(MadeDir { fd, meta, existed })
}

/// Sets the attributes of a directory that do not change what is made inside it.
pub(crate) fn start_dir(
    dir: BorrowedFd<'_>,
    entry: &Entry,
    existed: bool,
    lost: &mut Lost,
) -> Result<(), Refused> {
    let handle = Handle::Open(dir);
    if existed {
        xattr::remove_others(&handle, &entry.xattrs, lost)?;
    }
    xattr::set_first(&handle, &entry.xattrs, lost)
}

/// Sets what is kept of a directory; its content is complete.
pub(crate) fn finish_dir(
    dir: BorrowedFd<'_>,
    entry: &Entry,
    lost: &mut Lost,
) -> Result<(), Refused> {
    finish_open(dir, entry, true, lost)
}

/// Sets owner, mode, attributes and time. What is right already is left alone: a mover that does
/// not own the root of a volume may not even set what it has.
fn finish_open(
    file: BorrowedFd<'_>,
    entry: &Entry,
    may_have_acl: bool,
    lost: &mut Lost,
) -> Result<(), Refused> {
    let handle = Handle::Open(file);
    let mut now = Meta::of(file).map_err(at("look at"))?;
    let has_owner = (now.uid, now.gid) == (entry.uid, entry.gid);
    if !has_owner {
        let (uid, gid) = owner_of(entry);
        let owned = fchown(file, uid, gid).map_err(at("set the owner of"));
        lost.tolerate(MetadataKind::Owner, owned)?;
    }
    if may_have_acl {
        // Before the mode, whose group bits an ACL would take for its mask.
        remove_foreign_acls(&handle, entry, lost)?;
    }
    if !has_owner || may_have_acl {
        // Both of the above change the mode.
        now = Meta::of(file).map_err(at("look at"))?;
    }
    if (now.uid, now.gid) != (entry.uid, entry.gid) {
        // Some file systems take an owner without a word and keep their own.
        lost.note(MetadataKind::Owner);
    }
    let mode = mode_of(entry, lost);
    if now.mode != mode.as_raw_mode() {
        let set = fchmod(file, mode).map_err(at("set the mode of"));
        lost.tolerate(MetadataKind::Mode, set)?;
    }
    xattr::set_last(&handle, &entry.xattrs, lost)?;
    if now.mtime != entry.mtime {
        let timed = set_times(file, entry.mtime).map_err(at("set the time of"));
        lost.tolerate(MetadataKind::Time, timed)?;
    }
    let found = Meta::of(file).map_err(at("look at"))?;
    lost.compare(entry, &found);
    Ok(())
}

/// The mode to set: what runs with its owner's rights must not run with another's.
fn mode_of(entry: &Entry, lost: &Lost) -> Mode {
    let strip = if lost.has(MetadataKind::Owner) && entry.kind != EntryKind::Directory {
        0o6000
    } else {
        0
    };
    Mode::from_raw_mode(entry.mode & !strip)
}

/// Removes the ACLs that the entry does not carry: inherited from a default ACL of the target, or
/// left by an earlier try.
fn remove_foreign_acls(file: &Handle<'_>, entry: &Entry, lost: &mut Lost) -> Result<(), Refused> {
    let acls: &[&[u8]] = match entry.kind {
        EntryKind::Directory => &[xattr::ACL, xattr::DEFAULT_ACL],
        _ => &[xattr::ACL],
    };
    for acl in acls {
        if !entry.xattrs.iter().any(|(name, _)| name == acl) {
            let removed = xattr::remove(file, acl).map_err(at("remove an inherited ACL of"));
            lost.tolerate(MetadataKind::Xattr, removed)?;
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
    lost: &mut Lost,
) -> Result<(), Refused> {
    make_new(dir, name, replace, || {
        Ok(symlinkat(entry.link.as_slice(), dir, name)?)
    })
    .map_err(at("create"))?;
    let (uid, gid) = owner_of(entry);
    let owned = chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
    lost.tolerate(MetadataKind::Owner, owned.map_err(at("set the owner of")))?;
    finish_name(dir, name, entry, lost)
}

/// Makes a FIFO or a device node.
pub(crate) fn make_special(
    dir: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    replace: bool,
    lost: &mut Lost,
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
    let owned = chownat(&fd, c"", uid, gid, AtFlags::EMPTY_PATH).map_err(at("set the owner of"));
    lost.tolerate(MetadataKind::Owner, owned)?;
    let handle = Handle::Path(fd.as_fd());
    remove_foreign_acls(&handle, entry, lost)?;
    let by_proc = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let set = chmodat(CWD, by_proc, mode_of(entry, lost), AtFlags::empty());
    lost.tolerate(MetadataKind::Mode, set.map_err(at("set the mode of")))?;
    xattr::set_last(&handle, &entry.xattrs, lost)?;
    finish_name(dir, name, entry, lost)
}

/// Sets the time of what cannot be opened, and looks at what the file system made of it all.
fn finish_name(
    dir: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    lost: &mut Lost,
) -> Result<(), Refused> {
    let times = timestamps(entry.mtime);
    let timed = utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    lost.tolerate(MetadataKind::Time, timed.map_err(at("set the time of")))?;
    let found = Meta::at(dir, name).map_err(at("look at"))?;
    lost.compare(entry, &found);
    Ok(())
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
