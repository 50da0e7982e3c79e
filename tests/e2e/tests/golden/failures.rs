//! Backups that fail, or cannot be relied on, each for another reason.

use std::fs;

use anyhow::Result;
use insta::assert_snapshot;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::DeleteParams;
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, VerificationResult};
use tidelock_e2e::{tell, tree};

use crate::{OPERATOR, YEARLY, back_up, backup_says, kubectl_wait, view, volumes};

#[tokio::test]
async fn one_whose_mover_needs_more_memory_than_it_may_have() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-memory", |story| async move {
        volumes(&story).await?;
        let data = story.volumes_folder()?.join("data");
        // The names of one folder are sorted in memory: these take more than the limit leaves.
        let name = "n".repeat(240);
        for number in 0..30_000 {
            fs::write(data.join(format!("{number:06}-{name}")), "")?;
        }
        let least = json!({"memory": "8Mi"});
        let small = json!({"resources": {"limits": least, "requests": least}});
        story.backup("now", json!({"mover": small})).await?;
        story.wait_backup("now").await?;
        assert_snapshot!("backup_out_of_memory", view::of(&story, "backup", "now")?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_with_a_file_that_cannot_be_read() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-unreadable", |story| async move {
        story.volume("backup-storage").await?;
        let data = story.small_volume("data", 64).await?;
        let volume = data.volume();
        tree::write(&volume, "good", b"content", 0o644)?;
        tree::write(&volume, "db/rotten.bin", &tree::noise(40 << 20), 0o644)?;
        data.lose_beyond(20).await?;
        story.backup("now", json!({})).await?;
        kubectl_wait(&story, "backup/now", "condition=Stalled")?;
        let shown = view::of(&story, "backup", "now")?;
        assert_snapshot!("backup_source_unreadable", shown);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_whose_job_somebody_deletes() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-job-lost", |story| async move {
        volumes(&story).await?;
        tree::long_read(&story.volumes_folder()?.join("data"), 400)?;
        story.backup("now", json!({})).await?;
        story.wait_job_pod("now-backup").await?;
        let jobs = story.api::<Job>();
        let params = DeleteParams::background();
        jobs.delete("now-backup", &params).await?;
        kubectl_wait(&story, "backup/now", "condition=Stalled")?;
        assert_snapshot!("backup_job_lost", view::of(&story, "backup", "now")?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_whose_job_the_api_server_refuses_and_goes_on_refusing() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-refused", |story| async move {
        volumes(&story).await?;
        let hard = "--hard=count/jobs.batch=0";
        story.kubectl(&["create", "quota", "full", hard])?;
        let in_force = |quota: &ResourceQuota| {
            let hard = quota.status.as_ref()?.hard.as_ref()?;
            Some(hard.contains_key("count/jobs.batch"))
        };
        story.wait_for("full", "to be in force", in_force).await?;
        let patient = json!({"startDeadlineSeconds": 15});
        story.backup("now", patient).await?;
        backup_says(&story, "JobRefused").await?;
        assert_snapshot!("backup_job_refused", view::of(&story, "backup", "now")?);
        kubectl_wait(&story, "backup/now", "condition=Stalled")?;
        assert_snapshot!("backup_job_given_up", view::of(&story, "backup", "now")?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_that_completed_and_has_rotted_since() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("golden-rotten", |story| async move {
        volumes(&story).await?;
        story.policy("nightly", YEARLY, json!({})).await?;
        back_up(&story, "now", json!({"policyRef": "nightly"})).await?;
        let storage = story.volumes_folder()?.join("backup-storage");
        let archive = storage.join(&story.namespace).join("data/now.tar.gz");
        let mut bytes = fs::read(&archive)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&archive, bytes)?;
        let each_minute = json!({"spec": {"verification": {"schedule": "* * * * *"}}});
        story.patch::<BackupPolicy>("nightly", each_minute).await?;
        let read_again = |backup: &Backup| {
            let verification = backup.status.as_ref()?.verification.as_ref()?;
            Some(verification.result == VerificationResult::Failed)
        };
        story
            .wait_for("now", "to be read again", read_again)
            .await?;
        kubectl_wait(&story, "backup/now", "condition=Verified=False")?;
        assert_snapshot!("backup_rotten", view::of(&story, "backup", "now")?);
        Ok(())
    })
    .await
}
