//! Backups for archives that no Backup stands for.

use std::collections::BTreeMap;

use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tidelock_api::{
    Backup, BackupSpec, BackupStorage, DATA_FINALIZER, DISCOVERED_LABEL, Format, PVC_LABEL,
    StorageKind, StorageRef, StoredArchive, TargetRef,
};
use tidelock_core::names;
use tidelock_protocol::{CheckReport, DescribedBackup};

use crate::backup::archived;
use crate::context::Context;
use crate::convert::{self, to_i64};
use crate::error::{Error, is_namespace_leaving, is_status};

/// Makes a Backup for each archive that `found` describes; for how many one stands by now.
///
/// # Guarantees
/// What is made stands for exactly what the manifest said, is owned by nobody, and has no say over
/// the data. A Backup that is there already is left as it is.
///
/// # Crash window
/// Names are fixed by the archive, so a repeat finds what was made.
pub async fn discover(
    storage: &BackupStorage,
    ctx: &Context,
    found: &CheckReport,
) -> Result<u64, Error> {
    let mut made = 0;
    if !storage.spec.discover {
        return Ok(made);
    }
    for archive in &found.described {
        match backup(storage, archive)? {
            Some(backup) => made += u64::from(ensure(ctx, backup).await?),
            None => tracing::warn!(location = %archive.location, "no Backup can stand for it"),
        }
    }
    Ok(made)
}

/// Makes `backup`, under another name where a Backup of that name stands for something else; whether
/// it is there by now.
async fn ensure(ctx: &Context, mut backup: Backup) -> Result<bool, Error> {
    let namespace = convert::namespace(&backup)?;
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    let archive = backup.spec.archive.clone();
    let uid = archive.as_ref().map(|archive| archive.backup_uid.clone());
    let other = names::other_backup_name(&backup.name_any(), &uid.unwrap_or_default());
    for name in [backup.name_any(), other] {
        backup.metadata.name = Some(name.clone());
        match api.create(&PostParams::default(), &backup).await {
            Ok(_) => return Ok(true),
            Err(error) if is_status(&error, 409) => {
                let what = format!("read Backup {namespace}/{name}");
                let there = api.get_opt(&name).await.map_err(Error::api(what))?;
                if there.is_some_and(|there| there.spec == backup.spec) {
                    return Ok(true);
                }
            }
            Err(error) if is_namespace_leaving(&error) => return Ok(false),
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
                tracing::warn!(name, words = status.message, "a found Backup is not taken");
                return Ok(false);
            }
            Err(error) => {
                return Err(Error::api(format!("create Backup {namespace}/{name}"))(
                    error,
                ));
            }
        }
    }
    Ok(false)
}

/// The Backup that stands for `archive`; none where its names would not lead back to it.
fn backup(storage: &BackupStorage, archive: &DescribedBackup) -> Result<Option<Backup>, Error> {
    let mut parts = archive.location.as_str().split('/').skip(1);
    let pvc = archive.pvc.as_deref().or(parts.next()).unwrap_or_default();
    let name = archive
        .backup
        .as_deref()
        .or(parts.next())
        .unwrap_or_default();
    let spec = BackupSpec {
        policy_ref: None,
        target: Some(TargetRef {
            pvc_name: pvc.to_owned(),
        }),
        storage: Some(StorageRef {
            pvc_name: None,
            kind: Some(StorageKind::BackupStorage),
            name: Some(storage.name_any()),
        }),
        format: Some(match archive.format {
            tidelock_protocol::Format::TarGz => Format::TarGz,
            tidelock_protocol::Format::TarZst => Format::TarZst,
        }),
        deletion_policy: None,
        start_deadline_seconds: None,
        verification: None,
        guard: None,
        mover: None,
        archive: Some(Box::new(StoredArchive {
            backup_name: name.to_owned(),
            backup_uid: archive.uid.clone(),
            encrypted: archive.encrypted,
            digest: archive.digest.clone(),
            stored_bytes: to_i64(archive.stored_bytes),
            logical_bytes: to_i64(archive.logical_bytes),
            files: to_i64(archive.files),
            start_time: convert::time(archive.started_at),
            completion_time: convert::time(archive.finished_at),
            locked_until: archive.locked_until.and_then(convert::time),
        })),
        cancel: false,
    };
    let mut backup = Backup::new(name, spec);
    let meta = &mut backup.metadata;
    meta.namespace = Some(convert::namespace(storage)?);
    meta.finalizers = Some(vec![DATA_FINALIZER.to_owned()]);
    meta.labels = Some(BTreeMap::from([
        (PVC_LABEL.to_owned(), names::label_value(pvc)),
        (
            DISCOVERED_LABEL.to_owned(),
            names::label_value(&storage.name_any()),
        ),
    ]));
    let leads_back = archived::location(&backup, pvc)? == archive.location;
    Ok(leads_back.then_some(backup))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidelock_protocol::Location;

    use super::*;
    use crate::testing::{bodies, context};

    fn storage() -> BackupStorage {
        serde_json::from_value(json!({
            "metadata": {"name": "offsite", "namespace": "shop", "uid": "s-1"},
            "spec": {"pvc": {"claimName": "store"}, "discover": true},
        }))
        .unwrap()
    }

    fn found(pvc: Option<&str>) -> CheckReport {
        let described = DescribedBackup {
            location: Location::new("shop", "data", "nightly-1").unwrap(),
            pvc: pvc.map(str::to_owned),
            backup: None,
            uid: "b-old".into(),
            format: tidelock_protocol::Format::TarGz,
            encrypted: false,
            digest: format!("sha256:{}", "a".repeat(64)),
            stored_bytes: 9,
            logical_bytes: 8,
            files: 7,
            started_at: 1,
            finished_at: 2,
            locked_until: None,
        };
        CheckReport {
            described: vec![described],
            ..CheckReport::default()
        }
    }

    #[tokio::test]
    async fn an_archive_gets_a_backup_that_stands_for_it_and_is_owned_by_nobody() {
        let (ctx, asked) = context(Vec::new(), Vec::new(), |_| None);
        assert_eq!(discover(&storage(), &ctx, &found(None)).await.unwrap(), 1);
        let made = &bodies(&asked, "POST ")[0];
        assert_eq!(made["metadata"]["name"], "nightly-1");
        assert!(made["metadata"]["ownerReferences"].is_null());
        assert_eq!(made["spec"]["archive"]["backupUID"], "b-old");
        assert_eq!(made["spec"]["storage"]["name"], "offsite");
        assert_eq!(made["spec"]["target"]["pvcName"], "data");
    }

    #[tokio::test]
    async fn a_manifest_whose_names_lead_elsewhere_gets_none() {
        let (ctx, asked) = context(Vec::new(), Vec::new(), |_| None);
        let elsewhere = found(Some("other"));
        assert_eq!(discover(&storage(), &ctx, &elsewhere).await.unwrap(), 0);
        assert!(bodies(&asked, "POST ").is_empty());
    }

    #[tokio::test]
    async fn without_discover_nothing_is_made() {
        let (ctx, asked) = context(Vec::new(), Vec::new(), |_| None);
        let mut quiet = storage();
        quiet.spec.discover = false;
        assert_eq!(discover(&quiet, &ctx, &found(None)).await.unwrap(), 0);
        assert!(bodies(&asked, "POST ").is_empty());
    }
}
