//! Conditions that are caused for real, and the alerts and dashboards that tell of them in a real
//! Prometheus.

mod alerts;
mod dashboards;
mod operator;

use anyhow::Result;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy};
use tidelock_e2e::Story;
use tidelock_e2e::outcome::completed;
use tidelock_monitoring::pace::Pace;
use tokio::sync::RwLock;

/// The operator goes away in one story, which the others would feel.
static OPERATOR: RwLock<()> = RwLock::const_new(());

/// A slot that never comes while a story is told.
const YEARLY: &str = "0 0 1 1 *";

/// A quarter of an hour in three seconds.
fn fast() -> Pace {
    Pace::faster_by(300)
}

/// The labels of an alert about the story's policy `nightly`.
fn nightly(story: &Story) -> [(&str, &str); 2] {
    [("namespace", &story.namespace), ("policy", "nightly")]
}

/// Makes a backup of the policy `nightly` that completes.
async fn back_up(story: &Story, name: &str) -> Result<Backup> {
    story.backup(name, json!({"policyRef": "nightly"})).await?;
    let backup = story.wait_backup(name).await?;
    completed(&backup)?;
    Ok(backup)
}

/// Lets the API server take no Backups beyond `most` in the story's namespace.
async fn no_more_backups(story: &Story, most: usize) -> Result<()> {
    let hard = format!("--hard=count/backups.tidelock.dev={most}");
    story.kubectl(&["create", "quota", "full", &hard])?;
    story
        .wait_for("full", "to be in force", |quota: &ResourceQuota| {
            let hard = quota.status.as_ref()?.hard.as_ref()?;
            Some(hard.contains_key("count/backups.tidelock.dev"))
        })
        .await?;
    Ok(())
}

/// Lets no mover of the policy `nightly` find a node, or any.
async fn movers_find_a_node(story: &Story, find: bool) -> Result<()> {
    let selector = json!({"tidelock.dev/no-such-node": "true"});
    let mover = if find {
        json!(null)
    } else {
        json!({"nodeSelector": selector})
    };
    let patch = json!({"spec": {"mover": mover}});
    story.patch::<BackupPolicy>("nightly", patch).await?;
    Ok(())
}
