//! From a recorded failure to its end: the pods are stopped, what they half wrote is taken back.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use tidelock_core::run::{Ending, PodFact, UndoFact};

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::owners;
use crate::run::effects::{self, Created};
use crate::run::kind::Run;
use crate::run::observe::{find_job, has_condition, is_finished, is_live, pod_fact, undo_pods_of};
use crate::run::report;
use crate::run::status;

/// What is left to do for a run whose failure is recorded; none for any other.
pub async fn observe<R: Run>(
    run: &R,
    ctx: &Context,
    pods: &[Arc<Pod>],
) -> Result<Option<Ending>, Error> {
    let progress = run.progress();
    let Some(since) = progress.ending_since else {
        return Ok(None);
    };
    if convert::is_terminal(progress.phase) {
        return Ok(None);
    }
    let live = pods.iter().find(|pod| is_live(pod));
    Ok(Some(Ending {
        since,
        live_pod: live.map(|pod| pod.name_any()),
        undo: undo_fact(run, ctx).await?,
    }))
}

async fn undo_fact<R: Run>(run: &R, ctx: &Context) -> Result<UndoFact, Error> {
    match run.progress().undo_job_name {
        Some(name) => undo_job_fact(run, ctx, name).await,
        None => Ok(UndoFact::NotNeeded),
    }
}

/// What is known of the Job `name` that takes back what `run` half wrote.
pub async fn undo_job_fact<R: Run>(run: &R, ctx: &Context, name: &str) -> Result<UndoFact, Error> {
    let namespace = convert::namespace(run)?;
    let uid = convert::uid(run)?;
    let Some(job) = find_job(ctx, &namespace, name).await? else {
        return Ok(UndoFact::Absent);
    };
    if !owners::is_controlled_by(&job.metadata, &uid) {
        let owner = owners::describe_controller(&job.metadata);
        return Ok(UndoFact::Impossible(format!(
            "What it half wrote stays as it is: Job {name}, which would take it back, belongs to {owner}."
        )));
    }
    if !is_finished(&job) {
        let job_uid = convert::uid(job.as_ref())?;
        let mut pods = undo_pods_of(ctx, &namespace, &uid);
        pods.retain(|pod| owners::is_controlled_by(&pod.metadata, &job_uid));
        let (at_work, trouble) = match pod_fact(&job, &pods) {
            PodFact::Waiting { trouble, .. } => (false, trouble),
            // One that has ended, or pauses before a retry, was at work.
            PodFact::None { .. } => (!pods.is_empty(), None),
            PodFact::Started => (true, None),
        };
        return Ok(UndoFact::Active { at_work, trouble });
    }
    if has_condition(&job, "Complete") {
        return Ok(UndoFact::Done);
    }
    let failure = report::of_failure(ctx, &job, &uid).await?;
    Ok(UndoFact::Failed(format!(
        "What it half wrote could not be taken back: {}",
        failure.message
    )))
}

/// Makes the Job that takes back what the run half wrote.
///
/// # Crash window
/// None: its name is recorded before it is made, and a repeat finds it.
pub async fn start_undo<R: Run>(run: &R, ctx: &Context, now: Timestamp) -> Result<Action, Error> {
    let Some(name) = run.progress().undo_job_name.map(str::to_owned) else {
        return Ok(Action::await_change());
    };
    let job = match run.undo_job(ctx, &name).await? {
        Ok(job) => job,
        Err(not_ready) => {
            let words = Some(not_ready.words().to_owned());
            status::taking_back(run, ctx, words, now).await?;
            return Ok(Action::requeue(effects::AFTER_REFUSAL));
        }
    };
    match effects::ensure_job(ctx, &job).await? {
        Created::Exists => {
            status::taking_back(run, ctx, None, now).await?;
            Ok(effects::requeue_at(now, now))
        }
        Created::Blocked(words) => {
            let words = format!("The API server does not take Job {name}: {words}");
            status::taking_back(run, ctx, Some(words), now).await?;
            Ok(Action::requeue(effects::AFTER_REFUSAL))
        }
        Created::Refused(words) => {
            let left = format!(
                "What it half wrote stays as it is: the API server refuses Job {name}: {words}"
            );
            fail_as_recorded(run, ctx, Some(left), now).await?;
            Ok(Action::await_change())
        }
        Created::NamespaceLeaving => {
            let left = "What it half wrote stays as it is: its namespace is being deleted.";
            fail_as_recorded(run, ctx, Some(left.to_owned()), now).await?;
            Ok(Action::await_change())
        }
    }
}

/// Brings the undo Job of a run that has ended to rest: one that was given up must not take back
/// later what somebody has made of the target since.
pub async fn settle_undo<R: Run>(run: &R, ctx: &Context) -> Result<(), Error> {
    let Some(name) = run.progress().undo_job_name else {
        return Ok(());
    };
    let namespace = convert::namespace(run)?;
    let uid = convert::uid(run)?;
    let job = ctx
        .caches
        .jobs
        .get(&ObjectRef::new(name).within(&namespace));
    match job.filter(|job| owners::is_controlled_by(&job.metadata, &uid)) {
        Some(job) => effects::ensure_settled(ctx, &job).await,
        None => Ok(()),
    }
}

/// Takes into `run` what the undo Job `job`, which has ended well, came to; the sentence that tells
/// it.
pub async fn what_was_undone<R: Run>(
    run: &mut R,
    ctx: &Context,
    job: &Job,
) -> Result<String, Error> {
    let uid = convert::uid(run)?;
    let outcome = report::of_success(ctx, job, &uid).await?;
    Ok(match outcome {
        Ok(outcome) => run.undone(&outcome),
        Err(missing) => missing.message,
    })
}

/// Calls a run Failed for the recorded reason, and says what was taken back and what stays.
pub async fn fail_as_recorded<R: Run>(
    run: &R,
    ctx: &Context,
    left: Option<String>,
    now: Timestamp,
) -> Result<(), Error> {
    let progress = run.progress();
    let Some(recorded) = progress.failure else {
        return Ok(());
    };
    let mut failure = report::RunFailure::recorded(recorded);
    let undo_job = progress.undo_job_name.map(str::to_owned);
    let namespace = convert::namespace(run)?;
    let mut changed = run.clone();
    let job = match &undo_job {
        Some(name) => find_job(ctx, &namespace, name).await?,
        None => None,
    };
    let words = match (left, job) {
        (Some(left), _) => {
            let advice = undo_job.and_then(|_| changed.undo_pending());
            Some(format!("{left} {}", advice.unwrap_or_default()))
        }
        (None, Some(job)) => Some(what_was_undone(&mut changed, ctx, &job).await?),
        (None, None) => None,
    };
    if let Some(words) = words {
        failure.message = format!("{} {}", failure.message, words.trim_end());
    }
    status::failed_as(run, changed, ctx, &failure, now).await
}
