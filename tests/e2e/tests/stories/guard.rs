//! Backups that hold suspiciously little, and what they may not displace.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use tidelock_api::{Backup, BackupPolicy};
use tidelock_e2e::{Story, tell, tree};

use crate::support::{backup_failure, completed, says};

/// The Suspicious condition of a Backup of the policy `nightly` that completed.
async fn suspicion(story: &Story, name: &str, more: Value) -> Result<Condition> {
    let mut spec = json!({"policyRef": "nightly"});
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    story.backup(name, spec).await?;
    let backup = story.wait_backup(name).await?;
    completed(&backup)?;
    let conditions = backup.status.context("no status")?.conditions;
    let found = conditions
        .into_iter()
        .find(|condition| condition.type_ == "Suspicious");
    found.with_context(|| format!("Backup {name} does not say whether it is suspicious"))
}

#[tokio::test]
async fn an_empty_source_is_told_and_displaces_no_good_backup_until_it_is_accepted() -> Result<()> {
    tell("empty-source", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let keep_one = json!({"retention": {"keepLast": 1}});
        story.policy("nightly", "0 0 1 1 *", keep_one).await?;
        let full = suspicion(&story, "full", json!({})).await?;
        ensure!(full.status == "False", "{full:?}");

        fs::remove_file(data.join("file"))?;
        for name in ["empty", "still-empty"] {
            let empty = suspicion(&story, name, json!({})).await?;
            ensure!((empty.status.as_str(), empty.reason.as_str()) == ("True", "EmptySource"));
            for words in ["full", "1 file", "tidelock.dev/accept-suspicious"] {
                ensure!(empty.message.contains(words), "{empty:?}");
            }
        }
        let all = |policy: &BackupPolicy| Some(policy.status.as_ref()?.completed_backups == 3);
        let policy = story.wait_for("nightly", "to count all", all).await?;
        ensure!(policy.status.is_some_and(|status| status.good_backups == 1));
        let full: Backup = story.api().get("full").await?;
        ensure!(full.metadata.deletion_timestamp.is_none());

        // A person accepts the newest: now it is the good one, and the others go.
        let accepted =
            json!({"metadata": {"annotations": {"tidelock.dev/accept-suspicious": "true"}}});
        let empty = story.patch::<Backup>("still-empty", accepted).await?;
        for name in ["full", "empty"] {
            story.wait_gone::<Backup>(name).await?;
        }
        let told = story.event_reasons(&empty).await?;
        ensure!(told.contains(&"BackupSuspicious".to_owned()), "{told:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_source_that_shrank_by_much_is_told_with_both_figures() -> Result<()> {
    tell("shrunk", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "large", &tree::noise(4096), 0o644)?;
        tree::write(&data, "small", &tree::noise(1024), 0o644)?;
        story.policy("nightly", "0 0 1 1 *", json!({})).await?;
        suspicion(&story, "before", json!({})).await?;
        fs::remove_file(data.join("large"))?;
        let shrunk = suspicion(&story, "after", json!({})).await?;
        ensure!((shrunk.status.as_str(), shrunk.reason.as_str()) == ("True", "ShrunkBytes"));
        for words in ["1.0 KiB", "5.0 KiB", "before", "maxShrinkPercent=50"] {
            ensure!(shrunk.message.contains(words), "{shrunk:?}");
        }
        let lenient = json!({"guard": {"maxShrinkPercent": 90}});
        let expected = suspicion(&story, "expected", lenient).await?;
        ensure!(expected.status == "False", "{expected:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn replace_cancels_the_active_backup_and_runs_the_due_one() -> Result<()> {
    tell("replace", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        // One that waits for its storage is active for as long as it likes.
        let replace = json!({"concurrencyPolicy": "Replace"});
        story.policy("minutely", "* * * * *", replace).await?;
        let waits = json!({"policyRef": "minutely", "storage": {"pvcName": "nowhere"}});
        story.backup("waits", waits).await?;
        let waits = story.wait_backup("waits").await?;
        says(backup_failure(&waits)?, "Cancelled", &[])?;
        let policy = story
            .wait_for(
                "minutely",
                "to have a good backup",
                |policy: &BackupPolicy| {
                    Some(
                        policy
                            .status
                            .as_ref()?
                            .last_successful_backup_time
                            .is_some(),
                    )
                },
            )
            .await?;
        let told = story.event_reasons(&policy).await?;
        let replaced = told.iter().filter(|reason| *reason == "BackupReplaced");
        ensure!(replaced.count() == 1, "{told:?}");
        let all = story.api::<Backup>().list(&ListParams::default()).await?;
        let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
        ensure!(
            names.iter().any(|name| name.starts_with("minutely-")),
            "{names:?}"
        );
        Ok(())
    })
    .await
}
