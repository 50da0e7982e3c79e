//! BackupStorages: whether they can be used, and what stands there.

mod discovery;
mod known;
mod look;
mod report;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use tidelock_api::{BackupStorage, READY};
use tidelock_core::check::{self as core_check, CheckDecision, CheckFacts};
use tidelock_core::run::PodFact;
use tidelock_protocol::Outcome;

use crate::conditions;
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::run::effects::{self, requeue_at};
use crate::run::observe::{has_condition, is_finished, pod_fact, pods_of, run_uid};
use crate::run::report as run_report;
use crate::storage::look::Started;
use crate::storage::report::Finding;
use crate::telemetry::reasons;

/// How long the Job of a look stays for its logs to be read: there may be many of them in a day.
const LOGS_TTL_SECONDS: i32 = 600;
/// How long the pod of a look may take to start.
const START_PATIENCE: SignedDuration = SignedDuration::from_secs(120);

/// Pause before the kubelet is listened to again, whose words about a pod wake nobody.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// What keeps a look from a volume that somebody has.
const BUSY: [&str; 2] = [reasons::VOLUME_IN_USE, reasons::VOLUMES_APART];
/// Pause before such a volume is looked at again.
const AFTER_BUSY: Duration = Duration::from_secs(60);

/// Brings one BackupStorage a step further: what a look found is taken in, one that does not start is
/// stopped, and a new one begins when it is due.
pub async fn reconcile(storage: Arc<BackupStorage>, ctx: Arc<Context>) -> Result<Action, Error> {
    let now = ctx.now();
    if storage.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let jobs = look::own_jobs(&storage, &ctx)?;
    let awaited = storage.status.as_ref().and_then(|s| s.check_job.clone());
    for job in jobs.iter().filter(|job| is_finished(job)) {
        let name = job.name_any();
        if awaited.as_ref() == Some(&name) {
            take_in(&storage, &ctx, job, now).await?;
            effects::ensure_expiry(&ctx, job, LOGS_TTL_SECONDS).await?;
            return Ok(Action::await_change());
        }
        // An operator that died after taking it in did not come to this; one that died after making
        // it did not come to await it.
        if name != look::job_name(&storage)? {
            effects::ensure_expiry(&ctx, job, LOGS_TTL_SECONDS).await?;
        }
    }
    if let Some(job) = jobs.iter().find(|job| !is_finished(job)) {
        return follow(&storage, &ctx, job, now).await;
    }
    match core_check::decide(&facts(&storage), now) {
        CheckDecision::Rest => {
            if storage.spec.suspend {
                report::write(&storage, &ctx, Finding::Suspended, now).await?;
            }
            Ok(Action::await_change())
        }
        CheckDecision::Wait(due) => Ok(requeue_at(due, now)),
        CheckDecision::Look => match look::start(&storage, &ctx).await? {
            Started::Job(name) => {
                report::write(&storage, &ctx, Finding::Looking(name), now).await?;
                Ok(requeue_at(after(now), now))
            }
            // A mover is at work there, which says more than a look.
            Started::NotReady { reason, .. } if BUSY.contains(&&*reason) => {
                Ok(Action::requeue(AFTER_BUSY))
            }
            Started::NotReady { reason, message } => {
                report::write(&storage, &ctx, Finding::Failed { reason, message }, now).await?;
                Ok(requeue_at(now, now))
            }
            Started::NamespaceLeaving => Ok(Action::await_change()),
        },
    }
}

/// When a pod that is asked for at `since` should have started.
fn after(since: Timestamp) -> Timestamp {
    since.checked_add(START_PATIENCE).unwrap_or(Timestamp::MAX)
}

fn facts(storage: &BackupStorage) -> CheckFacts {
    let status = storage.status.clone().unwrap_or_default();
    CheckFacts {
        is_suspended: storage.spec.suspend,
        has_changed: status.observed_generation != storage.metadata.generation,
        has_more: status.discovering,
        last: status.last_check_time.map(|time| time.0),
        failing_since: conditions::since(&status.conditions, READY, false),
        interval: convert::seconds(storage.spec.check_interval_seconds),
    }
}

/// Takes in what a finished Job found.
async fn take_in(
    storage: &BackupStorage,
    ctx: &Context,
    job: &Job,
    now: Timestamp,
) -> Result<(), Error> {
    let run_uid = run_uid(job);
    let found = if has_condition(job, "Complete") {
        run_report::of_success(ctx, job, &run_uid).await?
    } else {
        Err(run_report::of_failure(ctx, job, &run_uid).await?)
    };
    let finding = match found {
        Ok(Outcome::Checked(found)) => {
            let made = discovery::discover(storage, ctx, &found).await?;
            Finding::Found { found, made }
        }
        Ok(other) => Finding::Failed {
            reason: reasons::REPORT_MISMATCH.to_owned(),
            message: format!("The mover was asked to look and reports something else ({other:?})."),
        },
        Err(failure) => Finding::Failed {
            reason: failure.reason,
            message: failure.message,
        },
    };
    write_of(storage, ctx, job, finding, now).await
}

/// Writes what came of `job`. One that was made for an older spec says nothing of the newer, which is
/// then looked at as well.
async fn write_of(
    storage: &BackupStorage,
    ctx: &Context,
    job: &Job,
    finding: Finding,
    now: Timestamp,
) -> Result<(), Error> {
    let generation = match look::job_name(storage)? == job.name_any() {
        true => storage.metadata.generation,
        false => storage.status.as_ref().and_then(|s| s.observed_generation),
    };
    report::write_as_of(storage, ctx, finding, generation, now).await
}

/// Waits for a Job under way; one whose pod does not start is stopped, and what it waits for is told.
async fn follow(
    storage: &BackupStorage,
    ctx: &Context,
    job: &Job,
    now: Timestamp,
) -> Result<Action, Error> {
    let namespace = convert::namespace(storage)?;
    let pods = pods_of(ctx, &namespace, &run_uid(job));
    let mut pod = pod_fact(job, &pods);
    crate::run::listen(ctx, &mut pod, &pods, convert::created(&job.metadata), now).await;
    let (since, trouble) = match pod {
        PodFact::Started => return Ok(Action::await_change()),
        PodFact::Waiting { since, trouble, .. } => (since, trouble),
        PodFact::None { since } => (since.unwrap_or(now), None),
    };
    let ends = after(since);
    if now < ends {
        if let Some(message) = trouble {
            report::write(storage, ctx, Finding::Stuck(message), now).await?;
        }
        let soon = now.checked_add(LOOK_AGAIN).unwrap_or(ends);
        return Ok(requeue_at(ends.min(soon), now));
    }
    let name = job.name_any();
    let message = trouble.unwrap_or_else(|| format!("Job {name} has no pod."));
    effects::ensure_job_stopped(ctx, job).await?;
    let reason = reasons::POD_PENDING.to_owned();
    write_of(storage, ctx, job, Finding::Failed { reason, message }, now).await?;
    Ok(Action::await_change())
}
