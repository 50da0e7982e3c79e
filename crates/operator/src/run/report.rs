//! How a run ended, by the report of its pod. Everything a pod says is checked.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tidelock_core::text;
use tidelock_protocol::{Done, Failure, FailureReason, Outcome, Report, STORAGE_PATH};

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::job::CONTAINER;
use crate::owners;
use crate::run::observe;
use crate::telemetry::reasons;

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFailure {
    /// One word.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// The first paths.
    pub paths: Vec<String>,
    /// How many paths in all.
    pub paths_total: u64,
    /// For a restore: whether anything was written into the target, where that is known.
    pub target_touched: Option<bool>,
    /// For a restore: how far it got.
    pub done: Option<Done>,
}

impl RunFailure {
    /// A failure without paths.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            paths: Vec::new(),
            paths_total: 0,
            target_touched: None,
            done: None,
        }
    }

    /// As the mover reports it, with what became of a restore's target.
    fn reported(failure: Failure) -> Self {
        let target = match (failure.target_touched, failure.done) {
            (Some(true), Some(done)) => format!(
                " {} in {} had been written.",
                text::bytes(done.bytes),
                text::count(done.files, "file")
            ),
            (Some(true), None) => " The target had been written to.".to_owned(),
            (Some(false), _) => " Nothing was written to the target.".to_owned(),
            (None, _) => String::new(),
        };
        let sentence = text::sentence(&failure.message);
        Self {
            reason: failure.reason.as_str().to_owned(),
            message: format!("{sentence}{target}"),
            paths: failure.paths.first,
            paths_total: failure.paths.total,
            target_touched: failure.target_touched,
            done: failure.done,
        }
    }

    /// As it was recorded in a status before.
    pub fn recorded(failure: &tidelock_api::FailureStatus) -> Self {
        Self {
            paths: failure.paths.clone(),
            paths_total: u64::try_from(failure.paths_total).unwrap_or_default(),
            ..Self::new(&failure.reason, failure.message.clone())
        }
    }

    /// As the status shows it.
    pub fn to_status(&self) -> tidelock_api::FailureStatus {
        tidelock_api::FailureStatus {
            reason: self.reason.clone(),
            message: self.message.clone(),
            paths: self.paths.clone(),
            paths_total: convert::to_i64(self.paths_total),
        }
    }
}

/// The pods of `job`, newest first, as the API server knows them now (a report is read once, at
/// the end, so a lagging cache must not hide it), and those that are gone, as they were last seen.
async fn pods(ctx: &Context, job: &Job) -> Result<Vec<Pod>, Error> {
    let namespace = convert::namespace(job)?;
    let uid = convert::uid(job)?;
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let selector = format!("batch.kubernetes.io/controller-uid={uid}");
    let list = api
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(Error::api(format!(
            "list the pods of Job {namespace}/{}",
            job.name_any()
        )))?;
    let gone = ctx.caches.gone_pods.of_job(&uid);
    Ok(own(list.items.into_iter().chain(gone), &uid))
}

/// Those of `pods` that the Job with this UID itself controls, newest first: anybody who may make
/// pods can give them its labels.
fn own(pods: impl Iterator<Item = Pod>, job_uid: &str) -> Vec<Pod> {
    let own = pods.filter(|pod| owners::is_controlled_by(&pod.metadata, job_uid));
    let mut own: Vec<Pod> = own.collect();
    own.sort_by_key(|pod| std::cmp::Reverse(convert::created(&pod.metadata)));
    own
}

/// The outcome that the pod of a Job that ended well reports.
///
/// # Errors
/// The inner error is a failure of the run: no report, or not one of this run.
pub async fn of_success(
    ctx: &Context,
    job: &Job,
    run_uid: &str,
) -> Result<Result<Outcome, RunFailure>, Error> {
    let pods = pods(ctx, job).await?;
    let succeeded = pods
        .iter()
        .find_map(|pod| terminated(pod).filter(|end| end.exit_code == 0));
    let Some(end) = succeeded else {
        return Ok(Err(RunFailure::new(
            reasons::REPORT_MISSING,
            format!(
                "Job {} ended well, but its pod is gone, and with it the report of what was done; the result cannot be trusted. Make it again under a new name; a scheduled backup comes with the next slot.",
                job.name_any()
            ),
        )));
    };
    let message = end.message.as_deref().unwrap_or_default();
    Ok(match Report::from_termination_message(message, run_uid) {
        Ok(report) => Ok(report.outcome),
        Err(error) => Err(RunFailure::new(
            reasons::REPORT_MISSING,
            format!(
                "Job {} ended well, but {error}; the result cannot be trusted. Make it again under a new name; a scheduled backup comes with the next slot.",
                job.name_any()
            ),
        )),
    })
}

/// The outcome that the newest pod of a Job that ended badly reports, or else what Kubernetes says.
pub async fn of_failure(ctx: &Context, job: &Job, run_uid: &str) -> Result<RunFailure, Error> {
    if let Some(failure) = timed_out(job) {
        return Ok(failure);
    }
    let pods = pods(ctx, job).await?;
    let reported = pods.iter().find_map(|pod| {
        let message = terminated(pod)?.message.as_deref()?;
        match Report::from_termination_message(message, run_uid)
            .ok()?
            .outcome
        {
            Outcome::Failed(failure) => {
                let advice = advice_on_user(failure.reason, pod);
                let mut failure = RunFailure::reported(failure);
                failure.message.push_str(&advice.unwrap_or_default());
                Some(failure)
            }
            _ => None,
        }
    });
    Ok(reported.unwrap_or_else(|| unreported(job, &pods)))
}

