//! What no restore takes of other tools' streams, and what is said of it.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use tar::{EntryType, Header};

use crate::codec::Codec;
use crate::crafted::entry;
use crate::digest::sha256;
use crate::entry::{Entry, EntryError, EntryKind, padding};
use crate::foreign::{cut, entries_of, make_attributes, make_huge, run, seal, sparse, verify};
use crate::index::IndexEntry;
use crate::restore_place::Place;
use crate::{Overwrite, RestoreError};

fn make_small(root: &Path) {
    fs::create_dir_all(root.join("dir/inner")).unwrap();
    fs::write(root.join("plain"), b"content").unwrap();
    fs::write(root.join("dir/inner/file"), vec![7; 30_000]).unwrap();
    sparse(&root.join("holes"), 1 << 20, &[(70_000, 5000)]);
}

/// What a restore says of a stream of which a reader refuses an entry that the index tells of.
fn refused(script: &str, path: &str) -> String {
    let place = Place::written(Codec::Gzip, make_small, |source| {
        let (tar, _) = run(script, source);
        let (mut entries, offset, fault) = entries_of(&tar);
        assert!(fault.is_some(), "{script} is taken");
        entries.push(IndexEntry {
            path: path.into(),
            kind: EntryKind::File,
            size: 0,
            stored: None,
            sha256: Some(sha256(b"")),
            link: None,
            offset,
            length: tar.len() as u64 - offset,
            superseded: false,
            torn: false,
        });
        cut(Codec::Gzip, &tar, entries)
    });
    match place.restore(Overwrite::Never) {
        Err(RestoreError::Corrupt(corrupt)) => corrupt.to_string(),
        other => panic!("{script} ended as {other:?}"),
    }
}

#[test]
fn what_is_not_taken_is_named_with_what_it_is_and_what_to_do() {
    let volumes = "cp dir/inner/file big; tar --format=gnu -b1 -M -L 20 -f ../one -f ../two -c ./big \
                   < /dev/null; cat ../two";
    for (script, path, words) in [
        (
            "tar --format=gnu --sparse -cf - ./holes",
            "holes",
            ["type 'S'", "--format=posix"],
        ),
        (
            "tar --format=posix --sparse --sparse-version=0.0 -cf - ./holes",
            "holes",
            ["GNU.sparse.size", "--sparse-version=1.0"],
        ),
        (
            "tar --format=posix --sparse --sparse-version=0.1 -cf - ./holes",
            "holes",
            ["GNU.sparse.size", "--sparse-version=1.0"],
        ),
        (
            "tar --format=gnu --label=x -cf - .",
            ".",
            ["type 'V'", "without --label"],
        ),
        (
            "tar --format=posix --label=x -cf - .",
            ".",
            ["GNU.volume.label=x", "may change"],
        ),
        (
            "tar --format=gnu -g ../snapshot -cf - .",
            ".",
            ["type 'D'", "must be complete"],
        ),
        (
            "tar --format=posix -g ../snapshot -cf - .",
            ".",
            ["GNU.dumpdir", "may change"],
        ),
        (volumes, "big", ["type 'M'", "must have one volume"]),
        (
            "tar --format=posix --pax-option=mtime=5 -cf - .",
            ".",
            ["global extended header", "written without it"],
        ),
        (
            "setfattr -n trusted.x -v 1 plain; tar --format=posix --xattrs -cf - ./plain",
            "plain",
            ["\"trusted.x\", which is not kept", "written without it"],
        ),
        (
            "setfacl -m u:daemon:r plain; tar --format=posix --acls -cf - ./plain",
            "plain",
            ["the user \"daemon\"", "with --xattrs"],
        ),
        (
            "tar --format=posix -cf - plain",
            "plain",
            ["does not start with \"./\"", "tar -C"],
        ),
    ] {
        let said = refused(script, path);
        assert!(said.contains(&format!("\"{path}\"")), "{script}: {said}");
        for word in words {
            assert!(said.contains(word), "{script}: {said}");
        }
    }
}

#[test]
fn the_order_of_bsdtar_alone_is_refused() {
    let place = Place::written(Codec::Gzip, make_small, |source| {
        fs::create_dir_all(source.join("other/inner")).unwrap();
        let (tar, _) = run("bsdtar --format=pax -cf - .", source);
        seal(Codec::Gzip, &tar)
    });
    let said = verify(Codec::Gzip, &place.archive, &place.index).unwrap_err();
    assert!(
        said.to_string().contains("does not follow its directory"),
        "{said}"
    );
}

#[test]
fn a_size_of_over_8_gib_is_read_as_each_tool_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    make_huge(dir.path());
    for script in [
        "tar --format=posix -cf - ./huge",
        "tar --format=gnu -cf - ./huge",
        "bsdtar --format=pax --no-read-sparse -cf - ./huge",
        "bsdtar --format=gnutar --no-read-sparse -cf - ./huge",
        concat!(
            "python3 -c '",
            include_str!("foreign_tests.py"),
            "' PAX_FORMAT | tail -c +1537"
        ),
        concat!(
            "python3 -c '",
            include_str!("foreign_tests.py"),
            "' GNU_FORMAT | tail -c +513"
        ),
    ] {
        let (start, _) = run(&format!("{script} | head -c 4096"), dir.path());
        let entry = Entry::read(&mut &start[..], 0).unwrap().unwrap();
        assert_eq!(
            (&entry.path[..], entry.size),
            (&b"huge"[..], (9 << 30) + 77),
            "{script}"
        );
    }
}

/// A header of this type and nothing else.
fn header(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..3].copy_from_slice(b"./x");
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len() + padding(content.len() as u64), 0);
    bytes
}

