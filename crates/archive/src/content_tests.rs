//! A check of the content finds what is wrong and says where.

use std::io::{self, Read};
use std::sync::atomic::AtomicBool;

use crate::archive_writer::ArchiveWriter;
use crate::builder::EntryEnd;
use crate::codec::Codec;
use crate::crafted::{archive_of, entry, file, link, object_of};
use crate::digest::sha256;
use crate::entry::{Entry, EntryKind};
use crate::error::{Corrupt, RestoreError};
use crate::{Meter, VerifiedContent, locate_damage, verify_content};

fn verify(codec: Codec, archive: &[u8], index: &[u8]) -> Result<VerifiedContent, RestoreError> {
    let expected = object_of(archive);
    verify_content(
        codec,
        archive,
        [index; 2],
        &expected,
        &Meter::default(),
        &AtomicBool::new(false),
    )
}

/// The message of an archive that must be found damaged.
fn refused(codec: Codec, archive: &[u8], index: &[u8]) -> String {
    match verify(codec, archive, index) {
        Err(RestoreError::Corrupt(corrupt)) => corrupt.to_string(),
        other => panic!("it ended as {other:?}"),
    }
}

/// Files of which each takes members of its own.
fn large(codec: Codec) -> (Vec<u8>, Vec<u8>) {
    let (mut archive, mut index) = (Vec::new(), Vec::new());
    let mut writer = ArchiveWriter::new(codec, &mut archive, &mut index);
    let mut put = |mut entry: Entry, content: &[u8]| {
        entry.size = content.len() as u64;
        writer.begin(&entry).unwrap();
        writer.content(content).unwrap();
        let is_file = entry.kind == EntryKind::File;
        let end = EntryEnd {
            sha256: is_file.then(|| sha256(content)),
            ..EntryEnd::default()
        };
        writer.end(entry, end).unwrap();
    };
    put(entry(".", EntryKind::Directory), b"");
    put(entry("dir", EntryKind::Directory), b"");
    put(file("dir/first"), &[b'a'; 12 << 20]);
    put(file("dir/second"), &[b'b'; 12 << 20]);
    writer.finish().unwrap();
    (archive, index)
}

#[test]
fn a_sound_archive_is_counted() {
    for codec in Codec::ALL {
        let (archive, index) = archive_of(
            codec,
            &[
                entry("d", EntryKind::Directory),
                file("d/f"),
                link("d/l", EntryKind::Symlink, "/etc"),
                link("h", EntryKind::HardLink, "d/f"),
            ],
        );
        let verified = verify(codec, &archive, &index).unwrap();
        let expected = VerifiedContent {
            entries: 5,
            files: 1,
            logical_bytes: 4,
        };
        assert_eq!(verified, expected);
    }
}

