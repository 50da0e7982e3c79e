//! Objects that nobody can remove before a day that is set.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use object_store::path::Path;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::bucket::Bucket;
use crate::bucket::listing::page;
use crate::bucket::request::Ask;
use crate::bucket::words::{self, plain};
use crate::{ErrorClass, Lock, LockMode, StorageError};

/// What a bucket says of locks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ObjectLockConfiguration {
    #[serde(default)]
    object_lock_enabled: String,
}

impl Bucket {
    /// Whether the bucket locks objects, which it can only be told when it is made.
    ///
    /// # Errors
    /// [`ErrorClass::Denied`] when it does not, or does not tell.
    pub(crate) fn check_locks(&self) -> Result<(), StorageError> {
        let (root, query) = (Path::default(), [("object-lock", "")]);
        let asked = page(&*self.store, &self.client, &root, &query, &self.name);
        let found: Result<ObjectLockConfiguration, _> = self.wait(asked);
        let denied = |fault: StorageError| StorageError {
            action: "look for locks in",
            class: match fault.class {
                ErrorClass::NotFound => ErrorClass::Denied,
                class => class,
            },
            ..fault
        };
        let found = found.map_err(denied)?;
        if found.object_lock_enabled == "Enabled" {
            return Ok(());
        }
        let words = "the bucket locks no objects: that is chosen when it is made";
        Err(plain(
            "look for locks in",
            &self.name,
            ErrorClass::Denied,
            words,
        ))
    }

    /// Source: S3, PutObjectRetention.
    pub(crate) fn lock_object(&self, key: &str, lock: &Lock) -> Result<(), StorageError> {
        let path = self.path("lock", key)?;
        let mode = match lock.mode {
            LockMode::Governance => "GOVERNANCE",
            LockMode::Compliance => "COMPLIANCE",
        };
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{mode}</Mode><RetainUntilDate>{}</RetainUntilDate></Retention>",
            lock.until
        );
        let checksum = STANDARD.encode(Sha256::digest(&body));
        let ask = Ask {
            action: "lock",
            key,
            method: Method::PUT,
            path: &path,
            query: vec![("retention", String::new())],
            headers: vec![("x-amz-checksum-sha256", checksum)],
            body: Bytes::from(body),
        };
        self.ask(&ask, |status, text| match status.is_success() {
            true => Ok(()),
            false => Err(words::refusal("lock", key, status, text)),
        })
    }

    /// Removes this version of an object, and not only its name.
    pub(crate) fn delete_version(
        &self,
        key: &str,
        path: &Path,
        version: &str,
    ) -> Result<(), StorageError> {
        let ask = Ask {
            action: "delete",
            key,
            method: Method::DELETE,
            path,
            query: vec![("versionId", version.to_owned())],
            headers: Vec::new(),
            body: Bytes::new(),
        };
        self.ask(&ask, |status, text| match status.is_success() {
            true => Ok(()),
            false => Err(words::refusal("delete", key, status, text)),
        })
    }
}
