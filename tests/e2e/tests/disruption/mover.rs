//! Movers that are killed.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use tidelock_e2e::outcome::{
    backup_failure, completed_once, one_backup_stored, pods_of_job, restored_once, says,
};
use tidelock_e2e::pods::kill_processes;
use tidelock_e2e::wait::until_written;
use tidelock_e2e::{tell, tell_on_each_storage, tree};

/// How the mover of a pod ended.
fn end_of(pod: &Pod) -> Option<(i32, String)> {
    let status = pod.status.as_ref()?;
    let mover = status.container_statuses.as_ref()?.first()?;
    let end = mover.state.as_ref()?.terminated.as_ref()?;
    Some((end.exit_code, end.reason.clone().unwrap_or_default()))
}

#[tokio::test]
async fn a_mover_that_is_killed_is_replaced_and_leaves_one_backup() -> Result<()> {
    tell_on_each_storage("mover-killed", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.backup_storage().await?;
        tree::fill_sample(&data)?;
        tree::long_read(&data, 2)?;
        story.backup("now", json!({})).await?;
        let pod = story.wait_job_pod("now-backup").await?;
        ensure!(kill_processes(&pod)? > 0, "no mover was there to be killed");
        completed_once(&story, "now").await?;
        let pods = pods_of_job(&story, "now-backup").await?;
        let ends: Vec<_> = pods
            .iter()
            .filter_map(end_of)
            .map(|(code, _)| code)
            .collect();
        ensure!(pods.len() == 2, "{} pods ended with {ends:?}", pods.len());
        ensure!(ends.contains(&137), "none of the pods was killed: {ends:?}");
        one_backup_stored(&storage)
    })
    .await
}

#[tokio::test]
async fn a_mover_that_is_killed_while_it_restores_is_replaced_and_restores_all() -> Result<()> {
    tell_on_each_storage("restore-killed", |story| async move {
        let data = story.volume("data").await?;
        let target = story.volume("target").await?;
        story.backup_storage().await?;
        tree::fill_sample(&data)?;
        tree::long_read(&data, 2)?;
        story.backup("now", json!({})).await?;
        completed_once(&story, "now").await?;
        story.slow_restore("back", "now", "target").await?;
        let pod = story.wait_job_pod("back-restore").await?;
        until_written(&target).await?;
        ensure!(kill_processes(&pod)? > 0, "no mover was there to be killed");
        restored_once(&story, "back").await?;
        tree::compare(&data, &target)
    })
    .await
}

#[tokio::test]
async fn a_mover_over_its_memory_limit_fails_the_backup_and_says_what_to_raise() -> Result<()> {
    tell("out-of-memory", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        // The names of one folder are sorted in memory: these take more than the limit leaves.
        let name = "n".repeat(240);
        for number in 0..30_000 {
            std::fs::write(data.join(format!("{number:06}-{name}")), "")?;
        }
        let limits = json!({"memory": "8Mi"});
        let requests = json!({"memory": "8Mi"});
        let small = json!({"resources": {"limits": limits, "requests": requests}});
        story.backup("now", json!({"mover": small})).await?;
        let backup = story.wait_backup("now").await?;
        let words = ["memory limit", "mover.resources.limits.memory"];
        says(backup_failure(&backup)?, "OutOfMemory", &words)?;
        let pods = pods_of_job(&story, "now-backup").await?;
        let killed = pods.iter().filter_map(end_of);
        let killed = killed.filter(|(_, reason)| reason == "OOMKilled").count();
        ensure!(killed > 0, "no pod was killed for its memory");
        let newest = pods.iter().max_by_key(|pod| pod.creation_timestamp());
        newest.context("no pod is left to look at")?;
        let left = tree::stored(&storage, "")?;
        ensure!(
            left.iter().all(|path| is_temporary(path)),
            "{left:?} is in storage"
        );
        Ok(())
    })
    .await
}

/// Whether a file in storage is one that no reader takes for a backup's.
fn is_temporary(path: &std::path::Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(".tidelock-"))
}
