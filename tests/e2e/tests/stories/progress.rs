//! How far a run under way is.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidelock_api::{Backup, Phase, ProgressStep};
use tidelock_e2e::{tell, tree};

use crate::support::{backup_failure, completed, says};

#[tokio::test]
async fn a_running_backup_tells_bytes_rate_and_remaining_time_until_it_ends() -> Result<()> {
    tell("progress", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::fill_many(&data, 10)?;
        std::fs::write(data.join("half"), tree::noise(1 << 20))?;
        story.backup("before", json!({})).await?;
        let before = story.wait_backup("before").await?;
        completed(&before)?;
        let status = before.status.context("no status")?;
        ensure!(status.progress.is_none(), "an ended run is under way");

        tree::long_read(&data, 400)?;
        story.backup("now", json!({})).await?;
        let moving = |backup: &Backup| {
            let progress = backup.status.as_ref()?.progress.as_ref()?;
            Some(progress.bytes_per_second.is_some())
        };
        let backup = story.wait_for("now", "to move", moving).await?;
        let progress = backup.status.and_then(|status| status.progress);
        let progress = progress.context("no progress")?;
        ensure!(progress.step == ProgressStep::Saving, "{progress:?}");
        ensure!(
            progress.bytes > 0 && progress.total_bytes > Some(1 << 20),
            "{progress:?}"
        );
        ensure!(progress.summary.starts_with("Saving "), "{progress:?}");
        let wide = story.kubectl(&["get", "backup", "now", "--output=wide"])?;
        ensure!(
            wide.contains(&*progress.summary) || wide.contains("Saving "),
            "{wide}"
        );

        let cancel = json!({"spec": {"cancel": true}});
        story.patch::<Backup>("now", cancel).await?;
        let ended = story.wait_backup("now").await?;
        says(backup_failure(&ended)?, "Cancelled", &["spec.cancel"])?;
        let status = ended.status.context("no status")?;
        ensure!(status.phase == Some(Phase::Failed) && status.progress.is_none());
        Ok(())
    })
    .await
}
