//! What a person is told when the store says no.

use tidelock_storage::{Bucket, BucketConfig, ErrorClass, StorageError};

use tidelock_test_s3::{fresh_prefix, server, write_secret};

fn refused(change: impl FnOnce(&mut BucketConfig)) -> (ErrorClass, String) {
    let server = server();
    let mut config = server.config(&fresh_prefix());
    change(&mut config);
    let Err(StorageError { class, source, .. }) = Bucket::open(&config) else {
        panic!("the bucket was opened");
    };
    (class, source.to_string())
}

#[test]
fn a_bucket_that_does_not_exist_is_told_in_the_stores_words() {
    let (class, words) = refused(|config| config.bucket = "nowhere".to_owned());
    assert_eq!(class, ErrorClass::Denied);
    assert_eq!(words, "NoSuchBucket: The specified bucket does not exist.");
}

#[test]
fn a_wrong_key_is_told_in_the_stores_words() {
    let folder = tempfile::tempdir().unwrap();
    write_secret(folder.path(), "AKIDOFNOBODY", "wrong");
    let (class, words) = refused(|config| {
        config.credentials = tidelock_storage::Credentials::of(folder.path());
    });
    assert_eq!(class, ErrorClass::Denied, "{words}");
    assert!(words.contains("access key ID"), "{words}");
}

#[test]
fn a_wrong_secret_is_told_in_the_stores_words() {
    let folder = tempfile::tempdir().unwrap();
    write_secret(folder.path(), "AKIDEXAMPLE", "wrong");
    let (class, words) = refused(|config| {
        config.credentials = tidelock_storage::Credentials::of(folder.path());
    });
    assert_eq!(class, ErrorClass::Denied);
    assert!(words.starts_with("SignatureDoesNotMatch: "), "{words}");
}

#[test]
fn a_part_of_the_secret_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (class, words) = refused(|config| {
        config.credentials = tidelock_storage::Credentials::of(folder.path());
    });
    assert_eq!(class, ErrorClass::Denied);
    assert_eq!(words, "accessKeyID of the Secret is missing or empty");
}
