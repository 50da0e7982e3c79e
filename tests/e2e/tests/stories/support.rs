//! Small things that several stories say.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::ListParams;
use tidelock_api::{BackupPolicy, Phase};
use tidelock_e2e::Story;
pub use tidelock_e2e::outcome::{backup_failure, completed, restore_failure, restored, says};
pub use tidelock_e2e::tree::{long_read, unpack_by_hand};

/// How many Jobs there are for each run kind.
pub async fn jobs_by_kind(story: &Story) -> Result<BTreeMap<String, usize>> {
    let mut count = BTreeMap::new();
    for job in story.api::<Job>().list(&ListParams::default()).await? {
        let kind = job.labels().get("tidelock.dev/run-kind").cloned();
        *count.entry(kind.unwrap_or_default()).or_insert(0) += 1;
    }
    Ok(count)
}

/// Waits for the next good backup of the policy `minutely` after `seen`; its name.
pub async fn next_success(story: &Story, seen: Option<&str>) -> Result<String> {
    let policy = story
        .wait_for(
            "minutely",
            "to have a good backup",
            |policy: &BackupPolicy| {
                let last = policy.status.as_ref()?.last_backup.as_ref()?;
                Some(last.phase == Some(Phase::Completed) && Some(last.name.as_str()) != seen)
            },
        )
        .await?;
    let status = policy.status.context("no status")?;
    ensure!(status.last_successful_backup_time.is_some() && status.last_backup_time.is_some());
    Ok(status.last_backup.context("no backup")?.name)
}
