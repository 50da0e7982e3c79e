//! What a pack promises, and names that change between the walk's look and the packer's.

use std::fs::{self, File};
use std::iter;
use std::os::unix::fs::symlink;
use std::path::Path;

use std::io;
use std::sync::atomic::Ordering;

use rustix::fs::{XattrFlags, fsetxattr};
use rustix::io::Errno;

use super::reader::Item;
use super::*;
use crate::index::IndexReader;

/// What a pack told, and the entries it wrote, when `change` happens between the look at the
/// only name and its reading.
fn told_after(make: fn(&Path), change: fn(&Path)) -> (Vec<String>, Counts) {
    let tree = tempfile::tempdir().unwrap();
    let name = tree.path().join("name");
    make(&name);
    let shared = shared();
    let mut walker = Walker::new(&shared);
    let mut walk = Walk::new(File::open(tree.path()).unwrap().into());
    while let Some(step) = walk.next() {
        if walk.path() == b"name" {
            change(&name);
        }
        walker.step(step, &mut walk);
    }
    let told = walker.task.iter().filter_map(|item| match item {
        Item::Told(path, notice) => Some(format!("{}: {notice:?}", String::from_utf8_lossy(path))),
        _ => None,
    });
    (told.collect(), walker.counts)
}

fn shared() -> Shared<'static> {
    let meter = Box::leak(Box::default());
    Shared {
        conveyor: Conveyor::new(2, meter),
        piece_size: Codec::Gzip.piece_size(),
        unreadable: AtomicU64::new(0),
        logical_bytes: AtomicU64::new(0),
        xattrs_left_out: AtomicU64::new(0),
        has_holes: AtomicBool::new(false),
        meter,
        stop: Box::leak(Box::default()),
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
    let shared = shared();
    let mut walker = Walker::new(&shared);
    let of_a_read = io::Error::from(Errno::NOENT);
    walker.fault(b"f", of_a_read.into());
    assert_eq!(
        (
            shared.unreadable.load(Ordering::Relaxed),
            walker.counts.vanished
        ),
        (1, 0)
    );
    assert!(matches!(
        &walker.task[..],
        [Item::Told(_, Notice::Unreadable(_))]
    ));
}

/// Archive and index of a tree.
fn packed(codec: Codec, tree: &Path) -> (Vec<u8>, Vec<u8>) {
    let (mut archive, mut index) = (Vec::new(), Vec::new());
    pack(
        File::open(tree).unwrap().into(),
        codec,
        &mut archive,
        &mut index,
        &mut |path, notice| panic!("{path:?}: {notice:?}"),
        &Meter::default(),
        &AtomicBool::new(false),
    )
    .unwrap();
    (archive, index)
}

#[test]
fn the_archive_of_a_tree_is_the_same_each_time() {
    let tree = tempfile::tempdir().unwrap();
    for n in 0..40_usize {
        let dir = tree.path().join(format!("{}", n % 7));
        fs::create_dir_all(&dir).unwrap();
        let mut state = 1 + n as u64;
        let letter = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b'a' + (state >> 60) as u8
        };
        let content: Vec<u8> = iter::repeat_with(letter).take(n * n * 2_000).collect();
        fs::write(dir.join(format!("{n}")), content).unwrap();
    }
    for codec in Codec::ALL {
        let first = packed(codec, tree.path());
        assert!(first.0.len() > 10_000_000);
        for _ in 0..3 {
            assert!(packed(codec, tree.path()) == first);
        }
    }
}

#[test]
fn attributes_that_the_walk_did_not_count_make_no_member_larger() {
    let tree = tempfile::tempdir().unwrap();
    for n in 0..2_500 {
        let path = tree.path().join(format!("{n}"));
        let file = File::create(path).unwrap();
        fsetxattr(&file, "user.x", &[b'x'; 3_500], XattrFlags::empty()).unwrap();
    }
    for codec in Codec::ALL {
        let (_, index) = packed(codec, tree.path());
        let mut lines = IndexReader::new(&index[..]);
        let mut members = 0;
        while let Some(member) = lines.next_member().unwrap() {
            members += 1;
            let largest = codec.piece_size().largest_bytes as u64;
            assert!(member.tar_size <= largest, "{member:?}");
        }
        assert!(members > 1);
    }
}

#[test]
fn a_pack_without_room_for_its_archive_ends_with_that() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(Errno::NOSPC)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let tree = tempfile::tempdir().unwrap();
    for n in 0..20_u64 {
        let content: Vec<u8> = (0..300_000).map(|at| ((at * at + n) % 251) as u8).collect();
        fs::write(tree.path().join(format!("{n}")), content).unwrap();
    }
    let ended = pack(
        File::open(tree.path()).unwrap().into(),
        Codec::Gzip,
        Full(1_000),
        io::sink(),
        &mut |_, _| {},
        &Meter::default(),
        &AtomicBool::new(false),
    );
    let Err(PackError::Output(error)) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(Errno::from_io_error(&error), Some(Errno::NOSPC));
}
