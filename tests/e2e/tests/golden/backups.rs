//! Backups in each state.

use anyhow::{Context, Result};
use insta::assert_snapshot;
use serde_json::json;
use tidelock_api::Backup;
use tidelock_e2e::local_operator::{Launch, in_place_of_the_clusters};
use tidelock_e2e::{Story, tell, tree};

use crate::{OPERATOR, back_up, backup_says, kubectl_wait, nowhere, view, volumes};

#[tokio::test]
async fn a_completed_one() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-completed", |story| async move {
        volumes(&story).await?;
        back_up(&story, "now", json!({})).await?;
        kubectl_wait(&story, "backup/now", "condition=Ready")?;
        kubectl_wait(&story, "backup/now", "condition=Verified")?;
        kubectl_wait(&story, "backup/now", "jsonpath={.status.phase}=Completed")?;
        assert_snapshot!("backup_completed", view::of(&story, "backup", "now")?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_running_one_and_what_it_becomes_when_cancelled() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-running", |story| async move {
        volumes(&story).await?;
        let data = story.volumes_folder()?.join("data");
        // Read before the long one, as files are taken by their names.
        for name in ["accounts.db", "catalogue.db"] {
            tree::write(&data, name, b"content", 0o640)?;
        }
        tree::long_read(&data, 12)?;
        // How much there was last time says how much is left.
        let unread = json!({"verification": {"onBackup": "None"}});
        back_up(&story, "before", unread).await?;
        story.backup("now", json!({})).await?;
        let moving = |backup: &Backup| {
            let progress = backup.status.as_ref()?.progress.as_ref()?;
            Some(progress.files > 0 && progress.summary.ends_with(" left"))
        };
        story.wait_for("now", "to move", moving).await?;
        assert_snapshot!("backup_running", view::of(&story, "backup", "now")?);
        let cancel = json!({"spec": {"cancel": true}});
        story.patch::<Backup>("now", cancel).await?;
        kubectl_wait(&story, "backup/now", "condition=Stalled")?;
        assert_snapshot!("backup_cancelled", view::of(&story, "backup", "now")?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_that_is_stuck_and_fails_in_the_end() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-stuck", |story| async move {
        volumes(&story).await?;
        let mut spec = nowhere();
        spec["startDeadlineSeconds"] = json!(20);
        story.backup("now", spec).await?;
        backup_says(&story, "PodPending").await?;
        assert_snapshot!("backup_stuck", view::of(&story, "backup", "now")?);
        kubectl_wait(&story, "backup/now", "condition=Stalled")?;
        assert_snapshot!("backup_never_started", view::of(&story, "backup", "now")?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_that_waits_for_its_volume_and_fails_in_the_end() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-no-volume", |story| async move {
        story.volume("backup-storage").await?;
        story
            .backup("now", json!({"startDeadlineSeconds": 15}))
            .await?;
        backup_says(&story, "PVCNotFound").await?;
        assert_snapshot!("backup_waiting", view::of(&story, "backup", "now")?);
        kubectl_wait(&story, "backup/now", "condition=Stalled")?;
        assert_snapshot!("backup_without_volume", view::of(&story, "backup", "now")?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_whose_storage_is_full() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-full", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.small_volume("backup-storage", 16).await?;
        tree::write(&data, "orders.db", &tree::noise(1 << 20), 0o640)?;
        storage.leave_free(20)?;
        story.backup("now", json!({})).await?;
        kubectl_wait(&story, "backup/now", "condition=Stalled")?;
        assert_snapshot!("backup_storage_full", view::of(&story, "backup", "now")?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_that_takes_too_long() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-timeout", |story| async move {
        volumes(&story).await?;
        tree::long_read(&story.volumes_folder()?.join("data"), 400)?;
        story
            .backup("now", json!({"mover": {"timeoutSeconds": 5}}))
            .await?;
        kubectl_wait(&story, "backup/now", "condition=Stalled")?;
        assert_snapshot!("backup_timed_out", view::of(&story, "backup", "now")?);
        Ok(())
    })
    .await
}

/// Tells `story` with an operator that lets one mover run at once.
async fn one_at_a_time(name: &str, story: impl AsyncFnOnce(&Story) -> Result<()>) -> Result<()> {
    let told = tell(name, async |setting: Story| {
        let launch = Launch::new(&setting)?.with("MAX_MOVERS", "1");
        let mut operator = launch.start(&setting, None).await?;
        tokio::select! {
            ended = operator.killed() => ended.context("the operator was killed")?,
            told = story(&setting) => told?,
        }
        launch.forget_log();
        Ok(())
    });
    in_place_of_the_clusters(told).await
}

#[tokio::test]
async fn one_that_waits_for_its_turn() -> Result<()> {
    let _alone = OPERATOR.write().await;
    one_at_a_time("golden-queued", async |story| {
        volumes(story).await?;
        tree::long_read(&story.volumes_folder()?.join("data"), 400)?;
        story.backup("first", json!({})).await?;
        let runs = |backup: &Backup| {
            let status = backup.status.as_ref()?;
            Some(status.phase == Some(tidelock_api::Phase::Running))
        };
        story.wait_for("first", "to run", runs).await?;
        story.backup("now", json!({})).await?;
        backup_says(story, "Queued").await?;
        assert_snapshot!("backup_queued", view::of(story, "backup", "now")?);
        for name in ["now", "first"] {
            story
                .patch::<Backup>(name, json!({"spec": {"cancel": true}}))
                .await?;
            story.wait_backup(name).await?;
        }
        Ok(())
    })
    .await
}
