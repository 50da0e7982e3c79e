//! Memory is bounded whatever an archive holds: measured in processes of their own.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use crate::archive_writer::ArchiveWriter;
use crate::builder::EntryEnd;
use crate::codec::{Codec, Squeezer};
use crate::crafted::{entry, file, object_of, unpack_all};
use crate::digest::sha256;
use crate::entry::EntryKind;
use crate::index::{IndexMember, IndexWriter};
use crate::needed::Whole;
use crate::{Meter, verify_content};

/// Makes a test of this file the measured process, and names the directory it works on.
const CHILD_ENV: &str = "TIDELOCK_MEMORY_TEST";
/// Buffers, members and lines take less than this; a list of entries or a decompressed bomb more.
const LIMIT_KIB: u64 = 48 << 10;
/// Debug builds take some 30 µs for each, and a list of so many paths some 60 MiB.
const ENTRIES: u64 = if cfg!(debug_assertions) {
    300_000
} else {
    1_000_000
};
/// Each of these is a file that is made and removed. A list of so many still takes more than is left.
const UNPACKED: u64 = if cfg!(debug_assertions) {
    150_000
} else {
    1_000_000
};

/// Runs `test` of this file in a process of its own on `dir`; gives its peak memory.
fn peak_kib_of(test: &str, dir: &Path) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("memory_tests::{test}"), "--nocapture"])
        .env(CHILD_ENV, dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let peak = text.split("peak ").nth(1).unwrap();
    peak.split_whitespace().next().unwrap().parse().unwrap()
}

fn child(work: impl FnOnce(&Path)) {
    let Some(dir) = std::env::var_os(CHILD_ENV) else {
        return;
    };
    work(Path::new(&dir));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.split("VmHWM:").nth(1).unwrap();
    println!("peak {}", peak.split_whitespace().next().unwrap());
}

/// Notes how the archive in a directory is compressed.
fn tell_codec(dir: &Path, codec: Codec) {
    std::fs::write(dir.join("codec"), serde_json::to_string(&codec).unwrap()).unwrap();
}

fn codec_of(dir: &Path) -> Codec {
    serde_json::from_slice(&std::fs::read(dir.join("codec")).unwrap()).unwrap()
}

fn read(dir: &Path, name: &str) -> impl Read + use<> {
    BufReader::new(File::open(dir.join(name)).unwrap())
}

#[test]
fn child_verifies() {
    child(|dir| {
        let stop = AtomicBool::new(false);
        let indexes = [(); 2].map(|()| read(dir, "index"));
        // The digest is not of this archive; that is found at the very end.
        let done = verify_content(
            codec_of(dir),
            read(dir, "archive"),
            indexes,
            &object_of(b""),
            &Meter::default(),
            &stop,
        );
        let said = done.unwrap_err().to_string();
        assert!(
            said.contains("bytes instead of 0") || said.contains("more or less"),
            "{said}"
        );
    });
}

#[test]
fn child_unpacks() {
    child(|dir| {
        let indexes = [(); 3].map(|()| read(dir, "index"));
        let done = unpack_all(
            codec_of(dir),
            &dir.join("target"),
            Whole(read(dir, "archive")),
            indexes,
        );
        assert!(done.unwrap_err().to_string().contains("more or less"));
    });
}

#[test]
fn child_unpacks_all() {
    child(|dir| {
        let indexes = [(); 3].map(|()| read(dir, "index"));
        let done = unpack_all(
            codec_of(dir),
            &dir.join("target"),
            Whole(read(dir, "archive")),
            indexes,
        );
        assert_eq!(done.unwrap().files, UNPACKED);
    });
}

/// A directory with an archive of so many empty files, its index, and an empty target.
fn empty_files(codec: Codec, count: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("target")).unwrap();
    tell_codec(dir.path(), codec);
    let create = |name| BufWriter::new(File::create(dir.path().join(name)).unwrap());
    let (mut archive, mut index) = (create("archive"), create("index"));
    let mut writer = ArchiveWriter::new(codec, &mut archive, &mut index);
    let root = entry(".", EntryKind::Directory);
    writer.begin(&root).unwrap();
    writer.end(root, EntryEnd::default()).unwrap();
    let none = sha256(b"");
    for n in 0..count {
        let mut empty = file(&format!("{n:0100}"));
        empty.size = 0;
        writer.begin(&empty).unwrap();
        let end = EntryEnd {
            sha256: Some(none.clone()),
            ..EntryEnd::default()
        };
        writer.end(empty, end).unwrap();
    }
    writer.finish().unwrap();
    archive.flush().unwrap();
    index.flush().unwrap();
    dir
}

#[test]
fn hundreds_of_thousands_of_empty_files_are_checked_in_little_memory() {
    for codec in Codec::ALL {
        let dir = empty_files(codec, ENTRIES);
        let peak = peak_kib_of("child_verifies", dir.path());
        assert!(peak < LIMIT_KIB, "{codec:?}: {peak} KiB");
    }
}

#[test]
fn as_many_empty_files_are_made_in_little_memory() {
    let dir = empty_files(Codec::Zstd, UNPACKED);
    let peak = peak_kib_of("child_unpacks_all", dir.path());
    assert!(peak < LIMIT_KIB, "{peak} KiB");
}

#[test]
fn a_bomb_is_not_decompressed_beyond_what_its_index_promises() {
    for codec in Codec::ALL {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("target")).unwrap();
        tell_codec(dir.path(), codec);
        let mut bomb = vec![0; 256 << 20];
        let mut squeezer = Squeezer::for_members(codec).unwrap();
        squeezer.squeeze(&mut bomb).unwrap();
        let mut index = Vec::new();
        let mut lines = IndexWriter::new(&mut index);
        let member = IndexMember {
            offset: 0,
            size: bomb.len() as u64,
            tar_offset: 0,
            tar_size: 1024,
            sha256: sha256(&bomb),
        };
        lines.member(member).unwrap();
        lines.finish().unwrap();
        std::fs::write(dir.path().join("archive"), bomb).unwrap();
        std::fs::write(dir.path().join("index"), index).unwrap();
        for test in ["child_verifies", "child_unpacks"] {
            let peak = peak_kib_of(test, dir.path());
            assert!(peak < LIMIT_KIB, "{codec:?}, {test}: {peak} KiB");
        }
    }
}
