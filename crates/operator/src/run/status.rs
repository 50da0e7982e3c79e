//! Status and Events of runs. Events are told before the status is written: the write is what ends
//! a transition, and a repeat tells the same Event again, which makes no second one.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::ResourceExt;
use kube::api::PostParams;
use tidelock_api::{Phase, ProgressStatus, QUEUED};
use tidelock_core::run::Blocker;
use tidelock_core::{names, text};

use crate::conditions::{self, Verdict, ready_reason, set_ready_or_stalled};
use crate::context::Context;
use crate::convert::{self, whole_seconds};
use crate::error::Error;
use crate::run::kind::{Run, Settled};
use crate::run::report::RunFailure;
use crate::telemetry::events::Story;
use crate::telemetry::reasons;

/// Writes the status of `changed` where it differs from that of `run`, against the
/// resourceVersion that was read.
pub async fn write<R: Run>(run: &R, changed: R, ctx: &Context) -> Result<R, Error> {
    if *run == changed {
        return Ok(changed);
    }
    let namespace = convert::namespace(run)?;
    let api: Api<R> = Api::namespaced(ctx.client.clone(), &namespace);
    let what = convert::describe(run);
    api.replace_status(&run.name_any(), &PostParams::default(), &changed)
        .await
        .map_err(Error::api(format!("write the status of {what}")))
}

/// Sets phase and verdict.
fn set<R: Run>(run: &mut R, phase: Phase, verdict: &Verdict, now: Timestamp) {
    let generation = run.meta().generation;
    let fields = run.fields();
    *fields.phase = Some(phase);
    if convert::is_terminal(Some(phase)) {
        *fields.progress = None;
    }
    *fields.observed_generation = generation;
    let failed = phase == Phase::Failed;
    set_ready_or_stalled(fields.conditions, verdict, failed, generation, now);
    // Ready stays False from the first check to the last, so its time says nothing of the turn.
    let turn = if verdict.reason == reasons::QUEUED {
        Verdict::yes(reasons::QUEUED, "It waits for its turn")
    } else {
        Verdict::no(reasons::NOT_QUEUED, "It does not wait for its turn")
    };
    conditions::mark(fields.conditions, QUEUED, &turn, generation, now);
}

