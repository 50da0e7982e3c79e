//! One step of a run: observe, decide, apply.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use tidelock_api::Phase;
use tidelock_core::queue::Waiting;
use tidelock_core::run::{self as core_run, Blocker, JobFact, Readiness, RunDecision, RunFacts};

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::gate::{RETELL, Turn, Wait, storage_key};
use crate::owners;
use crate::run::effects::{self, Created};
use crate::run::kind::Run;
use crate::run::observe::{find_job, job_fact, pods_of};
use crate::run::report::{self, RunFailure};
use crate::run::status;
use crate::run::{ending, kubelet, observe, progress};
use crate::telemetry::reasons;

/// Pause before pods and namespaces are looked at again that keep a run from starting: all pods of
/// a cluster are too many to watch.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

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
    if let Some(action) = wait_for_turn(run, ctx, now).await? {
        return Ok(action);
    }
    let observed = observe(run, ctx, now).await?;
    let decision = core_run::decide(&observed.facts, now);
    if decision != RunDecision::Start {
        ctx.gate.leave(&observed.uid);
    }
    let not_begun = matches!(run.progress().phase, None | Some(Phase::Pending));
    if not_begun && observed.own_job().is_some() {
        // An operator that died after making it did not come to tell.
        status::job_created(run, ctx, &observed.facts.job_name, now).await?;
    }
    match decision {
        RunDecision::Rest => {
            if let Some(job) = observed.own_job() {
                effects::ensure_settled(ctx, job).await?;
            }
            ending::settle_undo(run, ctx).await?;
        }
        RunDecision::Wait { blocker, wake_at } => {
            status::waiting(run, ctx, &blocker, now).await?;
            let next = if reasons::is_unwatched(blocker.reason) {
                now.checked_add(LOOK_AGAIN)
                    .map_or(wake_at, |soon| wake_at.min(soon))
            } else {
                wake_at
            };
            return Ok(effects::requeue_at(next, now));
        }
        RunDecision::Start => return start(run, ctx, &observed, now).await,
        RunDecision::Follow {
            at_work,
            trouble,
            wake_at,
        } => {
            let (heard, next) = if at_work {
                let job = observed.own_job();
                (
                    progress::hear(run, ctx, job, now).await?,
                    progress::next(run, now),
                )
            } else {
                (None, None)
            };
            status::running(run, ctx, at_work, trouble, heard, now).await?;
            let look = [wake_at, next].into_iter().flatten().min();
            return Ok(effects::requeue_by(look, now));
        }
        RunDecision::Finish => finish(run, ctx, &observed, now).await?,
        RunDecision::Collapse => {
            if let Some(job) = &observed.job {
                let failure = report::of_failure(ctx, job, &observed.uid).await?;
                end_badly(run, ctx, &observed, &failure, now).await?;
            }
        }
        // The Job of a run that is given up is stopped by the reconcile that this status write
        // brings about, and by every later one until it is gone.
        RunDecision::Fail(refusal) | RunDecision::GiveUp(refusal) => {
            let failure = RunFailure::new(refusal.reason, refusal.message);
            end_badly(run, ctx, &observed, &failure, now).await?;
        }
        RunDecision::Stop(wake_at) => {
            if let Some(job) = observed.own_job() {
                effects::ensure_job_stopped(ctx, job).await?;
            }
            return Ok(effects::requeue_at(wake_at, now));
        }
        RunDecision::Undo => return ending::start_undo(run, ctx, now).await,
        RunDecision::AwaitUndo { trouble, wake_at } => {
            status::taking_back(run, ctx, trouble, now).await?;
            return Ok(effects::requeue_at(wake_at, now));
        }
        RunDecision::FailAsRecorded(left) => ending::fail_as_recorded(run, ctx, left, now).await?,
    }
    Ok(Action::await_change())
}

/// Looks again later at a run that waits for its turn, without a question to the API server; none
/// where its turn may have come.
async fn wait_for_turn<R: Run>(
    run: &R,
    ctx: &Context,
    now: Timestamp,
) -> Result<Option<Action>, Error> {
    let not_begun = matches!(run.progress().phase, None | Some(Phase::Pending));
    if !not_begun || run.cancelled().is_some() {
        return Ok(None);
    }
    let uid = convert::uid(run)?;
    match ctx.gate.must_wait(&ctx.caches, &uid, now) {
        Some(wait) => Ok(Some(queue_up(run, ctx, wait, now).await?)),
        None => Ok(None),
    }
}

async fn queue_up<R: Run>(
    run: &R,
    ctx: &Context,
    wait: Wait,
    now: Timestamp,
) -> Result<Action, Error> {
    if let Some(words) = wait.tell {
        status::queued(run, ctx, &words, now).await?;
    }
    Ok(effects::requeue_at(now + RETELL, now))
}

