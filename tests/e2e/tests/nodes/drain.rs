//! Nodes that an administrator drains.

use std::future::Future;

use anyhow::{Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tidelock_e2e::cluster::kubectl;
use tidelock_e2e::nodes::{self, LEFT, LOST, starting_on_the_second};
use tidelock_e2e::outcome::{completed_once, one_backup_stored, pods_of_job, restored_once};
use tidelock_e2e::wait::until_written;
use tidelock_e2e::{Story, tell, tree};

use crate::CLUSTER;

/// Does `story` while the second node is drained as an administrator drains it.
async fn while_drained<Told, Found>(story: impl FnOnce() -> Told) -> Result<Found>
where
    Told: Future<Output = Result<Found>>,
{
    let drained = kubectl(&[
        "drain",
        LOST,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=120s",
    ]);
    let told = match drained {
        Ok(_) => story().await,
        Err(error) => Err(error),
    };
    let open = kubectl(&["uncordon", LOST]);
    let found = told?;
    open.map(|_| found)
}

/// The Job went on elsewhere, and no try was counted against it.
async fn went_on_elsewhere(story: &Story, job: &str, first: &Pod) -> Result<()> {
    let status = story.api::<Job>().get(job).await?.status;
    let failed = status.and_then(|status| status.failed).unwrap_or(0);
    ensure!(failed == 0, "{failed} tries were counted");
    let others = pods_of_job(story, job).await?;
    let other = others
        .iter()
        .find(|pod| pod.metadata.uid != first.metadata.uid);
    ensure!(
        other.is_some_and(|pod| nodes::of(pod).is_ok_and(|node| node == LEFT)),
        "no pod of {job} on {LEFT}: {others:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_drain_moves_backup_and_restore_to_another_node_and_costs_no_try() -> Result<()> {
    let _turn = CLUSTER.lock().await;
    tell("drained", |story| async move {
        nodes::ready_to_lose(&story).await?;
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        let target = story.volume("target").await?;
        tree::fill_sample(&data)?;
        tree::long_read(&data, 2)?;

        let pod = starting_on_the_second(|| async {
            story.backup("now", json!({})).await?;
            story.wait_job_pod("now-backup").await
        })
        .await?;
        ensure!(nodes::of(&pod)? == LOST);
        while_drained(|| completed_once(&story, "now")).await?;
        went_on_elsewhere(&story, "now-backup", &pod).await?;
        one_backup_stored(&storage)?;

        let pod = starting_on_the_second(|| async {
            story.slow_restore("back", "now", "target").await?;
            let pod = story.wait_job_pod("back-restore").await?;
            until_written(&target).await?;
            Ok(pod)
        })
        .await?;
        while_drained(|| restored_once(&story, "back")).await?;
        went_on_elsewhere(&story, "back-restore", &pod).await?;
        tree::compare(&data, &target)
    })
    .await
}
