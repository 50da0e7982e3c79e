//! Small things that several stories say.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::ListParams;
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
