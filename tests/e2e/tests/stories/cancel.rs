//! Runs that are told to end.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tidelock_api::{Backup, Restore};
use tidelock_e2e::cluster::run;
use tidelock_e2e::pods::{pause_in_replace, resume};
use tidelock_e2e::{Story, tell, tell_on_each_storage, tree, wait};

use crate::support::{backup_failure, completed, long_read, restore_failure, restored, says};

#[tokio::test]
async fn a_cancelled_backup_stops_fails_and_leaves_nothing_half_written() -> Result<()> {
    tell_on_each_storage("cancel-backup", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.backup_storage().await?;
        long_read(&data, 200)?;
        story.backup("now", json!({})).await?;
        story.wait_job_pod("now-backup").await?;
        wait::until_stored_begins(&storage).await?;
        let cancel = json!({"spec": {"cancel": true}});
        story.patch::<Backup>("now", cancel).await?;
        let backup = story.wait_backup("now").await?;
        says(backup_failure(&backup)?, "Cancelled", &["spec.cancel"])?;
        let left = tree::stored(&storage, "")?;
        ensure!(left.is_empty(), "{left:?} stayed behind");
        let unfinished = tree::unfinished(&storage)?;
        ensure!(unfinished.is_empty(), "{unfinished:?} stayed behind");
        let reasons = story.event_reasons(&backup).await?;
        let failed = reasons.iter().filter(|told| *told == "BackupFailed");
        ensure!(failed.count() == 1, "{reasons:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_backup_that_waits_is_cancelled_at_once_and_an_ended_one_stays_as_it_is() -> Result<()> {
    tell("cancel-early", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let spec = json!({"target": {"pvcName": "missing"}});
        story.make::<Backup>("waits", spec).await?;
        story.backup("done", json!({})).await?;
        completed(&story.wait_backup("done").await?)?;
        let cancel = json!({"spec": {"cancel": true}});
        for name in ["waits", "done"] {
            story.patch::<Backup>(name, cancel.clone()).await?;
        }
        let waits = story.wait_backup("waits").await?;
        says(backup_failure(&waits)?, "Cancelled", &["spec.cancel"])?;
        completed(&story.wait_backup("done").await?)
    })
    .await
}

/// A namespace with a completed Backup of a volume that takes long to restore, and a target.
async fn long_restore(story: &Story) -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    let data = story.volume("data").await?;
    story.backup_storage().await?;
    tree::fill_many(&data, 30_000)?;
    story.backup("now", json!({})).await?;
    completed(&story.wait_backup("now").await?)?;
    let target = story.volume("target").await?;
    Ok((data, target))
}

/// Nothing of a restore is in the target.
fn is_empty(target: &std::path::Path) -> Result<()> {
    let left: Vec<_> = std::fs::read_dir(target)?.collect::<std::io::Result<_>>()?;
    ensure!(left.is_empty(), "{left:?} stayed in the target");
    Ok(())
}

#[tokio::test]
async fn a_cancelled_restore_leaves_its_target_empty_and_another_can_be_run() -> Result<()> {
    tell_on_each_storage("cancel-restore", |story| async move {
        let (data, target) = long_restore(&story).await?;
        story.slow_restore("back", "now", "target").await?;
        wait::until_written(&target).await?;
        let cancel = json!({"spec": {"cancel": true}});
        story.patch::<Restore>("back", cancel).await?;
        let restore = story.wait_restore("back").await?;
        says(restore_failure(&restore)?, "Cancelled", &["empty again"])?;
        is_empty(&target)?;
        story.restore("again", "now", "target").await?;
        restored(&story.wait_restore("again").await?)?;
        tree::compare(&data, &target)
    })
    .await
}

