//! Names at the limits.

use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use tidelock_e2e::{tell, tree};

use crate::support::{completed, restored};

#[tokio::test]
async fn names_of_any_length_make_jobs_archives_and_restores() -> Result<()> {
    tell("names", |story| async move {
        let data = story.volume("data").await?;
        let target = story.volume("target").await?;
        let storage = story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let dotted = "nightly.shop.example.com";
        let label = "l".repeat(63);
        let longest = format!("{}.{}", "m".repeat(126), "n".repeat(126));
        for name in [dotted, &label, &longest] {
            story.backup(name, json!({})).await?;
        }
        for name in [dotted, &label, &longest] {
            let backup = story.wait_backup(name).await?;
            completed(&backup)?;
            let job = backup
                .status
                .and_then(|status| status.job_name)
                .unwrap_or_default();
            ensure!(job.len() <= 63, "{job}");
        }
        ensure!(tree::archives(&storage)?.len() == 3);
        story.restore(&longest, &longest, "target").await?;
        let restore = story.wait_restore(&longest).await?;
        restored(&restore)?;
        ensure!(restore.name_any().len() == 253);
        tree::compare(&data, &target)
    })
    .await
}

#[tokio::test]
async fn a_policy_with_the_longest_name_still_fires_and_trims() -> Result<()> {
    tell("long-policy", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let name = "p".repeat(253);
        story
            .policy(&name, "0 0 1 1 *", json!({"retention": {"keepLast": 1}}))
            .await?;
        for backup in ["one", "two"] {
            story.backup(backup, json!({"policyRef": name})).await?;
            let ended = story.wait_backup(backup).await?;
            completed(&ended)?;
            ensure!(
                ended
                    .labels()
                    .get("tidelock.dev/policy")
                    .is_some_and(|l| l.len() <= 63)
            );
        }
        story.wait_gone::<tidelock_api::Backup>("one").await
    })
    .await
}
