//! Backups that stand for an archive which is in storage already.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use tidelock_api::{
    Backup, DELETE_DATA_ANNOTATION, DeletionPolicy, Phase, SizeStatus, StoredArchive, VERIFIED,
};
use tidelock_core::text;
use tidelock_protocol::Location;

use crate::backup::plan;
use crate::conditions::{self, Verdict, set_ready};
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::run::{tell, write_status};
use crate::store::StoreRef;
use crate::telemetry::reasons;

/// Where the archive of `backup` stands, saved from the claim `pvc`.
pub fn location(backup: &Backup, pvc: &str) -> Result<Location, Error> {
    let namespace = convert::namespace(backup)?;
    plan::location(&namespace, pvc, &name(backup))
}

/// Name of the Backup that made the archive of `backup`, by which it is found.
pub fn name(backup: &Backup) -> String {
    let archive = backup.spec.archive.as_deref();
    archive.map_or_else(|| backup.name_any(), |archive| archive.backup_name.clone())
}

/// UID of the Backup that made the archive of `backup`.
pub fn uid(backup: &Backup) -> Result<String, Error> {
    match &backup.spec.archive {
        Some(archive) => Ok(archive.backup_uid.clone()),
        None => convert::uid(backup),
    }
}

/// What happens to the archive when `backup` is deleted; none where it was made by this cluster.
pub fn deletion_policy(backup: &Backup) -> Option<DeletionPolicy> {
    backup.spec.archive.as_ref()?;
    let annotation = backup.annotations().get(DELETE_DATA_ANNOTATION);
    Some(match annotation.is_some_and(|value| value == "true") {
        true => DeletionPolicy::Delete,
        false => DeletionPolicy::Retain,
    })
}

/// Whether `backup` stands for an archive, and says so in its status.
pub fn is_taken_in(backup: &Backup) -> bool {
    let status = backup.status.as_ref();
    backup.spec.archive.is_some() && status.is_some_and(|s| s.backup_location.is_some())
}

/// Writes what the spec says of the archive into the status, as if it had just been made.
///
/// # Guarantees
/// Nothing is backed up, and nothing is said to be verified: nothing of the data was read.
pub async fn take_in(
    backup: &Backup,
    archive: &StoredArchive,
    ctx: &Context,
    now: Timestamp,
) -> Result<Action, Error> {
    let changed = taken_in(backup, archive, now)?;
    let status = changed.status.as_ref();
    let location = status.and_then(|status| status.backup_location.clone());
    let note = format!(
        "Stands for the archive {}, which is in storage already; nothing of it was read yet",
        location.unwrap_or_default()
    );
    tell(
        backup,
        ctx,
        (reasons::BACKUP_DISCOVERED, false, &archive.digest),
        note,
        now,
    )
    .await?;
    write_status(backup, changed, ctx).await?;
    Ok(Action::await_change())
}

fn taken_in(backup: &Backup, archive: &StoredArchive, now: Timestamp) -> Result<Backup, Error> {
    let pvc = backup.spec.target.as_ref().map(|t| t.pvc_name.clone());
    let pvc = pvc.unwrap_or_default();
    let format = backup.spec.format.unwrap_or_default();
    let location = location(backup, &pvc)?;
    let location = location.stored_archive_key(convert::format(format), archive.encrypted);
    let store = backup.spec.storage.as_ref().map(StoreRef::named);
    let stored = text::bytes(u64::try_from(archive.stored_bytes).unwrap_or_default());
    let mut changed = backup.clone();
    let status = changed.status.get_or_insert_default();
    status.phase = Some(Phase::Completed);
    status.observed_generation = backup.metadata.generation;
    status.start_time.clone_from(&archive.start_time);
    let completed = archive.completion_time.clone();
    status.completion_time = Some(completed.unwrap_or(Time(now)));
    status.pvc_name = Some(pvc);
    store.unwrap_or_default().record(status);
    status.backup_location = Some(location);
    status.format = Some(format);
    status.digest = Some(archive.digest.clone());
    status.locked_until.clone_from(&archive.locked_until);
    status.size = Some(SizeStatus {
        logical_bytes: archive.logical_bytes,
        stored_bytes: archive.stored_bytes,
        stored,
        files: archive.files,
        others: 0,
        changed_files: 0,
    });
    let ready = Verdict::yes(
        reasons::DISCOVERED,
        "It was found in storage, as its manifest describes it",
    );
    let verified = Verdict::unknown(
        reasons::NOT_VERIFIED,
        "Nothing of it was read by this cluster; a restore compares every digest",
    );
    let generation = backup.metadata.generation;
    set_ready(&mut status.conditions, &ready, generation, now);
    conditions::set(&mut status.conditions, VERIFIED, &verified, generation, now);
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{bodies, context};

    fn backup(annotations: Value) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "tidelock.dev/v1alpha1", "kind": "Backup",
            "metadata": {
                "name": "nightly-1-abc", "namespace": "shop", "uid": "b-new",
                "annotations": annotations, "finalizers": ["tidelock.dev/data"],
            },
            "spec": {
                "target": {"pvcName": "data"}, "storage": {"name": "offsite"}, "format": "TarZst",
                "archive": {
                    "backupName": "nightly-1", "backupUID": "b-old",
                    "digest": format!("sha256:{}", "a".repeat(64)), "storedBytes": 2048,
                    "files": 3, "completionTime": "2026-01-02T03:04:05Z",
                },
            },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn nothing_is_backed_up_and_the_archive_is_told_as_its_manifest_describes_it() {
        let (ctx, asked) = context(Vec::new(), Vec::new(), |_| None);
        let found = std::sync::Arc::new(backup(json!({})));
        crate::backup::reconcile(found, std::sync::Arc::new(ctx))
            .await
            .unwrap();
        assert!(bodies(&asked, "POST /apis/batch").is_empty());
        let status = &bodies(&asked, "PUT ")[0]["status"];
        assert_eq!(status["phase"], "Completed");
        assert_eq!(status["backupLocation"], "shop/data/nightly-1.tar.zst");
        assert_eq!(status["storage"]["name"], "offsite");
        assert_eq!(status["completionTime"], "2026-01-02T03:04:05Z");
        let conditions = status["conditions"].as_array().unwrap();
        let verified = conditions.iter().find(|c| c["type"] == "Verified").unwrap();
        assert_eq!(verified["status"], "Unknown");
    }

    #[test]
    fn its_archive_is_known_by_the_backup_that_made_it() {
        let found = backup(json!({}));
        assert_eq!(uid(&found).unwrap(), "b-old");
        let place = location(&found, "data").unwrap();
        assert_eq!(place.as_str(), "shop/data/nightly-1");
    }

    #[test]
    fn its_archive_stays_when_it_is_deleted_unless_that_is_asked_for() {
        let policy = |annotations| plan::deletion_policy(&backup(annotations), None);
        assert_eq!(policy(json!({})), DeletionPolicy::Retain);
        let asked = |value: &str| json!({"tidelock.dev/delete-data": value});
        assert_eq!(policy(asked("yes")), DeletionPolicy::Retain);
        assert_eq!(policy(asked("true")), DeletionPolicy::Delete);
    }
}
