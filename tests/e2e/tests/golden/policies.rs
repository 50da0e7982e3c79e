//! Policies in each state.

use anyhow::Result;
use insta::assert_snapshot;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::json;
use tidelock_api::{BackupPolicy, Phase};
use tidelock_e2e::{Story, tell};

use crate::{OPERATOR, YEARLY, back_up, kubectl_wait, view, volumes};

async fn until(
    story: &Story,
    what: &str,
    condition: impl Fn(&BackupPolicy) -> Option<bool>,
) -> Result<()> {
    story.wait_for("nightly", what, condition).await?;
    Ok(())
}

async fn until_it_says(story: &Story, reason: &str) -> Result<()> {
    until(story, &format!("to say {reason}"), |policy| {
        let conditions = &policy.status.as_ref()?.conditions;
        let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
        Some(ready.reason == reason)
    })
    .await
}

#[tokio::test]
async fn one_that_never_ran_because_its_volume_is_missing() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-never", |story| async move {
        story.volume("backup-storage").await?;
        let soon = json!({"startDeadlineSeconds": 10});
        story.policy("nightly", "* * * * *", soon).await?;
        until(&story, "to have a failed backup", |policy| {
            let status = policy.status.as_ref()?;
            let last = status.last_backup.as_ref()?;
            Some(last.phase == Some(Phase::Failed) && status.active.is_empty())
        })
        .await?;
        assert_snapshot!(
            "policy_never_ran",
            view::of(&story, "backuppolicy", "nightly")?
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_that_is_healthy_after_its_first_backups() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-healthy", |story| async move {
        volumes(&story).await?;
        let keep = json!({"retention": {"keepLast": 2}});
        story.policy("nightly", YEARLY, keep).await?;
        kubectl_wait(&story, "backuppolicy/nightly", "condition=Ready")?;
        for name in ["first", "second", "third"] {
            back_up(&story, name, json!({"policyRef": "nightly"})).await?;
        }
        story.wait_gone::<tidelock_api::Backup>("first").await?;
        until(&story, "to have two good backups", |policy| {
            let status = policy.status.as_ref()?;
            Some(status.good_backups == 2 && status.active.is_empty())
        })
        .await?;
        assert_snapshot!(
            "policy_healthy",
            view::of(&story, "backuppolicy", "nightly")?
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_that_is_late_because_the_api_server_takes_no_more_backups() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-late", |story| async move {
        volumes(&story).await?;
        let hard = "--hard=count/backups.tidelock.dev=0";
        story.kubectl(&["create", "quota", "full", hard])?;
        let in_force = |quota: &ResourceQuota| {
            let hard = quota.status.as_ref()?.hard.as_ref()?;
            Some(hard.contains_key("count/backups.tidelock.dev"))
        };
        story.wait_for("full", "to be in force", in_force).await?;
        story.policy("nightly", "* * * * *", json!({})).await?;
        until_it_says(&story, "BackupRefused").await?;
        assert_snapshot!("policy_late", view::of(&story, "backuppolicy", "nightly")?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_that_is_suspended_and_one_whose_schedule_cannot_be_followed() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-held", |story| async move {
        volumes(&story).await?;
        let suspended = json!({"suspend": true});
        story.policy("nightly", YEARLY, suspended).await?;
        until_it_says(&story, "Suspended").await?;
        // It does what it was told, so whoever waits for health has it.
        kubectl_wait(&story, "backuppolicy/nightly", "condition=Ready")?;
        kubectl_wait(&story, "backuppolicy/nightly", "condition=Suspended")?;
        assert_snapshot!(
            "policy_suspended",
            view::of(&story, "backuppolicy", "nightly")?
        );
        let broken = json!({"spec": {"suspend": false, "schedule": "61 * * * *"}});
        story.patch::<BackupPolicy>("nightly", broken).await?;
        kubectl_wait(&story, "backuppolicy/nightly", "condition=Stalled")?;
        assert_snapshot!(
            "policy_invalid",
            view::of(&story, "backuppolicy", "nightly")?
        );
        let mended = json!({"spec": {"schedule": YEARLY}});
        story.patch::<BackupPolicy>("nightly", mended).await?;
        kubectl_wait(&story, "backuppolicy/nightly", "condition=Ready")?;
        Ok(())
    })
    .await
}
