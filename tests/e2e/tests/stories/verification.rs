//! Stored backups that are read again.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use tidelock_api::{Backup, BackupPolicy, Restore, VerificationResult};
use tidelock_e2e::{Story, tell, tell_on_each_storage, tree};

use crate::support::{completed, restore_failure, restored, says};

/// The Verified condition of a Backup.
fn verified(backup: &Backup) -> Option<&Condition> {
    let conditions = &backup.status.as_ref()?.conditions;
    conditions
        .iter()
        .find(|condition| condition.type_ == "Verified")
}

/// Waits until reading `backup` again has come to `result`.
async fn read_again(story: &Story, backup: &str, result: VerificationResult) -> Result<Backup> {
    story
        .wait_for(backup, "to be read again", |backup: &Backup| {
            let status = backup.status.as_ref()?;
            Some(status.verification.as_ref()?.result == result)
        })
        .await
}

/// The folder of the claim `data` in storage.
fn folder(story: &Story, storage: &Path) -> std::path::PathBuf {
    storage.join(&story.namespace).join("data")
}

/// Turns one byte in the middle of a file over.
fn spoil(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(path, bytes).with_context(|| format!("cannot spoil {}", path.display()))
}

#[tokio::test]
async fn rot_that_is_found_later_is_told_and_such_a_backup_is_not_restored() -> Result<()> {
    tell_on_each_storage("rot", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.backup_storage().await?;
        story.volume("target").await?;
        tree::write(&data, "file", &tree::noise(100_000), 0o644)?;
        story.policy("nightly", "0 0 1 1 *", json!({})).await?;
        for name in ["sound", "rotten", "lost"] {
            story.backup(name, json!({"policyRef": "nightly"})).await?;
            let backup = story.wait_backup(name).await?;
            completed(&backup)?;
            let verdict = verified(&backup).context("nothing was read back")?;
            ensure!(verdict.status == "True", "{verdict:?}");
        }
        let folder = folder(&story, &storage);
        spoil(&folder.join("rotten.tar.gz"))?;
        for object in tree::stored(&storage, "")? {
            if object.to_string_lossy().contains("/lost.") {
                fs::remove_file(storage.join(object))?;
            }
        }
        fs::copy(
            folder.join("sound.manifest.json"),
            folder.join("stranger.manifest.json"),
        )?;
        let schedule = json!({"spec": {"verification": {"schedule": "* * * * *"}}});
        story.patch::<BackupPolicy>("nightly", schedule).await?;

        let rotten = read_again(&story, "rotten", VerificationResult::Failed).await?;
        let verdict = verified(&rotten).context("no verdict")?;
        ensure!(verdict.status == "False", "{verdict:?}");
        ensure!(verdict.message.contains("rotten"), "{verdict:?}");
        let told = story.event_reasons(&rotten).await?;
        ensure!(told.contains(&"VerificationFailed".to_owned()), "{told:?}");
        read_again(&story, "lost", VerificationResult::Missing).await?;
        let sound: Backup = story
            .wait_for("sound", "to be read again", |backup: &Backup| {
                let status = backup.status.as_ref()?;
                let read = status.verification.as_ref()?.time.0;
                Some(read > status.completion_time.as_ref()?.0)
            })
            .await?;
        ensure!(verified(&sound).is_some_and(|verdict| verdict.status == "True"));

        // The policy tells the whole: what is damaged, and what nobody knows, which stays.
        let policy = story
            .wait_for(
                "nightly",
                "to tell of the batch",
                |policy: &BackupPolicy| {
                    let status = policy.status.as_ref()?;
                    let unknown = status.storage.as_ref()?.unknown_archives;
                    let good = status.good_backups;
                    Some(status.last_verification_time.is_some() && unknown == 1 && good == 1)
                },
            )
            .await?;
        let told = story.event_reasons(&policy).await?;
        ensure!(told.contains(&"VerificationFailed".to_owned()), "{told:?}");
        ensure!(folder.join("stranger.manifest.json").exists());

        story.restore("refused", "rotten", "target").await?;
        let refused = story.wait_restore("refused").await?;
        says(restore_failure(&refused)?, "BackupNotVerified", &["rotten"])?;
        story.restore("fine", "sound", "target").await?;
        restored(&story.wait_restore("fine").await?)
    })
    .await
}

#[tokio::test]
async fn what_is_whole_in_a_damaged_backup_is_restored_when_a_person_insists() -> Result<()> {
    tell_on_each_storage("insists", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.backup_storage().await?;
        story.volume("target").await?;
        // Each is more than one member of the archive.
        for name in ["first", "middle", "third"] {
            tree::write(&data, name, &tree::noise(3 << 20), 0o644)?;
        }
        let again = json!({"verification": {"schedule": "* * * * *"}});
        story.policy("nightly", "0 0 1 1 *", again).await?;
        story.backup("now", json!({"policyRef": "nightly"})).await?;
        completed(&story.wait_backup("now").await?)?;
        spoil(&folder(&story, &storage).join("now.tar.gz"))?;
        let rotten = read_again(&story, "now", VerificationResult::Failed).await?;
        let verdict = verified(&rotten).context("no verdict")?;
        ensure!(verdict.message.contains("middle"), "{verdict:?}");

        let part = json!({"backupName": "now", "targetPVC": "target", "paths": ["first"]});
        story.make::<Restore>("careful", part.clone()).await?;
        let careful = story.wait_restore("careful").await?;
        says(restore_failure(&careful)?, "BackupNotVerified", &["now"])?;
        let insisting = |mut spec: Value| {
            spec["allowUnverified"] = json!(true);
            spec
        };
        let whole = insisting(json!({"backupName": "now", "targetPVC": "target"}));
        story.make::<Restore>("whole", whole).await?;
        let whole = story.wait_restore("whole").await?;
        says(restore_failure(&whole)?, "ArchiveCorrupt", &["now.tar.gz"])?;
        story.make::<Restore>("part", insisting(part)).await?;
        restored(&story.wait_restore("part").await?)?;
        let target = story.volumes_folder()?.join("target");
        ensure!(fs::read(target.join("first"))? == tree::noise(3 << 20));
        ensure!(tree::stored(&target, "")? == [Path::new("first")]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_schedule_of_reading_again_that_never_comes_due_is_told_and_backups_go_on() -> Result<()>
{
    tell("never-again", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let never = json!({"verification": {"schedule": "0 0 30 2 *"}});
        story.policy("nightly", "0 0 1 1 *", never).await?;
        let policy = story
            .wait_for("nightly", "to say so", |policy: &BackupPolicy| {
                let conditions = &policy.status.as_ref()?.conditions;
                let reason = "InvalidVerificationSchedule";
                Some(conditions.iter().any(|c| c.reason == reason))
            })
            .await?;
        let status = policy.status.context("no status")?;
        ensure!(status.next_scheduled_backup.is_some(), "{status:#?}");
        ensure!(status.next_verification.is_none(), "{status:#?}");
        Ok(())
    })
    .await
}
