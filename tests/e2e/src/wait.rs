//! Waiting for a state of the cluster by watching it.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::runtime::wait::{Condition, await_condition};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidelock_api::{Backup, Phase, Restore};

use crate::{Story, tree};

/// Far longer than anything takes that is not broken, on a machine busy with other stories.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// What can be waited for.
pub trait Watched:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + 'static
{
}

impl<K> Watched for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + 'static
{
}

/// How often files are looked at: a mover takes longer than this for anything it does to them.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Waits until something on this machine, such as a file in a volume, is as `holds` says.
pub async fn until(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let looked = async {
        while !holds()? {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    };
    match tokio::time::timeout(DEADLINE, looked).await {
        Ok(found) => found,
        Err(_) => bail!("waited {} s for {what}", DEADLINE.as_secs()),
    }
}

/// Waits until a restore writes the backup into `target`: its checks are made, and its marker in
/// the root says so.
pub async fn until_written(target: &Path) -> Result<()> {
    until("the restore to write", || {
        for entry in std::fs::read_dir(target)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(".tidelock-restore-") {
                // It may just have been replaced, or have gone.
                let marker = std::fs::read_to_string(entry.path()).unwrap_or_default();
                if marker.contains("\"stage\":\"Writing\"") {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    })
    .await
}

/// Waits until a backup has begun to write its archive.
pub async fn until_stored_begins(storage: &Path) -> Result<()> {
    until("the backup to write", || {
        let all = tree::stored(storage, "")?;
        let temporary = |path: &PathBuf| path.to_string_lossy().contains("/.tidelock-");
        Ok(all.iter().any(temporary) || !tree::unfinished(storage)?.is_empty())
    })
    .await
}

impl Story {
    /// Waits for an Event of this reason; its note.
    pub async fn wait_event(&self, reason: &str) -> Result<String> {
        let of_reason = watcher::Config::default().fields(&format!("reason={reason}"));
        let told = watcher(self.api::<Event>(), of_reason).applied_objects();
        let mut told = std::pin::pin!(told.filter_map(|event| std::future::ready(event.ok())));
        let next = tokio::time::timeout(DEADLINE, told.next()).await;
        let event = next.with_context(|| format!("no Event {reason} comes"))?;
        Ok(event.and_then(|event| event.note).unwrap_or_default())
    }

    /// Waits until `condition` says yes about the object `name`, and returns it as it is then.
    /// `what` ends the sentence "waited for Backup x …".
    ///
    /// # Errors
    /// After [`DEADLINE`], with the object, its Events, and the Jobs and Pods around it.
    pub async fn wait_for<K: Watched>(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&K) -> Option<bool>,
    ) -> Result<K> {
        self.wait_longer_for(DEADLINE, name, what, condition).await
    }

    /// As [`Self::wait_for`], for what takes its time when nothing is broken.
    pub async fn wait_longer_for<K: Watched>(
        &self,
        deadline: Duration,
        name: &str,
        what: &str,
        condition: impl Fn(&K) -> Option<bool>,
    ) -> Result<K> {
        let holds = |object: Option<&K>| object.and_then(&condition).unwrap_or(false);
        let found = self.await_state(name, what, deadline, holds).await?;
        found.with_context(|| format!("{} {name} went away", K::kind(&())))
    }

    /// Waits until the object `name` is gone.
    pub async fn wait_gone<K: Watched>(&self, name: &str) -> Result<()> {
        let gone = |object: Option<&K>| object.is_none();
        self.await_state(name, "to be gone", DEADLINE, gone).await?;
        Ok(())
    }

    /// Waits until a Backup has come to an end, whichever.
    pub async fn wait_backup(&self, name: &str) -> Result<Backup> {
        self.wait_for(name, "to end", |backup: &Backup| {
            Some(is_end(backup.status.as_ref()?.phase?))
        })
        .await
    }

    /// Waits until a Restore has come to an end, whichever.
    pub async fn wait_restore(&self, name: &str) -> Result<Restore> {
        self.wait_for(name, "to end", |restore: &Restore| {
            Some(is_end(restore.status.as_ref()?.phase?))
        })
        .await
    }

    /// Waits for a Job's pod to run, and returns it.
    pub async fn wait_job_pod(&self, job: &str) -> Result<Pod> {
        let pod = self.wait_job_pod_made(job).await?;
        self.wait_for(&pod.name_any(), "to run", |pod: &Pod| {
            Some(pod.status.as_ref()?.phase.as_deref()? == "Running")
        })
        .await
    }

    /// The first pod of a Job, which may not run yet.
    pub async fn wait_job_pod_made(&self, job: &str) -> Result<Pod> {
        self.wait_for(job, "to have a pod", |job: &Job| {
            Some(job.status.as_ref()?.active? > 0)
        })
        .await?;
        let own = kube::api::ListParams::default().labels(&format!("job-name={job}"));
        let pods = self.api::<Pod>().list(&own).await?;
        let pod = pods.items.into_iter().next();
        pod.with_context(|| format!("Job {job} has no pod"))
    }

    async fn await_state<K: Watched>(
        &self,
        name: &str,
        what: &str,
        deadline: Duration,
        condition: impl Condition<K>,
    ) -> Result<Option<K>> {
        let watched = await_condition(self.api::<K>(), name, condition);
        match tokio::time::timeout(deadline, watched).await {
            Ok(found) => Ok(found?),
            Err(_) => {
                let kind = K::kind(&());
                bail!(
                    "waited {} s for {kind} {name} {what}\n{}",
                    deadline.as_secs(),
                    self.describe(&kind, name)
                )
            }
        }
    }

    /// An object, its Events, and the Jobs and Pods around it, for a person.
    pub fn describe(&self, kind: &str, name: &str) -> String {
        let about = format!("regarding.name={name}");
        let views: [&[&str]; 4] = [
            &["get", kind, name, "--output=yaml"],
            &["get", "events.events.k8s.io", "--field-selector", &about],
            &["get", "jobs,pods,pvc", "--output=wide"],
            &["get", "tidelock"],
        ];
        let mut text = String::new();
        for view in views {
            let shown = self.kubectl(view).unwrap_or_else(|error| error.to_string());
            text.push_str(&format!("--- kubectl {}\n{shown}\n", view.join(" ")));
        }
        text
    }
}

fn is_end(phase: Phase) -> bool {
    matches!(phase, Phase::Completed | Phase::Failed)
}
