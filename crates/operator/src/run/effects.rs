//! Writes about Jobs, each safe to repeat.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;
use std::time::Duration;

use crate::context::Context;
use crate::error::{Error, is_namespace_leaving, is_status};
use crate::run::observe;

/// How long the Job of a run that ended stays for its logs to be read.
const LOGS_TTL_SECONDS: i32 = 24 * 3600;

/// Pause before a Job that the API server did not take is asked for again; no event tells when a
/// quota has room.
pub const AFTER_REFUSAL: Duration = Duration::from_secs(20);

/// What came of asking for a Job.
pub enum Created {
    /// It exists now, or did before.
    Exists,
    /// The API server will never take it as it is: why.
    Refused(String),
    /// The API server does not take it now, such as for a quota or a webhook: why.
    Blocked(String),
    /// Its namespace is being deleted.
    NamespaceLeaving,
}

/// Makes `job` unless one of its name exists.
///
/// # Crash window
/// None: the name is fixed, so a repeat finds the Job. Whose Job it is, is checked by the next
/// observation, which follows every start.
pub async fn ensure_job(ctx: &Context, job: &Job) -> Result<Created, Error> {
    let namespace = job.namespace().unwrap_or_default();
    let name = job.name_any();
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &namespace);
    match api.create(&PostParams::default(), job).await {
        Ok(_) => Ok(Created::Exists),
        Err(error) if is_status(&error, 409) => Ok(Created::Exists),
        Err(error) if is_namespace_leaving(&error) => Ok(Created::NamespaceLeaving),
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(Created::Refused(status.message)),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403) => {
            Ok(Created::Blocked(status.message))
        }
        Err(error) => Err(Error::api(format!("create Job {namespace}/{name}"))(error)),
    }
}

/// Deletes a Job of ours as it was read; it stays until its pods are gone. One that has changed
/// since, such as one that has ended, is left to the look that its change brings about.
pub async fn ensure_job_stopped(ctx: &Context, job: &Job) -> Result<(), Error> {
    if job.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let namespace = job.namespace().unwrap_or_default();
    let name = job.name_any();
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        preconditions: Some(kube::api::Preconditions {
            uid: job.uid(),
            resource_version: job.resource_version(),
        }),
        ..Default::default()
    };
    match api.delete(&name, &params).await {
        Ok(_) => Ok(()),
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(()),
        Err(error) => Err(Error::api(format!("delete Job {namespace}/{name}"))(error)),
    }
}

/// Brings the Job of a run that has ended to rest: an unfinished one is stopped, a finished one
/// goes after a day.
pub async fn ensure_settled(ctx: &Context, job: &Job) -> Result<(), Error> {
    if observe::is_finished(job) {
        ensure_expiry(ctx, job, LOGS_TTL_SECONDS).await
    } else {
        ensure_job_stopped(ctx, job).await
    }
}

/// Lets the Job of an ended run go after `seconds`. Not set when the Job is made: its result must
/// first be recorded, however long the operator is away.
pub async fn ensure_expiry(ctx: &Context, job: &Job, seconds: i32) -> Result<(), Error> {
    let has_ttl = job
        .spec
        .as_ref()
        .is_some_and(|spec| spec.ttl_seconds_after_finished.is_some());
    if has_ttl || job.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let namespace = job.namespace().unwrap_or_default();
    let name = job.name_any();
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &namespace);
    // A namesake that came after it is not meant.
    let patch = json!({
        "metadata": {"uid": job.uid()},
        "spec": {"ttlSecondsAfterFinished": seconds},
    });
    match api
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(()),
        Err(error) => Err(Error::api(format!("set the TTL of Job {namespace}/{name}"))(error)),
    }
}

/// To look again at `wake_at`, or when something happens.
pub fn requeue_by(wake_at: Option<Timestamp>, now: Timestamp) -> Action {
    wake_at.map_or_else(Action::await_change, |wake_at| requeue_at(wake_at, now))
}

/// To look again at `wake_at`.
pub fn requeue_at(wake_at: Timestamp, now: Timestamp) -> Action {
    let wait = wake_at.duration_since(now);
    // A timer that fires a moment early would find nothing due and spin; half a second is late
    // enough for clocks that differ in rounding.
    let wait = Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(500);
    Action::requeue(wait)
}