/// What helps a mover that was denied something because it was not root.
fn advice_on_user(reason: FailureReason, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let user = spec.security_context.as_ref()?.run_as_user?;
    let mounts = spec
        .containers
        .iter()
        .flat_map(|c| c.volume_mounts.iter().flatten());
    let has_storage = mounts
        .map(|mount| &mount.mount_path)
        .any(|path| path == STORAGE_PATH);
    let what = match reason {
        FailureReason::SourceUnreadable => "that may read all files of the volume",
        // A bucket does not ask for users.
        FailureReason::StorageDenied if has_storage => "that may write to the storage volume",
        FailureReason::TargetUnwritable => "that owns the files and the root of the target",
        _ => return None,
    };
    (user != 0).then(|| {
        format!(
            " The mover ran as user {user} without root's rights; set mover.runAsUser to a user {what}, name a group that does in mover.fsGroup or mover.supplementalGroups, or use mover.privilege Root in a namespace whose Pod Security Standard takes it."
        )
    })
}

/// The report of the newest pod that left one, good or bad.
pub async fn newest(ctx: &Context, job: &Job, run_uid: &str) -> Result<Option<Outcome>, Error> {
    let pods = pods(ctx, job).await?;
    Ok(pods.iter().find_map(|pod| {
        let message = terminated(pod)?.message.as_deref()?;
        let report = Report::from_termination_message(message, run_uid).ok()?;
        Some(report.outcome)
    }))
}

/// The failure of a Job that was stopped for its time-out, whatever its pod said at the end.
fn timed_out(job: &Job) -> Option<RunFailure> {
    let condition = observe::condition(job, "Failed")?;
    if condition.reason.as_deref() != Some("DeadlineExceeded") {
        return None;
    }
    let seconds = job
        .spec
        .as_ref()
        .and_then(|spec| spec.active_deadline_seconds);
    Some(RunFailure::new(
        reasons::TIMED_OUT,
        format!(
            "Stopped after mover.timeoutSeconds={}, counted from when its Job began, waiting for its pod included. Raise the time-out, or find what slows the run.",
            seconds.unwrap_or_default()
        ),
    ))
}

/// What Kubernetes knows of a failure that no mover reported.
fn unreported(job: &Job, pods: &[Pod]) -> RunFailure {
    let condition = observe::condition(job, "Failed");
    let job_reason = condition.and_then(|c| c.reason.clone()).unwrap_or_default();
    let job_message = condition
        .and_then(|c| c.message.clone())
        .unwrap_or_default();
    let end = pods.iter().find_map(terminated);
    if end.is_some_and(|end| end.reason.as_deref() == Some("OOMKilled")) {
        return RunFailure::new(
            reasons::OUT_OF_MEMORY,
            "The mover was killed at its memory limit; raise mover.resources.limits.memory.",
        );
    }
    let pod_words = pods.iter().find_map(|pod| {
        let status = pod.status.as_ref()?;
        let reason = status.reason.clone()?;
        let message = status.message.clone().unwrap_or_default();
        Some(format!(" Pod {}: {reason} {message}", pod.name_any()))
    });
    let end_words = end.map(|end| {
        let reason = end.reason.clone().unwrap_or_default();
        format!(
            " The mover ended with exit code {} ({reason}).",
            end.exit_code
        )
    });
    let detail = pod_words.or(end_words).unwrap_or_default();
    RunFailure::new(
        reasons::MOVER_FAILED,
        format!(
            "Job {} failed without a report ({job_reason}: {job_message}).{detail} See `kubectl logs job/{}`.",
            job.name_any(),
            job.name_any()
        ),
    )
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let mover = statuses.iter().find(|status| status.name == CONTAINER)?;
    mover.state.as_ref()?.terminated.as_ref()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, second: u8, controller: Option<&str>) -> Pod {
        let owner = controller.map(|uid| {
            json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": uid, "controller": true}])
        });
        serde_json::from_value(json!({"metadata": {
            "name": name,
            "labels": {"batch.kubernetes.io/controller-uid": "job-1"},
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            "ownerReferences": owner,
        }}))
        .unwrap()
    }

    #[test]
    fn users_are_spoken_of_where_a_volume_asks_for_them_and_not_a_bucket() {
        let pod = |user: i64, mounted: &str| -> Pod {
            serde_json::from_value(json!({"spec": {
                "securityContext": {"runAsUser": user},
                "containers": [{
                    "name": "mover",
                    "volumeMounts": [{"name": "it", "mountPath": mounted}],
                }],
            }}))
            .unwrap()
        };
        let denied = |pod: Pod| advice_on_user(FailureReason::StorageDenied, &pod);
        assert!(denied(pod(1000, STORAGE_PATH)).is_some_and(|told| told.contains("user 1000")));
        assert_eq!(denied(pod(0, STORAGE_PATH)), None);
        assert_eq!(denied(pod(1000, "/credentials")), None);
        let unreadable = advice_on_user(FailureReason::SourceUnreadable, &pod(1000, "/source"));
        assert!(unreadable.is_some());
    }

    #[test]
    fn a_pod_that_only_bears_the_labels_of_a_job_reports_for_nobody() {
        let pods = [
            pod("first", 1, Some("job-1")),
            pod("second", 2, Some("job-1")),
            pod("planted", 3, None),
            pod("of-another", 4, Some("job-2")),
        ];
        let own: Vec<_> = own(pods.into_iter(), "job-1")
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        assert_eq!(own, ["second", "first"]);
    }
}
