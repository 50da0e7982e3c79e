//! What a mover is told of a storage.

use tidelock_api::S3Storage;
use tidelock_protocol::{
    BucketTarget, CA_BUNDLE_PATH, CREDENTIALS_PATH, Limits, LockMode, ObjectLock,
    ServerSideEncryption,
};

use crate::store::Use;

/// How fast a mover may write and read.
pub(super) fn limits(up: Option<i64>, down: Option<i64>) -> Limits {
    let rate = |rate: Option<i64>| rate.and_then(|rate| u64::try_from(rate).ok());
    Limits {
        upload_bytes_per_second: rate(up),
        download_bytes_per_second: rate(down),
    }
}

/// How long what is written to a bucket is locked.
pub(super) fn lock(bucket: &S3Storage) -> Option<ObjectLock> {
    let wanted = bucket.object_lock.as_ref()?;
    Some(ObjectLock {
        mode: match wanted.mode {
            tidelock_api::LockMode::Governance => LockMode::Governance,
            tidelock_api::LockMode::Compliance => LockMode::Compliance,
        },
        days: wanted.days,
    })
}

/// What a mover is told of a bucket that uses it so. One that only reads need not know of locks, for
/// which the bucket would be asked.
pub(super) fn target(bucket: &S3Storage, wanted: Use) -> BucketTarget {
    BucketTarget {
        bucket: bucket.bucket.clone(),
        prefix: bucket.prefix.clone().unwrap_or_default(),
        endpoint: bucket.endpoint.clone(),
        region: bucket.region.clone(),
        path_style: bucket.path_style.unwrap_or(bucket.endpoint.is_some()),
        credentials_path: CREDENTIALS_PATH.to_owned(),
        ca_bundle_path: bucket
            .ca_bundle
            .as_ref()
            .map(|bundle| format!("{CA_BUNDLE_PATH}/{}", bundle.key)),
        storage_class: bucket.storage_class.clone(),
        server_side_encryption: match &bucket.server_side_encryption {
            None => ServerSideEncryption::Unset,
            Some(wanted) => match &wanted.kms_key_id {
                None => ServerSideEncryption::Aes256,
                Some(key_id) => ServerSideEncryption::Kms {
                    key_id: key_id.clone(),
                },
            },
        },
        locks: bucket.object_lock.is_some() && wanted == Use::Write,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_who_writes_is_told_of_locks() {
        let mut spec = json!({"bucket": "backups", "credentialsSecretRef": {"name": "s3"}});
        let plain: S3Storage = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(lock(&plain), None);
        assert!(!target(&plain, Use::Write).locks);
        spec["objectLock"] = json!({"mode": "Compliance", "days": 30});
        let locking: S3Storage = serde_json::from_value(spec).unwrap();
        let told = [Use::Read, Use::Open, Use::Write].map(|wanted| target(&locking, wanted).locks);
        assert_eq!(told, [false, false, true]);
        let lock = lock(&locking).unwrap();
        assert_eq!((lock.mode, lock.days), (LockMode::Compliance, 30));
    }
}
