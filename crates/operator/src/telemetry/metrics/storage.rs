//! What is told of one BackupStorage.

use jiff::Timestamp;
use kube::ResourceExt;
use tidelock_api::{BackupStorage, READY};

use crate::conditions;
use crate::telemetry::metrics::row::{Row, flag, of_count, of_time};
use crate::telemetry::metrics::table as metric;

/// What is told of one BackupStorage.
#[derive(Debug, Clone, Default)]
pub struct StorageFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    ready: bool,
    unusable_since: Option<Timestamp>,
    looked_at: Option<Timestamp>,
    backups: Option<i64>,
    stored: Option<i64>,
    unknown: Option<i64>,
    free: Option<i64>,
}

/// What is told of `storage`.
pub fn observe(storage: &BackupStorage) -> StorageFacts {
    let status = storage.status.clone().unwrap_or_default();
    let unusable_since = conditions::since(&status.conditions, READY, false);
    StorageFacts {
        namespace: storage.namespace().unwrap_or_default(),
        name: storage.name_any(),
        ready: conditions::holds(&status.conditions, READY),
        unusable_since: unusable_since.filter(|_| !storage.spec.suspend),
        looked_at: status.last_check_time.map(|time| time.0),
        backups: status.backups,
        stored: status.stored_bytes,
        unknown: status.unknown_archives,
        free: status.free_bytes,
    }
}

/// The metrics of a storage, and how each is read from its facts.
pub const ROWS: &[Row<StorageFacts>] = &[
    Row::one(metric::STORAGE_READY, |s| flag(s.ready)),
    Row::one(metric::STORAGE_UNUSABLE_SINCE, |s| {
        of_time(s.unusable_since)
    }),
    Row::one(metric::STORAGE_LAST_CHECK, |s| of_time(s.looked_at)),
    Row::one(metric::STORAGE_BACKUPS, |s| of_count(s.backups)),
    Row::one(metric::STORAGE_STORED, |s| of_count(s.stored)),
    Row::one(metric::STORAGE_UNKNOWN_ARCHIVES, |s| of_count(s.unknown)),
    Row::one(metric::STORAGE_FREE, |s| of_count(s.free)),
];