#[test]
fn a_damaged_byte_is_told_with_object_member_offset_and_path() {
    for codec in Codec::ALL {
        let (archive, index) = large(codec);
        let mut damaged = archive.clone();
        let at = archive.len() - archive.len() / 4;
        damaged[at] ^= 1;
        let said = refused(codec, &damaged, &index);
        for word in [
            "n/p/b.tar.gz",
            "archive bytes",
            "tar offset",
            "\"dir/second\"",
        ] {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
}

#[test]
fn attributes_of_megabytes_make_no_member_larger_than_readers_take() {
    for codec in Codec::ALL {
        let entries: Vec<Entry> = (0..6)
            .map(|n| {
                let mut directory = entry(&format!("{n}"), EntryKind::Directory);
                directory.xattrs = vec![(b"user.large".to_vec(), vec![b'x'; 3_900_000])];
                directory
            })
            .collect();
        let (archive, index) = archive_of(codec, &entries);
        assert_eq!(verify(codec, &archive, &index).unwrap().entries, 7);
    }
}

#[test]
fn content_that_its_member_agrees_with_and_its_digest_not_is_told_with_the_path() {
    for codec in Codec::ALL {
        let (mut archive, mut index) = (Vec::new(), Vec::new());
        let mut writer = ArchiveWriter::new(codec, &mut archive, &mut index);
        writer.begin(&entry(".", EntryKind::Directory)).unwrap();
        let root = entry(".", EntryKind::Directory);
        writer.end(root, EntryEnd::default()).unwrap();
        writer.begin(&file("f")).unwrap();
        writer.content(b"evil").unwrap();
        let end = EntryEnd {
            sha256: Some(sha256(b"good")),
            ..EntryEnd::default()
        };
        writer.end(file("f"), end).unwrap();
        writer.finish().unwrap();
        let said = refused(codec, &archive, &index);
        for word in ["tar offset 512, \"f\"", "digest of the index"] {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
}

#[test]
fn an_archive_that_is_cut_or_goes_on_is_refused() {
    for codec in Codec::ALL {
        let (archive, index) = archive_of(codec, &[file("f")]);
        for length in [0, 1, archive.len() - 1] {
            let said = refused(codec, &archive[..length], &index);
            assert!(said.contains("archive ends inside it"), "{said}");
        }
        let longer = [&archive[..], b"more"].concat();
        let stop = AtomicBool::new(false);
        let done = verify_content(
            codec,
            &longer[..],
            [&index[..]; 2],
            &object_of(&archive),
            &Meter::default(),
            &stop,
        );
        let said = done.unwrap_err().to_string();
        assert!(said.contains("bytes instead of"), "{said}");
    }
}

#[test]
fn an_archive_that_is_whole_in_itself_but_another_one_is_refused() {
    for codec in Codec::ALL {
        let (archive, index) = archive_of(codec, &[file("f")]);
        let mut expected = object_of(&archive);
        expected.sha256 = sha256(b"other");
        let stop = AtomicBool::new(false);
        let done = verify_content(
            codec,
            &archive[..],
            [&index[..]; 2],
            &expected,
            &Meter::default(),
            &stop,
        );
        let said = done.unwrap_err().to_string();
        assert!(said.contains("SHA-256"), "{said}");
    }
}

#[test]
fn an_index_of_another_archive_is_refused_at_the_first_difference() {
    for codec in Codec::ALL {
        let (archive, _) = archive_of(codec, &[file("f")]);
        let (_, index) = archive_of(codec, &[file("g")]);
        refused(codec, &archive, &index);
        let (_, shorter) = archive_of(codec, &[]);
        refused(codec, &archive, &shorter);
    }
}

#[test]
fn paths_that_no_restore_takes_are_refused() {
    for codec in Codec::ALL {
        for path in ["../x", "a//b", "/x"] {
            let (archive, index) = archive_of(codec, &[file(path)]);
            refused(codec, &archive, &index);
            let (archive, index) = archive_of(codec, &[link("l", EntryKind::HardLink, path)]);
            let said = refused(codec, &archive, &index);
            assert!(said.contains("\"l\": links to"), "{said}");
        }
    }
}

/// Storage that breaks off.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("stale handle"))
    }
}

#[test]
fn storage_that_cannot_be_read_is_no_damage() {
    for codec in Codec::ALL {
        let (archive, index) = archive_of(codec, &[file("f")]);
        let stop = AtomicBool::new(false);
        let expected = object_of(&archive);
        let (indexes, meter) = ([&index[..]; 2], Meter::default());
        let done = verify_content(codec, Broken, indexes, &expected, &meter, &stop);
        assert!(matches!(done, Err(RestoreError::Read(_))), "{done:?}");
        let half = archive[..archive.len() / 2].chain(Broken);
        let done = verify_content(codec, half, indexes, &expected, &meter, &stop);
        assert!(matches!(done, Err(RestoreError::Read(_))), "{done:?}");
    }
}

#[test]
fn a_check_that_is_told_to_stop_ends() {
    for codec in Codec::ALL {
        let (archive, index) = archive_of(codec, &[file("f")]);
        let stop = AtomicBool::new(true);
        let done = verify_content(
            codec,
            &archive[..],
            [&index[..]; 2],
            &object_of(&archive),
            &Meter::default(),
            &stop,
        );
        assert!(matches!(done, Err(RestoreError::Stopped)), "{done:?}");
    }
}

/// Storage that fails at every read.
struct Refuses;

impl Read for Refuses {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("gone"))
    }
}

#[test]
fn damage_stays_damage_when_a_second_reading_fails() {
    let found = Corrupt::new("the archive", "its SHA-256 is another");
    let go = AtomicBool::new(false);
    match locate_damage(found.clone(), Refuses, Refuses, &go) {
        RestoreError::Corrupt(told) => assert_eq!(told, found),
        other => panic!("{other:?}"),
    }
}