/// Reads all that the decision needs: caches, and of the API server only what they do not hold.
async fn observe<R: Run>(
    run: &R,
    ctx: &Context,
    now: Timestamp,
) -> Result<Observed<R::Plan>, Error> {
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
    let waits_since = observe::waits_since(run.meta(), progress.conditions, now);
    let mut job_fact = job_fact(job.as_deref(), run, &pods);
    if let JobFact::Active(pod) = &mut job_fact
        && !ended
        && progress.ending_since.is_none()
    {
        let asked = progress.start_time.unwrap_or(waits_since);
        kubelet::listen(ctx, pod, &pods, asked, now).await;
    }
    Ok(Observed {
        facts: RunFacts {
            phase: progress.phase.map(convert::to_core),
            waits_since,
            started: progress.start_time,
            start_deadline: convert::seconds(run.start_deadline_seconds(ctx)),
            readiness,
            refused: status::last_refusal(run),
            job_name,
            job: job_fact,
            cancelled: run.cancelled(),
            ending: ending::observe(run, ctx, &pods).await?,
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
    let mut plan = plan.clone();
    match ctx.gate.ask(&ctx.caches, waiting(run, &plan)?, now) {
        Turn::Now { full_nodes } => R::placement(&mut plan).exclude_nodes = full_nodes,
        Turn::Later(wait) => return queue_up(run, ctx, wait, now).await,
    }
    let plan = &plan;
    let recorded = status::planned(run, ctx, plan, now).await?;
    if let Some(failure) = recorded.prepare(ctx, plan, now).await? {
        ctx.gate.leave(&observed.uid);
        status::failed(&recorded, ctx, &failure, now).await?;
        return Ok(Action::await_change());
    }
    let job = recorded.job(plan, &ctx.mover_image)?;
    let created = effects::ensure_job(ctx, &job).await?;
    if !matches!(created, Created::Exists) {
        ctx.gate.leave(&observed.uid);
    }
    match created {
        Created::Exists => {
            status::job_created(&recorded, ctx, &observed.facts.job_name, now).await?;
            // Whose Job it is, is seen by the observation that this status write brings about.
            status::running(&recorded, ctx, false, None, None, now).await?;
            Ok(effects::requeue_at(now, now))
        }
        Created::Refused(words) => {
            let message = format!("The API server refuses the mover's Job: {words}");
            let failure = RunFailure::new(reasons::JOB_REFUSED, message);
            status::failed(&recorded, ctx, &failure, now).await?;
            Ok(Action::await_change())
        }
        Created::Blocked(words) => {
            let message = format!(
                "The API server does not take the mover's Job; make room in the quota, or mend the webhook, that says: {words}"
            );
            let blocker = Blocker {
                reason: reasons::JOB_REFUSED,
                message,
            };
            status::waiting(&recorded, ctx, &blocker, now).await?;
            Ok(Action::requeue(effects::AFTER_REFUSAL))
        }
        Created::NamespaceLeaving => Ok(Action::await_change()),
    }
}

/// What the gate is told of a run that is ready.
fn waiting<R: Run>(run: &R, plan: &R::Plan) -> Result<Waiting, Error> {
    let load = R::load(plan);
    Ok(Waiting {
        kind: R::TURN,
        created: convert::created(run.meta()),
        key: convert::uid(run)?,
        node: load.node,
        storage: storage_key(&convert::namespace(run)?, &load.storage),
    })
}

/// Fails, at once where nothing is left to do: else the failure is recorded, and it is called
/// Failed when its pods are gone and what they half wrote is taken back.
///
/// # Guarantees
/// A run whose Job was made is taken back whether a pod of it was seen at work or not. The pods that
/// are there tell nothing of those before them, and neither does the Job: a pod that was drained, or
/// went with its node, is gone and counted nowhere. Where nothing was written, taking back touches
/// nothing.
async fn end_badly<R: Run>(
    run: &R,
    ctx: &Context,
    observed: &Observed<R::Plan>,
    failure: &RunFailure,
    now: Timestamp,
) -> Result<(), Error> {
    let begun = run.progress().phase == Some(Phase::Running) || observed.own_job().is_some();
    let needs_undo = begun && run.needs_undo(failure);
    let cancelled_at_work =
        failure.reason == core_run::CANCELLED && matches!(observed.facts.job, JobFact::Active(_));
    if needs_undo || cancelled_at_work {
        status::condemned(run, ctx, failure, needs_undo, now).await
    } else {
        status::failed(run, ctx, failure, now).await
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
    match outcome.and_then(|outcome| ended.settle(ctx, outcome, now)) {
        Ok(settled) => status::completed(run, ended, ctx, job, settled, now).await,
        Err(failure) => end_badly(run, ctx, observed, &failure, now).await,
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
