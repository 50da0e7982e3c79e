//! Nodes that are lost for good, and nodes that were only thought to be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::DeleteParams;
use rustix::process::{Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tidelock_api::{Backup, PUT_BACK_ANNOTATION, Phase, Restore};
use tidelock_e2e::cluster::kubectl;
use tidelock_e2e::daemons::{while_stopped, without_node};
use tidelock_e2e::nodes::{self, LEFT, LOST, starting_on_the_second};
use tidelock_e2e::outcome::{
    backup_failure, completed_once, one_backup_stored, pods_of_job, restore_failure, restored_once,
    says,
};
use tidelock_e2e::pods::{pause, processes};
use tidelock_e2e::wait::{until, until_stored_begins, until_written};
use tidelock_e2e::{Story, tell, tree};

use crate::CLUSTER;

/// A pod that does not end is waited for five minutes before its run is given up.
const GIVEN_UP: Duration = Duration::from_secs(300 + 60);

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

/// Whether a run says `words` while it is Running.
fn says_at_work(phase: Option<Phase>, conditions: &[Condition], words: &str) -> Option<bool> {
    let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
    Some(phase == Some(Phase::Running) && ready.message.contains(words))
}

/// Waits until the backup `now` says `words` while it is Running.
async fn tells(story: &Story, words: &str) -> Result<()> {
    let what = format!("to tell {words:?}");
    story
        .wait_for("now", &what, |backup: &Backup| {
            let status = backup.status.as_ref()?;
            says_at_work(status.phase, &status.conditions, words)
        })
        .await?;
    Ok(())
}

/// Waits until the restore `back` says `words` while it is Running.
async fn restore_tells(story: &Story, words: &str) -> Result<()> {
    let what = format!("to tell {words:?}");
    story
        .wait_for("back", &what, |restore: &Restore| {
            let status = restore.status.as_ref()?;
            says_at_work(status.phase, &status.conditions, words)
        })
        .await?;
    Ok(())
}

/// A restore `back` whose mover halts on the second node, while it writes into its target; its pod,
/// the source and the target.
async fn restore_on_the_second(story: &Story, more: Value) -> Result<(Pod, PathBuf, PathBuf)> {
    nodes::ready_to_lose(story).await?;
    let data = story.volume("data").await?;
    story.volume("backup-storage").await?;
    let target = story.volume("target").await?;
    tree::fill_many(&data, 10_000)?;
    story.backup("now", json!({})).await?;
    completed_once(story, "now").await?;
    // Slow enough to be halted before it is done.
    let slow = json!({"resources": {"limits": {"cpu": "200m", "memory": "128Mi"}}});
    let mut spec = json!({"backupName": "now", "targetPVC": "target", "mover": slow});
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    let pod = starting_on_the_second(|| async {
        story.make::<Restore>("back", spec).await?;
        let pod = story.wait_job_pod_made("back-restore").await?;
        until_written(&target).await?;
        pause(&pod)?;
        Ok(pod)
    })
    .await?;
    is_half_written(&target)?;
    // What its node does not tell before it goes, nobody does.
    let runs = |pod: &Pod| Some(pod.status.as_ref()?.phase.as_deref()? == "Running");
    let pod: Pod = story
        .wait_for(&pod.name_any(), "to be told to run", runs)
        .await?;
    ensure!(nodes::of(&pod)? == LOST);
    Ok((pod, data, target))
}

/// The target holds the mark of a restore that is not done.
fn is_half_written(target: &Path) -> Result<()> {
    let marked = tree::stored(target, "")?.iter().any(|path| {
        let name = path.to_string_lossy();
        name.starts_with(".tidelock-restore-")
    });
    ensure!(marked, "the mover was too fast");
    Ok(())
}

/// Waits until the restore `back` has failed.
async fn failed_in_the_end(story: &Story) -> Result<Restore> {
    story
        .wait_longer_for(GIVEN_UP, "back", "to be given up", |restore: &Restore| {
            Some(restore.status.as_ref()?.phase? == Phase::Failed)
        })
        .await
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

#[tokio::test]
async fn a_restore_on_a_node_that_burned_down_and_was_deleted_goes_on_elsewhere() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("restore-node-deleted", |story| async move {
        let (_, data, target) = restore_on_the_second(&story, json!({})).await?;
        without_node(LOST, || async {
            is_half_written(&target)?;
            kubectl(&["delete", "node", LOST])?;
            restored_once(&story, "back").await?;
            let pods = pods_of_job(&story, "back-restore").await?;
            let on_left = |pod: &&Pod| nodes::of(pod).is_ok_and(|node| node == LEFT);
            ensure!(pods.iter().filter(on_left).count() == 1, "{pods:#?}");
            Ok(())
        })
        .await?;
        tree::compare(&data, &target)
    })
    .await
}

#[tokio::test]
async fn a_restore_on_a_silent_node_says_what_stays_and_its_target_is_put_back_when_a_person_says_so()
-> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("restore-node-silent", |story| async move {
        let soon = json!({"startDeadlineSeconds": 30});
        let (pod, data, target) = restore_on_the_second(&story, soon).await?;
        without_node(LOST, || async {
            restore_tells(&story, "Node node-2 does not answer").await?;
            let name = pod.name_any();
            story.kubectl(&["delete", "pod", &name, "--grace-period=1", "--wait=false"])?;
            restore_tells(&story, "is being deleted").await?;
            restore_tells(&story, "It is being stopped").await?;
            let restore = failed_in_the_end(&story).await?;
            let words = [
                "does not end",
                "what it wrote stays as it is",
                "annotate this Restore with tidelock.dev/put-back=true and delete it",
                "empty the volume",
            ];
            says(restore_failure(&restore)?, "StartDeadlineExceeded", &words)?;
            let pending = restore.status.as_ref().is_some_and(|s| s.undo_pending);
            ensure!(pending, "{:#?}", restore.status);
            is_half_written(&target)?;

            // Now it is known to be off.
            kubectl(&["delete", "node", LOST])?;
            story.wait_gone::<Pod>(&name).await?;
            let told = json!({"metadata": {"annotations": {PUT_BACK_ANNOTATION: "true"}}});
            story.patch::<Restore>("back", told).await?;
            let restores = story.api::<Restore>();
            restores.delete("back", &DeleteParams::default()).await?;
            story.wait_gone::<Restore>("back").await?;
            let told = story.event_reasons(&restore).await?;
            ensure!(told.contains(&"TargetPutBack".to_owned()), "{told:?}");
            let left = tree::stored(&target, "")?;
            ensure!(left.is_empty(), "{left:?} stayed in the target");
            story.restore("again", "now", "target").await?;
            restored_once(&story, "again").await.map(|_| ())
        })
        .await?;
        tree::compare(&data, &target)
    })
    .await
}
