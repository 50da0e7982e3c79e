//! Every panel shows something.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, Restore, VerificationResult};
use tidelock_e2e::outcome::{completed, restored};
use tidelock_e2e::prometheus::Prometheus;
use tidelock_e2e::{Story, tell, tree};
use tidelock_monitoring::dashboards;

use crate::operator::{refuse_statuses, take_statuses};
use crate::{OPERATOR, YEARLY, back_up, fast, movers_find_a_node, no_more_backups};

/// Policies and restores in every state that a panel shows.
async fn every_state(story: &Story) -> Result<()> {
    let data = story.volume("data").await?;
    let storage = story.volume("backup-storage").await?;
    story.volume("target").await?;
    tree::write(&data, "file", &tree::noise(100_000), 0o644)?;
    let more = json!({"retention": {"keepLast": 3}, "startDeadlineSeconds": 10});
    story.policy("nightly", YEARLY, more).await?;
    back_up(story, "now").await?;
    story.backup("alone", json!({})).await?;
    restores(story).await?;
    story
        .policy("held", YEARLY, json!({"suspend": true}))
        .await?;
    let nowhere = json!({"storage": {"pvcName": "nowhere"}});
    story.policy("failing", YEARLY, nowhere).await?;
    let failing = json!({"policyRef": "failing", "startDeadlineSeconds": 1});
    story.backup("failed", failing).await?;
    story.wait_backup("failed").await?;
    story
        .backup("waiting", json!({"policyRef": "failing"}))
        .await?;
    story.wait_backup("alone").await?;
    story.policy("wrong", "61 * * * *", json!({})).await?;
    shrunk(story).await?;
    damaged(story, &storage).await?;
    movers_find_a_node(story, false).await?;
    let each_minute = json!({"spec": {"verification": {"schedule": "* * * * *"}}});
    story.patch::<BackupPolicy>("nightly", each_minute).await?;
    busy(story).await?;
    no_more_backups(story, 0).await?;
    story.policy("late", "* * * * *", json!({})).await?;
    // From here on no status is written: what is late is known by the slots that stand there.
    let knows =
        |policy: &BackupPolicy| Some(policy.status.as_ref()?.next_scheduled_backup.is_some());
    story.wait_for("late", "to know its slot", knows).await?;
    let reads = |policy: &BackupPolicy| Some(policy.status.as_ref()?.next_verification.is_some());
    story
        .wait_for("nightly", "to know when to read again", reads)
        .await?;
    Ok(())
}

/// One that is done, one that failed, and one that waits.
async fn restores(story: &Story) -> Result<()> {
    story.restore("done", "now", "target").await?;
    restored(&story.wait_restore("done").await?)?;
    story.restore("refused", "now", "target").await?;
    story.wait_restore("refused").await?;
    story.restore("waits", "now", "missing").await?;
    Ok(())
}

/// A backup of the policy `policy`, which saves the claim `pvc`, that completes.
async fn completes(story: &Story, name: &str, (policy, pvc): (&str, &str)) -> Result<()> {
    let spec = json!({"policyRef": policy, "target": {"pvcName": pvc}});
    story.backup(name, spec).await?;
    completed(&story.wait_backup(name).await?)
}

/// A policy whose volume was emptied.
async fn shrunk(story: &Story) -> Result<()> {
    let volume = story.volume("emptied").await?;
    tree::write(&volume, "file", b"content", 0o644)?;
    let target = json!({"target": {"pvcName": "emptied"}});
    story.policy("shrunk", YEARLY, target).await?;
    completes(story, "full", ("shrunk", "emptied")).await?;
    fs::remove_file(volume.join("file"))?;
    completes(story, "empty", ("shrunk", "emptied")).await
}

/// A policy one of whose backups has rotted, as reading it again has found.
async fn damaged(story: &Story, storage: &Path) -> Result<()> {
    story.policy("rotten", YEARLY, json!({})).await?;
    completes(story, "rots", ("rotten", "data")).await?;
    let archive = storage.join(&story.namespace).join("data/rots.tar.gz");
    let mut bytes = fs::read(&archive)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&archive, bytes)?;
    let each_minute = json!({"spec": {"verification": {"schedule": "* * * * *"}}});
    story.patch::<BackupPolicy>("rotten", each_minute).await?;
    let found = |backup: &Backup| {
        let verification = backup.status.as_ref()?.verification.as_ref()?;
        Some(verification.result == VerificationResult::Failed)
    };
    story.wait_for("rots", "to be found damaged", found).await?;
    Ok(())
}

/// A policy whose backup goes on for as long as the story.
async fn busy(story: &Story) -> Result<()> {
    let volume = story.volume("large").await?;
    tree::long_read(&volume, 2000)?;
    let target = json!({"target": {"pvcName": "large"}});
    story.policy("busy", YEARLY, target.clone()).await?;
    let mut long = target;
    long["policyRef"] = json!("busy");
    story.backup("long", long).await?;
    let runs = |backup: &Backup| {
        let conditions = &backup.status.as_ref()?.conditions;
        Some(conditions.iter().any(|c| c.reason == "Running"))
    };
    story.wait_for("long", "to run", runs).await?;
    Ok(())
}

/// Asks every query, while reconciles of a policy fail.
async fn all_are_answered(story: &Story, prometheus: &Prometheus) -> Result<()> {
    // Its status has to follow, and cannot.
    let changed = json!({"spec": {"schedule": "0 0 2 1 *"}});
    story.patch::<BackupPolicy>("held", changed).await?;
    for asked in dashboards::queries() {
        let what = format!("an answer to {}", asked.expr);
        prometheus
            .wait(&what, |prometheus| answers(prometheus, story, &asked.expr))
            .await
            .with_context(|| asked.place.clone())?;
    }
    Ok(())
}

#[tokio::test]
async fn every_query_of_every_dashboard_returns_something() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("dashboards", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        every_state(&story).await?;
        refuse_statuses(&story).await?;
        let answered = all_are_answered(&story, &prometheus).await;
        take_statuses(&story).await?;
        answered?;
        // Series go with their object.
        story.kubectl(&["delete", "restore", "done", "refused", "waits"])?;
        story.wait_gone::<Restore>("done").await?;
        let left = format!(
            "tidelock_restore_phase{{namespace=\"{}\"}}",
            story.namespace
        );
        prometheus
            .wait("the restores' series to go", |prometheus| {
                let left = left.clone();
                async move { Ok(prometheus.query(&left).await?.is_empty()) }
            })
            .await
    })
    .await
}

/// What a query of a panel ends in that is to show 0 where there is nothing: it answers always.
const OR_ZERO: &str = " or vector(0)";
/// The story's policies.
const POLICIES: [&str; 8] = [
    "nightly", "held", "failing", "late", "wrong", "shrunk", "rotten", "busy",
];

/// Whether one of the story's policies makes `expr` return something, but for the 0 that stands for
/// nothing.
async fn answers(prometheus: &Prometheus, story: &Story, expr: &str) -> Result<bool> {
    let expr = expr.strip_suffix(OR_ZERO).unwrap_or(expr);
    let expr = expr.replace("$namespace", &story.namespace);
    for policy in POLICIES {
        let found = prometheus.query(&expr.replace("$policy", policy)).await?;
        if !found.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
