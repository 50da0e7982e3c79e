//! What is encrypted comes back, whole and in parts, for those it is for and nobody else.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use proptest::prelude::*;
use tidelock_seal::{Identities, Recipients, Sealed, Stored, sealed};
use tidelock_storage::{
    Directory, ErrorClass, ObjectInfo, Storage, StorageError, pass_on, storage_error_in,
};

const KEY: &str = "shop/data/nightly.tar.gz";
const CHUNK: usize = 64 << 10;

/// A pair of keys, as the tool `age-keygen` makes them.
struct Pair {
    dir: tempfile::TempDir,
    recipient: String,
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key.txt");
        let made = Command::new("age-keygen")
            .arg("-o")
            .arg(&file)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let text = fs::read_to_string(&file).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("# public key: "));
        let recipient = line.unwrap().to_owned();
        Self { dir, recipient }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("key.txt")
    }

    fn identities(&self) -> Identities {
        Identities::of_folder(self.dir.path()).unwrap()
    }
}

fn recipients(pairs: &[&Pair]) -> Recipients {
    let texts: Vec<String> = pairs.iter().map(|pair| pair.recipient.clone()).collect();
    Recipients::parse(&texts).unwrap()
}

/// Bytes that are not like each other.
fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8))
        .flat_map(|_| next())
        .take(length)
        .collect()
}

fn put(storage: &dyn Storage, bytes: &[u8]) -> ObjectInfo {
    let mut upload = storage.put(KEY, "u-1").unwrap();
    // Not in steps of a chunk.
    for piece in bytes.chunks(50_000) {
        upload.write_all(piece).unwrap();
    }
    upload.commit().unwrap()
}

fn read(object: Result<Box<dyn Read + Send>, StorageError>) -> Result<Vec<u8>, ErrorClass> {
    let mut bytes = Vec::new();
    let mut object = object.map_err(|error| error.class)?;
    match object.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(storage_error_in(&error).unwrap().class),
    }
}

fn store(dir: &Path) -> Directory {
    Directory::open(dir).unwrap()
}

#[test]
fn an_object_comes_back_whole_and_in_parts() {
    let (dir, pair) = (tempfile::tempdir().unwrap(), Pair::new());
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 300_000] {
        let inner = store(dir.path());
        inner.delete(&sealed(KEY)).unwrap();
        let bytes = content(length);
        let all = Sealed::new(&inner, recipients(&[&pair]), pair.identities());
        let info = put(&all, &bytes);
        assert_eq!(info.bytes, length as u64);
        assert_eq!(all.head(KEY).unwrap(), info);
        assert!(read(all.get(KEY, None)) == Ok(bytes.clone()));
        assert!(read(all.get_fresh(KEY)) == Ok(bytes.clone()));
        let edges = [
            0,
            1,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            2 * CHUNK,
            length / 2,
            length,
        ];
        for from in edges {
            for to in edges {
                let part = bytes.get(from..to.min(length)).unwrap_or_default();
                let got = read(all.get(KEY, Some(from as u64..to as u64)));
                assert!(got.as_deref() == Ok(part), "{from}..{to} of {length}");
            }
        }
    }
}

#[test]
fn the_tool_age_opens_what_is_stored_and_each_recipient_alone_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let (own, offline, stranger) = (Pair::new(), Pair::new(), Pair::new());
    let inner = store(dir.path());
    let bytes = content(200_000);
    let writing = Sealed::new(&inner, recipients(&[&own, &offline]), Identities::default());
    put(&writing, &bytes);
    let file = dir.path().join(sealed(KEY));
    for pair in [&own, &offline] {
        let mut tool = Command::new("age");
        tool.args(["--decrypt", "--identity"])
            .arg(pair.file())
            .arg(&file);
        let opened = tool.output().unwrap();
        assert!(
            opened.status.success() && opened.stdout == bytes,
            "{:?}",
            opened.stderr
        );
        let reading = Sealed::new(&inner, recipients(&[&own]), pair.identities());
        assert!(
            read(reading.get(KEY, Some(70_000..70_010))).as_deref() == Ok(&bytes[70_000..70_010])
        );
    }
    let reading = Sealed::new(&inner, recipients(&[&own]), stranger.identities());
    assert!(read(reading.get(KEY, None)).is_err());
    assert!(read(reading.get(KEY, Some(0..10))).is_err());
    // What the store has is told as it is there.
    let stored = writing.written(KEY).unwrap();
    let sum = Command::new("sha256sum").arg(&file).output().unwrap();
    assert!(
        String::from_utf8(sum.stdout)
            .unwrap()
            .starts_with(&stored.sha256)
    );
    assert_eq!(stored.bytes, fs::metadata(&file).unwrap().len());
}

