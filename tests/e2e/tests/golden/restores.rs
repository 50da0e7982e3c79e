//! Restores in each state.

use anyhow::Result;
use insta::assert_snapshot;
use serde_json::json;
use tidelock_api::Restore;
use tidelock_e2e::{tell, tree};

use crate::{OPERATOR, back_up, kubectl_wait, restore_says, view, volumes};

#[tokio::test]
async fn one_that_is_refused_and_one_that_completes() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-restored", |story| async move {
        volumes(&story).await?;
        let target = story.volume("target").await?;
        back_up(&story, "now", json!({})).await?;
        tree::write(&target, "in-the-way", b"kept", 0o644)?;
        story.restore("back", "now", "target").await?;
        kubectl_wait(&story, "restore/back", "condition=Stalled")?;
        assert_snapshot!("restore_refused", view::of(&story, "restore", "back")?);
        std::fs::remove_file(target.join("in-the-way"))?;
        story.restore("again", "now", "target").await?;
        kubectl_wait(&story, "restore/again", "condition=Ready")?;
        assert_snapshot!("restore_completed", view::of(&story, "restore", "again")?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_that_runs() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-restoring", |story| async move {
        volumes(&story).await?;
        let data = story.volumes_folder()?.join("data");
        // The first look at a mover comes after some seconds.
        tree::fill_many(&data, 120_000)?;
        story.volume("target").await?;
        back_up(&story, "now", json!({})).await?;
        story.restore("back", "now", "target").await?;
        let moving = |restore: &Restore| Some(restore.status.as_ref()?.progress.is_some());
        story.wait_for("back", "to move", moving).await?;
        assert_snapshot!("restore_running", view::of(&story, "restore", "back")?);
        story
            .patch::<Restore>("back", json!({"spec": {"cancel": true}}))
            .await?;
        story.wait_restore("back").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_that_waits_for_its_target() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-waits", |story| async move {
        volumes(&story).await?;
        back_up(&story, "now", json!({})).await?;
        story.restore("back", "now", "target").await?;
        restore_says(&story, "PVCNotFound").await?;
        assert_snapshot!("restore_waiting", view::of(&story, "restore", "back")?);
        Ok(())
    })
    .await
}
