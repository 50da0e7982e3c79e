//! What single files in a target come to.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::io::Errno;

use crate::entry::{Entry, EntryKind};
use crate::loss::Lost;
use crate::meta::Time;
use crate::place;
use crate::xattr::{ACL, DEFAULT_ACL};

fn entry(kind: EntryKind) -> Entry {
    Entry {
        path: b"name".to_vec(),
        kind,
        mode: 0o640,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: Time::default(),
        size: 0,
        stored: None,
        link: Vec::new(),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

/// An ACL that gives the user 1234 all rights: owner, user, group, mask, others.
fn acl() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in [
        (0x01_u16, 7_u16, u32::MAX),
        (0x02, 7, 1234),
        (0x04, 5, u32::MAX),
        (0x10, 7, u32::MAX),
        (0x20, 5, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(rights.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

fn acl_of(path: &Path, name: &[u8]) -> Result<usize, Errno> {
    lgetxattr(path, name, &mut [0; 256][..])
}

/// A directory with a default ACL, open; none where the file system has no ACLs.
fn target() -> Option<(tempfile::TempDir, OwnedFd)> {
    let target = tempfile::tempdir().unwrap();
    match lsetxattr(target.path(), DEFAULT_ACL, &acl(), XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => return None,
        other => other.unwrap(),
    }
    let dir = fs::File::open(target.path()).unwrap().into();
    Some((target, dir))
}

#[test]
fn what_is_restored_inherits_no_acl_of_the_target() {
    let Some((target, dir)) = target() else {
        return;
    };
    let path = |name: &str| target.path().join(name);
    let file = place::create_file(dir.as_fd(), b"file", 0o600, false).unwrap();
    place::finish_file(&file, &entry(EntryKind::File), true, &mut Lost::default()).unwrap();
    let fifo = entry(EntryKind::Fifo);
    place::make_special(dir.as_fd(), b"fifo", &fifo, false, &mut Lost::default()).unwrap();
    let made = place::make_dir(dir.as_fd(), b"dir", false).unwrap();
    assert!(acl_of(&path("dir"), DEFAULT_ACL).is_ok());
    place::finish_dir(
        made.fd.as_fd(),
        &entry(EntryKind::Directory),
        &mut Lost::default(),
    )
    .unwrap();
    for name in ["file", "fifo", "dir"] {
        let path = path(name);
        assert_eq!(acl_of(&path, ACL), Err(Errno::NODATA), "{name}");
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640, "{name}");
    }
    assert_eq!(acl_of(&path("dir"), DEFAULT_ACL), Err(Errno::NODATA));
}

#[test]
fn an_acl_of_the_archive_replaces_that_of_the_target() {
    let Some((target, dir)) = target() else {
        return;
    };
    let file = place::create_file(dir.as_fd(), b"file", 0o600, false).unwrap();
    let mut kept = entry(EntryKind::File);
    kept.xattrs = vec![(ACL.to_vec(), acl())];
    place::finish_file(&file, &kept, true, &mut Lost::default()).unwrap();
    let length = acl_of(&target.path().join("file"), ACL);
    assert_eq!(length, Ok(acl().len()));
}

#[test]
fn a_refused_attribute_is_named_in_print_and_keeps_the_systems_error() {
    let target = tempfile::tempdir().unwrap();
    let dir = fs::File::open(target.path()).unwrap();
    let file = place::create_file(dir.as_fd(), b"file", 0o600, false).unwrap();
    let mut large = entry(EntryKind::File);
    large.xattrs = vec![(b"user.\x1b[2J".to_vec(), vec![0; 65_537])];
    let (action, error) =
        place::finish_file(&file, &large, true, &mut Lost::default()).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::TOOBIG));
    assert_eq!(action, "set the extended attribute user.\\u{1b}[2J of");
}
