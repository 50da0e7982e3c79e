//! Names that change between the walk's look and the packer's.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// What a pack told, and the entries it wrote, when `change` happens between the look at the
/// only name and its reading.
fn told_after(make: fn(&Path), change: fn(&Path)) -> (Vec<String>, Counts) {
    let tree = tempfile::tempdir().unwrap();
    let name = tree.path().join("name");
    make(&name);
    let mut told = Vec::new();
    let mut notify = |path: &[u8], notice: Notice<'_>| {
        told.push(format!("{}: {notice:?}", String::from_utf8_lossy(path)));
    };
    let stop = AtomicBool::new(false);
    let mut packer = packer(&mut notify, &stop);
    let mut walk = Walk::new(File::open(tree.path()).unwrap().into());
    while let Some(step) = walk.next() {
        if walk.path() == b"name" {
            change(&name);
        }
        packer.step(step, &mut walk).map_err(drop).unwrap();
    }
    let counts = packer.counts;
    (told, counts)
}

fn packer<'p>(
    notify: &'p mut dyn FnMut(&[u8], Notice<'_>),
    stop: &'p AtomicBool,
) -> Packer<'p, io::Sink, io::Sink> {
    Packer {
        out: ArchiveWriter::new(io::sink(), io::sink()),
        links: HardLinks::default(),
        xattrs: XattrReader::new(),
        buffer: vec![0; PIECE_BYTES],
        small: Vec::new(),
        counts: Counts::default(),
        logical_bytes: 0,
        unreadable: 0,
        notify,
        meter: Box::leak(Box::default()),
        stop,
    }
}

fn file(path: &Path) {
    fs::write(path, b"content").unwrap();
}

fn link(path: &Path) {
    symlink("elsewhere", path).unwrap();
}

#[test]
fn a_file_that_becomes_a_link_is_archived_as_a_link() {
    let (told, counts) = told_after(file, |path| {
        fs::remove_file(path).unwrap();
        link(path);
    });
    assert_eq!(told, [""; 0]);
    assert_eq!((counts.files, counts.others, counts.vanished), (0, 2, 0));
}

#[test]
fn a_link_that_becomes_a_file_is_archived_as_a_file() {
    let (told, counts) = told_after(link, |path| {
        fs::remove_file(path).unwrap();
        file(path);
    });
    assert_eq!(told, [""; 0]);
    assert_eq!((counts.files, counts.others, counts.vanished), (1, 1, 0));
}

#[test]
fn a_file_that_becomes_a_directory_is_archived_with_what_is_in_it() {
    let (told, counts) = told_after(file, |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
        fs::write(path.join("inside"), b"x").unwrap();
    });
    assert_eq!(told, [""; 0]);
    assert_eq!((counts.files, counts.others, counts.vanished), (1, 2, 0));
}

#[test]
fn a_name_that_was_deleted_has_vanished() {
    let (told, counts) = told_after(file, |path| fs::remove_file(path).unwrap());
    assert_eq!(told, ["name: Vanished"]);
    assert_eq!((counts.files, counts.others, counts.vanished), (0, 1, 1));
}

#[test]
fn an_open_file_whose_reading_says_it_is_not_there_is_unreadable() {
    let mut told = Vec::new();
    let mut notify = |_: &[u8], notice: Notice<'_>| told.push(format!("{notice:?}"));
    let stop = AtomicBool::new(false);
    let mut packer = packer(&mut notify, &stop);
    let of_a_read = io::Error::from(Errno::NOENT);
    packer.tell(b"f", of_a_read.into()).unwrap();
    assert_eq!((packer.unreadable, packer.counts.vanished), (1, 0));
    assert!(told[0].starts_with("Unreadable"), "{told:?}");
}
