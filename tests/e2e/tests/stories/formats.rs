//! Archives in the format that is asked for.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidelock_api::{Backup, DeletionPolicy, Format};
use tidelock_e2e::{tell, tree};

use crate::support::{completed, next_success, restored, unpack_by_hand};

#[tokio::test]
async fn a_policy_makes_zstd_archives_that_tar_reads_and_retention_removes() -> Result<()> {
    tell("tar-zst", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::fill_sample(&data)?;
        story.backup("gzipped", json!({})).await?;
        completed(&story.wait_backup("gzipped").await?)?;
        let spec = json!({"format": "TarZst", "retention": {"keepLast": 1}});
        story.policy("minutely", "* * * * *", spec).await?;
        let first = next_success(&story, None).await?;

        let backup = story.api::<Backup>().get(&first).await?;
        let status = backup.status.context("no status")?;
        ensure!(status.format == Some(Format::TarZst), "{status:#?}");
        let location = status.backup_location.context("no location")?;
        ensure!(location == format!("{}/data/{first}.tar.zst", story.namespace));
        let archive = storage.join(&location);
        let archive = archive.to_str().context("a path that is not UTF-8")?;
        let listed = tidelock_e2e::cluster::run("tar", &["--zstd", "-tf", archive])?;
        ensure!(listed.starts_with("./\n"), "{listed}");
        let by_hand = story.volumes_folder()?.join("by-hand");
        unpack_by_hand(&storage, &location, &by_hand)?;
        tree::compare(&data, &by_hand)?;

        let target = story.volume("restored").await?;
        story.restore("back", &first, "restored").await?;
        restored(&story.wait_restore("back").await?)?;
        tree::compare(&data, &target)?;

        // What stands alone stays, whatever its format.
        let second = next_success(&story, Some(&first)).await?;
        story.wait_gone::<Backup>(&first).await?;
        let left = tree::stored(&storage, "")?;
        let is_of = |name: &str| {
            left.iter()
                .any(|path| path.to_string_lossy().contains(name))
        };
        ensure!(!is_of(&first), "{left:?}");
        ensure!(is_of(&format!("{second}.tar.zst")), "{left:?}");
        ensure!(is_of("gzipped.tar.gz"), "{left:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_backup_by_hand_is_made_and_kept_as_its_policy_says() -> Result<()> {
    tell("as-its-policy", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let spec = json!({"suspend": true, "format": "TarZst", "deletionPolicy": "Retain"});
        story.policy("nightly", "0 3 * * *", spec).await?;
        story
            .make::<Backup>("now", json!({"policyRef": "nightly"}))
            .await?;
        let backup = story.wait_backup("now").await?;
        completed(&backup)?;
        let status = backup.status.context("no status")?;
        ensure!(status.format == Some(Format::TarZst), "{status:#?}");
        ensure!(status.deletion_policy == Some(DeletionPolicy::Retain));
        // The policy may be gone by the time that it is asked.
        for gone in ["backuppolicy/nightly", "backup/now"] {
            story.kubectl(&["delete", gone])?;
        }
        story.wait_gone::<Backup>("now").await?;
        let archives = tree::archives(&storage)?;
        ensure!(archives.len() == 1, "{archives:?}");
        Ok(())
    })
    .await
}
