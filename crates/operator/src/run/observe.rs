//! What is known of a run's Job and pods.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use tidelock_api::{QUEUED, RUN_KIND_LABEL, RUN_UID_LABEL};
use tidelock_core::run::{JobFact, PodFact};
use tidelock_core::text;

use crate::conditions;
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::job::{PIN_ANNOTATION, RunKind};
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

/// Since when a run that has not begun waits for what is missing, as its condition `Queued` tells:
/// `now` where it waits for its turn, else since that ended, else since it was made.
pub fn waits_since(meta: &ObjectMeta, conditions: &[Condition], now: Timestamp) -> Timestamp {
    if conditions::holds(conditions, QUEUED) {
        return now;
    }
    conditions::since(conditions, QUEUED, false).unwrap_or_else(|| convert::created(meta))
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

/// The Jobs of that kind that the object with this UID controls and whose results are not recorded,
/// the oldest first. One whose results are has a time to live.
pub fn unrecorded_jobs(
    ctx: &Context,
    namespace: &str,
    kind: RunKind,
    owner_uid: &str,
) -> Vec<Arc<Job>> {
    let mut jobs = ctx.caches.jobs.state_filter(|job| {
        let spec = job.spec.as_ref();
        job.metadata.namespace.as_deref() == Some(namespace)
            && job
                .labels()
                .get(RUN_KIND_LABEL)
                .is_some_and(|own| own == kind.as_str())
            && owners::is_controlled_by(&job.metadata, owner_uid)
            && spec.is_none_or(|spec| spec.ttl_seconds_after_finished.is_none())
    });
    jobs.sort_by_key(|job| (convert::created(&job.metadata), job.name_any()));
    jobs
}

/// What the run that a Job works for is known by.
pub fn run_uid(job: &Job) -> String {
    let uid = job.labels().get(RUN_UID_LABEL).cloned();
    uid.unwrap_or_default()
}

/// Cached pods of the run with this UID, but for those that take back what it half wrote.
pub fn pods_of(ctx: &Context, namespace: &str, run_uid: &str) -> Vec<Arc<Pod>> {
    pods(ctx, namespace, run_uid, |kind| {
        kind != RunKind::Undo.as_str()
    })
}

/// Cached pods that take back what the run with this UID half wrote.
pub fn undo_pods_of(ctx: &Context, namespace: &str, run_uid: &str) -> Vec<Arc<Pod>> {
    pods(ctx, namespace, run_uid, |kind| {
        kind == RunKind::Undo.as_str()
    })
}

fn pods(
    ctx: &Context,
    namespace: &str,
    run_uid: &str,
    of_kind: impl Fn(&str) -> bool,
) -> Vec<Arc<Pod>> {
    ctx.caches.pods.state_filter(|pod| {
        let labels = pod.labels();
        pod.namespace().as_deref() == Some(namespace)
            && labels.get(RUN_UID_LABEL).is_some_and(|uid| uid == run_uid)
            && labels.get(RUN_KIND_LABEL).is_some_and(|kind| of_kind(kind))
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
            is_mute: false,
        };
    }
    match pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
    {
        Some("Running") => silent_since(pod).map_or(PodFact::Started, |since| PodFact::Waiting {
            pod: pod.name_any(),
            trouble: Some(silence(pod)),
            since,
            is_mute: false,
        }),
        Some("Succeeded" | "Failed") => PodFact::None {
            since: ended(pod).or(Some(convert::created(&pod.metadata))),
        },
        _ => {
            let trouble = pod_trouble(pod);
            PodFact::Waiting {
                pod: pod.name_any(),
                is_mute: trouble.is_none() && has_node(pod),
                trouble,
                since: convert::created(&pod.metadata),
            }
        }
    }
}

fn has_node(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.is_some_and(|spec| spec.node_name.is_some())
}

/// Since when the node of a running pod has not answered: then the control plane calls the pod not
/// ready in the node's place, and leaves what the node said last of its containers.
fn silent_since(pod: &Pod) -> Option<jiff::Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let of_type = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    let ready = of_type("Ready").filter(|condition| condition.status == "False")?;
    of_type("ContainersReady").filter(|condition| condition.status == "True")?;
    Some(ready.last_transition_time.as_ref()?.0)
}

