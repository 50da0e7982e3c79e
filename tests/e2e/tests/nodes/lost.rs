//! Nodes that are lost for good, and nodes that were only thought to be.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rustix::process::{Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tidelock_api::{Backup, Phase};
use tidelock_e2e::cluster::kubectl;
use tidelock_e2e::daemons::{while_stopped, without_node};
use tidelock_e2e::nodes::{self, LEFT, LOST, starting_on_the_second};
use tidelock_e2e::outcome::{backup_failure, completed_once, one_backup_stored, pods_of_job, says};
use tidelock_e2e::pods::processes;
use tidelock_e2e::wait::{until, until_stored_begins};
use tidelock_e2e::{Story, tell, tree};

use crate::CLUSTER;

/// A backup `now` whose mover writes to storage on the second node; its pod, and the storage.
async fn backup_on_the_second(story: &Story, more: Value) -> Result<(Pod, PathBuf)> {
    nodes::ready_to_lose(story).await?;
    let data = story.volume("data").await?;
    let storage = story.volume("backup-storage").await?;
    tree::fill_sample(&data)?;
    tree::long_read(&data, 2)?;
    let pod = starting_on_the_second(|| async {
        story.backup("now", more).await?;
        story.wait_job_pod("now-backup").await
    })
    .await?;
    ensure!(nodes::of(&pod)? == LOST);
    until_stored_begins(&storage).await?;
    Ok((pod, storage))
}

fn not_published(storage: &Path) -> Result<()> {
    let manifests = tree::stored(storage, ".manifest.json")?;
    ensure!(manifests.is_empty(), "the mover was too fast");
    Ok(())
}

/// The backup `now` ended well, by a pod on the node that is left.
async fn ended_on_the_first(story: &Story) -> Result<()> {
    completed_once(story, "now").await?;
    let pods = pods_of_job(story, "now-backup").await?;
    let on_left = |pod: &&Pod| nodes::of(pod).is_ok_and(|node| node == LEFT);
    ensure!(pods.iter().filter(on_left).count() == 1, "{pods:#?}");
    Ok(())
}

/// Waits until the backup `now` says `words` while it is Running.
async fn tells(story: &Story, words: &str) -> Result<()> {
    let what = format!("to tell {words:?}");
    story
        .wait_for("now", &what, |backup: &Backup| {
            let status = backup.status.as_ref()?;
            let ready = status.conditions.iter().find(|c| c.type_ == "Ready")?;
            Some(status.phase == Some(Phase::Running) && ready.message.contains(words))
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_backup_on_a_node_that_burned_down_and_was_deleted_goes_on_elsewhere() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("node-deleted", |story| async move {
        let (_, storage) = backup_on_the_second(&story, json!({})).await?;
        without_node(LOST, || async {
            not_published(&storage)?;
            kubectl(&["delete", "node", LOST])?;
            ended_on_the_first(&story).await
        })
        .await?;
        one_backup_stored(&storage)
    })
    .await
}

#[tokio::test]
async fn a_mover_that_wakes_up_after_its_node_was_given_up_changes_nothing() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("node-asleep", |story| async move {
        let (pod, storage) = backup_on_the_second(&story, json!({})).await?;
        let asleep = processes(&pod)?;
        for process in &asleep {
            kill_process(*process, Signal::STOP)?;
        }
        not_published(&storage)?;
        while_stopped(&["node-2-kubelet"], || async {
            // What an administrator says of a node that is known to be off.
            let off = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
            kubectl(&["taint", "nodes", LOST, off])?;
            let ended = ended_on_the_first(&story).await;
            for process in &asleep {
                kill_process(*process, Signal::CONT)?;
            }
            kubectl(&["taint", "nodes", LOST, "node.kubernetes.io/out-of-service-"])?;
            ended?;
            until("the mover that was asleep to end", || {
                let gone = |process| test_kill_process(process).is_err();
                Ok(asleep.iter().copied().all(gone))
            })
            .await
        })
        .await?;
        one_backup_stored(&storage)
    })
    .await
}

#[tokio::test]
async fn a_backup_on_a_node_that_does_not_answer_says_so_and_is_given_up_in_the_end() -> Result<()>
{
    let _turn = CLUSTER.lock().await;
    tell("node-silent", |story| async move {
        let soon = json!({"startDeadlineSeconds": 30});
        let (pod, storage) = backup_on_the_second(&story, soon).await?;
        without_node(LOST, || async {
            not_published(&storage)?;
            tells(&story, "Node node-2 does not answer").await?;
            let name = pod.name_any();
            story.kubectl(&["delete", "pod", &name, "--grace-period=1", "--wait=false"])?;
            tells(&story, "is being deleted").await?;
            let backup = story.wait_backup("now").await?;
            let words = [&pod.name_any(), "is being deleted", "startDeadlineSeconds"];
            says(backup_failure(&backup)?, "StartDeadlineExceeded", &words)?;
            not_published(&storage)?;
            story.backup("later", json!({})).await?;
            completed_once(&story, "later").await.map(|_| ())
        })
        .await?;
        let archives = tree::archives(&storage)?;
        ensure!(archives.len() == 1, "{archives:?}");
        Ok(())
    })
    .await
}
