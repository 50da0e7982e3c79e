//! Archives that nobody but an attacker writes: nothing outside the target, bounded memory, a
//! clear end.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use crate::archive_writer::ArchiveWriter;
use crate::builder::EntryEnd;
use crate::codec::{Codec, Squeezer};
use crate::crafted::{archive_of, entry, file, link, manifest, object_of, raw_archive, unpack_all};
use crate::digest::sha256;
use crate::entry::{Entry, EntryKind};
use crate::error::RestoreError;
use crate::index::{IndexEntry, IndexMember, IndexWriter};
use crate::{Meter, Unpacked, verify_content, verify_index};

/// A target with something beside it that must not change.
struct Cell {
    dir: tempfile::TempDir,
}

impl Cell {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("outside/dir")).unwrap();
        fs::write(dir.path().join("outside/secret"), b"secret").unwrap();
        fs::create_dir(dir.path().join("target")).unwrap();
        Self { dir }
    }

    fn outside(&self) -> String {
        self.dir.path().join("outside").to_str().unwrap().to_owned()
    }

    fn unpack(&self, made: &(Vec<u8>, Vec<u8>)) -> Result<Unpacked, RestoreError> {
        self.unpack_with(Codec::Gzip, made)
    }

    fn unpack_with(
        &self,
        codec: Codec,
        (archive, index): &(Vec<u8>, Vec<u8>),
    ) -> Result<Unpacked, RestoreError> {
        let target = self.dir.path().join("target");
        let done = unpack_all(codec, &target, &archive[..], [&index[..]; 3]);
        self.assert_outside_untouched();
        done
    }

    fn assert_outside_untouched(&self) {
        let outside = self.dir.path().join("outside");
        let names = |path: &Path| fs::read_dir(path).unwrap().count();
        assert_eq!((names(self.dir.path()), names(&outside)), (2, 2));
        assert_eq!(names(&outside.join("dir")), 0);
        assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
        let meta = fs::metadata(outside.join("secret")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&meta), 1);
    }

    /// Unpacks entries that must be refused as damage; gives the message.
    fn refused(&self, entries: &[Entry]) -> String {
        match self.unpack(&archive_of(Codec::Gzip, entries)) {
            Err(RestoreError::Corrupt(corrupt)) => corrupt.to_string(),
            other => panic!("{entries:?} ended as {other:?}"),
        }
    }
}

#[test]
fn paths_that_lead_out_of_the_target_are_refused() {
    let cell = Cell::new();
    let outside = cell.outside();
    for path in [
        "../outside/x",
        "..",
        "a/../../outside/x",
        "./x",
        "a//b",
        "/x",
        &outside,
        "x/",
        &"n".repeat(256),
    ] {
        cell.refused(&[file(path)]);
        cell.refused(&[link("l", EntryKind::HardLink, path)]);
    }
}

#[test]
fn nothing_is_written_through_a_link() {
    let cell = Cell::new();
    let outside = cell.outside();
    let said = cell.refused(&[link("d", EntryKind::Symlink, &outside), file("d/x")]);
    assert!(said.contains("does not come before"), "{said}");
    let through = Cell::new();
    let done = through.unpack(&archive_of(
        Codec::Gzip,
        &[
            link("d", EntryKind::Symlink, &outside),
            entry("d", EntryKind::Directory),
            file("d/x"),
        ],
    ));
    assert!(done.is_err());
    let over = Cell::new();
    let secret = format!("{}/secret", over.outside());
    let done = over.unpack(&archive_of(
        Codec::Gzip,
        &[link("f", EntryKind::Symlink, &secret), file("f")],
    ));
    assert!(done.is_err());
}

#[test]
fn no_hard_link_reaches_outside() {
    let cell = Cell::new();
    let outside = cell.outside();
    let said = cell.refused(&[
        link("d", EntryKind::Symlink, &outside),
        link("l", EntryKind::HardLink, "d/secret"),
    ]);
    assert!(said.contains("not restored"), "{said}");
    let cell = Cell::new();
    let said = cell.refused(&[link("l", EntryKind::HardLink, ".tidelock-restore-r-1")]);
    assert!(said.contains("no part of the archive"), "{said}");
}

#[test]
fn a_device_node_is_never_written_to() {
    // Of /dev/full: a byte that got there would say so.
    for kind in [
        EntryKind::CharDevice,
        EntryKind::BlockDevice,
        EntryKind::Fifo,
    ] {
        let mut node = entry("node", kind);
        node.device = (1, 7);
        let cell = Cell::new();
        let done = cell.unpack(&archive_of(Codec::Gzip, &[node, file("node")]));
        assert!(matches!(done, Err(RestoreError::Target { .. })), "{done:?}");
    }
}

