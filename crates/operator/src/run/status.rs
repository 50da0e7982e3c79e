//! Status and Events of runs. Events are told before the status is written: the write is what ends
//! a transition, and a repeat tells the same Event again, which makes no second one.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::ResourceExt;
use kube::api::PostParams;
use tidelock_api::Phase;
use tidelock_core::run::Blocker;
use tidelock_core::text;

use crate::conditions::{Verdict, ready_reason, set_ready};
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
    *fields.observed_generation = generation;
    set_ready(fields.conditions, verdict, generation, now);
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

/// Says that the Job is under way, or what its pod is stuck on.
pub async fn running<R: Run>(
    run: &R,
    ctx: &Context,
    at_work: bool,
    trouble: Option<String>,
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

/// Ends badly.
pub async fn failed<R: Run>(
    run: &R,
    ctx: &Context,
    failure: &RunFailure,
    now: Timestamp,
) -> Result<(), Error> {
    ensure_current(run, ctx).await?;
    let note = format!("{}: {}", failure.reason, failure.message);
    tell(run, ctx, (R::WORDS.failed, true, ""), note, now).await?;
    let verdict = Verdict::no(&failure.reason, failure.message.clone());
    let mut changed = run.clone();
    set(&mut changed, Phase::Failed, &verdict, now);
    changed.unsettle();
    let at = whole_seconds(now);
    let fields = changed.fields();
    let started = fields.start_time.clone();
    *fields.duration = started.map(|started| text::duration(at.0.duration_since(started.0)));
    *fields.completion_time = Some(at);
    *fields.failure = Some(failure.to_status());
    write(run, changed, ctx).await?;
    tracing::warn!(object = %convert::describe(run), reason = failure.reason, "failed");
    Ok(())
}
