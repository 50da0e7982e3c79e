//! What a mover is told of a storage.

use tidelock_api::S3Storage;
use tidelock_protocol::{
    BucketTarget, CA_BUNDLE_PATH, CREDENTIALS_PATH, Limits, ServerSideEncryption,
};

/// How fast a mover may write and read.
pub(super) fn limits(up: Option<i64>, down: Option<i64>) -> Limits {
    let rate = |rate: Option<i64>| rate.and_then(|rate| u64::try_from(rate).ok());
    Limits {
        upload_bytes_per_second: rate(up),
        download_bytes_per_second: rate(down),
    }
}

/// What the mover is told of a bucket.
pub(super) fn target(bucket: &S3Storage) -> BucketTarget {
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
        locks: false,
    }
}
