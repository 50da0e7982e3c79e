//! What a killed run leaves in a bucket, and how it goes.

use std::io::Write;
use std::time::Duration;

use tidelock_storage::{Bucket, Storage};

use crate::{KEY, bucket, keys, put, read, s3};

/// Begins an upload of `run` with some parts, as a process does that is killed then.
fn killed(store: &Bucket, run: &str) {
    let mut upload = store.put(KEY, run).unwrap();
    upload.write_all(&vec![7; 20 << 20]).unwrap();
    std::mem::forget(upload);
}

#[test]
fn a_sweep_ends_the_uploads_of_its_own_run_only() {
    let (_server, store) = bucket();
    for run in ["u-1", "u-2", "u-1-x"] {
        killed(&store, run);
    }
    assert_eq!(store.sweep(KEY, "u-1").unwrap(), 1);
    assert_eq!(store.sweep(KEY, "u-1").unwrap(), 0);
    assert_eq!(store.sweep(KEY, "u-1-x").unwrap(), 1);
    assert_eq!(store.sweep(KEY, "u-2").unwrap(), 1);
}

#[test]
fn a_sweep_of_the_dead_spares_the_living_the_young_and_every_object() {
    let (_server, store) = bucket();
    put(&store, "shop/data/other.tar.gz", b"object");
    killed(&store, "dead");
    killed(&store, "alive");
    let hour = Duration::from_secs(3600);
    assert_eq!(store.sweep_dead(KEY, "u-1", hour, &|_| false).unwrap(), 0);
    let is_alive = |run: &str| run == "alive";
    let second = Duration::from_secs(1);
    // Parts that were under way still come for a while.
    let swept = (0..60).find_map(|_| {
        std::thread::sleep(Duration::from_millis(500));
        let swept = store.sweep_dead(KEY, "u-1", second, &is_alive).unwrap();
        Some(swept).filter(|swept| *swept > 0)
    });
    assert_eq!(swept, Some(1));
    assert_eq!(store.sweep(KEY, "alive").unwrap(), 1);
    assert_eq!(keys(&store, ""), ["shop/data/other.tar.gz"]);
    assert_eq!(read(&store, "shop/data/other.tar.gz", None), b"object");
}

#[test]
fn a_sweep_where_nothing_was_ever_stored_finds_nothing() {
    let (_server, store) = bucket();
    assert_eq!(store.sweep(KEY, "u-1").unwrap(), 0);
    let swept = store.sweep_dead(KEY, "u-1", Duration::ZERO, &|_| false);
    assert_eq!(swept.unwrap(), 0);
}

#[test]
fn what_lies_elsewhere_in_the_bucket_is_neither_listed_nor_swept() {
    let prefix = s3::fresh_prefix();
    let server = s3::server();
    let ours = Bucket::open(&server.config(&prefix)).unwrap();
    let theirs = Bucket::open(&server.config(&format!("{prefix}-of-others"))).unwrap();
    put(&theirs, KEY, b"theirs");
    killed(&theirs, "u-1");
    assert!(keys(&ours, "").is_empty());
    assert_eq!(ours.sweep(KEY, "u-1").unwrap(), 0);
    assert!(ours.get(KEY, None).is_err());
    assert!(!ours.delete(KEY).unwrap());
    assert_eq!(theirs.sweep(KEY, "u-1").unwrap(), 1);
    assert_eq!(read(&theirs, KEY, None), b"theirs");
}
