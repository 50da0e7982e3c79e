//! Restores, and what they refuse.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;
use tidelock_api::Restore;
use tidelock_e2e::{Story, tell, tell_on_each_storage, tree};

use crate::support::{completed, jobs_by_kind, long_read, restore_failure, restored, says};

/// A namespace with storage, and a completed Backup `now` of the sample tree on the claim `data`.
async fn with_backup(story: &Story) -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    let data = story.volume("data").await?;
    let storage = story.backup_storage().await?;
    tree::fill_sample(&data)?;
    story.backup("now", json!({})).await?;
    completed(&story.wait_backup("now").await?)?;
    Ok((data, storage))
}

#[tokio::test]
async fn a_restored_volume_equals_the_source_in_every_respect() -> Result<()> {
    tell_on_each_storage("restore", |story| async move {
        let (data, _) = with_backup(&story).await?;
        let target = story.volume("restored").await?;
        story.restore("back", "now", "restored").await?;
        let restore = story.wait_restore("back").await?;
        restored(&restore)?;
        tree::compare(&data, &target)?;
        let status = restore.status.clone().context("no status")?;
        ensure!(status.recovery_point.is_some() && status.restored_files.is_some());
        let reasons = story.event_reasons(&restore).await?;
        for reason in ["RestoreStarted", "JobCreated", "RestoreCompleted"] {
            ensure!(
                reasons.iter().any(|told| told == reason),
                "{reasons:?} lacks {reason}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_restore_makes_its_target_from_a_template_and_leaves_it_to_the_user() -> Result<()> {
    tell("template", |story| async move {
        let (data, _) = with_backup(&story).await?;
        let target = story.volume_for_later("fresh").await?;
        let spec = json!({
            "backupName": "now",
            "targetTemplate": {
                "metadata": {"name": "fresh", "labels": {"app": "shop"}},
                "spec": {"storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}},
            },
        });
        story.make::<Restore>("back", spec.clone()).await?;
        restored(&story.wait_restore("back").await?)?;
        tree::compare(&data, &target)?;
        let claim = story.api::<PersistentVolumeClaim>().get("fresh").await?;
        ensure!(claim.labels().get("app").is_some_and(|app| app == "shop"));
        story
            .api::<Restore>()
            .delete("back", &DeleteParams::foreground())
            .await?;
        story.wait_gone::<Restore>("back").await?;
        let claim = story.api::<PersistentVolumeClaim>().get("fresh").await?;
        ensure!(
            claim.metadata.deletion_timestamp.is_none(),
            "the restored data went along"
        );

        story.make::<Restore>("again", spec).await?;
        let refused = story.wait_restore("again").await?;
        says(
            restore_failure(&refused)?,
            "TargetExists",
            &["fresh", "targetTemplate"],
        )
    })
    .await
}

#[tokio::test]
async fn a_volume_that_holds_anything_is_refused_with_nothing_touched() -> Result<()> {
    tell("not-empty", |story| async move {
        with_backup(&story).await?;
        let target = story.volume("used").await?;
        tree::write(&target, "precious", b"the only copy", 0o600)?;
        tree::set_times(&target.join("precious"), 1_000_000_000, 7)?;
        let before = story.volumes_folder()?.join("used-before");
        let copy = format!("cp -a '{}' '{}'", target.display(), before.display());
        tidelock_e2e::cluster::run("sh", &["-ec", &copy])?;

        story.restore("over", "now", "used").await?;
        let restore = story.wait_restore("over").await?;
        says(
            restore_failure(&restore)?,
            "TargetNotEmpty",
            &["precious", "Nothing was written to the target"],
        )?;
        tree::compare(&before, &target)
    })
    .await
}

#[tokio::test]
async fn only_a_completed_backup_is_restored() -> Result<()> {
    tell("not-completed", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        let target = story.volume("target").await?;
        story
            .restore("of-missing", "no-such-backup", "target")
            .await?;
        let restore = story.wait_restore("of-missing").await?;
        says(
            restore_failure(&restore)?,
            "BackupNotFound",
            &["no-such-backup", "kubectl get backups"],
        )?;

        let nothing = json!({"target": {"pvcName": "nothing"}, "startDeadlineSeconds": 1});
        story.backup("failed", nothing).await?;
        story.wait_backup("failed").await?;
        story.restore("of-failed", "failed", "target").await?;
        let restore = story.wait_restore("of-failed").await?;
        says(
            restore_failure(&restore)?,
            "BackupNotCompleted",
            &["failed is Failed"],
        )?;

        long_read(&data, 20)?;
        story.backup("running", json!({})).await?;
        story.wait_job_pod("running-backup").await?;
        story.restore("of-running", "running", "target").await?;
        let restore = story.wait_restore("of-running").await?;
        says(
            restore_failure(&restore)?,
            "BackupNotCompleted",
            &["running is Running"],
        )?;

        ensure!(
            !jobs_by_kind(&story).await?.contains_key("Restore"),
            "a Job for nothing"
        );
        ensure!(
            fs::read_dir(&target)?.next().is_none(),
            "the target was touched"
        );
        Ok(())
    })
    .await
}

/// Spoils the archive of a completed backup, and checks that its Restore is refused for `reason`,
/// names the archive, and writes nothing.
async fn refused_once_spoiled(
    name: &str,
    reason: &'static str,
    spoil: fn(&Path) -> Result<()>,
) -> Result<()> {
    tell_on_each_storage(name, |story| async move {
        let (_, storage) = with_backup(&story).await?;
        let target = story.volume("target").await?;
        spoil(&storage.join(&tree::archives(&storage)?[0]))?;
        story.restore("back", "now", "target").await?;
        let restore = story.wait_restore("back").await?;
        let words = ["now.tar.gz", "Nothing was written to the target"];
        says(restore_failure(&restore)?, reason, &words)?;
        ensure!(
            fs::read_dir(&target)?.next().is_none(),
            "something was written"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_flipped_byte_is_refused_before_the_first_write() -> Result<()> {
    refused_once_spoiled("corrupt", "ArchiveCorrupt", |archive| {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(archive)?;
        let middle = file.metadata()?.len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle)?;
        file.write_all_at(&[byte[0] ^ 0x10], middle)?;
        Ok(file.sync_all()?)
    })
    .await
}

#[tokio::test]
async fn an_archive_that_is_gone_is_said_and_nothing_is_written() -> Result<()> {
    refused_once_spoiled("archive-gone", "ArchiveNotFound", |archive| {
        Ok(fs::remove_file(archive)?)
    })
    .await
}

#[tokio::test]
async fn a_deleted_restore_pod_is_replaced_and_the_volume_ends_whole() -> Result<()> {
    tell("restore-pod-deleted", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        let target = story.volume("target").await?;
        tree::fill_many(&data, 10_000)?;
        story.backup("now", json!({})).await?;
        completed(&story.wait_backup("now").await?)?;
        story.slow_restore("back", "now", "target").await?;
        let pod = story.wait_job_pod("back-restore").await?;
        let pods = story.api::<k8s_openapi::api::core::v1::Pod>();
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete(&pod.name_any(), &at_once).await?;
        restored(&story.wait_restore("back").await?)?;
        let diff = format!("diff -r '{}' '{}'", data.display(), target.display());
        tidelock_e2e::cluster::run("sh", &["-ec", &diff])?;
        Ok(())
    })
    .await
}
