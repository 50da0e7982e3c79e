//! Restores: one execution each.

mod observe;
mod plan;
mod report;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::ResourceExt;
use kube::api::PostParams;
use kube::runtime::controller::Action;
use tidelock_api::Restore;
use tidelock_core::run::{self as core_run, RunDecision};
use tidelock_protocol::Outcome;

use crate::context::Context;
use crate::convert;
use crate::error::{Error, is_status};
use crate::run::report::RunFailure;
use crate::run::{self, Created};
use crate::telemetry::reasons;

use observe::Observed;
use plan::RestorePlan;

/// Brings one Restore a step further. One that is being deleted needs nothing: its Job falls with
/// it, and the restored claim stays.
pub async fn reconcile(restore: Arc<Restore>, ctx: Arc<Context>) -> Result<Action, Error> {
    if restore.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let now = ctx.now();
    let observed = observe::observe(&restore, &ctx).await?;
    let decision = core_run::decide(&observed.facts, now);
    apply(&restore, &ctx, observed, decision, now).await
}

async fn apply(
    restore: &Restore,
    ctx: &Context,
    observed: Observed,
    decision: RunDecision,
    now: Timestamp,
) -> Result<Action, Error> {
    match decision {
        RunDecision::Rest => {
            if let Some(job) = observed.own_job() {
                run::ensure_settled(ctx, job).await?;
            }
        }
        RunDecision::Wait { blocker, wake_at } => {
            report::waiting(restore, ctx, &blocker, now).await?;
            return Ok(run::requeue_at(wake_at, now));
        }
        RunDecision::Start => start(restore, ctx, &observed, now).await?,
        RunDecision::Follow { trouble, wake_at } => {
            report::running(restore, ctx, &observed, trouble, now).await?;
            return Ok(run::requeue_by(wake_at, now));
        }
        // The Job is stopped by the reconcile that this status write brings about, and again by
        // every later one until it is gone.
        RunDecision::GiveUp(refusal) => {
            let failure = RunFailure::new(refusal.reason, refusal.message);
            report::failed(restore, ctx, &failure, now).await?;
        }
        RunDecision::Finish => finish(restore, ctx, &observed, now).await?,
        RunDecision::Collapse => {
            if let Some(job) = &observed.job {
                let uid = convert::uid(restore)?;
                let failure = run::report::of_failure(ctx, job, &uid).await?;
                report::failed(restore, ctx, &failure, now).await?;
            }
        }
        RunDecision::Fail(refusal) => {
            let failure = RunFailure::new(refusal.reason, refusal.message);
            report::failed(restore, ctx, &failure, now).await?;
        }
    }
    Ok(Action::await_change())
}

/// Records what is going to be done, makes the claim where a template asks for it, then the Job.
///
/// # Crash window
/// Each step is found done by the next reconcile: the record by the status, the claim by its
/// annotation, the Job by its name.
async fn start(
    restore: &Restore,
    ctx: &Context,
    observed: &Observed,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(plan) = &observed.plan else {
        return Ok(());
    };
    let recorded = report::planned(restore, ctx, plan, now).await?;
    if let Some(refusal) = ensure_target(&recorded, ctx, plan, now).await? {
        return report::failed(&recorded, ctx, &refusal, now).await;
    }
    let job = plan::job(&recorded, plan, &ctx.mover_image)?;
    match run::ensure_job(ctx, &job).await? {
        Created::Exists => {
            report::job_created(&recorded, ctx, &plan.job_name, now).await?;
            report::running(&recorded, ctx, observed, None, now).await
        }
        Created::Refused(words) => {
            let message = format!("The API server refuses the mover's Job: {words}");
            let failure = RunFailure::new(reasons::JOB_REFUSED, message);
            report::failed(&recorded, ctx, &failure, now).await
        }
        Created::NamespaceLeaving => Ok(()),
    }
}

/// Makes the claim of the template unless it is there; why it can never be, otherwise.
async fn ensure_target(
    restore: &Restore,
    ctx: &Context,
    plan: &RestorePlan,
    now: Timestamp,
) -> Result<Option<RunFailure>, Error> {
    let Some(claim) = &plan.claim_to_make else {
        return Ok(None);
    };
    let namespace = convert::namespace(restore)?;
    let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &namespace);
    match api.create(&PostParams::default(), claim).await {
        Ok(_) => {
            report::target_created(restore, ctx, &plan.target_pvc, now).await?;
            Ok(None)
        }
        // Whose it is was observed; one that came in between is caught by the mover, which takes
        // an empty volume only.
        Err(error) if is_status(&error, 409) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 422 || status.code == 403 => {
            let message = format!(
                "The API server refuses the PersistentVolumeClaim of targetTemplate: {}",
                status.message
            );
            Ok(Some(RunFailure::new(reasons::TARGET_REFUSED, message)))
        }
        Err(error) => Err(Error::api(format!(
            "create PersistentVolumeClaim {namespace}/{}",
            claim.name_any()
        ))(error)),
    }
}

/// Believes the report of a Job that ended well only where it is one of a restore.
async fn finish(
    restore: &Restore,
    ctx: &Context,
    observed: &Observed,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(job) = &observed.job else {
        return Ok(());
    };
    let uid = convert::uid(restore)?;
    match run::report::of_success(ctx, job, &uid).await? {
        Ok(Outcome::Restored(done)) => report::completed(restore, ctx, job, &done, now).await,
        Ok(other) => {
            let message = format!(
                "The mover was asked for a restore and reports something else ({other:?})."
            );
            let failure = RunFailure::new(reasons::REPORT_MISMATCH, message);
            report::failed(restore, ctx, &failure, now).await
        }
        Err(failure) => report::failed(restore, ctx, &failure, now).await,
    }
}
