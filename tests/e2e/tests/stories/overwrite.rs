//! Restores into volumes that hold something, and restores of a part.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidelock_api::{ChangesStatus, Restore};
use tidelock_e2e::{Story, tell, tree};

use crate::support::{completed, restore_failure, restored, says};

/// A namespace with a completed Backup `now` of the sample tree, and a target that holds a newer
/// file of the same name, and one of its own.
async fn with_full_target(story: &Story) -> Result<(PathBuf, PathBuf)> {
    let data = story.volume("data").await?;
    story.volume("backup-storage").await?;
    tree::fill_sample(&data)?;
    tree::write(&data, "both", b"of the backup", 0o640)?;
    story.backup("now", json!({})).await?;
    completed(&story.wait_backup("now").await?)?;
    let target = story.volume("target").await?;
    tree::write(&target, "both", b"of the target", 0o600)?;
    tree::write(&target, "own/file", b"only here", 0o600)?;
    Ok((data, target))
}

async fn restore(story: &Story, name: &str, more: Value) -> Result<Restore> {
    let mut spec = json!({"backupName": "now", "targetPVC": "target"});
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    story.make::<Restore>(name, spec).await?;
    story.wait_restore(name).await
}

fn read(target: &Path, path: &str) -> Result<String> {
    std::fs::read_to_string(target.join(path)).with_context(|| format!("no {path}"))
}

fn changes(restore: &Restore) -> Result<ChangesStatus> {
    let status = restore.status.as_ref().context("no status")?;
    status.changes.clone().context("no changes in the status")
}

#[tokio::test]
async fn a_dry_run_tells_what_merge_and_replace_would_do_and_writes_nothing() -> Result<()> {
    tell("dry-run", |story| async move {
        let (_, target) = with_full_target(&story).await?;
        let before = story.volume("before").await?;
        tree::write(&before, "both", b"of the target", 0o600)?;
        tree::write(&before, "own/file", b"only here", 0o600)?;
        for (name, overwrite, removed) in [("merge", "Merge", 0), ("replace", "Replace", 2)] {
            let more = json!({"overwrite": overwrite, "dryRun": true});
            let dry = restore(&story, name, more).await?;
            restored(&dry)?;
            let changes = changes(&dry)?;
            ensure!(changes.added.count > 5, "{changes:#?}");
            ensure!(
                changes.changed.first.iter().any(|path| path == "both"),
                "{changes:#?}"
            );
            ensure!(
                changes.removed.count == removed,
                "{overwrite}: {changes:#?}"
            );
        }
        let names = |folder: &Path| -> Result<Vec<_>> {
            let mut names = tree::stored(folder, "")?;
            names.sort();
            Ok(names)
        };
        ensure!(names(&before)? == names(&target)?, "a dry run wrote");
        ensure!(read(&target, "both")? == "of the target");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn merge_replaces_by_name_and_keeps_the_rest() -> Result<()> {
    tell("merge", |story| async move {
        let (data, target) = with_full_target(&story).await?;
        let refused = restore(&story, "never", json!({})).await?;
        says(
            restore_failure(&refused)?,
            "TargetNotEmpty",
            &["Nothing was written"],
        )?;
        let merged = restore(
            &story,
            "merge",
            json!({"overwrite": "Merge", "verify": true}),
        )
        .await?;
        restored(&merged)?;
        let verified = merged.status.as_ref().and_then(|status| status.verified);
        ensure!(verified == Some(true), "{:#?}", merged.status);
        ensure!(read(&target, "both")? == "of the backup");
        ensure!(read(&target, "own/file")? == "only here");
        std::fs::remove_dir_all(target.join("own"))?;
        // The times of the root itself moved with that.
        tree::compare(&data, &target)
    })
    .await
}

#[tokio::test]
async fn replace_makes_the_target_equal_to_the_backup() -> Result<()> {
    tell("replace", |story| async move {
        let (data, target) = with_full_target(&story).await?;
        let replaced = restore(&story, "replace", json!({"overwrite": "Replace"})).await?;
        restored(&replaced)?;
        tree::compare(&data, &target)
    })
    .await
}

#[tokio::test]
async fn paths_pick_files_and_folders_and_a_miss_fails_before_the_first_write() -> Result<()> {
    tell("paths", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        for path in [
            "etc/a.conf",
            "etc/b.conf",
            "etc/c.txt",
            "photos/2026/x",
            "other",
        ] {
            tree::write(&data, path, path.as_bytes(), 0o644)?;
        }
        story.backup("now", json!({})).await?;
        completed(&story.wait_backup("now").await?)?;
        let target = story.volume("target").await?;
        let miss = json!({"paths": ["etc/*.conf", "nowhere/**"]});
        let failed = restore(&story, "miss", miss).await?;
        let words = ["nowhere/**", "Nothing was written"];
        says(restore_failure(&failed)?, "NothingMatched", &words)?;
        ensure!(tree::stored(&target, "")?.is_empty());

        let some = json!({"paths": ["etc/*.conf", "photos"]});
        restored(&restore(&story, "some", some).await?)?;
        let mut found: Vec<String> = tree::stored(&target, "")?
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        found.sort();
        let wanted = ["etc/a.conf", "etc/b.conf", "photos/2026/x"];
        ensure!(
            found.len() == wanted.len() && wanted.iter().zip(&found).all(|(w, f)| f.ends_with(w)),
            "{found:?}"
        );
        Ok(())
    })
    .await
}