#[tokio::test]
async fn what_a_cancelled_replace_moved_aside_is_put_back() -> Result<()> {
    tell("cancel-replace", |story| async move {
        let (_, target) = long_restore(&story).await?;
        let kept = story.volume("kept").await?;
        tree::fill_sample(&target)?;
        let all = format!("{}/.", target.display());
        run("cp", &["--archive", &all, &kept.to_string_lossy()])?;
        let slow = json!({"resources": {"limits": {"cpu": "200m", "memory": "128Mi"}}});
        let spec = json!({
            "backupName": "now", "targetPVC": "target", "overwrite": "Replace", "mover": slow,
        });
        story.make::<Restore>("back", spec).await?;
        let pod = story.wait_job_pod_made("back-restore").await?;
        // Lest it is done before it is told to end.
        pause_in_replace(&pod, &target).await?;
        story
            .api::<Restore>()
            .delete("back", &DeleteParams::default())
            .await?;
        let told = |pod: &Pod| Some(pod.metadata.deletion_timestamp.is_some());
        story
            .wait_for(&pod.name_any(), "to be told to end", told)
            .await?;
        resume(&pod)?;
        story.wait_gone::<Restore>("back").await?;
        tree::compare(&kept, &target)
    })
    .await
}

#[tokio::test]
async fn a_backup_that_a_restore_reads_goes_when_that_has_ended() -> Result<()> {
    tell("held", |story| async move {
        let (data, target) = long_restore(&story).await?;
        story.slow_restore("back", "now", "target").await?;
        wait::until_written(&target).await?;
        story
            .api::<Backup>()
            .delete("now", &DeleteParams::default())
            .await?;
        restored(&story.wait_restore("back").await?)?;
        tree::compare(&data, &target)?;
        story.wait_gone::<Backup>("now").await?;
        let jobs = story.api::<Job>().list(&ListParams::default()).await?;
        let failed = jobs.iter().find(|job| {
            let status = job.status.as_ref();
            status.is_some_and(|status| status.failed.unwrap_or(0) > 0)
        });
        ensure!(failed.is_none(), "a pod failed: {failed:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_restore_of_a_policy_is_pinned_once_to_the_latest_good_backup() -> Result<()> {
    tell("from", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        story.policy("nightly", "0 0 1 1 *", json!({})).await?;
        tree::fill_many(&data, 20)?;
        let of_policy = json!({"policyRef": "nightly"});
        story.backup("good", of_policy.clone()).await?;
        completed(&story.wait_backup("good").await?)?;
        for entry in std::fs::read_dir(&data)? {
            let path = entry?.path();
            if path.is_dir() {
                std::fs::remove_dir_all(path)?;
            } else {
                std::fs::remove_file(path)?;
            }
        }
        story.backup("empty", of_policy).await?;
        let empty = story.wait_backup("empty").await?;
        completed(&empty)?;
        let conditions = &empty.status.as_ref().context("no status")?.conditions;
        let suspicious = conditions.iter().find(|c| c.type_ == "Suspicious");
        let suspicious = suspicious.context("no condition Suspicious")?;
        ensure!(
            suspicious.status == "True" && suspicious.reason == "EmptySource",
            "{suspicious:?}"
        );

        let target = story.volume("target").await?;
        let spec = json!({"from": {"policyName": "nightly"}, "targetPVC": "target"});
        story.make::<Restore>("back", spec).await?;
        let restore = story.wait_restore("back").await?;
        restored(&restore)?;
        let chosen = restore.status.as_ref().and_then(|s| s.backup_name.clone());
        ensure!(chosen.as_deref() == Some("good"), "took {chosen:?}");
        ensure!(tree::stored(&target, "")?.len() >= 20);

        let accept =
            json!({"metadata": {"annotations": {"tidelock.dev/accept-suspicious": "true"}}});
        story.patch::<Backup>("empty", accept).await?;
        story
            .wait_for::<Backup>("empty", "to be accepted", |backup| {
                let conditions = &backup.status.as_ref()?.conditions;
                let found = conditions.iter().find(|c| c.type_ == "Suspicious")?;
                Some(found.reason == "Accepted")
            })
            .await?;
        let none = json!({"from": {"policyName": "weekly"}, "targetPVC": "target"});
        let nobody = story.make::<Restore>("none", none).await?;
        let failed = story.wait_restore(&nobody.name_any()).await?;
        says(restore_failure(&failed)?, "BackupNotFound", &["weekly"])
    })
    .await
}
