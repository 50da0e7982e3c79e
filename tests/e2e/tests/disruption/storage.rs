//! Storage that is full, fills up, and turns read-only.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use serde_json::json;
use tidelock_api::{Backup, Phase};
use tidelock_e2e::cluster::run;
use tidelock_e2e::outcome::{backup_failure, completed, one_backup_stored, restored, says};
use tidelock_e2e::wait::until_stored_begins;
use tidelock_e2e::{Story, tell, tree};

/// What a backup writes, in order, by how its name ends.
const STAGES: [&str; 4] = [
    ".tar.gz\"",
    ".index.jsonl.gz\"",
    ".tar.gz.sha256\"",
    ".manifest.json\"",
];
/// More blocks than the small backups here take.
const ENOUGH_BLOCKS: u64 = 24;

#[tokio::test]
async fn storage_that_is_full_at_any_block_fails_the_backup_and_keeps_nothing_of_it() -> Result<()>
{
    tell("storage-full", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.small_volume("backup-storage", 8).await?;
        tree::write(&data, "noise", &tree::noise(9_000), 0o644)?;
        story.backup("before", json!({})).await?;
        completed(&story.wait_backup("before").await?)?;
        let before = tree::stored(&storage.volume(), "")?;

        let mut stages = BTreeSet::new();
        let mut enough = None;
        for free in 0..ENOUGH_BLOCKS {
            storage.leave_free(free)?;
            let name = format!("with-{free}-blocks");
            story.backup(&name, json!({})).await?;
            let backup = story.wait_backup(&name).await?;
            if backup.status.as_ref().and_then(|status| status.phase) == Some(Phase::Completed) {
                enough = Some(name);
                break;
            }
            let failure = backup_failure(&backup)?;
            let words = ["No space left on device", "enlarge the storage"];
            says(failure, "StorageFull", &words)?;
            stages.extend(STAGES.iter().filter(|end| failure.message.contains(**end)));
            let stored = tree::stored(&storage.volume(), "")?;
            ensure!(stored == before, "{name} left {stored:?}");
        }
        // With enough room all went well; with less of it each stage has failed.
        let enough = enough.context("no backup had enough room")?;
        ensure!(
            stages == BTreeSet::from_iter(&STAGES),
            "only {stages:?} failed"
        );
        ensure!(
            storage.free_blocks()? == 0,
            "the last backup did not fill storage"
        );

        restores(&story, "before").await?;
        for name in ["before", &enough] {
            let backups = story.api::<Backup>();
            backups.delete(name, &DeleteParams::default()).await?;
            story.wait_gone::<Backup>(name).await?;
        }
        let left = tree::stored(&storage.volume(), "")?;
        ensure!(left.is_empty(), "{left:?} was not deleted");
        story.backup("after", json!({})).await?;
        completed(&story.wait_backup("after").await?)?;
        one_backup_stored(&storage.volume())
    })
    .await
}

/// The backup `name` of the claim `data` comes back as it was.
async fn restores(story: &Story, name: &str) -> Result<()> {
    let target = story.volume("target").await?;
    story.restore("back", name, "target").await?;
    restored(&story.wait_restore("back").await?)?;
    tree::compare(&story.volumes_folder()?.join("data"), &target)
}

#[tokio::test]
async fn storage_that_fills_up_while_the_archive_is_written_keeps_nothing_of_it() -> Result<()> {
    tell("storage-fills", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.small_volume("backup-storage", 64).await?;
        for number in 0..24 {
            tree::write(&data, &format!("f{number}"), &tree::noise(8 << 20), 0o644)?;
        }
        story.backup("now", json!({})).await?;
        until_stored_begins(&storage.volume()).await?;
        let backup = story.wait_backup("now").await?;
        let words = ["No space left on device", "enlarge the storage"];
        says(backup_failure(&backup)?, "StorageFull", &words)?;
        let left = tree::stored(&storage.volume(), "")?;
        ensure!(left.is_empty(), "{left:?} stayed behind");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn read_only_storage_fails_the_backup_and_is_called_so() -> Result<()> {
    tell("storage-read-only", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.small_volume("backup-storage", 8).await?;
        tree::write(&data, "file", b"content", 0o644)?;
        story.backup("before", json!({})).await?;
        completed(&story.wait_backup("before").await?)?;
        let at = storage.volume();
        let at = at.parent().context("a volume lies in its mount")?;
        let at = at.to_string_lossy();

        run("mount", &["-o", "remount,ro", &at])?;
        story.backup("now", json!({})).await?;
        let backup = story.wait_backup("now").await?;
        let words = ["Read-only file system", "a volume has to be writable"];
        says(backup_failure(&backup)?, "StorageDenied", &words)?;
        // What was stored before can still be restored: that takes no write.
        restores(&story, "before").await?;

        run("mount", &["-o", "remount,rw", &at])?;
        story.backup("later", json!({})).await?;
        completed(&story.wait_backup("later").await?)
    })
    .await
}

#[tokio::test]
async fn storage_that_turns_read_only_during_a_run_fails_it_and_later_runs_work() -> Result<()> {
    tell("storage-turns", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.small_volume("backup-storage", 64).await?;
        tree::write(&data, "a", &tree::noise(1 << 20), 0o644)?;
        tree::long_read(&data, 3)?;
        story.backup("now", json!({})).await?;
        until_stored_begins(&storage.volume()).await?;
        storage.fail_to_read_only()?;
        let backup = story.wait_backup("now").await?;
        let words = ["Read-only file system", "a volume has to be writable"];
        says(backup_failure(&backup)?, "StorageDenied", &words)?;
        let manifests = tree::stored(&storage.volume(), ".manifest.json")?;
        ensure!(manifests.is_empty(), "{manifests:?} without a backup");

        storage.repair().await?;
        std::fs::remove_file(data.join("hole.img"))?;
        story.backup("later", json!({})).await?;
        completed(&story.wait_backup("later").await?)?;
        let archives = tree::archives(&storage.volume())?;
        ensure!(archives.len() == 1, "{archives:?}");
        Ok(())
    })
    .await
}
