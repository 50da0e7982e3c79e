//! Alerts that fire and clear.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, BackupStorage, Phase, Restore, VerificationResult};
use tidelock_e2e::outcome::{completed, restored};
use tidelock_e2e::prometheus::Prometheus;
use tidelock_e2e::s3::{self, S3};
use tidelock_e2e::{Story, deployment, tell, tree};
use tidelock_monitoring::pace::Pace;

use crate::{OPERATOR, YEARLY, back_up, fast, movers_find_a_node, nightly, no_more_backups};

/// A week in half a minute.
fn very_fast() -> Pace {
    Pace::faster_by(20_000)
}

#[tokio::test]
async fn a_policy_that_never_ran_and_its_stuck_backup_page_until_the_volume_is_there() -> Result<()>
{
    let _there = OPERATOR.read().await;
    tell("alert-never", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        story.volume("backup-storage").await?;
        story.policy("nightly", "* * * * *", json!({})).await?;
        let about = nightly(&story);
        prometheus.fires("TidelockBackupStuck", &about).await?;
        prometheus.fires("TidelockNeverRan", &about).await?;
        let data = story.volume("data").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        prometheus.clears("TidelockNeverRan", &about).await?;
        prometheus.clears("TidelockBackupStuck", &about).await
    })
    .await
}

#[tokio::test]
async fn a_missed_schedule_is_told_until_the_slot_has_its_backup() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-missed", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        no_more_backups(&story, 0).await?;
        story.policy("nightly", "* * * * *", json!({})).await?;
        let about = nightly(&story);
        prometheus.fires("TidelockScheduleMissed", &about).await?;
        story.kubectl(&["delete", "quota", "full"])?;
        prometheus.clears("TidelockScheduleMissed", &about).await
    })
    .await
}

/// Makes a backup of the policy `nightly` that fails, as its volume is missing.
async fn fail(story: &Story, name: &str) -> Result<()> {
    let failing = json!({"policyRef": "nightly", "startDeadlineSeconds": 1});
    story.backup(name, failing).await?;
    story.wait_backup(name).await.map(|_| ())
}

#[tokio::test]
async fn failures_are_told_and_the_third_pages_until_one_completes() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-failed", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        story.volume("backup-storage").await?;
        story.policy("nightly", YEARLY, json!({})).await?;
        let about = nightly(&story);
        let with_reason = [about[0], about[1], ("reason", "PVCNotFound")];
        fail(&story, "failing-1").await?;
        prometheus
            .fires("TidelockBackupFailed", &with_reason)
            .await?;
        fail(&story, "failing-2").await?;
        fail(&story, "failing-3").await?;
        prometheus.fires("TidelockBackupFailing", &about).await?;
        prometheus.clears("TidelockBackupFailed", &about).await?;
        let data = story.volume("data").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        back_up(&story, "fine").await?;
        prometheus.clears("TidelockBackupFailing", &about).await
    })
    .await
}

#[tokio::test]
async fn storage_that_is_not_there_pages_until_it_is() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-storage", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        let data = story.volume("data").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        story.policy("nightly", YEARLY, json!({})).await?;
        story.backup("now", json!({"policyRef": "nightly"})).await?;
        let about = nightly(&story);
        prometheus.fires("TidelockStorageNotReady", &about).await?;
        story.volume("backup-storage").await?;
        completed(&story.wait_backup("now").await?)?;
        prometheus.clears("TidelockStorageNotReady", &about).await
    })
    .await
}

#[tokio::test]
async fn a_backup_storage_that_cannot_be_used_pages_until_a_look_succeeds() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-bucket", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        let server = S3::start(&story).await?;
        s3::secret(&story, Some("wrong")).await?;
        let spec = server.spec(json!({}));
        story.make::<BackupStorage>("offsite", spec).await?;
        let about = [
            ("namespace", story.namespace.as_str()),
            ("storage", "offsite"),
        ];
        prometheus
            .fires("TidelockBackupStorageNotReady", &about)
            .await?;
        story.kubectl(&["delete", "secret", s3::CREDENTIALS])?;
        s3::secret(&story, None).await?;
        prometheus
            .clears("TidelockBackupStorageNotReady", &about)
            .await
    })
    .await
}

