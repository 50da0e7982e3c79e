//! BackupStorages: whether they can be used, and what stands there.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use tidelock_api::{Backup, BackupStorage, Restore};
use tidelock_e2e::outcome::{completed, restore_failure, restored, says};
use tidelock_e2e::s3::{self, S3};
use tidelock_e2e::{Story, tell, tree};

/// Waits until the storage `offsite` is judged so, with these words.
async fn judged(story: &Story, status: &str, reason: &str, words: &str) -> Result<BackupStorage> {
    let what = format!("to be Ready={status} {reason}: {words}");
    story
        .wait_for("offsite", &what, |storage: &BackupStorage| {
            let status_now = storage.status.as_ref()?;
            let ready = status_now.conditions.iter().find(|c| c.type_ == "Ready")?;
            let is_so = ready.status == status && ready.reason == reason;
            let is_current = status_now.observed_generation == storage.metadata.generation;
            Some(is_so && ready.message.contains(words) && (is_current || status != "True"))
        })
        .await
}

#[tokio::test]
async fn a_storage_says_whether_it_can_be_used_and_why_not() -> Result<()> {
    tell("storage-probe", |story| async move {
        let server = S3::start(&story).await?;
        let mut spec = server.spec(json!({"prefix": "east"}));
        spec["checkIntervalSeconds"] = json!(60);
        story.make::<BackupStorage>("offsite", spec).await?;
        let no_secret = "secret \"s3-credentials\" not found";
        judged(&story, "Unknown", "PodPending", no_secret).await?;

        s3::secret(&story, Some("wrong")).await?;
        judged(&story, "False", "StorageDenied", "SignatureDoesNotMatch").await?;

        // What is mended is found by itself.
        let secrets = story.api::<Secret>();
        secrets
            .delete(s3::CREDENTIALS, &DeleteParams::default())
            .await?;
        s3::secret(&story, None).await?;
        let ready = judged(
            &story,
            "True",
            "StorageReady",
            "Wrote, read, listed and removed",
        )
        .await?;
        let status = ready.status.clone().context("no status")?;
        ensure!(
            (status.backups, status.stored_bytes) == (Some(0), Some(0)),
            "{status:?}"
        );
        ensure!(
            status.location.as_deref() == Some("s3://backups/east"),
            "{status:?}"
        );
        ensure!(server.objects()?.is_empty(), "{:?}", server.objects()?);
        let reasons = story.event_reasons(&ready).await?;
        for reason in ["StorageNotReady", "StorageReady"] {
            ensure!(reasons.iter().any(|told| told == reason), "{reasons:?}");
        }
        let table = story.kubectl(&["get", "backupstorage"])?;
        ensure!(
            table.contains("s3://backups/east") && table.contains("StorageReady"),
            "{table}"
        );

        let suspend = json!({"spec": {"suspend": true}});
        story.patch::<BackupStorage>("offsite", suspend).await?;
        judged(&story, "False", "StorageSuspended", "spec.suspend is true").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn archives_in_a_bucket_that_no_backup_stands_for_are_found_and_restored() -> Result<()> {
    tell("found-bucket", |story| async move {
        let server = S3::start(&story).await?;
        s3::secret(&story, None).await?;
        let bucket = server.bucket();
        found_and_restored(&story, server.spec(json!({"prefix": "east"})), &bucket).await
    })
    .await
}

#[tokio::test]
async fn archives_on_a_volume_that_no_backup_stands_for_are_found_and_restored() -> Result<()> {
    tell("found-volume", |story| async move {
        let store = story.volume("store").await?;
        let spec = json!({"pvc": {"claimName": "store", "subPath": "east"}});
        std::fs::create_dir(store.join("east"))?;
        found_and_restored(&story, spec, &store).await
    })
    .await
}

/// A backup whose object is gone is found again at the storage with this spec, restored, and removed
/// only when that is asked for; `root` is where its files lie.
async fn found_and_restored(story: &Story, mut spec: Value, root: &Path) -> Result<()> {
    let data = story.volume("data").await?;
    tree::write(&data, "docs/a.txt", b"first", 0o640)?;
    story.make::<BackupStorage>("offsite", spec.clone()).await?;
    let kept = json!({"storage": {"name": "offsite"}, "deletionPolicy": "Retain"});
    story.backup("lost", kept).await?;
    completed(&story.wait_backup("lost").await?)?;
    story.kubectl(&["delete", "backup/lost"])?;
    story.wait_gone::<Backup>("lost").await?;
    // Somebody else's object of that name must not keep the archive from being found.
    let unrelated = json!({"target": {"pvcName": "elsewhere"}, "startDeadlineSeconds": 1});
    story.backup("lost", unrelated).await?;

    spec["discover"] = json!(true);
    let discover = json!({"spec": {"discover": true}});
    story.patch::<BackupStorage>("offsite", discover).await?;
    let found = found(story).await?;
    let name = found.metadata.name.clone().context("no name")?;
    ensure!(name.starts_with("lost-"), "{name}");
    let found = story.wait_backup(&name).await?;
    let status = found.status.clone().context("no status")?;
    ensure!(status.job_name.is_none() && status.pvc_name.as_deref() == Some("data"));
    let verified = status.conditions.iter().find(|c| c.type_ == "Verified");
    ensure!(
        verified.is_some_and(|c| c.status == "Unknown"),
        "{status:?}"
    );

    let target = story.volume("target").await?;
    story.restore("back", &name, "target").await?;
    restored(&story.wait_restore("back").await?)?;
    tree::compare(&data, &target)?;

    // It goes without its data, and is found again.
    story.kubectl(&["delete", &format!("backup/{name}")])?;
    story.wait_gone::<Backup>(&name).await?;
    ensure!(archives(root)? == 1);
    let again = json!({"spec": {"checkIntervalSeconds": 61}});
    story.patch::<BackupStorage>("offsite", again).await?;
    let found = self::found(story).await?;
    let name = found.metadata.name.context("no name")?;
    story.wait_backup(&name).await?;

    // With its data, where that is asked for.
    story.kubectl(&[
        "annotate",
        &format!("backup/{name}"),
        "tidelock.dev/delete-data=true",
    ])?;
    story.kubectl(&["delete", &format!("backup/{name}")])?;
    story.wait_gone::<Backup>(&name).await?;
    ensure!(archives(root)? == 0);
    let spec = json!({"backupName": name, "targetPVC": "target"});
    story.make::<Restore>("too-late", spec).await?;
    let late = story.wait_restore("too-late").await?;
    says(
        restore_failure(&late)?,
        "BackupNotFound",
        &["does not exist"],
    )
}

/// The one Backup that was found, once all is found for the spec as it is.
async fn found(story: &Story) -> Result<Backup> {
    let all_found = |storage: &BackupStorage| {
        let status = storage.status.as_ref()?;
        let is_current = status.observed_generation == storage.metadata.generation;
        Some(is_current && (status.backups, status.unknown_archives) == (Some(1), Some(0)))
    };
    story.wait_for("offsite", "to find it", all_found).await?;
    let labelled = ListParams::default().labels("tidelock.dev/discovered-in=offsite");
    let mut found = story.api::<Backup>().list(&labelled).await?.items;
    ensure!(found.len() == 1, "{found:?}");
    found.pop().context("nothing was found")
}

/// How many archives lie below `root`.
fn archives(root: &Path) -> Result<usize> {
    let all = tree::stored(root, ".tar.gz")?;
    Ok(all.len())
}
