//! Every panel shows something.

use anyhow::{Context, Result};
use serde_json::json;
use tidelock_api::{BackupPolicy, Restore};
use tidelock_e2e::outcome::restored;
use tidelock_e2e::prometheus::Prometheus;
use tidelock_e2e::{Story, tell, tree};
use tidelock_monitoring::dashboards;

use crate::{OPERATOR, YEARLY, back_up, fast, movers_find_a_node, no_more_backups};

/// Policies and restores in every state that a panel shows.
async fn every_state(story: &Story) -> Result<()> {
    let data = story.volume("data").await?;
    story.volume("backup-storage").await?;
    story.volume("target").await?;
    tree::write(&data, "file", b"content", 0o644)?;
    let more = json!({"retention": {"keepLast": 3}, "startDeadlineSeconds": 10});
    story.policy("nightly", YEARLY, more).await?;
    back_up(story, "now").await?;
    story.backup("alone", json!({})).await?;
    story.restore("done", "now", "target").await?;
    restored(&story.wait_restore("done").await?)?;
    story.restore("waits", "now", "missing").await?;
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
    movers_find_a_node(story, false).await?;
    let each_minute = json!({"spec": {"verification": {"schedule": "* * * * *"}}});
    story.patch::<BackupPolicy>("nightly", each_minute).await?;
    no_more_backups(story, 0).await?;
    story.policy("late", "* * * * *", json!({})).await?;
    Ok(())
}

#[tokio::test]
async fn every_query_of_every_dashboard_returns_something() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("dashboards", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        every_state(&story).await?;
        for asked in dashboards::queries() {
            let answered = async {
                prometheus
                    .wait(&format!("an answer to {}", asked.expr), |prometheus| {
                        answers(prometheus, &story, &asked.expr)
                    })
                    .await
            };
            answered.await.with_context(|| asked.place.clone())?;
        }
        // Series go with their object.
        story.kubectl(&["delete", "restore", "done", "waits"])?;
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

/// Whether one of the story's policies makes `expr` return something.
async fn answers(prometheus: &Prometheus, story: &Story, expr: &str) -> Result<bool> {
    let expr = expr.replace("$namespace", &story.namespace);
    for policy in ["nightly", "held", "failing", "late"] {
        let found = prometheus.query(&expr.replace("$policy", policy)).await?;
        if !found.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
