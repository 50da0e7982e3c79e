//! Buckets that lock objects.

use std::io::Write;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tidelock_storage::{Bucket, BucketConfig, ErrorClass, Lock, LockMode, Storage};
use tidelock_test_s3::{self as s3, Server};

use crate::{KEY, put, read};

/// A part of a bucket that was made to lock objects.
fn locking(server: &Server) -> Bucket {
    let config = BucketConfig {
        locks: true,
        ..server.config(&s3::fresh_prefix())
    };
    Bucket::open(&config).unwrap()
}

fn lock_for(seconds: i64) -> Lock {
    let until = Timestamp::now().as_second() + seconds;
    Lock {
        mode: LockMode::Governance,
        until: Timestamp::from_second(until).unwrap(),
    }
}

/// Deletes an object as soon as its lock lets it go; a store tells nobody of that.
fn deleted_once_it_may(store: &Bucket, key: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match store.delete(key) {
            Err(fault) if fault.class == ErrorClass::Denied && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(100));
            }
            other => return other.unwrap(),
        }
    }
}

#[test]
fn nobody_removes_what_is_locked_and_it_goes_with_its_bytes_when_the_lock_ends() {
    let server = Server::start_locking();
    let store = locking(&server);
    let mut upload = store.put(KEY, "u-1").unwrap();
    // Of several parts, and of one.
    upload.write_all(&vec![7; 20 << 20]).unwrap();
    upload.commit().unwrap();
    put(&store, "shop/data/small", b"content");
    for key in [KEY, "shop/data/small"] {
        store.lock(key, &lock_for(4)).unwrap();
        let refused = store.delete(key).unwrap_err();
        assert_eq!(refused.class, ErrorClass::Denied, "{refused:?}");
        assert!(store.head(key).is_ok(), "{key} is hidden");
        // Whoever does it again, after an answer that was lost.
        store.lock(key, &lock_for(4)).unwrap();
    }
    assert_eq!(read(&store, "shop/data/small", None), b"content");
    for key in [KEY, "shop/data/small"] {
        assert!(deleted_once_it_may(&store, key));
    }
    let mut left = server.files();
    left.retain(|name| !name.contains("/.vgwlocks/"));
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_bucket_that_locks_nothing_is_told_before_anything_is_written() {
    let server = s3::server();
    let config = BucketConfig {
        locks: true,
        ..server.config(&s3::fresh_prefix())
    };
    let refused = Bucket::open(&config).err().unwrap();
    assert_eq!(refused.class, ErrorClass::Denied);
    let words = format!("{refused}: {}", refused.source);
    assert!(
        words.contains("ObjectLockConfigurationNotFoundError"),
        "{words}"
    );
    let plain = Bucket::open(&server.config(&s3::fresh_prefix())).unwrap();
    put(&plain, KEY, b"content");
    let refused = plain.lock(KEY, &lock_for(60)).unwrap_err();
    assert_eq!(refused.class, ErrorClass::Denied, "{refused:?}");
}
