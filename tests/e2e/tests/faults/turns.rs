//! Whose turn it is where a storage has room for one mover.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;
use tidelock_api::{Backup, Phase, Restore};
use tidelock_e2e::local_operator::{Launch, in_place_of_the_clusters};
use tidelock_e2e::outcome::{completed, restored};
use tidelock_e2e::pods::{pause, resume};
use tidelock_e2e::{Story, tell, tree};

use crate::{OPERATOR, with_room};

/// Whether it waits at `place` for its storage.
fn is_queued(phase: Option<Phase>, conditions: &[Condition], place: usize) -> Option<bool> {
    let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
    let begins = format!("Place {place} ");
    let at_place = ready.message.starts_with(&begins) && ready.message.contains("use this storage");
    Some(phase? == Phase::Pending && ready.reason == "Queued" && at_place)
}

/// A backup that was made before a restore waits behind it, until the storage is free.
async fn overtaken(story: &Story) -> Result<()> {
    let data = story.volume("data").await?;
    story.volume("backup-storage").await?;
    let target = story.volume("target").await?;
    tree::write(&data, "file", b"content", 0o644)?;
    story.backup("stored", json!({})).await?;
    completed(&story.wait_backup("stored").await?)?;
    tree::long_read(&data, 4)?;

    story.backup("at-work", json!({})).await?;
    let pod: Pod = story.wait_job_pod("at-work-backup").await?;
    pause(&pod)?;
    story.backup("waits", json!({})).await?;
    story
        .wait_for("waits", "to be the next", |backup: &Backup| {
            let status = backup.status.as_ref()?;
            is_queued(status.phase, &status.conditions, 1)
        })
        .await?;
    story.restore("back", "stored", "target").await?;
    story
        .wait_for("back", "to be the next", |restore: &Restore| {
            let status = restore.status.as_ref()?;
            is_queued(status.phase, &status.conditions, 1)
        })
        .await?;
    story
        .wait_for("waits", "to be behind it", |backup: &Backup| {
            let status = backup.status.as_ref()?;
            is_queued(status.phase, &status.conditions, 2)
        })
        .await?;
    resume(&pod)?;

    let restore = story.wait_restore("back").await?;
    restored(&restore)?;
    ensure!(tree::stored(&target, "")?.len() == 1);
    let before = story.wait_backup("at-work").await?;
    let after = story.wait_backup("waits").await?;
    completed(&before)?;
    completed(&after)?;
    let (before, after) = (before.status, after.status);
    let before = before.and_then(|status| status.completion_time);
    let after = after.and_then(|status| status.start_time);
    let restore = restore.status.context("no status")?;
    // Each began when the one before it had ended.
    ensure!(before.is_some() && before <= restore.start_time);
    ensure!(restore.completion_time.is_some() && restore.completion_time <= after);
    Ok(())
}

#[test]
fn a_restore_is_the_next_on_its_storage_whatever_waited_before() -> Result<()> {
    with_room(restore_before_backup)
}

async fn restore_before_backup() -> Result<()> {
    let _turn = OPERATOR.lock().await;
    let told = tell("overtakes", async |story| {
        let launch = Launch::new(&story)?.with("MAX_MOVERS_PER_STORAGE", "1");
        let mut operator = launch.start(&story, None).await?;
        tokio::select! {
            ended = operator.killed() => ended?,
            told = overtaken(&story) => told?,
        }
        launch.forget_log();
        Ok(())
    });
    in_place_of_the_clusters(told).await
}
