//! What every store promises, shown on a directory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use rustix::io::{Errno, ReadWriteFlags};
use tidelock_storage::{Directory, ErrorClass, Storage};

const KEY: &str = "shop/data/nightly.tar.gz";

fn store() -> (tempfile::TempDir, Directory) {
    let dir = tempfile::tempdir().unwrap();
    let store = Directory::open(dir.path()).unwrap();
    (dir, store)
}

fn put(store: &Directory, key: &str, bytes: &[u8]) {
    let mut upload = store.put(key, "u-1").unwrap();
    upload.write_all(bytes).unwrap();
    upload.commit().unwrap();
}

fn read(store: &Directory, key: &str, range: Option<std::ops::Range<u64>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    store
        .get(key, range)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

fn keys(store: &Directory, prefix: &str) -> Vec<String> {
    let mut keys = Vec::new();
    store
        .list(prefix, &mut |key, _| {
            keys.push(key.to_owned());
            Ok(())
        })
        .unwrap();
    keys.sort();
    keys
}

#[test]
fn an_object_is_read_back_whole_and_in_ranges() {
    let (_dir, store) = store();
    put(&store, KEY, b"0123456789");
    assert_eq!(read(&store, KEY, None), b"0123456789");
    assert_eq!(read(&store, KEY, Some(2..5)), b"234");
    assert_eq!(read(&store, KEY, Some(8..99)), b"89");
    assert_eq!(store.head(KEY).unwrap().bytes, 10);
}

#[test]
fn nothing_shows_before_the_commit_or_after_an_abort() {
    let (dir, store) = store();
    let mut upload = store.put(KEY, "u-1").unwrap();
    upload.write_all(b"half").unwrap();
    assert_eq!(store.head(KEY).unwrap_err().class, ErrorClass::NotFound);
    assert!(keys(&store, "").is_empty());
    drop(upload);
    assert_eq!(
        std::fs::read_dir(dir.path().join("shop/data"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_new_object_never_takes_the_place_of_another() {
    let (_dir, store) = store();
    put(&store, KEY, b"first");
    let mut second = store.put(KEY, "u-2").unwrap();
    second.write_all(b"second").unwrap();
    let error = second.commit().unwrap_err();
    assert_eq!(error.class, ErrorClass::AlreadyExists);
    assert_eq!(read(&store, KEY, None), b"first");
}

#[test]
fn an_object_that_is_removed_and_made_again_has_another_version() {
    let (_dir, store) = store();
    put(&store, KEY, b"first");
    let before = store.head(KEY).unwrap();
    // Held open, so that the file system cannot give its inode to the next.
    let _first = store.get(KEY, None).unwrap();
    assert!(store.delete(KEY).unwrap());
    put(&store, KEY, b"other");
    assert_ne!(store.head(KEY).unwrap(), before);
    assert_eq!(read(&store, KEY, None), b"other");
}

#[test]
fn a_sweep_removes_the_left_overs_of_its_own_run_only() {
    let (dir, store) = store();
    for run in ["u-1", "u-2", "u-1-x"] {
        std::mem::forget(store.put(KEY, run).unwrap());
    }
    assert_eq!(store.sweep(KEY, "u-1").unwrap(), 1);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("shop/data"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|name| !name.starts_with(".tidelock-u-1-0")));
}

/// Writes a temporary file of `run`, last touched `age` seconds before now.
fn temporary(store: &Directory, dir: &std::path::Path, run: &str, age: u64) {
    let before = std::fs::read_dir(dir).map_or(0, Iterator::count);
    std::mem::forget(store.put(KEY, run).unwrap());
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), before + 1);
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with(&format!(".tidelock-{run}-")) {
            let file = std::fs::File::options().write(true).open(entry.path());
            let then = SystemTime::now() - Duration::from_secs(age);
            file.unwrap().set_modified(then).unwrap();
        }
    }
}

#[test]
fn a_sweep_of_the_dead_spares_the_living_the_young_and_every_object() {
    let (root, store) = store();
    let dir = root.path().join("shop/data");
    put(&store, KEY, b"object");
    let object = std::fs::File::options()
        .write(true)
        .open(root.path().join(KEY));
    object
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    temporary(&store, &dir, "dead", 7200);
    temporary(&store, &dir, "alive", 7200);
    temporary(&store, &dir, "young", 3000);
    let hour = Duration::from_secs(3600);
    let swept = store.sweep_dead(KEY, "u-1", hour, &|run| run == "alive");
    assert_eq!(swept.unwrap(), 1);
    let mut left: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .map(|name| {
            name.rsplit_once('-')
                .map_or(name.clone(), |(run, _)| run.into())
        })
        .collect();
    left.sort();
    assert_eq!(
        left,
        [".tidelock-alive", ".tidelock-young", "nightly.tar.gz"]
    );
}

#[test]
fn a_sweep_of_the_dead_where_nothing_was_ever_stored_makes_nothing() {
    let (root, store) = store();
    let swept = store.sweep_dead(KEY, "u-1", Duration::ZERO, &|_| false);
    assert_eq!(swept.unwrap(), 0);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

/// Whether the page cache holds the start of the object; none where the file system has no medium
/// below it.
fn is_cached(root: &std::path::Path) -> Option<bool> {
    const TMPFS: i64 = 0x0102_1994;
    let file = std::fs::File::open(root.join(KEY)).unwrap();
    if rustix::fs::fstatfs(&file).unwrap().f_type == TMPFS {
        return None;
    }
    let mut byte = [0];
    let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
    match rustix::io::preadv2(&file, &mut buffers, 0, ReadWriteFlags::NOWAIT) {
        Ok(_) => Some(true),
        Err(Errno::AGAIN) => Some(false),
        Err(_) => None,
    }
}

#[test]
fn an_object_is_read_back_past_the_page_cache_and_leaves_nothing_in_it() {
    let (root, store) = store();
    let bytes: Vec<u8> = (0..9 << 20).map(|n| (n % 251) as u8).collect();
    put(&store, KEY, &bytes);
    if read(&store, KEY, None) != bytes || is_cached(root.path()) != Some(true) {
        return;
    }
    // The kernel keeps a page that something else holds at that moment, such as compaction.
    let uncached = (0..10).any(|_| {
        let mut object = store.get_fresh(KEY).unwrap();
        let before = is_cached(root.path());
        let mut back = Vec::new();
        object.read_to_end(&mut back).unwrap();
        assert!(back == bytes);
        (before, is_cached(root.path())) == (Some(false), Some(false))
    });
    assert!(uncached, "cached before the first read or after the last");
}

#[test]
fn a_listing_holds_the_objects_under_the_prefix_and_no_temporaries() {
    let (_dir, store) = store();
    for key in ["a/b/c.tar.gz", "a/bc/d.tar.gz", "ab/b/e.tar.gz"] {
        put(&store, key, b"x");
    }
    let _unfinished = store.put("a/b/f.tar.gz", "u-1").unwrap();
    assert_eq!(keys(&store, "a/"), ["a/b/c.tar.gz", "a/bc/d.tar.gz"]);
    assert_eq!(keys(&store, "a/b/"), ["a/b/c.tar.gz"]);
    assert_eq!(keys(&store, "nothing/"), Vec::<String>::new());
}

#[test]
fn deleting_says_whether_there_was_something() {
    let (_dir, store) = store();
    put(&store, KEY, b"x");
    assert!(store.delete(KEY).unwrap());
    assert!(!store.delete(KEY).unwrap());
    assert!(!store.delete("no/such/key").unwrap());
}

#[test]
fn no_key_leaves_the_store() {
    let (_dir, store) = store();
    for key in [
        "",
        "/etc/passwd",
        "a/../../x",
        "../x",
        "a//b",
        "./a",
        ".hidden",
        "a/\n",
        "a/b/",
    ] {
        let classes = [
            store.put(key, "u-1").err().map(|e| e.class),
            store.get(key, None).err().map(|e| e.class),
            store.get_fresh(key).err().map(|e| e.class),
            store.head(key).err().map(|e| e.class),
            store.delete(key).err().map(|e| e.class),
        ];
        assert_eq!(classes, [Some(ErrorClass::InvalidKey); 5], "{key:?}");
    }
}

#[test]
fn a_planted_symbolic_link_is_not_followed() {
    let (dir, store) = store();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), dir.path().join("shop")).unwrap();
    assert!(store.put(KEY, "u-1").is_err());
    std::fs::write(outside.path().join("secret"), b"x").unwrap();
    assert!(store.get("shop/secret", None).is_err());
    assert!(keys(&store, "").is_empty());
}

#[test]
fn faults_are_classified_and_name_the_key() {
    let error = Directory::open(std::path::Path::new("/no/such/store")).unwrap_err();
    assert_eq!(error.class, ErrorClass::NotFound);
    let (_dir, store) = store();
    let error = store.head(KEY).unwrap_err();
    assert!(error.to_string().contains(KEY), "{error}");
}