#[test]
fn what_is_not_what_was_written_is_damage_wherever_it_is() {
    let (dir, pair) = (tempfile::tempdir().unwrap(), Pair::new());
    let inner = store(dir.path());
    let bytes = content(3 * CHUNK + 10);
    let stored = {
        let writing = Sealed::new(&inner, recipients(&[&pair]), pair.identities());
        put(&writing, &bytes);
        writing.written(KEY).unwrap()
    };
    let file = dir.path().join(sealed(KEY));
    let good = fs::read(&file).unwrap();
    let length = good.len();
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    let places = [0, 30, 120, 200, 260, 66_000, length / 2, length - 1];
    let mut bad: Vec<Vec<u8>> = places.into_iter().map(flipped).collect();
    bad.extend([1, 100, 220, 70_000, length - 5, length - 26].map(|end| good[..end].to_vec()));
    bad.push([&good[..], b"more"].concat());
    let (first, second) = (length - 3 * (CHUNK + 16) - 26, CHUNK + 16);
    let mut swapped = good.clone();
    swapped[first..first + second].copy_from_slice(&good[first + second..first + 2 * second]);
    bad.push(swapped);
    for (bad, nth) in bad.into_iter().zip(0..) {
        fs::write(&file, &bad).unwrap();
        let mut reading = Sealed::new(&inner, recipients(&[&pair]), pair.identities());
        assert_eq!(
            read(reading.get_fresh(KEY)),
            Err(ErrorClass::Damaged),
            "{nth}"
        );
        reading.expect(KEY, stored.clone());
        assert_eq!(
            read(reading.get(KEY, None)),
            Err(ErrorClass::Damaged),
            "{nth}"
        );
        // A part is right, or it is told that it is not.
        if let Ok(part) = read(reading.get(KEY, Some(65_000..66_000))) {
            assert!(part.is_empty() || part == bytes[65_000..66_000], "{nth}");
        }
    }
}

#[test]
fn an_object_of_somebody_else_for_the_same_key_is_not_the_one_that_is_expected() {
    let (dir, pair) = (tempfile::tempdir().unwrap(), Pair::new());
    let inner = store(dir.path());
    let mut reading = Sealed::new(&inner, recipients(&[&pair]), pair.identities());
    put(&reading, b"forged, and rightly encrypted");
    let stored = reading.written(KEY).unwrap();
    assert!(read(reading.get(KEY, None)).is_ok());
    let other = Stored {
        sha256: "0".repeat(64),
        ..stored
    };
    reading.expect(KEY, other);
    assert_eq!(read(reading.get(KEY, None)), Err(ErrorClass::Damaged));
}

#[test]
fn keys_that_are_none_are_refused_and_not_repeated() {
    let refused = |texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Recipients::parse(&texts).err().unwrap().to_string()
    };
    assert!(refused(&[]).contains("no recipient"));
    assert!(refused(&["age1xyz"]).contains("age1xyz"));
    let pair = Pair::new();
    let twice = [pair.recipient.clone(), pair.recipient.clone()];
    assert_eq!(Recipients::parse(&twice).unwrap().names().len(), 1);

    let dir = tempfile::tempdir().unwrap();
    let none = Identities::of_folder(dir.path()).err().unwrap().to_string();
    assert!(none.contains("holds no identity"), "{none}");
    let file = dir.path().join("keys");
    fs::write(&file, "# a comment\n\nAGE-SECRET-KEY-1WRONG\n").unwrap();
    let wrong = Identities::of_folder(dir.path()).err().unwrap().to_string();
    assert!(
        wrong.contains("line 3") && !wrong.contains("WRONG"),
        "{wrong}"
    );
    let gone = Identities::of_folder(&dir.path().join("gone"))
        .err()
        .unwrap();
    assert!(gone.to_string().contains("cannot read"), "{gone}");
}

/// Counts the bytes that are asked for.
struct Counting<'s> {
    inner: &'s Directory,
    asked: Mutex<u64>,
}

impl Storage for Counting<'_> {
    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let whole = || self.inner.head(key).map(|info| 0..info.bytes);
        let range = range.map_or_else(whole, Ok)?;
        *self.asked.lock().unwrap() += range.end - range.start;
        self.inner.get(key, Some(range))
    }

    pass_on!(inner: put, get_fresh, head, list, delete, lock, sweep, sweep_dead);
}

#[test]
fn a_part_takes_no_more_than_the_chunks_it_lies_in() {
    let (dir, pair) = (tempfile::tempdir().unwrap(), Pair::new());
    let inner = store(dir.path());
    let bytes = content(40 * CHUNK);
    put(
        &Sealed::new(&inner, recipients(&[&pair]), pair.identities()),
        &bytes,
    );
    let counting = Counting {
        inner: &inner,
        asked: Mutex::new(0),
    };
    let reading = Sealed::new(&counting, recipients(&[&pair]), pair.identities());
    let from = 20 * CHUNK - 5;
    for _ in 0..3 {
        let part = read(reading.get(KEY, Some(from as u64..from as u64 + 10)));
        assert!(part.as_deref() == Ok(&bytes[from..from + 10]));
    }
    let asked = *counting.asked.lock().unwrap();
    // Two chunks each time, and the head once.
    assert!(asked <= 6 * (CHUNK as u64 + 16) + (16 << 10), "{asked}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_part_of_any_object_is_what_was_written(
        length in 0_usize..200_000, from in 0_usize..210_000, to in 0_usize..210_000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let inner = store(dir.path());
        let key = Recipients::parse(&["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".into()]);
        let (to_now, identities) = key.unwrap().with_one_for_now();
        let all = Sealed::new(&inner, to_now, identities);
        let bytes = content(length);
        put(&all, &bytes);
        let part = bytes.get(from.min(length)..to.min(length)).unwrap_or_default();
        let got = read(all.get(KEY, Some(from as u64..to as u64)));
        prop_assert!(got.as_deref() == Ok(part));
    }
}
