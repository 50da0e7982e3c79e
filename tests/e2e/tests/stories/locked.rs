//! Backups that their storage keeps locked for a while.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidelock_api::{Backup, BackupStorage};
use tidelock_e2e::outcome::{completed, restored};
use tidelock_e2e::s3::{self, S3};
use tidelock_e2e::{tell, tree};

use crate::support::jobs_by_kind;

const DAY: i64 = 86_400;

#[tokio::test]
async fn a_locked_backup_stays_until_its_lock_ends_whoever_wants_it_gone() -> Result<()> {
    tell("locked", |story| async move {
        let data = story.volume("data").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let server = S3::start_locking(&story).await?;
        s3::secret(&story, None).await?;
        let lock = json!({"mode": "Governance", "days": 1});
        let spec = server.spec(json!({"objectLock": lock}));
        story.make::<BackupStorage>("offsite", spec).await?;
        let storage = json!({"storage": {"name": "offsite"}, "retention": {"keepLast": 1}});
        story.policy("nightly", "0 0 1 1 *", storage).await?;
        for name in ["one", "two"] {
            story.backup(name, json!({"policyRef": "nightly"})).await?;
            completed(&story.wait_backup(name).await?)?;
        }

        // The store itself refuses, and the Backup says until when.
        let one: Backup = story.api().get("one").await?;
        let status = one.status.context("no status")?;
        let until = status.locked_until.context("it is not locked")?.0;
        let ended = status.completion_time.context("no end")?.0;
        let days = until.as_second() - ended.as_second();
        ensure!((DAY - 60..=DAY + 60).contains(&days), "locked for {days} s");
        let objects = server.objects()?;
        ensure!(objects.len() == 8, "{objects:?}");
        for object in &objects {
            let versions = server.versions(object).await?;
            let [version] = &versions[..] else {
                anyhow::bail!("{object} has the versions {versions:?}");
            };
            let path = format!("/{object}?versionId={version}");
            let refused = server.ask("DELETE", &path, "", None).await;
            let words = refused.err().context("it went")?.to_string();
            ensure!(words.contains("protected by object lock"), "{words}");
        }

        // Retention waits and says so; so does whoever deletes it by hand. Nothing is tried before.
        let note = story.wait_event("CleanupWaits").await?;
        ensure!(
            note.contains("keepLast=1") && note.contains(&until.to_string()),
            "{note}"
        );
        let one: Backup = story.api().get("one").await?;
        ensure!(one.metadata.deletion_timestamp.is_none());
        story.kubectl(&["delete", "backup/one", "--wait=false"])?;
        let note = story.wait_event("DataHeld").await?;
        ensure!(
            note.contains("keeps it locked until") && note.contains(&until.to_string()),
            "{note}"
        );
        ensure!(!jobs_by_kind(&story).await?.contains_key("Delete"));
        ensure!(server.objects()? == objects);

        // The lock ends, which takes a day unless who may says otherwise.
        let (of_one, of_two): (Vec<String>, Vec<String>) =
            objects.into_iter().partition(|key| key.contains("/one."));
        for object in &of_one {
            server.unlock(object).await?;
        }
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let past = json!({"status": {"lockedUntil": "2026-01-01T00:00:00Z"}}).to_string();
        let patch = [
            "patch",
            "backup/one",
            "--subresource=status",
            "--type=merge",
            "--patch",
        ];
        story.kubectl(&[&patch[..], &[&past]].concat())?;
        story.wait_gone::<Backup>("one").await?;
        ensure!(server.objects()? == of_two);
        for object in &of_one {
            let left = server.versions(object).await?;
            ensure!(left.is_empty(), "{object} has the versions {left:?}");
        }
        story.volume("target").await?;
        story.restore("back", "two", "target").await?;
        restored(&story.wait_restore("back").await?)
    })
    .await
}
