//! How runs ended, in the words that the stories ask for.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use tidelock_api::{Backup, FailureStatus, Phase, RUN_UID_LABEL, Restore};

use crate::cluster::run;
use crate::{Story, tree};

/// What a backup is in storage.
const OBJECTS: [&str; 4] = [".tar.gz", ".index.jsonl.gz", ".sha256", ".manifest.json"];

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
    status
        .failure
        .as_deref()
        .context("failed without a failure")
}

/// The failure of a failed Restore.
pub fn restore_failure(restore: &Restore) -> Result<&FailureStatus> {
    let status = restore.status.as_ref().context("no status")?;
    ensure!(
        status.phase == Some(Phase::Failed),
        "did not fail: {status:#?}"
    );
    status
        .failure
        .as_deref()
        .context("failed without a failure")
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

/// Waits for a Backup, which ends well with one Job, and with each Event once.
pub async fn completed_once(story: &Story, name: &str) -> Result<Backup> {
    let backup = story.wait_backup(name).await?;
    completed(&backup)?;
    let told = ["BackupStarted", "JobCreated", "BackupCompleted"];
    told_once(story, &backup, &told).await?;
    one_job(story, &format!("{name}-backup")).await?;
    Ok(backup)
}

/// Waits for a Restore, which ends well with one Job, and with each Event once.
pub async fn restored_once(story: &Story, name: &str) -> Result<Restore> {
    let restore = story.wait_restore(name).await?;
    restored(&restore)?;
    let told = ["RestoreStarted", "JobCreated", "RestoreCompleted"];
    told_once(story, &restore, &told).await?;
    one_job(story, &format!("{name}-restore")).await?;
    Ok(restore)
}

/// Each of `wanted` was told about `object`, and only once.
async fn told_once<K>(story: &Story, object: &K, wanted: &[&str]) -> Result<()>
where
    K: Resource<DynamicType = ()>,
{
    let reasons = story.event_reasons(object).await?;
    for reason in wanted {
        let told = reasons.iter().filter(|told| told == reason).count();
        let name = object.name_any();
        ensure!(
            told == 1,
            "{name}: {reason} was told {told} times: {reasons:?}"
        );
    }
    Ok(())
}

/// The only Job of its kind and run is `name`.
async fn one_job(story: &Story, name: &str) -> Result<()> {
    let job = story.api::<Job>().get(name).await?;
    let run = job.labels().get(RUN_UID_LABEL).cloned().unwrap_or_default();
    let own = ListParams::default().labels(&format!("{RUN_UID_LABEL}={run}"));
    let jobs = story.api::<Job>().list(&own).await?.items;
    ensure!(jobs.len() == 1, "{} Jobs for the run of {name}", jobs.len());
    Ok(())
}

/// The pods of a Job that are still there.
pub async fn pods_of_job(story: &Story, job: &str) -> Result<Vec<Pod>> {
    let own = ListParams::default().labels(&format!("job-name={job}"));
    Ok(story.api::<Pod>().list(&own).await?.items)
}

/// Storage holds one backup, whole in the eyes of `sha256sum`, and nothing half-written.
pub fn one_backup_stored(storage: &Path) -> Result<()> {
    for ending in OBJECTS {
        let found = tree::stored(storage, ending)?;
        ensure!(found.len() == 1, "{found:?} end in {ending}");
    }
    let all = tree::stored(storage, "")?;
    ensure!(
        all.len() == OBJECTS.len(),
        "{all:?} is more than one backup"
    );
    let check = "find . -name '*.sha256' -execdir sha256sum -c {} +";
    let check = format!("cd '{}' && {check}", storage.display());
    run("sh", &["-ec", &check]).map(|_| ())
}
