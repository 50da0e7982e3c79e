//! One step of a run: observe, decide, apply.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use tidelock_core::run::{self as core_run, Blocker, Readiness, RunDecision, RunFacts};

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::owners;
use crate::run::effects::{self, Created};
use crate::run::kind::Run;
use crate::run::observe::{find_job, job_fact, pods_of};
use crate::run::report::{self, RunFailure};
use crate::run::status;
use crate::telemetry::reasons;

/// Pause before a Job that the API server did not take is asked for again; no event tells when a
/// quota has room.
const AFTER_REFUSAL: Duration = Duration::from_secs(20);

/// What is known of a run that is not being deleted.
struct Observed<P> {
    facts: RunFacts,
    /// None where it cannot be told, or is no longer asked.
    plan: Option<P>,
    /// The Job under the run's name, whosever it is.
    job: Option<Arc<Job>>,
    uid: String,
}

impl<P> Observed<P> {
    fn own_job(&self) -> Option<&Job> {
        let job = self.job.as_deref()?;
        owners::is_controlled_by(&job.metadata, &self.uid).then_some(job)
    }
}

/// Brings one run a step further.
pub async fn step<R: Run>(run: &R, ctx: &Context, now: Timestamp) -> Result<Action, Error> {
    let observed = observe(run, ctx).await?;
    match core_run::decide(&observed.facts, now) {
        RunDecision::Rest => {
            if let Some(job) = observed.own_job() {
                effects::ensure_settled(ctx, job).await?;
            }
        }
        RunDecision::Wait { blocker, wake_at } => {
            status::waiting(run, ctx, &blocker, now).await?;
            return Ok(effects::requeue_at(wake_at, now));
        }
        RunDecision::Start => return start(run, ctx, &observed, now).await,
        RunDecision::Follow {
            at_work,
            trouble,
            wake_at,
        } => {
            status::running(run, ctx, at_work, trouble, now).await?;
            return Ok(effects::requeue_by(wake_at, now));
        }
        RunDecision::Finish => finish(run, ctx, &observed, now).await?,
        RunDecision::Collapse => {
            if let Some(job) = &observed.job {
                let failure = report::of_failure(ctx, job, &observed.uid).await?;
                status::failed(run, ctx, &failure, now).await?;
            }
        }
        // The Job of a run that is given up is stopped by the reconcile that this status write
        // brings about, and by every later one until it is gone.
        RunDecision::Fail(refusal) | RunDecision::GiveUp(refusal) => {
            let failure = RunFailure::new(refusal.reason, refusal.message);
            status::failed(run, ctx, &failure, now).await?;
        }
    }
    Ok(Action::await_change())
}

/// Reads all that the decision needs: caches, and of the API server only what they do not hold.
async fn observe<R: Run>(run: &R, ctx: &Context) -> Result<Observed<R::Plan>, Error> {
    let namespace = convert::namespace(run)?;
    let uid = convert::uid(run)?;
    let progress = run.progress();
    let job_name = run.job_name();
    let ended = convert::is_terminal(progress.phase);
    let job = if ended {
        ctx.caches
            .jobs
            .get(&ObjectRef::new(&job_name).within(&namespace))
    } else {
        find_job(ctx, &namespace, &job_name).await?
    };
    let (plan, readiness) = if ended || job.is_some() {
        (None, Readiness::Ready)
    } else {
        run.plan(ctx).await?
    };
    let pods = pods_of(ctx, &namespace, &uid);
    Ok(Observed {
        facts: RunFacts {
            phase: progress.phase.map(convert::to_core),
            created: convert::created(run.meta()),
            started: progress.start_time,
            start_deadline: convert::seconds(run.start_deadline_seconds()),
            readiness,
            refused: status::last_refusal(run),
            job_name,
            job: job_fact(job.as_deref(), run, &pods),
        },
        plan,
        job,
        uid,
    })
}

/// Records what is going to be done, makes the Job, and says so.
///
/// # Crash window
/// After the record and before the Job, the next reconcile starts again from the record. After the
/// Job and before the phase, the next reconcile finds the Job and follows it.
async fn start<R: Run>(
    run: &R,
    ctx: &Context,
    observed: &Observed<R::Plan>,
    now: Timestamp,
) -> Result<Action, Error> {
    let Some(plan) = &observed.plan else {
        return Ok(Action::await_change());
    };
    let recorded = status::planned(run, ctx, plan, now).await?;
    if let Some(failure) = recorded.prepare(ctx, plan, now).await? {
        status::failed(&recorded, ctx, &failure, now).await?;
        return Ok(Action::await_change());
    }
    let job = recorded.job(plan, &ctx.mover_image)?;
    match effects::ensure_job(ctx, &job).await? {
        Created::Exists => {
            status::job_created(&recorded, ctx, &observed.facts.job_name, now).await?;
            // Whose Job it is, is seen by the observation that this status write brings about.
            status::running(&recorded, ctx, false, None, now).await?;
            Ok(effects::requeue_at(now, now))
        }
        Created::Refused(words) => {
            let message = format!("The API server refuses the mover's Job: {words}");
            let failure = RunFailure::new(reasons::JOB_REFUSED, message);
            status::failed(&recorded, ctx, &failure, now).await?;
            Ok(Action::await_change())
        }
        Created::Blocked(words) => {
            let message = format!("The API server does not take the mover's Job: {words}");
            let blocker = Blocker {
                reason: reasons::JOB_REFUSED,
                message,
            };
            status::waiting(&recorded, ctx, &blocker, now).await?;
            Ok(Action::requeue(AFTER_REFUSAL))
        }
        Created::NamespaceLeaving => Ok(Action::await_change()),
    }
}

/// Believes the report of a Job that ended well only where it fits what was asked for.
async fn finish<R: Run>(
    run: &R,
    ctx: &Context,
    observed: &Observed<R::Plan>,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(job) = &observed.job else {
        return Ok(());
    };
    let outcome = report::of_success(ctx, job, &observed.uid).await?;
    let mut ended = run.clone();
    match outcome.and_then(|outcome| ended.settle(outcome)) {
        Ok(settled) => status::completed(run, ended, ctx, job, settled, now).await,
        Err(failure) => status::failed(run, ctx, &failure, now).await,
    }
}