#[test]
fn names_with_control_characters_are_restored_and_told_in_print() {
    let name = "a\u{1b}[2J\nb";
    let cell = Cell::new();
    cell.unpack(&archive_of(Codec::Gzip, &[file(name)]))
        .unwrap();
    assert_eq!(
        fs::read(cell.dir.path().join("target").join(name)).unwrap(),
        b"evil"
    );
    for entries in [
        [file(name), file(name)],
        [file("x"), link(name, EntryKind::HardLink, "../x")],
        [file("x"), file(&format!("{name}/x"))],
    ] {
        let said = match Cell::new().unpack(&archive_of(Codec::Gzip, &entries)) {
            Err(error) => error.to_string(),
            done => panic!("{done:?}"),
        };
        assert!(!said.chars().any(char::is_control), "{said:?}");
    }
}

#[test]
fn the_marker_of_the_restore_cannot_be_overwritten() {
    let said = Cell::new().refused(&[file(".tidelock-restore-r-1")]);
    assert!(said.contains("this restore uses"), "{said}");
}

#[test]
fn entries_out_of_order_are_refused() {
    let directory = |path| entry(path, EntryKind::Directory);
    Cell::new().refused(&[directory("a"), directory("b"), file("a/x")]);
    Cell::new().refused(&[file("a/x")]);
    Cell::new().refused(&[directory(".")]);
    let early = [directory("a"), file("a/x"), file("b"), file("a/y")];
    Cell::new().refused(&early);
}

#[test]
fn an_index_that_repeats_an_entry_is_refused() {
    let (_, index) = archive_of(Codec::Gzip, &[file("f"), file("f")]);
    let said = index_refused(&index);
    assert!(said.contains("repeats an entry"), "{said}");
}

#[test]
fn content_without_the_digest_of_the_index_is_refused() {
    let (mut archive, mut index) = (Vec::new(), Vec::new());
    let mut writer = ArchiveWriter::new(Codec::Gzip, &mut archive, &mut index);
    for (entry, digest) in [
        (entry(".", EntryKind::Directory), None),
        (file("f"), Some(sha256(b"good"))),
    ] {
        writer.begin(&entry).unwrap();
        if entry.kind == EntryKind::File {
            writer.content(b"evil").unwrap();
        }
        let end = EntryEnd {
            sha256: digest,
            ..EntryEnd::default()
        };
        writer.end(entry, end).unwrap();
    }
    writer.finish().unwrap();
    let done = Cell::new().unpack(&(archive, index));
    let Err(RestoreError::Corrupt(corrupt)) = done else {
        panic!("{done:?}");
    };
    assert!(corrupt.what.contains("digest of the index"), "{corrupt}");
}

#[test]
fn a_planted_link_in_the_target_is_not_followed() {
    let cell = Cell::new();
    symlink(cell.outside(), cell.dir.path().join("target/d")).unwrap();
    let done = cell.unpack(&archive_of(
        Codec::Gzip,
        &[entry("d", EntryKind::Directory), file("d/x")],
    ));
    assert!(matches!(done, Err(RestoreError::Target { .. })), "{done:?}");
}