#[tokio::test]
async fn a_schedule_that_cannot_be_followed_pages_until_it_is_mended() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-schedule", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        story.policy("nightly", "61 * * * *", json!({})).await?;
        let about = nightly(&story);
        prometheus.fires("TidelockScheduleInvalid", &about).await?;
        let mended = json!({"spec": {"schedule": YEARLY}});
        story.patch::<BackupPolicy>("nightly", mended).await?;
        prometheus.clears("TidelockScheduleInvalid", &about).await
    })
    .await
}

#[tokio::test]
async fn a_long_suspension_is_told_until_it_ends() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-suspended", |story| async move {
        let prometheus = Prometheus::start(&story, very_fast()).await?;
        let suspended = json!({"suspend": true});
        story.policy("nightly", "* * * * *", suspended).await?;
        let about = nightly(&story);
        prometheus.fires("TidelockPolicySuspended", &about).await?;
        // The slots that pass meanwhile are nobody's.
        ensure!(
            prometheus
                .firing("TidelockScheduleMissed")
                .await?
                .iter()
                .all(|labels| { labels.get("namespace") != Some(&story.namespace) })
        );
        let resumed = json!({"spec": {"suspend": false, "schedule": YEARLY}});
        story.patch::<BackupPolicy>("nightly", resumed).await?;
        prometheus.clears("TidelockPolicySuspended", &about).await
    })
    .await
}

#[tokio::test]
async fn an_emptied_volume_is_told_until_a_person_accepts_it() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-suspicious", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let keep = json!({"retention": {"keepLast": 7}});
        story.policy("nightly", YEARLY, keep).await?;
        back_up(&story, "full").await?;
        fs::remove_file(data.join("file"))?;
        let about = nightly(&story);
        for name in ["empty", "still-empty"] {
            back_up(&story, name).await?;
        }
        prometheus.fires("TidelockBackupSuspicious", &about).await?;
        prometheus.fires("TidelockFewGoodBackups", &about).await?;
        let accepted =
            json!({"metadata": {"annotations": {"tidelock.dev/accept-suspicious": "true"}}});
        story.patch::<Backup>("still-empty", accepted).await?;
        prometheus
            .clears("TidelockBackupSuspicious", &about)
            .await?;
        prometheus.clears("TidelockFewGoodBackups", &about).await
    })
    .await
}

#[tokio::test]
async fn rot_pages_until_it_is_deleted_and_strange_archives_are_told_until_they_are_gone()
-> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-rot", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::write(&data, "file", &tree::noise(100_000), 0o644)?;
        story.policy("nightly", YEARLY, json!({})).await?;
        for name in ["sound", "rotten"] {
            back_up(&story, name).await?;
        }
        let folder = storage.join(&story.namespace).join("data");
        let archive = folder.join("rotten.tar.gz");
        let mut bytes = fs::read(&archive)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&archive, bytes)?;
        let strange = folder.join("stranger.manifest.json");
        fs::copy(folder.join("sound.manifest.json"), &strange)?;
        let each_minute = json!({"spec": {"verification": {"schedule": "* * * * *"}}});
        story.patch::<BackupPolicy>("nightly", each_minute).await?;
        let about = nightly(&story);
        prometheus
            .fires("TidelockVerificationFailed", &about)
            .await?;
        prometheus.fires("TidelockUnknownArchives", &about).await?;
        let rotten: Backup = story.api().get("rotten").await?;
        let verdict = rotten.status.and_then(|status| status.verification);
        ensure!(verdict.is_some_and(|verdict| verdict.result == VerificationResult::Failed));
        fs::remove_file(strange)?;
        story.kubectl(&["delete", "backup", "rotten"])?;
        prometheus
            .clears("TidelockVerificationFailed", &about)
            .await?;
        prometheus.clears("TidelockUnknownArchives", &about).await
    })
    .await
}

#[tokio::test]
async fn stale_verification_is_told_until_backups_are_read_again() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-stale", |story| async move {
        let prometheus = Prometheus::start(&story, very_fast()).await?;
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let soon = json!({"startDeadlineSeconds": 10});
        story.policy("nightly", YEARLY, soon).await?;
        back_up(&story, "now").await?;
        movers_find_a_node(&story, false).await?;
        let each_minute = json!({"spec": {"verification": {"schedule": "* * * * *"}}});
        story.patch::<BackupPolicy>("nightly", each_minute).await?;
        let about = nightly(&story);
        prometheus
            .fires("TidelockVerificationStale", &about)
            .await?;
        movers_find_a_node(&story, true).await?;
        prometheus.clears("TidelockVerificationStale", &about).await
    })
    .await
}

