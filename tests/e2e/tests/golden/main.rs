//! What `kubectl get`, `kubectl get --output=wide` and `kubectl describe` show in each state, word
//! for word. After a change on purpose: `INSTA_UPDATE=always make e2e SUITE=golden`, and read the
//! difference as the person would who is woken by it.

mod backups;
mod failures;
mod policies;
mod restores;
mod view;

use anyhow::Result;
use serde_json::json;
use tidelock_api::{Backup, Restore};
use tidelock_e2e::outcome::completed;
use tidelock_e2e::{Story, tree};
use tokio::sync::RwLock;

/// One story puts the cluster's operator aside, which the others would feel.
static OPERATOR: RwLock<()> = RwLock::const_new(());

/// A slot that never comes while a story is told.
const YEARLY: &str = "0 0 1 1 *";

/// The claims `data`, with two files, and `backup-storage`.
async fn volumes(story: &Story) -> Result<()> {
    let data = story.volume("data").await?;
    story.volume("backup-storage").await?;
    tree::write(&data, "orders.db", b"only copy", 0o640)?;
    tree::write(&data, "images/logo.svg", b"<svg/>", 0o644)
}

/// Makes the backup `name`, which completes.
async fn back_up(story: &Story, name: &str, more: serde_json::Value) -> Result<()> {
    story.backup(name, more).await?;
    completed(&story.wait_backup(name).await?)
}

/// Waits until the Backup `now` says `reason`.
async fn backup_says(story: &Story, reason: &str) -> Result<()> {
    let what = format!("to say {reason}");
    let says = |backup: &Backup| {
        let conditions = &backup.status.as_ref()?.conditions;
        let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
        Some(ready.reason == reason)
    };
    story.wait_for("now", &what, says).await?;
    Ok(())
}

/// Waits until the Restore `back` says `reason`.
async fn restore_says(story: &Story, reason: &str) -> Result<()> {
    let what = format!("to say {reason}");
    let says = |restore: &Restore| {
        let conditions = &restore.status.as_ref()?.conditions;
        let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
        Some(ready.reason == reason)
    };
    story.wait_for("back", &what, says).await?;
    Ok(())
}

/// What `kubectl wait` says when the object comes to meet `condition`.
fn kubectl_wait(story: &Story, object: &str, condition: &str) -> Result<()> {
    let condition = format!("--for={condition}");
    story.kubectl(&["wait", object, &condition, "--timeout=120s"])?;
    Ok(())
}

/// A selector that no node meets.
fn nowhere() -> serde_json::Value {
    json!({"mover": {"nodeSelector": {"tidelock.dev/no-such-node": "true"}}})
}
