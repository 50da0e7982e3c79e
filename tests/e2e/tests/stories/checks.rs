//! What is checked before a backup starts, and what a person reads about it.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, Phase};
use tidelock_e2e::{Story, tell, tree};

use crate::support::{backup_failure, completed, jobs_by_kind, says};

/// Waits until the Backup `now` says `reason` while it is Pending.
async fn pending_with(story: &Story, reason: &str) -> Result<Backup> {
    let what = format!("to be Pending with {reason}");
    story
        .wait_for("now", &what, |backup: &Backup| {
            let status = backup.status.as_ref()?;
            let ready = status.conditions.iter().find(|c| c.type_ == "Ready")?;
            Some(status.phase == Some(Phase::Pending) && ready.reason == reason)
        })
        .await
}

#[tokio::test]
async fn a_backup_waits_for_its_volume_and_runs_once_it_is_there() -> Result<()> {
    tell("late-volume", |story| async move {
        story.volume("backup-storage").await?;
        story.backup("now", json!({})).await?;
        let waiting = pending_with(&story, "PVCNotFound").await?;
        let reasons = story.event_reasons(&waiting).await?;
        ensure!(reasons.contains(&"BackupWaiting".to_owned()), "{reasons:?}");
        let data = story.volume("data").await?;
        tree::write(&data, "late", b"but there", 0o644)?;
        completed(&story.wait_backup("now").await?)
    })
    .await
}