/// A header block with the sum that it must have.
fn sealed(block: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(block);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn read(headers: &[Vec<u8>]) -> Result<Entry, String> {
    match Entry::read(&mut &headers.concat()[..], 0) {
        Ok(entry) => Ok(entry.unwrap()),
        Err(EntryError::Corrupt(corrupt)) => Err(corrupt.what),
        Err(EntryError::Read(error)) => Err(error.to_string()),
    }
}

#[test]
fn a_type_that_nobody_knows_is_refused() {
    for kind in *b"789ADIMNSVXZ\x1b\xff" {
        let said = read(&[header(kind, b"")]).unwrap_err();
        assert!(said.contains("type"), "{said}");
        assert!(!said.chars().any(char::is_control), "{said}");
    }
}

#[test]
fn what_stands_before_an_entry_stands_there_once() {
    let before = [
        header(b'x', b"12 uid=1000\n"),
        header(b'g', b"12 comment=\n"),
        header(b'L', b"./long\0"),
        header(b'K', b"./target\0"),
    ];
    let entry = read(&[before.concat(), header(b'1', b"")]).unwrap();
    assert_eq!(
        (&entry.path[..], &entry.link[..]),
        (&b"long"[..], &b"target"[..])
    );
    assert_eq!((entry.uid, entry.kind), (1000, EntryKind::HardLink));
    for twice in &before {
        let said = read(&[twice.clone(), twice.clone(), header(b'0', b"")]).unwrap_err();
        assert!(said.contains("two extended headers"), "{said}");
        let mut long = twice[..512].to_vec();
        long[124..136].copy_from_slice(b"77777777777\0");
        let said = read(&[sealed(&long)]).unwrap_err();
        assert!(said.contains("impossible size"), "{said}");
    }
    for (one, other) in [
        (header(b'x', b"12 path=./a\n"), header(b'L', b"./a\0")),
        (header(b'x', b"16 linkpath=./a\n"), header(b'K', b"./a\0")),
    ] {
        let said = read(&[one, other, header(b'1', b"")]).unwrap_err();
        assert!(said.contains("two forms"), "{said}");
    }
}

#[test]
fn a_long_name_leads_out_of_no_target() {
    for way in ["./../out", "./a/../../out", "/tmp/out", "./a//out"] {
        let root = entry(".", EntryKind::Directory).encode();
        let name = header(b'L', format!("{way}\0").as_bytes());
        let tar = [root, name, header(b'0', b""), vec![0; 1024]].concat();
        let (mut entries, offset, refused) = entries_of(&tar);
        if refused.is_some() {
            // The rest, which makes no archive sound.
            entries.push(IndexEntry {
                offset,
                ..entries[0].clone()
            });
        }
        let place = Place::written(Codec::Gzip, make_small, |_| {
            cut(Codec::Gzip, &tar, entries.clone())
        });
        let done = place.restore(Overwrite::Never);
        assert!(
            matches!(done, Err(RestoreError::Corrupt(_))),
            "{way}: {done:?}"
        );
        assert!(!place.dir.path().join("out").exists());
    }
}

#[test]
fn numbers_in_both_forms_are_read_and_impossible_ones_refused() {
    let with = |at: usize, field: &[u8]| {
        let mut bytes = header(b'0', b"");
        bytes[at..at + field.len()].copy_from_slice(field);
        read(&[sealed(&bytes)])
    };
    let (uid, size, mtime) = (108, 124, 136);
    assert_eq!(with(uid, b"  17 \0").unwrap().uid, 0o17);
    assert_eq!(
        with(uid, b"\x80\0\0\0\xff\xff\xff\xfe").unwrap().uid,
        u32::MAX - 1
    );
    assert_eq!(with(mtime, &[0xff; 12]).unwrap().mtime.seconds, -1);
    for (at, field) in [
        (uid, &b"\x80\0\0\x01\0\0\0\0"[..]),
        (uid, &[0xff; 8]),
        (uid, b"0000008\0"),
        (uid, b"-000001\0"),
        (uid, &[0; 8]),
        (size, &[0xff; 12]),
        (size, b"\x80\0\0\x01\0\0\0\0\0\0\0\0"),
        (mtime, b"\x80\0\0\0\x80\0\0\0\0\0\0\0"),
    ] {
        assert!(with(at, field).is_err(), "{}", field.escape_ascii());
    }
}

/// Streams of other tools.
static STREAMS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    for size in [511, 512, 513] {
        fs::write(dir.path().join(format!("sized-{size}")), b"x").unwrap();
    }
    fs::create_dir_all(dir.path().join("deep/er")).unwrap();
    make_attributes(dir.path());
    fs::write(dir.path().join("n".repeat(200)), b"long").unwrap();
    sparse(&dir.path().join("holes"), 1 << 20, &[(70_000, 5000)]);
    let scripts = [
        "tar --format=posix --xattrs --acls --sparse --pax-option=comment=x -cf - .",
        "bsdtar --format=pax -cf - .",
        "tar --format=gnu -cf - .",
    ];
    scripts.map(|script| run(script, dir.path()).0).to_vec()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_damage_in_a_stream_of_another_tool_makes_its_reader_panic(
        which in 0..3_usize,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut tar = STREAMS[which].clone();
        for (at, byte) in flips {
            let at = at.index(tar.len());
            tar[at] = byte;
        }
        for block in tar.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
            block.copy_from_slice(&sealed(block));
        }
        let mut rest = &tar[..];
        while let Ok(Some(entry)) = Entry::read(&mut rest, 0) {
            let stored = entry.stored_bytes();
            let behind = usize::try_from(stored.saturating_add(padding(stored) as u64));
            rest = behind.ok().and_then(|length| rest.get(length..)).unwrap_or_default();
        }
    }
}
