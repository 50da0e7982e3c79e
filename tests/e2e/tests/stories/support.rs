//! Small things that several stories say.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::ListParams;
use tidelock_api::{Backup, FailureStatus, Phase, Restore};
use tidelock_e2e::Story;
use tidelock_e2e::cluster::run;

/// A completed Backup, or the story ends with what its status says.
pub fn completed(backup: &Backup) -> Result<()> {
    let status = backup.status.as_ref().context("no status")?;
    ensure!(
        status.phase == Some(Phase::Completed),
        "Backup {} ended so: {status:#?}",
        backup.name_any()
    );
    Ok(())
}

/// A completed Restore, or the story ends with what its status says.
pub fn restored(restore: &Restore) -> Result<()> {
    let status = restore.status.as_ref().context("no status")?;
    ensure!(
        status.phase == Some(Phase::Completed),
        "Restore {} ended so: {status:#?}",
        restore.name_any()
    );
    Ok(())
}

/// The failure of a failed Backup.
pub fn backup_failure(backup: &Backup) -> Result<&FailureStatus> {
    let status = backup.status.as_ref().context("no status")?;
    ensure!(
        status.phase == Some(Phase::Failed),
        "did not fail: {status:#?}"
    );
    status.failure.as_ref().context("failed without a failure")
}

/// The failure of a failed Restore.
pub fn restore_failure(restore: &Restore) -> Result<&FailureStatus> {
    let status = restore.status.as_ref().context("no status")?;
    ensure!(
        status.phase == Some(Phase::Failed),
        "did not fail: {status:#?}"
    );
    status.failure.as_ref().context("failed without a failure")
}

/// Asserts the reason, and that the message holds each of `words`.
pub fn says(failure: &FailureStatus, reason: &str, words: &[&str]) -> Result<()> {
    ensure!(failure.reason == reason, "{failure:#?} is not {reason}");
    for word in words {
        ensure!(
            failure.message.contains(word),
            "{failure:#?} lacks {word:?}"
        );
    }
    Ok(())
}

/// The archive at `location` below `storage`, checked and unpacked by `sha256sum` and `tar` alone.
pub fn unpack_by_hand(storage: &Path, location: &str, into: &Path) -> Result<()> {
    let archive = storage.join(location);
    let folder = archive.parent().context("an archive lies in a folder")?;
    let name = archive
        .file_name()
        .context("an archive has a name")?
        .to_string_lossy();
    let check = format!("cd '{}' && sha256sum -c '{name}.sha256'", folder.display());
    run("sh", &["-ec", &check])?;
    std::fs::create_dir_all(into)?;
    let (archive, into) = (archive.to_string_lossy(), into.to_string_lossy());
    run(
        "tar",
        &[
            "--xattrs",
            "--xattrs-include=*",
            "-xpzf",
            &archive,
            "-C",
            &into,
        ],
    )?;
    Ok(())
}

/// How many Jobs there are for each run kind.
pub async fn jobs_by_kind(story: &Story) -> Result<BTreeMap<String, usize>> {
    let mut count = BTreeMap::new();
    for job in story.api::<Job>().list(&ListParams::default()).await? {
        let kind = job.labels().get("tidelock.dev/run-kind").cloned();
        *count.entry(kind.unwrap_or_default()).or_insert(0) += 1;
    }
    Ok(count)
}

/// A file that takes a mover some seconds to read and takes no space: a hole of this many GiB.
pub fn long_read(root: &Path, gib: u64) -> Result<()> {
    let file = std::fs::File::create(root.join("hole.img"))?;
    file.set_len(gib << 30)?;
    Ok(())
}
