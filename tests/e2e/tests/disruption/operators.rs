//! Operators that die, and operators that are too many.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, Phase, Restore};
use tidelock_e2e::deployment::{REPLICAS, scale};
use tidelock_e2e::pods::{kill_processes, operator_pods};
use tidelock_e2e::{Story, outcome, tell, tree};
use tokio::sync::Mutex;

/// These stories share the one operator, so they take turns.
static OPERATOR: Mutex<()> = Mutex::const_new(());

/// Each run of the story ended well, with one Job, one pod, and each Event once.
async fn ended_once(story: &Story, names: &[String]) -> Result<()> {
    for name in names {
        outcome::completed_once(story, name).await?;
        let pods = outcome::pods_of_job(story, &format!("{name}-backup")).await?;
        ensure!(pods.len() == 1, "{name} had {} pods", pods.len());
    }
    let jobs = story.api::<Job>().list(&ListParams::default()).await?;
    ensure!(jobs.items.len() == names.len(), "{} Jobs", jobs.items.len());
    Ok(())
}

async fn kill_operators(story: &Story) -> Result<()> {
    let deadline = Timestamp::now() + tidelock_e2e::wait::DEADLINE;
    loop {
        let mut killed = 0;
        for pod in operator_pods(&story.client).await? {
            killed += kill_processes(&pod)?;
        }
        if killed > 0 {
            return Ok(());
        }
        ensure!(
            Timestamp::now() < deadline,
            "no operator was there to be killed"
        );
        // One that was killed before is on its way back; the API tells its container's name a
        // little later than it starts.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn an_operator_killed_while_a_backup_runs_ends_it_once_and_right() -> Result<()> {
    let _turn = OPERATOR.lock().await;
    tell("operator-killed", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::fill_sample(&data)?;
        tree::long_read(&data, 6)?;
        story.backup("now", json!({})).await?;
        story.wait_job_pod("now-backup").await?;
        kill_operators(&story).await?;
        ended_once(&story, &["now".to_owned()]).await?;
        ensure!(tree::archives(&storage)?.len() == 1);
        ensure!(tree::stored(&storage, ".manifest.json")?.len() == 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_operator_killed_at_any_moment_of_many_runs_loses_and_doubles_none() -> Result<()> {
    let _turn = OPERATOR.lock().await;
    tell("operator-killed-often", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::fill_many(&data, 500)?;
        let names: Vec<String> = (0..8).map(|number| format!("run-{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            story.backup(name, json!({})).await?;
            // Kills fall before, between and after the effects of the runs that are under way.
            if number % 3 == 1 {
                let seen = story.wait_for(name, "to be seen", |backup: &Backup| {
                    Some(backup.status.is_some())
                });
                seen.await?;
                kill_operators(&story).await?;
            }
        }
        ended_once(&story, &names).await?;
        ensure!(tree::archives(&storage)?.len() == names.len());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn three_operators_at_once_make_one_job_for_each_run() -> Result<()> {
    let _turn = OPERATOR.lock().await;
    tell("three-operators", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        let target = story.volume("target").await?;
        tree::fill_many(&data, 100)?;
        scale(&story.client, 3).await?;
        let names: Vec<String> = (0..10).map(|number| format!("run-{number}")).collect();
        for name in &names {
            story.backup(name, json!({})).await?;
        }
        let ended = ended_once(&story, &names).await;
        if ended.is_ok() {
            story.restore("back", &names[0], "target").await?;
            let restore: Restore = story.wait_restore("back").await?;
            ensure!(
                restore
                    .status
                    .is_some_and(|s| s.phase == Some(Phase::Completed))
            );
            tree::compare(&data, &target)?;
        }
        scale(&story.client, REPLICAS).await?;
        ended?;
        ensure!(
            operator_pods(&story.client)
                .await?
                .iter()
                .any(|pod| !pod.name_any().is_empty())
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_policy_deleted_in_the_foreground_while_no_operator_runs_takes_no_data_along()
-> Result<()> {
    let _turn = OPERATOR.lock().await;
    tell("cascade", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        story
            .policy(
                "nightly",
                "0 0 1 1 *",
                json!({"retention": {"keepLast": 50}}),
            )
            .await?;
        let names: Vec<String> = (0..20).map(|number| format!("run-{number}")).collect();
        for name in &names {
            story.backup(name, json!({"policyRef": "nightly"})).await?;
        }
        for name in &names {
            let backup = story.wait_backup(name).await?;
            ensure!(
                backup
                    .status
                    .is_some_and(|status| status.phase == Some(Phase::Completed))
            );
        }
        scale(&story.client, 0).await?;
        let policies = story.api::<BackupPolicy>();
        policies
            .delete("nightly", &DeleteParams::foreground())
            .await?;
        for name in &names {
            story
                .wait_for(
                    name,
                    "to be marked by the garbage collector",
                    |backup: &Backup| Some(backup.metadata.deletion_timestamp.is_some()),
                )
                .await?;
        }
        scale(&story.client, REPLICAS).await?;
        for name in &names {
            story.wait_gone::<Backup>(name).await?;
        }
        story.wait_gone::<BackupPolicy>("nightly").await?;
        let left = tree::archives(&storage)?;
        ensure!(left.len() == names.len(), "only {left:?} are left");
        let retained = story.api::<k8s_openapi::api::events::v1::Event>();
        let retained = retained
            .list(&ListParams::default().fields("reason=DataRetained"))
            .await?;
        ensure!(
            retained.items.len() == names.len(),
            "{} told",
            retained.items.len()
        );
        let jobs = story.api::<Job>().list(&ListParams::default()).await?;
        let deletes = jobs
            .items
            .iter()
            .filter(|job| job.name_any().starts_with("tidelock-delete"));
        ensure!(deletes.count() == 0, "a delete Job was made");
        Ok(())
    })
    .await
}