/// Tells `note` about `run`: once for each reason, or for each `key` where one is given.
pub async fn tell<R: Run>(
    run: &R,
    ctx: &Context,
    (reason, warning, key): (&'static str, bool, &str),
    note: String,
    now: Timestamp,
) -> Result<(), Error> {
    let story = Story {
        warning,
        reason,
        action: R::WORDS.kind,
        note,
        key,
    };
    ctx.events.tell(run, story, now).await
}

/// Says what it waits for.
pub async fn waiting<R: Run>(
    run: &R,
    ctx: &Context,
    blocker: &Blocker,
    now: Timestamp,
) -> Result<(), Error> {
    if ready_reason(run.progress().conditions) != blocker.reason {
        let head = (R::WORDS.waiting, true, blocker.message.as_str());
        tell(run, ctx, head, blocker.message.clone(), now).await?;
    }
    let verdict = Verdict::no(blocker.reason, blocker.message.clone());
    let mut changed = run.clone();
    set(&mut changed, Phase::Pending, &verdict, now);
    write(run, changed, ctx).await?;
    Ok(())
}

/// Says that it waits for its turn, and at which place.
pub async fn queued<R: Run>(
    run: &R,
    ctx: &Context,
    words: &str,
    now: Timestamp,
) -> Result<(), Error> {
    if ready_reason(run.progress().conditions) != reasons::QUEUED {
        let head = (reasons::QUEUED, false, "");
        tell(run, ctx, head, words.to_owned(), now).await?;
    }
    let mut changed = run.clone();
    let verdict = Verdict::no(reasons::QUEUED, words);
    set(&mut changed, Phase::Pending, &verdict, now);
    write(run, changed, ctx).await?;
    Ok(())
}

/// Records what is going to be done, before any of it is.
pub async fn planned<R: Run>(
    run: &R,
    ctx: &Context,
    plan: &R::Plan,
    now: Timestamp,
) -> Result<R, Error> {
    let mut changed = run.clone();
    let note = changed.record(plan);
    tell(run, ctx, (R::WORDS.started, false, ""), note.clone(), now).await?;
    // A repeat keeps what was said since, such as why the Job was refused.
    if run.progress().start_time.is_none() {
        set(
            &mut changed,
            Phase::Pending,
            &Verdict::no(reasons::PENDING, note),
            now,
        );
    }
    let job_name = run.job_name();
    let fields = changed.fields();
    fields.start_time.get_or_insert_with(|| whole_seconds(now));
    *fields.job_name = Some(job_name);
    write(run, changed, ctx).await
}

/// Tells that the Job exists.
pub async fn job_created<R: Run>(
    run: &R,
    ctx: &Context,
    job_name: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!("Created Job {job_name}");
    tell(run, ctx, (reasons::JOB_CREATED, false, ""), note, now).await
}

/// The API server's words where it did not take the Job the last time.
pub fn last_refusal<R: Run>(run: &R) -> Option<String> {
    let conditions = run.progress().conditions;
    let refused = conditions
        .iter()
        .find(|condition| condition.reason == reasons::JOB_REFUSED);
    refused.map(|condition| condition.message.clone())
}

/// Says that the Job is under way, how far it is if that was `heard`, or what its pod is stuck on.
pub async fn running<R: Run>(
    run: &R,
    ctx: &Context,
    at_work: bool,
    trouble: Option<String>,
    heard: Option<ProgressStatus>,
    now: Timestamp,
) -> Result<(), Error> {
    let verdict = match trouble {
        Some(words) => Verdict::no(reasons::POD_PENDING, words),
        None if at_work => {
            let message = format!("Job {} is {}", run.job_name(), R::WORDS.doing);
            Verdict::no(reasons::RUNNING, message)
        }
        None => {
            let message = format!("Job {} waits for its pod to start", run.job_name());
            Verdict::no(reasons::STARTING, message)
        }
    };
    let mut changed = run.clone();
    set(&mut changed, Phase::Running, &verdict, now);
    if heard.is_some() {
        *changed.fields().progress = heard.map(Box::new);
    }
    write(run, changed, ctx).await?;
    Ok(())
}

/// Ends well: `ended` is `run` with the report taken in.
pub async fn completed<R: Run>(
    run: &R,
    mut ended: R,
    ctx: &Context,
    job: &Job,
    settled: Settled,
    now: Timestamp,
) -> Result<(), Error> {
    let at = job
        .status
        .as_ref()
        .and_then(|status| status.completion_time.clone());
    let at = at.unwrap_or_else(|| whole_seconds(now));
    let started = run.progress().start_time;
    let took = text::duration(started.map_or(SignedDuration::ZERO, |s| at.0.duration_since(s)));
    for remark in settled.remarks {
        tell(
            run,
            ctx,
            (remark.reason, remark.warning, ""),
            remark.note,
            now,
        )
        .await?;
    }
    let note = format!(
        "{} completed successfully in {took}: {}",
        R::WORDS.kind,
        settled.summary
    );
    tell(run, ctx, (R::WORDS.completed, false, ""), note, now).await?;

    let message = format!("Completed in {took}: {}", settled.summary);
    set(
        &mut ended,
        Phase::Completed,
        &Verdict::yes(reasons::COMPLETED, message),
        now,
    );
    let fields = ended.fields();
    *fields.completion_time = Some(at);
    *fields.duration = Some(took);
    write(run, ended, ctx).await?;
    tracing::info!(object = %convert::describe(run), "completed");
    Ok(())
}

/// Makes sure that `run` is what the API server has, before a failure is told that could not be
/// taken back.
///
/// # Errors
/// A conflict where it has changed since it was read; the next reconcile sees it as it is.
async fn ensure_current<R: Run>(run: &R, ctx: &Context) -> Result<(), Error> {
    let namespace = convert::namespace(run)?;
    let api: Api<R> = Api::namespaced(ctx.client.clone(), &namespace);
    let what = convert::describe(run);
    let live = api
        .get_metadata(&run.name_any())
        .await
        .map_err(Error::api(format!("read {what}")))?;
    if live.metadata.resource_version == run.meta().resource_version {
        Ok(())
    } else {
        Err(Error::Stale { object: what })
    }
}

/// Records why it fails, before its pods are stopped and what they half wrote is taken back.
pub async fn condemned<R: Run>(
    run: &R,
    ctx: &Context,
    failure: &RunFailure,
    needs_undo: bool,
    now: Timestamp,
) -> Result<(), Error> {
    let job_name = run.job_name();
    let message = format!(
        "{}: {} It is being stopped.",
        failure.reason, failure.message
    );
    let mut changed = run.clone();
    changed.fail(failure);
    let verdict = Verdict::no(reasons::STOPPING, message);
    set(&mut changed, Phase::Running, &verdict, now);
    let fields = changed.fields();
    *fields.failure = Some(failure.to_status().into());
    *fields.ending_since = Some(whole_seconds(now));
    *fields.undo_job_name = needs_undo.then(|| names::undo_job_name(&job_name));
    write(run, changed, ctx).await?;
    Ok(())
}

/// Says that what it half wrote is being taken back, or what that is stuck on.
pub async fn taking_back<R: Run>(
    run: &R,
    ctx: &Context,
    trouble: Option<String>,
    now: Timestamp,
) -> Result<(), Error> {
    let failure = run.progress().failure;
    let why = failure.map(|failure| format!("{}: {}", failure.reason, failure.message));
    let message = format!(
        "{} What it half wrote is being taken back. {}",
        why.unwrap_or_default(),
        trouble.unwrap_or_default()
    );
    let verdict = Verdict::no(reasons::TAKING_BACK, message.trim_end());
    let mut changed = run.clone();
    set(&mut changed, Phase::Running, &verdict, now);
    write(run, changed, ctx).await?;
    Ok(())
}

/// Ends badly.
pub async fn failed<R: Run>(
    run: &R,
    ctx: &Context,
    failure: &RunFailure,
    now: Timestamp,
) -> Result<(), Error> {
    let mut changed = run.clone();
    changed.fail(failure);
    failed_as(run, changed, ctx, failure, now).await
}

/// Ends badly: `changed` is `run` with the failure taken in.
pub async fn failed_as<R: Run>(
    run: &R,
    mut changed: R,
    ctx: &Context,
    failure: &RunFailure,
    now: Timestamp,
) -> Result<(), Error> {
    ensure_current(run, ctx).await?;
    let note = format!("{}: {}", failure.reason, failure.message);
    tell(run, ctx, (R::WORDS.failed, true, ""), note, now).await?;
    let verdict = Verdict::no(&failure.reason, failure.message.clone());
    set(&mut changed, Phase::Failed, &verdict, now);
    let at = whole_seconds(now);
    let fields = changed.fields();
    let started = fields.start_time.clone();
    *fields.duration = started.map(|started| text::duration(at.0.duration_since(started.0)));
    *fields.completion_time = Some(at);
    *fields.failure = Some(failure.to_status().into());
    write(run, changed, ctx).await?;
    tracing::warn!(object = %convert::describe(run), reason = failure.reason, "failed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidelock_api::Backup;

    use super::*;

    #[test]
    fn a_run_tells_since_when_it_waits_for_its_turn_and_since_when_it_does_not() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut backup = Backup::new("now", serde_json::from_str("{}").unwrap());
        let mut told = |reason, second| {
            let verdict = Verdict::no(reason, "");
            set(&mut backup, Phase::Pending, &verdict, at(second));
            let conditions = backup.progress().conditions;
            let since = |holds| conditions::since(conditions, QUEUED, holds);
            (since(true), since(false))
        };
        assert_eq!(told(reasons::PVC_NOT_FOUND, 1), (None, None));
        assert_eq!(told(reasons::QUEUED, 2), (Some(at(2)), None));
        assert_eq!(told(reasons::QUEUED, 3), (Some(at(2)), None));
        assert_eq!(told(reasons::PVC_NOT_FOUND, 4), (None, Some(at(4))));
    }
}