#[tokio::test]
async fn a_slow_backup_is_told_until_it_ends() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-slow", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let lenient = json!({"guard": {"maxShrinkPercent": 100}});
        story.policy("nightly", YEARLY, lenient).await?;
        back_up(&story, "quick").await?;
        // More than twelve seconds to read, and to read back.
        tree::long_read(&data, 64)?;
        story
            .backup("slow", json!({"policyRef": "nightly"}))
            .await?;
        let about = nightly(&story);
        prometheus.fires("TidelockBackupSlow", &about).await?;
        story
            .patch::<Backup>("slow", json!({"spec": {"cancel": true}}))
            .await?;
        prometheus.clears("TidelockBackupSlow", &about).await?;
        // What a person cancelled did not fail.
        story.wait_backup("slow").await?;
        let failed = prometheus.firing("TidelockBackupFailed").await?;
        ensure!(
            failed
                .iter()
                .all(|labels| labels.get("namespace") != Some(&story.namespace))
        );
        Ok(())
    })
    .await
}

/// Makes the Restore `name` of the Backup `now` into `target`, with `more`, and waits until it has
/// failed.
async fn nobody_waits_for(story: &Story, name: &str, more: serde_json::Value) -> Result<()> {
    let mut spec = json!({
        "backupName": "now", "targetPVC": "target", "startDeadlineSeconds": 1,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    story.make::<Restore>(name, spec).await?;
    let ended = story.wait_restore(name).await?;
    let phase = ended.status.and_then(|status| status.phase);
    ensure!(phase == Some(Phase::Failed), "{name} is {phase:?}");
    Ok(())
}

#[tokio::test]
async fn a_failed_and_a_stuck_restore_page_until_they_are_superseded() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-restore", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        let target = story.volume("target").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        story.policy("nightly", YEARLY, json!({})).await?;
        back_up(&story, "now").await?;
        tree::write(&target, "in-the-way", b"", 0o644)?;
        let dry = json!({"dryRun": true, "overwrite": "Merge", "backupName": "nobody"});
        nobody_waits_for(&story, "tried", dry).await?;
        nobody_waits_for(&story, "cancelled", json!({"cancel": true})).await?;
        story.restore("refused", "now", "target").await?;
        let refused = [
            ("namespace", &*story.namespace),
            ("restore", "refused"),
            ("reason", "TargetNotEmpty"),
        ];
        prometheus.fires("TidelockRestoreFailed", &refused).await?;
        // What a person cancelled and what was only tried out is known as well by now.
        let firing = prometheus.firing("TidelockRestoreFailed").await?;
        let own = firing
            .iter()
            .filter(|labels| labels.get("namespace") == Some(&story.namespace));
        ensure!(own.count() == 1, "{firing:#?}");
        fs::remove_file(target.join("in-the-way"))?;
        story.restore("again", "now", "target").await?;
        restored(&story.wait_restore("again").await?)?;
        prometheus.clears("TidelockRestoreFailed", &refused).await?;

        story.restore("waits", "now", "missing").await?;
        let waits = [("namespace", &*story.namespace), ("restore", "waits")];
        prometheus.fires("TidelockRestoreStuck", &waits).await?;
        story.kubectl(&["delete", "restore", "waits"])?;
        prometheus.clears("TidelockRestoreStuck", &waits).await
    })
    .await
}

#[tokio::test]
async fn an_operator_that_is_gone_pages_until_it_is_back_with_all_it_told() -> Result<()> {
    let _alone = OPERATOR.write().await;
    tell("alert-absent", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        story.volume("backup-storage").await?;
        story.policy("nightly", YEARLY, json!({})).await?;
        let failing = json!({"policyRef": "nightly", "startDeadlineSeconds": 1});
        story.backup("failing", failing).await?;
        let about = nightly(&story);
        prometheus.fires("TidelockBackupFailed", &about).await?;
        let away = async {
            deployment::scale(&story.client, 0).await?;
            prometheus.fires("TidelockOperatorAbsent", &[]).await
        };
        let told = away.await;
        deployment::scale(&story.client, 1).await?;
        told?;
        prometheus.clears("TidelockOperatorAbsent", &[]).await?;
        // Nothing but the objects was needed to know it again.
        prometheus.fires("TidelockBackupFailed", &about).await?;
        story.kubectl(&["delete", "backuppolicy", "nightly"])?;
        prometheus.clears("TidelockBackupFailed", &about).await
    })
    .await
}
