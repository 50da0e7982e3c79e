//! Restores of a policy's backup that is not named.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, Phase, Restore};
use tidelock_e2e::{Story, tell, tree};

use crate::support::{completed, restored};

/// Backs up `data` with `state` in it; when that was completed.
async fn backed_up(story: &Story, data: &Path, state: &str) -> Result<Timestamp> {
    tree::write(data, "state", state.as_bytes(), 0o644)?;
    story.backup(state, json!({"policyRef": "nightly"})).await?;
    let backup: Backup = story.wait_backup(state).await?;
    completed(&backup)?;
    let at = backup.status.and_then(|status| status.completion_time);
    Ok(at.context("it was never completed")?.0)
}

/// Waits until the Restore `name` has chosen `backup`, and waits for its target.
async fn waits_with(story: &Story, name: &str, backup: &str) -> Result<()> {
    let what = format!("to choose {backup} and wait");
    story
        .wait_for(name, &what, |restore: &Restore| {
            let status = restore.status.as_ref()?;
            let ready = status.conditions.iter().find(|c| c.type_ == "Ready")?;
            let chosen = status.backup_name.as_deref()? == backup;
            let waits = status.phase? == Phase::Pending && ready.reason == "PVCNotFound";
            Some(chosen && waits)
        })
        .await?;
    Ok(())
}

async fn prove_new_ones(story: &Story, level: &str) -> Result<()> {
    let level = json!({"spec": {"verification": {"onBackup": level}}});
    let patched: BackupPolicy = story.patch("nightly", level).await?;
    // Lest the next Backup is seen before this.
    story
        .wait_for("nightly", "to be seen", |policy: &BackupPolicy| {
            Some(policy.status.as_ref()?.observed_generation? >= patched.metadata.generation?)
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_restore_as_of_a_moment_takes_the_newest_verified_backup_of_then_whatever_comes_later()
-> Result<()> {
    tell("as-of", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        story.policy("nightly", "0 0 1 1 *", json!({})).await?;
        backed_up(&story, &data, "older").await?;
        let newest = backed_up(&story, &data, "newest").await?;
        prove_new_ones(&story, "None").await?;
        let unproven = backed_up(&story, &data, "unproven").await?;
        prove_new_ones(&story, "Full").await?;
        let later = backed_up(&story, &data, "later").await?;
        ensure!(
            newest < unproven && unproven < later,
            "{newest}, {unproven} and {later} do not tell the backups apart"
        );

        let of_policy = json!({"policyName": "nightly"});
        let of_then = json!({"policyName": "nightly", "asOf": unproven});
        for (name, from, chosen) in [
            (
                "exactly",
                json!({"policyName": "nightly", "asOf": newest}),
                "newest",
            ),
            ("then", of_then, "newest"),
            ("now", of_policy, "later"),
        ] {
            let spec = json!({"from": from, "targetPVC": format!("for-{name}")});
            story.make::<Restore>(name, spec).await?;
            waits_with(&story, name, chosen).await?;
        }
        // A better choice for the last of them, were it to choose again.
        backed_up(&story, &data, "latest").await?;
        for (name, chosen) in [("exactly", "newest"), ("then", "newest"), ("now", "later")] {
            let target = story.volume(&format!("for-{name}")).await?;
            let restore = story.wait_restore(name).await?;
            restored(&restore)?;
            let kept = restore.status.and_then(|status| status.backup_name);
            ensure!(kept.as_deref() == Some(chosen), "{name} took {kept:?}");
            let found = std::fs::read_to_string(target.join("state"))?;
            ensure!(found == chosen, "{name} restored {found}");
        }
        Ok(())
    })
    .await
}
