//! Targets of restores that are too small, and that fill up under a restore.

use anyhow::{Result, ensure};
use rustix::process::{Signal, kill_process};
use serde_json::json;
use tidelock_e2e::outcome::{completed, restore_failure, restored, says};
use tidelock_e2e::pods::processes;
use tidelock_e2e::wait::until;
use tidelock_e2e::{tell, tree};

#[tokio::test]
async fn a_target_that_fills_up_during_a_restore_fails_it_and_is_empty_again() -> Result<()> {
    tell("target-fills", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        let target = story.small_volume("target", 256).await?;
        for number in 0..16 {
            tree::write(&data, &format!("f{number}"), &tree::noise(8 << 20), 0o644)?;
        }
        story.backup("now", json!({})).await?;
        completed(&story.wait_backup("now").await?)?;
        story.slow_restore("back", "now", "target").await?;
        let pod = story.wait_job_pod("back-restore").await?;
        // The checks have passed: it holds still while somebody else takes the space.
        until("the restore to write its first file", || {
            let written = tree::stored(&target.volume(), "")?;
            Ok(written.iter().any(|path| path.starts_with("f0")))
        })
        .await?;
        let movers = processes(&pod)?;
        for process in &movers {
            kill_process(*process, Signal::STOP)?;
        }
        target.leave_free(0)?;
        for process in &movers {
            kill_process(*process, Signal::CONT)?;
        }
        let restore = story.wait_restore("back").await?;
        let words = [
            "No space left on device",
            "use a larger volume",
            "had been written",
            "The target is empty again",
        ];
        says(restore_failure(&restore)?, "TargetFull", &words)?;

        let larger = story.volume("larger").await?;
        story.restore("again", "now", "larger").await?;
        restored(&story.wait_restore("again").await?)?;
        tree::compare(&data, &larger)
    })
    .await
}

#[tokio::test]
async fn a_target_that_is_too_small_is_found_before_the_first_write() -> Result<()> {
    tell("target-small", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        let target = story.small_volume("target", 8).await?;
        tree::write(&data, "large", &tree::noise(16 << 20), 0o644)?;
        story.backup("now", json!({})).await?;
        completed(&story.wait_backup("now").await?)?;
        story.restore("back", "now", "target").await?;
        let restore = story.wait_restore("back").await?;
        let words = ["Nothing was written to the target"];
        says(restore_failure(&restore)?, "TargetTooSmall", &words)?;
        let written = tree::stored(&target.volume(), "")?;
        ensure!(written.is_empty(), "{written:?} was written");
        Ok(())
    })
    .await
}
