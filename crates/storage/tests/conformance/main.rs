//! What every store promises, shown on a directory and on a real S3 server.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod answers;
mod faults;
mod locks;
mod uploads;

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;

use tidelock_storage::{Bucket, Directory, ErrorClass, Storage};
use tidelock_test_s3 as s3;

const KEY: &str = "shop/data/nightly.tar.gz";

/// Runs `test` on each kind of store, empty.
fn on_each(test: impl Fn(&dyn Storage)) {
    let folder = tempfile::tempdir().unwrap();
    test(&Directory::open(folder.path()).unwrap());
    let (_server, store) = bucket();
    test(&store);
}

/// Opens a part of the bucket that no other test uses, of a server that must stay.
fn bucket() -> (Arc<s3::Server>, Bucket) {
    let server = s3::server();
    let bucket = Bucket::open(&server.config(&s3::fresh_prefix())).unwrap();
    (server, bucket)
}

fn put(store: &dyn Storage, key: &str, bytes: &[u8]) {
    let mut upload = store.put(key, "u-1").unwrap();
    upload.write_all(bytes).unwrap();
    upload.commit().unwrap();
}

fn read(store: &dyn Storage, key: &str, range: Option<Range<u64>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = store.get(key, range).unwrap();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

fn keys(store: &dyn Storage, prefix: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut visit = |key: &str, _| {
        keys.push(key.to_owned());
        Ok(())
    };
    store.list(prefix, &mut visit).unwrap();
    keys.sort();
    keys
}

#[test]
fn an_object_is_read_back_whole_and_in_ranges() {
    on_each(|store| {
        put(store, KEY, b"0123456789");
        assert_eq!(read(store, KEY, None), b"0123456789");
        assert_eq!(read(store, KEY, Some(2..5)), b"234");
        assert_eq!(read(store, KEY, Some(8..99)), b"89");
        assert_eq!(read(store, KEY, Some(4..4)), b"");
        assert_eq!(store.head(KEY).unwrap().bytes, 10);
        let mut fresh = Vec::new();
        store
            .get_fresh(KEY)
            .unwrap()
            .read_to_end(&mut fresh)
            .unwrap();
        assert_eq!(fresh, b"0123456789");
    });
}

#[test]
fn an_object_may_be_empty() {
    on_each(|store| {
        put(store, KEY, b"");
        assert_eq!(store.head(KEY).unwrap().bytes, 0);
        assert_eq!(read(store, KEY, None), b"");
    });
}

#[test]
fn a_large_object_is_read_back_as_it_was_written() {
    on_each(|store| {
        let bytes: Vec<u8> = (0..37_u64 << 20)
            .map(|n| ((n * 2_654_435_761) >> 13) as u8)
            .collect();
        let mut upload = store.put(KEY, "u-1").unwrap();
        // Of no size that divides a part.
        for piece in bytes.chunks(1_234_567) {
            upload.write_all(piece).unwrap();
        }
        assert!(keys(store, "").is_empty());
        assert_eq!(upload.commit().unwrap().bytes, 37 << 20);
        assert!(read(store, KEY, None) == bytes);
        let range = (8 << 20) - 5..(8 << 20) + 5;
        let held = &bytes[range.start as usize..range.end as usize];
        assert_eq!(read(store, KEY, Some(range)), held);
        assert_eq!(keys(store, ""), [KEY]);
    });
}

#[test]
fn nothing_shows_before_the_commit_or_after_an_abort() {
    on_each(|store| {
        let mut upload = store.put(KEY, "u-1").unwrap();
        upload.write_all(&vec![7; 20 << 20]).unwrap();
        assert_eq!(store.head(KEY).unwrap_err().class, ErrorClass::NotFound);
        assert!(keys(store, "").is_empty());
        drop(upload);
        assert_eq!(store.head(KEY).unwrap_err().class, ErrorClass::NotFound);
        assert_eq!(store.sweep(KEY, "u-1").unwrap(), 0, "something was left");
    });
}

#[test]
fn a_new_object_never_takes_the_place_of_another() {
    on_each(|store| {
        for size in [6, 9 << 20] {
            let key = format!("shop/data/of-{size}.tar.gz");
            let mut late = store.put(&key, "u-2").unwrap();
            late.write_all(&vec![2; size]).unwrap();
            put(store, &key, b"first");
            let error = late.commit().unwrap_err();
            assert_eq!(error.class, ErrorClass::AlreadyExists, "{error:?}");
            assert_eq!(read(store, &key, None), b"first");
            assert_eq!(store.sweep(&key, "u-2").unwrap(), 0, "something was left");
        }
    });
}

#[test]
fn an_object_that_is_removed_and_made_again_has_another_version() {
    on_each(|store| {
        put(store, KEY, b"first");
        let before = store.head(KEY).unwrap();
        // Held open, so that a file system cannot give its inode to the next.
        let _first = store.get(KEY, None).unwrap();
        assert!(store.delete(KEY).unwrap());
        put(store, KEY, b"other");
        assert_ne!(store.head(KEY).unwrap(), before);
        assert_eq!(read(store, KEY, None), b"other");
    });
}

#[test]
fn a_listing_holds_the_objects_under_the_prefix_and_no_temporaries() {
    on_each(|store| {
        for key in ["a/b/c.tar.gz", "a/bc/d.tar.gz", "ab/b/e.tar.gz"] {
            put(store, key, b"x");
        }
        let mut unfinished = store.put("a/b/f.tar.gz", "u-1").unwrap();
        unfinished.write_all(&vec![7; 9 << 20]).unwrap();
        assert_eq!(keys(store, "a/"), ["a/b/c.tar.gz", "a/bc/d.tar.gz"]);
        assert_eq!(keys(store, "a/b/"), ["a/b/c.tar.gz"]);
        assert_eq!(keys(store, "nothing/"), Vec::<String>::new());
    });
}

#[test]
fn a_listing_and_a_look_tell_the_same() {
    on_each(|store| {
        put(store, "a/small", b"x");
        put(store, "a/large", &vec![1; 9 << 20]);
        let mut seen = 0;
        let mut visit = |key: &str, info| {
            seen += 1;
            assert_eq!(store.head(key).unwrap(), info, "{key}");
            Ok(())
        };
        store.list("a/", &mut visit).unwrap();
        assert_eq!(seen, 2);
    });
}

#[test]
fn a_listing_has_no_end_at_a_page() {
    on_each(|store| {
        for n in 0..1_050 {
            put(store, &format!("many/{n:04}"), b"x");
        }
        assert_eq!(keys(store, "many/").len(), 1_050);
    });
}

#[test]
fn deleting_says_whether_there_was_something() {
    on_each(|store| {
        put(store, KEY, b"x");
        assert!(store.delete(KEY).unwrap());
        assert!(!store.delete(KEY).unwrap());
        assert!(!store.delete("no/such/key").unwrap());
    });
}

#[test]
fn no_key_leaves_the_store() {
    let bad = [
        "",
        "/etc/passwd",
        "a/../../x",
        "../x",
        "a//b",
        "./a",
        ".hidden",
        "a/\n",
        "a/b/",
    ];
    on_each(|store| {
        for key in bad {
            let classes = [
                store.put(key, "u-1").err().map(|e| e.class),
                store.get(key, None).err().map(|e| e.class),
                store.get_fresh(key).err().map(|e| e.class),
                store.head(key).err().map(|e| e.class),
                store.delete(key).err().map(|e| e.class),
                store.sweep(key, "u-1").err().map(|e| e.class),
            ];
            assert_eq!(classes, [Some(ErrorClass::InvalidKey); 6], "{key:?}");
        }
        for run in ["", "a/b", "a b", &"x".repeat(65)] {
            assert!(store.put(KEY, run).is_err(), "{run:?}");
        }
    });
}

#[test]
fn faults_are_classified_and_name_the_key() {
    on_each(|store| {
        for error in [store.head(KEY).err(), store.get(KEY, None).err()] {
            let error = error.unwrap();
            assert_eq!(error.class, ErrorClass::NotFound, "{error:?}");
            assert!(error.to_string().contains(KEY), "{error}");
        }
    });
}
