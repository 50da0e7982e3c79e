//! Backups: one execution each.

mod observe;
mod plan;
pub mod removal;
mod report;

pub use plan::location;

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, DATA_FINALIZER, POLICY_LABEL, PVC_LABEL};
use tidelock_core::names;
use tidelock_core::run::{self as core_run, RunDecision};
use tidelock_protocol::Outcome;

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::owners;
use crate::run::report::RunFailure;
use crate::run::{self, Created};
use crate::telemetry::reasons;

use observe::Observed;

/// Brings one Backup a step further.
pub async fn reconcile(backup: Arc<Backup>, ctx: Arc<Context>) -> Result<Action, Error> {
    let now = ctx.now();
    if backup.metadata.deletion_timestamp.is_some() {
        return removal::reconcile(&backup, &ctx, now).await;
    }
    if !is_claimed(&backup, &ctx) {
        claim(&backup, &ctx).await?;
        return Ok(Action::await_change());
    }
    let observed = observe::observe(&backup, &ctx).await?;
    let decision = core_run::decide(&observed.facts, now);
    apply(&backup, &ctx, observed, decision, now).await
}

async fn apply(
    backup: &Backup,
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
            report::waiting(backup, ctx, &blocker, now).await?;
            return Ok(run::requeue_at(wake_at, now));
        }
        RunDecision::Start => start(backup, ctx, &observed, now).await?,
        RunDecision::Follow { trouble, wake_at } => {
            report::running(backup, ctx, &observed, trouble, now).await?;
            return Ok(run::requeue_by(wake_at, now));
        }
        // The Job is stopped by the reconcile that this status write brings about, and again by
        // every later one until it is gone.
        RunDecision::GiveUp(refusal) => {
            let failure = RunFailure::new(refusal.reason, refusal.message);
            report::failed(backup, ctx, &failure, now).await?;
        }
        RunDecision::Finish => finish(backup, ctx, &observed, now).await?,
        RunDecision::Collapse => {
            if let Some(job) = &observed.job {
                let uid = convert::uid(backup)?;
                let failure = run::report::of_failure(ctx, job, &uid).await?;
                report::failed(backup, ctx, &failure, now).await?;
            }
        }
        RunDecision::Fail(refusal) => {
            let failure = RunFailure::new(refusal.reason, refusal.message);
            report::failed(backup, ctx, &failure, now).await?;
        }
    }
    Ok(Action::await_change())
}

/// Records what is going to be done, makes the Job, and says so.
///
/// # Crash window
/// After the record and before the Job, the next reconcile starts again from the record. After the
/// Job and before the phase, the next reconcile finds the Job and follows it.
async fn start(
    backup: &Backup,
    ctx: &Context,
    observed: &Observed,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(plan) = &observed.plan else {
        return Ok(());
    };
    let recorded = report::planned(backup, ctx, plan, now).await?;
    let job = plan::job(&recorded, plan, &ctx.mover_image)?;
    match run::ensure_job(ctx, &job).await? {
        Created::Exists => {
            report::job_created(&recorded, ctx, &plan.job_name, now).await?;
            // Whose Job it is shows in the next observation, which the Job's own watch event or
            // this status write brings about.
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

/// Believes the report of a Job that ended well only where it fits what was asked for.
async fn finish(
    backup: &Backup,
    ctx: &Context,
    observed: &Observed,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(job) = &observed.job else {
        return Ok(());
    };
    let uid = convert::uid(backup)?;
    let outcome = run::report::of_success(ctx, job, &uid).await?;
    let checked = outcome.and_then(|outcome| match outcome {
        Outcome::BackedUp(done) => plan::check(backup, done),
        other => Err(RunFailure::new(
            reasons::REPORT_MISMATCH,
            format!("The mover was asked for a backup and reports something else ({other:?})."),
        )),
    });
    match checked {
        Ok(done) => report::completed(backup, ctx, job, &done, now).await,
        Err(failure) => report::failed(backup, ctx, &failure, now).await,
    }
}

/// Whether the Backup has its finalizer, its labels and the owner it should have. A run that has
/// ended is not claimed any more: a policy made later under the same name does not inherit it.
fn is_claimed(backup: &Backup, ctx: &Context) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    if convert::is_terminal(phase) {
        return true;
    }
    let has_finalizer = backup.finalizers().iter().any(|f| f == DATA_FINALIZER);
    has_finalizer && wanted_owner(backup, ctx).is_none()
}

/// The policy that should own this Backup and does not yet.
fn wanted_owner(backup: &Backup, ctx: &Context) -> Option<Arc<BackupPolicy>> {
    if owners::controller(&backup.metadata).is_some() {
        return None;
    }
    observe::policy(backup, ctx).filter(|policy| policy.metadata.deletion_timestamp.is_none())
}

/// Adds finalizer, labels and owner in one write that fails if the object changed meanwhile.
async fn claim(backup: &Backup, ctx: &Context) -> Result<(), Error> {
    let namespace = convert::namespace(backup)?;
    let name = backup.name_any();
    let mut finalizers = backup.finalizers().to_vec();
    if !finalizers.iter().any(|f| f == DATA_FINALIZER) {
        finalizers.push(DATA_FINALIZER.to_owned());
    }
    let mut labels = backup.labels().clone();
    if let Some(policy) = &backup.spec.policy_ref {
        labels.insert(POLICY_LABEL.to_owned(), names::label_value(policy));
    }
    if let Some(target) = &backup.spec.target {
        labels.insert(PVC_LABEL.to_owned(), names::label_value(&target.pvc_name));
    }
    let mut metadata = json!({
        "resourceVersion": backup.resource_version(),
        "finalizers": finalizers,
        "labels": labels,
    });
    if let Some(owner) =
        wanted_owner(backup, ctx).and_then(|policy| policy.controller_owner_ref(&()))
    {
        let mut all = backup.metadata.owner_references.clone().unwrap_or_default();
        all.push(owner);
        metadata["ownerReferences"] = json!(all);
    }
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    api.patch(&name, &PatchParams::default(), &patch)
        .await
        .map_err(Error::api(format!("claim Backup {namespace}/{name}")))?;
    Ok(())
}