#[tokio::test]
async fn a_missing_volume_fails_the_backup_in_the_end() -> Result<()> {
    tell("no-volume", |story| async move {
        story.volume("backup-storage").await?;
        story
            .backup("now", json!({"startDeadlineSeconds": 3}))
            .await?;
        let backup = story.wait_backup("now").await?;
        says(
            backup_failure(&backup)?,
            "PVCNotFound",
            &[
                "PersistentVolumeClaim data does not exist",
                "target.pvcName",
                "startDeadlineSeconds",
            ],
        )?;
        ensure!(jobs_by_kind(&story).await?.is_empty(), "a Job for nothing");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_unbound_volume_is_never_a_success_with_nothing_in_it() -> Result<()> {
    tell("unbound", |story| async move {
        let storage = story.volume("backup-storage").await?;
        story.unbound_claim("data").await?;
        story
            .backup("now", json!({"startDeadlineSeconds": 5}))
            .await?;
        pending_with(&story, "PVCNotBound").await?;
        let backup = story.wait_backup("now").await?;
        says(
            backup_failure(&backup)?,
            "PVCNotBound",
            &["is Pending", "no volume to back up"],
        )?;
        ensure!(jobs_by_kind(&story).await?.is_empty());
        ensure!(tree::archives(&storage)?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_block_device_is_refused_at_once() -> Result<()> {
    tell("block", |story| async move {
        story.volume("backup-storage").await?;
        story.block_volume("data").await?;
        story.backup("now", json!({})).await?;
        let backup = story.wait_backup("now").await?;
        says(
            backup_failure(&backup)?,
            "VolumeModeBlock",
            &["data", "volumeMode Filesystem"],
        )
    })
    .await
}

#[tokio::test]
async fn missing_storage_is_waited_for_and_named() -> Result<()> {
    tell("no-storage", |story| async move {
        story.volume("data").await?;
        story
            .backup("now", json!({"startDeadlineSeconds": 4}))
            .await?;
        pending_with(&story, "StorageNotFound").await?;
        let backup = story.wait_backup("now").await?;
        says(
            backup_failure(&backup)?,
            "StorageNotFound",
            &["backup-storage does not exist", "storage.pvcName"],
        )
    })
    .await
}

#[tokio::test]
async fn a_policy_that_is_not_there_is_waited_for_and_a_wrong_target_refused() -> Result<()> {
    tell("policy-ref", |story| async move {
        story.volume("data").await?;
        story.volume("other").await?;
        story.volume("backup-storage").await?;
        story.backup("now", json!({"policyRef": "nightly"})).await?;
        pending_with(&story, "PolicyNotFound").await?;
        story.policy("nightly", "0 0 1 1 *", json!({})).await?;
        completed(&story.wait_backup("now").await?)?;

        let wrong = json!({"policyRef": "nightly", "target": {"pvcName": "other"}});
        story.backup("wrong", wrong).await?;
        let backup = story.wait_backup("wrong").await?;
        says(
            backup_failure(&backup)?,
            "TargetMismatch",
            &["other", "nightly", "data"],
        )
    })
    .await
}

#[tokio::test]
async fn a_pod_that_cannot_be_scheduled_is_told_in_the_schedulers_words_and_given_up() -> Result<()>
{
    tell("unschedulable", |story| async move {
        story.volume("data").await?;
        story.volume("backup-storage").await?;
        let nowhere = json!({
            "startDeadlineSeconds": 8,
            "mover": {"nodeSelector": {"tidelock.dev/no-such-node": "true"}},
        });
        story.backup("now", nowhere).await?;
        let stuck = story
            .wait_for("now", "to tell what it is stuck on", |backup: &Backup| {
                let status = backup.status.as_ref()?;
                let ready = status.conditions.iter().find(|c| c.type_ == "Ready")?;
                Some(ready.reason == "PodPending")
            })
            .await?;
        let status = stuck.status.context("no status")?;
        ensure!(
            status.conditions[0].message.contains("didn't match"),
            "{status:#?}"
        );
        let backup = story.wait_backup("now").await?;
        says(
            backup_failure(&backup)?,
            "StartDeadlineExceeded",
            &["didn't match", "after 8s"],
        )?;
        story
            .wait_gone::<k8s_openapi::api::batch::v1::Job>("now-backup")
            .await
    })
    .await
}

#[tokio::test]
async fn a_pod_whose_volume_cannot_be_mounted_is_told_in_the_kubelets_words_and_given_up()
-> Result<()> {
    tell("unmountable", |story| async move {
        let nowhere = story.volumes_folder()?.join("nowhere");
        story.volume_at("data", &nowhere).await?;
        story.volume("backup-storage").await?;
        story
            .backup("now", json!({"startDeadlineSeconds": 30}))
            .await?;
        let kubelets_words = ["FailedMount", "nowhere", "is not a directory"];
        let told = |backup: &Backup| {
            let status = backup.status.as_ref()?;
            let ready = status.conditions.iter().find(|c| c.type_ == "Ready")?;
            let is_all_there = |words: &str| kubelets_words.iter().all(|w| words.contains(w));
            Some(ready.reason == "PodPending" && is_all_there(&ready.message))
        };
        story
            .wait_for("now", "to tell why the volume is not mounted", told)
            .await?;
        let backup = story.wait_backup("now").await?;
        let given_up = [&kubelets_words[..], &["after 30s"]].concat();
        says(backup_failure(&backup)?, "StartDeadlineExceeded", &given_up)?;
        story
            .wait_gone::<k8s_openapi::api::batch::v1::Job>("now-backup")
            .await
    })
    .await
}

#[tokio::test]
async fn a_bad_schedule_or_zone_is_said_once_and_heals_when_mended() -> Result<()> {
    tell("bad-cron", |story| async move {
        story.volume("data").await?;
        for (name, schedule, zone, words) in [
            ("minute", "61 * * * *", "UTC", ["minute", "0 to 59"]),
            (
                "never",
                "0 2 30 2 *",
                "UTC",
                ["never comes due", "calendar"],
            ),
            (
                "zone",
                "0 2 * * *",
                "Mars/Olympus",
                ["Mars/Olympus", "Europe/Berlin"],
            ),
        ] {
            story
                .policy(name, schedule, json!({"timeZone": zone}))
                .await?;
            let policy = story
                .wait_for(name, "to be invalid", |policy: &BackupPolicy| {
                    let status = policy.status.as_ref()?;
                    let ready = status.conditions.iter().find(|c| c.type_ == "Ready")?;
                    Some(ready.reason == "InvalidSchedule" && ready.status == "False")
                })
                .await?;
            let status = policy.status.clone().context("no status")?;
            for word in words {
                ensure!(status.conditions[0].message.contains(word), "{status:#?}");
            }
            ensure!(status.next_scheduled_backup.is_none());
            let events = story.event_reasons(&policy).await?;
            ensure!(events == ["InvalidSchedule"], "{events:?}");
        }
        story
            .patch::<BackupPolicy>("minute", json!({"spec": {"schedule": "0 2 * * *"}}))
            .await?;
        story
            .wait_for("minute", "to be followed", |policy: &BackupPolicy| {
                let status = policy.status.as_ref()?;
                Some(status.next_scheduled_backup.is_some())
            })
            .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_job_that_a_quota_forbids_is_told_and_made_once_there_is_room() -> Result<()> {
    tell("quota", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        story.kubectl(&["create", "quota", "no-jobs", "--hard=count/jobs.batch=0"])?;
        story
            .wait_for("no-jobs", "to be counted", |quota: &ResourceQuota| {
                Some(
                    quota
                        .status
                        .as_ref()?
                        .hard
                        .as_ref()?
                        .contains_key("count/jobs.batch"),
                )
            })
            .await?;
        story.backup("now", json!({})).await?;
        let held = pending_with(&story, "JobRefused").await?;
        let status = held.status.context("no status")?;
        ensure!(
            status.conditions[0].message.contains("exceeded quota"),
            "{status:#?}"
        );
        story
            .backup("hopeless", json!({"startDeadlineSeconds": 2}))
            .await?;
        let failed = story.wait_backup("hopeless").await?;
        says(
            backup_failure(&failed)?,
            "StartDeadlineExceeded",
            &["exceeded quota", "after 2s"],
        )?;
        story.kubectl(&["delete", "quota", "no-jobs"])?;
        completed(&story.wait_backup("now").await?)
    })
    .await
}

#[tokio::test]
async fn a_namespace_that_takes_no_pod_says_so() -> Result<()> {
    tell("no-pod", |story| async move {
        story.volume("data").await?;
        story.volume("backup-storage").await?;
        story.kubectl(&["create", "quota", "none", "--hard=pods=0"])?;
        story
            .backup("now", json!({"startDeadlineSeconds": 5}))
            .await?;
        let failed = story.wait_backup("now").await?;
        says(
            backup_failure(&failed)?,
            "StartDeadlineExceeded",
            &["has no pod", "kubectl describe job now-backup", "a quota"],
        )
    })
    .await
}
