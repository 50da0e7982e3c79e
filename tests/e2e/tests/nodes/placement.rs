//! Movers go where their volumes are.

use std::future::Future;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tidelock_api::{Backup, Phase, Restore};
use tidelock_e2e::cluster::kubectl;
use tidelock_e2e::workloads::Workload;
use tidelock_e2e::{Story, tell, tree};

use crate::CLUSTER;

const NODES: [&str; 2] = ["node-1", "node-2"];

/// The node of the only pod of `job`.
async fn node_of(story: &Story, job: &str) -> Result<String> {
    let own = ListParams::default().labels(&format!("job-name={job}"));
    let pods = story.api::<Pod>().list(&own).await?.items;
    ensure!(pods.len() == 1, "{job} has {} pods", pods.len());
    let node = pods.into_iter().next().and_then(|pod| pod.spec?.node_name);
    node.with_context(|| format!("the pod of {job} is on no node"))
}

async fn completed(story: &Story, name: &str) -> Result<()> {
    let status = story.wait_backup(name).await?.status.unwrap_or_default();
    ensure!(
        status.phase == Some(Phase::Completed),
        "{name}: {status:#?}"
    );
    Ok(())
}

/// Waits until the Backup `name` gives `reason`; its words.
async fn told(story: &Story, name: &str, reason: &str) -> Result<String> {
    let what = format!("to say {reason}");
    let ready = |backup: &Backup| {
        let conditions = backup.status.clone()?.conditions;
        conditions.into_iter().find(|c| c.type_ == "Ready")
    };
    let holds = |backup: &Backup| Some(ready(backup)?.reason == reason);
    let backup = story.wait_for(name, &what, holds).await?;
    Ok(ready(&backup).context("no condition")?.message)
}

async fn stop(story: &Story, pod: &str) -> Result<()> {
    let pods = story.api::<Pod>();
    pods.delete(pod, &DeleteParams::default()).await?;
    story.wait_gone::<Pod>(pod).await
}

/// Volumes for a backup, with the pod `app` on the second node that uses the source.
async fn used_on_the_second(story: &Story) -> Result<()> {
    let data = story.volume("data").await?;
    story.volume("backup-storage").await?;
    tree::fill_many(&data, 20)?;
    let app = Workload::on_node("app", "data", "node-2");
    story.start(&app).await?;
    Ok(())
}

/// Does `story` after the administrator has done `before`, who undoes it with `after` in any case.
async fn between<Told>(before: &[&str], after: &[&str], story: impl FnOnce() -> Told) -> Result<()>
where
    Told: Future<Output = Result<()>>,
{
    kubectl(before)?;
    let told = story().await;
    let undone = kubectl(after);
    told.and(undone.map(|_| ()))
}

#[tokio::test]
async fn backup_and_restore_run_where_their_volume_is_in_use() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("beside-its-workload", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::fill_many(&data, 20)?;
        for node in NODES {
            story.start(&Workload::on_node("app", "data", node)).await?;
            let name = format!("on-{node}");
            story.backup(&name, json!({})).await?;
            completed(&story, &name).await?;
            ensure!(node_of(&story, &format!("{name}-backup")).await? == node);

            let target = format!("target-{node}");
            story.volume(&target).await?;
            stop(&story, "app").await?;
            story
                .start(&Workload::on_node("reader", &target, node))
                .await?;
            let spec = json!({"backupName": name, "targetPVC": target, "allowInUse": true});
            let restore = format!("back-{node}");
            story.make::<Restore>(&restore, spec).await?;
            let status = story.wait_restore(&restore).await?.status;
            let status = status.unwrap_or_default();
            ensure!(status.phase == Some(Phase::Completed), "{status:#?}");
            ensure!(node_of(&story, &format!("{restore}-restore")).await? == node);
            stop(&story, "reader").await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_mover_follows_its_workload_onto_a_node_that_others_are_kept_from() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    let taint = [
        "taint",
        "node",
        "node-2",
        "tidelock.dev/story=alone:NoSchedule",
    ];
    let untaint = ["taint", "node", "node-2", "tidelock.dev/story-"];
    let story = || {
        tell("tainted", |story| async move {
            let data = story.volume("data").await?;
            story.volume("backup-storage").await?;
            tree::fill_many(&data, 20)?;
            let tolerations = json!([{
                "key": "tidelock.dev/story", "value": "alone", "effect": "NoSchedule",
            }]);
            let workload = Workload {
                tolerations,
                ..Workload::on_node("app", "data", "node-2")
            };
            story.start(&workload).await?;
            story.backup("now", json!({})).await?;
            completed(&story, "now").await?;
            ensure!(node_of(&story, "now-backup").await? == "node-2");
            Ok(())
        })
    };
    between(&taint, &untaint, story).await
}

#[tokio::test]
async fn a_node_that_takes_no_pods_is_told_with_why_it_has_to_be_that_one() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("cordoned", |story| async move {
        used_on_the_second(&story).await?;
        between(&["cordon", "node-2"], &["uncordon", "node-2"], || async {
            story.backup("now", json!({})).await?;
            let words = told(&story, "now", "PodPending").await?;
            for word in [
                "not scheduled",
                "node-2",
                "PersistentVolumeClaim data",
                "pod app",
            ] {
                ensure!(words.contains(word), "{words:?} lacks {word:?}");
            }
            Ok(())
        })
        .await?;
        completed(&story, "now").await?;
        ensure!(node_of(&story, "now-backup").await? == "node-2");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn volumes_in_use_on_two_nodes_are_waited_for_until_one_is_free() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("apart", |story| async move {
        used_on_the_second(&story).await?;
        let other = Workload::on_node("other", "backup-storage", "node-1");
        story.start(&other).await?;
        story.backup("now", json!({})).await?;
        let words = told(&story, "now", "VolumesApart").await?;
        for word in [
            "PersistentVolumeClaim data",
            "node-2 by pod app",
            "PersistentVolumeClaim backup-storage",
            "node-1 by pod other",
        ] {
            ensure!(words.contains(word), "{words:?} lacks {word:?}");
        }
        stop(&story, "other").await?;
        completed(&story, "now").await?;
        ensure!(node_of(&story, "now-backup").await? == "node-2");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn volumes_that_many_nodes_can_have_hold_nothing_up() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("shared", |story| async move {
        let data = story.volume_with_mode("data", "ReadWriteMany").await?;
        story
            .volume_with_mode("backup-storage", "ReadWriteMany")
            .await?;
        tree::fill_many(&data, 20)?;
        story
            .start(&Workload::on_node("app", "data", "node-2"))
            .await?;
        let other = Workload::on_node("other", "backup-storage", "node-1");
        story.start(&other).await?;
        story.backup("now", json!({})).await?;
        completed(&story, "now").await
    })
    .await
}

#[tokio::test]
async fn a_volume_that_nobody_uses_is_saved_on_the_node_that_has_it() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    for node in NODES {
        tell(&format!("has-{node}"), |story| async move {
            let data = story.volume_on_node("data", node).await?;
            story.volume("backup-storage").await?;
            tree::fill_many(&data, 20)?;
            story.backup("now", json!({})).await?;
            completed(&story, "now").await?;
            ensure!(node_of(&story, "now-backup").await? == node);
            Ok(())
        })
        .await?;
    }
    Ok(())
}