#[test]
fn an_extended_header_of_gigabytes_is_not_read() {
    let mut tar = entry(".", EntryKind::Directory).encode();
    let mut long = file("x");
    long.path = vec![b'x'; 200];
    let mut blocks = long.encode();
    blocks[124..136].copy_from_slice(b"77777777777\0");
    let sum: u32 = 8 * 32
        + blocks[..148].iter().map(|b| u32::from(*b)).sum::<u32>()
        + blocks[156..512].iter().map(|b| u32::from(*b)).sum::<u32>();
    blocks[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let header_bytes = tar.len() as u64;
    tar.extend_from_slice(&blocks);
    let root = IndexEntry {
        path: b".".to_vec(),
        kind: EntryKind::Directory,
        size: 0,
        stored: None,
        sha256: None,
        link: None,
        offset: 0,
        length: header_bytes,
        superseded: false,
        torn: false,
    };
    let done = Cell::new().unpack(&raw_archive(Codec::Gzip, &tar, &[root]));
    let Err(RestoreError::Corrupt(corrupt)) = done else {
        panic!("{done:?}");
    };
    assert!(corrupt.what.contains("impossible size"), "{corrupt}");
}

fn gzip(bytes: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    bytes.for_each(|bytes| gzip.write_all(&bytes).unwrap());
    gzip.finish().unwrap()
}

fn index_refused(index: &[u8]) -> String {
    let stop = AtomicBool::new(false);
    verify_index(index, &manifest(), &stop)
        .unwrap_err()
        .to_string()
}

#[test]
fn an_index_line_of_hundreds_of_megabytes_is_not_held() {
    let bomb = gzip((0..400).map(|_| vec![b' '; 1 << 20]));
    let said = index_refused(&bomb);
    assert!(said.contains("too long"), "{said}");
}

#[test]
fn an_index_of_more_lines_than_promised_ends_early() {
    let line = br#"{"member":{"offset":0,"size":0,"tarOffset":0,"tarSize":0,"sha256":""}}"#;
    let bomb = gzip((0..100_000).map(|_| [line, &b"\n"[..]].concat()));
    let said = index_refused(&bomb);
    assert!(said.contains("index line 11"), "{said}");
}

#[test]
fn an_index_that_promises_more_bytes_than_the_manifest_ends_early() {
    let entry =
        br#"{"entry":{"path":".","type":"directory","size":0,"offset":0,"length":2097152}}"#;
    let member = br#"{"member":{"offset":0,"size":1,"tarOffset":0,"tarSize":8388608,"sha256":""}}"#;
    for line in [&entry[..], member] {
        let bomb = gzip((0..100_000).map(|_| [line, &b"\n"[..]].concat()));
        let said = index_refused(&bomb);
        assert!(said.contains("index line 1: more bytes"), "{said}");
    }
}

#[test]
fn a_member_that_promises_too_much_is_not_read() {
    let member = |tar_size| IndexMember {
        offset: 0,
        size: 100,
        tar_offset: 0,
        tar_size,
        sha256: sha256(&[0; 100]),
    };
    let mut index = Vec::new();
    let mut lines = IndexWriter::new(&mut index);
    lines.member(member(1 << 40)).unwrap();
    lines.finish().unwrap();
    let done = Cell::new().unpack(&(vec![0; 100], index));
    let Err(RestoreError::Corrupt(corrupt)) = done else {
        panic!("{done:?}");
    };
    assert!(corrupt.what.contains("a member of over"), "{corrupt}");
}

/// An index that promises so many bytes of a single member.
fn index_of(member: &[u8], tar_size: u64) -> Vec<u8> {
    let mut index = Vec::new();
    let mut lines = IndexWriter::new(&mut index);
    lines
        .member(IndexMember {
            offset: 0,
            size: member.len() as u64,
            tar_offset: 0,
            tar_size,
            sha256: sha256(member),
        })
        .unwrap();
    lines.finish().unwrap();
    index
}

#[test]
fn a_member_that_holds_more_than_promised_is_refused() {
    for codec in Codec::ALL {
        let mut bomb = vec![0; 64 << 20];
        let mut squeezer = Squeezer::for_members(codec).unwrap();
        squeezer.squeeze(&mut bomb).unwrap();
        let index = index_of(&bomb, 1024);
        let done = Cell::new().unpack_with(codec, &(bomb, index));
        let Err(RestoreError::Corrupt(corrupt)) = done else {
            panic!("{done:?}");
        };
        assert!(corrupt.what.contains("more or less"), "{corrupt}");
    }
}

#[test]
fn a_frame_that_lies_about_its_size_is_refused() {
    // Single segment, content size of four bytes, one last block of a repeated byte.
    let frame = |told: u32, block: u32| {
        let header = ((block << 3) | 0b011).to_le_bytes();
        let magic = 0xFD2F_B528_u32.to_le_bytes();
        [&magic[..], &[0xA0], &told.to_le_bytes(), &header[..3], b"x"].concat()
    };
    for (told, block, promised) in [
        (1024, 100_000, 1024),
        (1 << 31, 1024, 1024),
        (8 << 20, 1024, 8 << 20),
        (1024, 1024, 512),
    ] {
        let lie = frame(told, block);
        let index = index_of(&lie, promised);
        let done = Cell::new().unpack_with(Codec::Zstd, &(lie, index));
        assert!(matches!(done, Err(RestoreError::Corrupt(_))), "{done:?}");
    }
    let truth = Codec::Zstd.expand(&frame(1024, 1024), 1024).unwrap();
    assert_eq!(truth, [b'x'; 1024]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_stream_damaged_before_it_was_sealed_neither_panics_nor_escapes(
        codec in prop::sample::select(&Codec::ALL[..]),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let entries = [
            entry(".", EntryKind::Directory),
            entry("d", EntryKind::Directory),
            file("d/f"),
            link("d/l", EntryKind::Symlink, "f"),
            link("h", EntryKind::HardLink, "d/f"),
        ];
        let mut tar = Vec::new();
        let mut lines = Vec::new();
        for entry in &entries {
            let offset = tar.len() as u64;
            tar.extend_from_slice(&entry.encode());
            let is_file = entry.kind == EntryKind::File;
            if is_file {
                tar.extend_from_slice(b"evil");
                tar.resize(tar.len().next_multiple_of(512), 0);
            }
            lines.push(IndexEntry {
                path: entry.path.clone(),
                kind: entry.kind,
                size: entry.size,
                stored: None,
                sha256: is_file.then(|| sha256(b"evil")),
                link: (!entry.link.is_empty()).then(|| entry.link.clone()),
                offset,
                length: tar.len() as u64 - offset,
                superseded: false,
                torn: false,
            });
        }
        tar.resize(tar.len() + 1024, 0);
        for (at, byte) in &flips {
            let at = at.index(tar.len());
            tar[at] = *byte;
        }
        let sealed = raw_archive(codec, &tar, &lines);
        let restored = Cell::new().unpack_with(codec, &sealed);
        let (archive, index) = &sealed;
        let stop = AtomicBool::new(false);
        let verified =
            verify_content(codec, &archive[..], [&index[..]; 2], &object_of(archive), &Meter::default(), &stop);
        prop_assert!(verified.is_ok() || restored.is_err(), "{verified:?} but {restored:?}");
    }
}
