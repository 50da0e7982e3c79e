//! API server, etcd and kubelet that stop and start while a run is under way.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tidelock_e2e::daemons::{restart, while_stopped};
use tidelock_e2e::outcome::{completed_once, one_backup_stored, pods_of_job, restored_once};
use tidelock_e2e::wait::{until, until_written};
use tidelock_e2e::{Story, nodes, tell, tree};

use crate::CLUSTER;

/// A backup `now` whose mover is at work for some seconds; its pod, and the storage.
async fn backup_at_work(story: &Story) -> Result<(Pod, PathBuf)> {
    let data = story.volume("data").await?;
    let storage = story.volume("backup-storage").await?;
    tree::fill_sample(&data)?;
    tree::long_read(&data, 2)?;
    story.backup("now", json!({})).await?;
    let pod = story.wait_job_pod("now-backup").await?;
    Ok((pod, storage))
}

fn is_published(storage: &Path) -> Result<bool> {
    Ok(!tree::stored(storage, ".manifest.json")?.is_empty())
}

/// Waits for the mover to publish its backup, which it must not have done before.
async fn until_published(storage: &Path) -> Result<()> {
    ensure!(!is_published(storage)?, "the mover was too fast");
    until("the backup to be published", || is_published(storage)).await
}

/// The backup `now` ended well, by one pod.
async fn ended_by_one_pod(story: &Story, storage: &Path) -> Result<()> {
    completed_once(story, "now").await?;
    let pods = pods_of_job(story, "now-backup").await?;
    ensure!(pods.len() == 1, "{} pods", pods.len());
    one_backup_stored(storage)
}

#[tokio::test]
async fn a_backup_that_ends_while_the_api_server_is_away_is_completed_once() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("api-server-away", |story| async move {
        let (_, storage) = backup_at_work(&story).await?;
        while_stopped(&["kube-apiserver"], || until_published(&storage)).await?;
        ended_by_one_pod(&story, &storage).await
    })
    .await
}

#[tokio::test]
async fn a_restore_that_ends_while_the_api_server_is_away_is_completed_once() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("api-server-away-restore", |story| async move {
        let (_, storage) = backup_at_work(&story).await?;
        ended_by_one_pod(&story, &storage).await?;
        let target = story.volume("target").await?;
        story.slow_restore("back", "now", "target").await?;
        story.wait_job_pod("back-restore").await?;
        until_written(&target).await?;
        while_stopped(&["kube-apiserver"], || async {
            let marked = || {
                Ok(!tree::stored(&target, "")?
                    .iter()
                    .any(|path| is_marker(path)))
            };
            ensure!(!marked()?, "the mover was too fast");
            until("the restore to be done", marked).await
        })
        .await?;
        restored_once(&story, "back").await?;
        let pods = pods_of_job(&story, "back-restore").await?;
        ensure!(pods.len() == 1, "{} pods", pods.len());
        tree::compare(&story.volumes_folder()?.join("data"), &target)
    })
    .await
}

/// Whether a restore's own file says that it is not done.
fn is_marker(path: &Path) -> bool {
    path.to_string_lossy().starts_with(".tidelock-restore-")
}

#[tokio::test]
async fn etcd_that_restarts_during_a_backup_loses_and_doubles_nothing() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("etcd-restarts", |story| async move {
        let (_, storage) = backup_at_work(&story).await?;
        restart(&["etcd"]).await?;
        ensure!(!is_published(&storage)?, "the mover was too fast");
        ended_by_one_pod(&story, &storage).await
    })
    .await
}

#[tokio::test]
async fn a_backup_that_ends_while_its_kubelet_is_away_is_completed_once() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("kubelet-away", |story| async move {
        let (pod, storage) = backup_at_work(&story).await?;
        let kubelet = format!("{}-kubelet", nodes::of(&pod)?);
        while_stopped(&[&kubelet], || until_published(&storage)).await?;
        ended_by_one_pod(&story, &storage).await
    })
    .await
}
