//! What is known of a run's Job and pods.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use tidelock_api::RUN_UID_LABEL;
use tidelock_core::run::{JobFact, PodFact};

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::owners;
use crate::run::kind::Run;

/// The Job of that name: from the cache, or from the API server where the cache has none (it holds
/// only Jobs with our label, and may lag).
pub async fn find_job(
    ctx: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<Arc<Job>>, Error> {
    let cached = ctx.caches.jobs.get(&ObjectRef::new(name).within(namespace));
    if cached.is_some() {
        return Ok(cached);
    }
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), namespace);
    let live = api
        .get_opt(name)
        .await
        .map_err(Error::api(format!("read Job {namespace}/{name}")))?;
    Ok(live.map(Arc::new))
}

/// What a Job means for `run`.
pub fn job_fact<R: Run>(job: Option<&Job>, run: &R, pods: &[Arc<Pod>]) -> JobFact {
    let Some(job) = job else {
        return JobFact::Absent;
    };
    let run_uid = run.uid().unwrap_or_default();
    if !owners::is_controlled_by(&job.metadata, &run_uid) {
        let namesake = owners::controller(&job.metadata)
            .is_some_and(|owner| owner.kind == R::WORDS.kind && owner.name == run.name_any());
        return if namesake {
            JobFact::Leaving
        } else {
            JobFact::Foreign(owners::describe_controller(&job.metadata))
        };
    }
    if has_condition(job, "Complete") {
        JobFact::Succeeded
    } else if has_condition(job, "Failed") {
        JobFact::Failed
    } else {
        JobFact::Active(pod_fact(job, pods))
    }
}

/// Whether a Job is at its end.
pub fn is_finished(job: &Job) -> bool {
    has_condition(job, "Complete") || has_condition(job, "Failed")
}

/// Whether a condition of that type is true.
pub fn has_condition(job: &Job, kind: &str) -> bool {
    condition(job, kind).is_some()
}

/// The true condition of that type.
pub fn condition<'a>(
    job: &'a Job,
    kind: &str,
) -> Option<&'a k8s_openapi::api::batch::v1::JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Cached pods of the run with this UID.
pub fn pods_of(ctx: &Context, namespace: &str, run_uid: &str) -> Vec<Arc<Pod>> {
    ctx.caches.pods.state_filter(|pod| {
        pod.namespace().as_deref() == Some(namespace)
            && pod
                .labels()
                .get(RUN_UID_LABEL)
                .is_some_and(|uid| uid == run_uid)
    })
}

/// Whether a pod can still run or write.
pub fn is_live(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// What the newest pod of an unfinished Job tells.
pub fn pod_fact(job: &Job, pods: &[Arc<Pod>]) -> PodFact {
    let newest = pods
        .iter()
        .max_by_key(|pod| convert::created(&pod.metadata));
    let Some(pod) = newest else {
        let since = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
        return PodFact::None { since };
    };
    if let Some(leaving) = pod
        .metadata
        .deletion_timestamp
        .as_ref()
        .filter(|_| is_live(pod))
    {
        return PodFact::Waiting {
            pod: pod.name_any(),
            trouble: Some(format!(
                "Pod {} is being deleted, and its replacement starts when its node confirms that it is gone.",
                pod.name_any()
            )),
            since: leaving.0,
        };
    }
    match pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
    {
        Some("Running") => PodFact::Started,
        Some("Succeeded" | "Failed") => PodFact::None {
            since: ended(pod).or(Some(convert::created(&pod.metadata))),
        },
        _ => PodFact::Waiting {
            pod: pod.name_any(),
            trouble: pod_trouble(pod),
            since: convert::created(&pod.metadata),
        },
    }
}

/// When the last container of a pod ended.
fn ended(pod: &Pod) -> Option<jiff::Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ends = statuses.iter().filter_map(|status| {
        let terminated = status.state.as_ref()?.terminated.as_ref()?;
        Some(terminated.finished_at.as_ref()?.0)
    });
    ends.max()
}

fn pod_trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let words = condition.message.clone().unwrap_or_default();
        return Some(format!("Pod {} is not scheduled: {words}", pod.name_any()));
    }
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(waiting_words)?;
    Some(format!("Pod {} does not start: {waiting}", pod.name_any()))
}

fn waiting_words(status: &ContainerStatus) -> Option<String> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone().unwrap_or_default();
    // The ordinary way to a start is no trouble.
    if reason == "ContainerCreating" || reason == "PodInitializing" || reason.is_empty() {
        return None;
    }
    let message = waiting.message.clone().unwrap_or_default();
    Some(format!("{reason} {message}").trim_end().to_owned())
}