fn silence(pod: &Pod) -> String {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let node = node.unwrap_or_default();
    format!(
        "Node {node} does not answer, so nobody knows what pod {} does there. The run goes on when the node answers, or elsewhere once the pod is known to be gone: if the node is lost, delete it with `kubectl delete node {node}`, or taint it with node.kubernetes.io/out-of-service.",
        pod.name_any()
    )
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
        let words = text::sentence(condition.message.as_deref().unwrap_or_default());
        let pinned = pod.annotations().get(PIN_ANNOTATION);
        let why = pinned.map(|why| format!(" {why}")).unwrap_or_default();
        return Some(format!(
            "Pod {} is not scheduled: {words}{why} Make room on a node that it may use, or change nodeSelector, tolerations or resources in spec.mover.",
            pod.name_any()
        ));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn running(ready: &str, containers_ready: &str) -> PodFact {
        let at = "2026-11-23T13:07:52Z";
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": at});
        let pod = json!({
            "metadata": {"name": "now-backup-x", "creationTimestamp": at},
            "spec": {"nodeName": "node-2", "containers": []},
            "status": {
                "phase": "Running",
                "conditions": [condition("Ready", ready), condition("ContainersReady", containers_ready)],
            },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        pod_fact(&Job::default(), &[Arc::new(pod)])
    }

    #[test]
    fn waiting_for_a_turn_is_no_wait_for_what_is_missing() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let meta: ObjectMeta =
            serde_json::from_value(json!({"creationTimestamp": "1970-01-01T00:00:10Z"})).unwrap();
        let since = |status: &str| {
            let condition: Condition = serde_json::from_value(json!({
                "type": "Queued", "status": status, "reason": "x", "message": "",
                "lastTransitionTime": "1970-01-01T00:50:00Z",
            }))
            .unwrap();
            waits_since(&meta, &[condition], at(4000))
        };
        assert_eq!(waits_since(&meta, &[], at(4000)), at(10));
        assert_eq!(since("True"), at(4000));
        assert_eq!(since("False"), at(3000));
    }

    #[test]
    fn a_pod_is_at_work_as_long_as_its_node_speaks_for_it() {
        assert_eq!(running("True", "True"), PodFact::Started);
        assert_eq!(running("False", "False"), PodFact::Started);
    }

    #[test]
    fn a_pod_on_a_node_that_says_nothing_is_mute_and_one_that_waits_for_a_node_is_not() {
        let is_mute = |node: Option<&str>, reason: &str| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "now-backup-x", "creationTimestamp": "2026-11-23T13:07:52Z"},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": "Pending", "containerStatuses": [{
                    "name": "mover", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": {"waiting": {"reason": reason}},
                }]},
            }))
            .unwrap();
            let PodFact::Waiting { is_mute, .. } = pod_fact(&Job::default(), &[Arc::new(pod)])
            else {
                panic!("it is not waited for");
            };
            is_mute
        };
        assert!(is_mute(Some("node-1"), "ContainerCreating"));
        assert!(!is_mute(Some("node-1"), "ImagePullBackOff"));
        assert!(!is_mute(None, "ContainerCreating"));
    }

    #[test]
    fn a_pod_whose_node_does_not_answer_is_told_with_the_node_and_the_way_out() {
        let PodFact::Waiting { pod, trouble, .. } = running("False", "True") else {
            panic!("nothing is waited for");
        };
        assert_eq!(pod, "now-backup-x");
        let words = trouble.unwrap();
        for word in ["Node node-2 does not answer", "kubectl delete node node-2"] {
            assert!(words.contains(word), "{words:?} lacks {word:?}");
        }
    }
}
