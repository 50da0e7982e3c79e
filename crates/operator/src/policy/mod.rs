//! BackupPolicies: schedules and retention.

pub mod build;
pub(crate) mod observe;
mod release;
mod report;
mod retention;
mod verdicts;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use tidelock_api::{Backup, BackupPolicy, POLICY_FINALIZER};
use tidelock_core::policy::{self as core_policy, PolicyDecision};

use crate::context::Context;
use crate::convert;
use crate::error::{Error, is_namespace_leaving, is_status};
use crate::finalizers;
use crate::owners;
use crate::run::effects::requeue_by;

/// Pause before a Backup that the API server did not take is asked for again; no event tells when
/// a quota has room.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);

/// Brings one BackupPolicy a step further.
pub async fn reconcile(policy: Arc<BackupPolicy>, ctx: Arc<Context>) -> Result<Action, Error> {
    let now = ctx.now();
    if policy.metadata.deletion_timestamp.is_some() {
        release::release(&policy, &ctx, now).await?;
        return Ok(Action::await_change());
    }
    if !finalizers::has(policy.as_ref(), POLICY_FINALIZER) {
        finalizers::add(policy.as_ref(), &ctx, POLICY_FINALIZER).await?;
        return Ok(Action::await_change());
    }
    let observed = observe::observe(&policy, &ctx)?;
    let schedule = match observe::schedule(&policy, now) {
        Ok(schedule) => schedule,
        Err(error) => {
            report::invalid(&policy, &ctx, &observed, &error, now).await?;
            return Ok(Action::await_change());
        }
    };
    let decision = core_policy::decide(&observed.facts(&policy, &schedule), now);
    let refusal = run_due(&policy, &ctx, &decision, now).await?;
    let verification = verify::step(&policy, &ctx, &observed, now).await?;
    if let Some(words) = refusal {
        report::refused(&policy, &ctx, &observed, &verification, &words, now).await?;
        verification.settle(&ctx).await?;
        return Ok(Action::requeue(AFTER_REFUSAL));
    }
    retention::cancel_active(&policy, &ctx, &observed, &decision, now).await?;
    retention::mark_misdated(&policy, &ctx, &observed, &decision.misdated, now).await?;
    report::decided(&policy, &ctx, &observed, &decision, &verification, now).await?;
    verification.settle(&ctx).await?;
    if !decision.remove.is_empty() {
        retention::trim(&policy, &ctx, now).await?;
    }
    retention::tell_locked(&policy, &ctx, &observed, &decision, now).await?;
    let wakes = decision.wake_at.into_iter().chain(verification.wake_at);
    Ok(requeue_by(wakes.min(), now))
}

/// Makes the Backup of the due slot, or tells of one that was given up; why the API server does
/// not take it, otherwise.
///
/// # Crash window
/// The Backup's name is fixed by policy and slot, and `lastScheduleTime` is written after it is
/// made: a crash between the two makes the same Backup again, which is none.
async fn run_due(
    policy: &BackupPolicy,
    ctx: &Context,
    decision: &PolicyDecision,
    now: Timestamp,
) -> Result<Option<String>, Error> {
    if let Some(slot) = decision.missed {
        report::missed(policy, ctx, slot, now).await?;
    }
    match decision.run {
        Some(slot) => {
            let backup = build::backup(policy, slot)?;
            ensure_backup(policy, ctx, &backup, slot, now).await
        }
        None => Ok(None),
    }
}

async fn ensure_backup(
    policy: &BackupPolicy,
    ctx: &Context,
    backup: &Backup,
    slot: Timestamp,
    now: Timestamp,
) -> Result<Option<String>, Error> {
    let namespace = convert::namespace(policy)?;
    let name = backup.name_any();
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    match api.create(&PostParams::default(), backup).await {
        Ok(_) => {
            report::created(policy, ctx, &name, slot, now).await?;
            Ok(None)
        }
        Err(error) if is_status(&error, 409) => {
            let existing = api
                .get_opt(&name)
                .await
                .map_err(Error::api(format!("read Backup {namespace}/{name}")))?;
            let uid = convert::uid(policy)?;
            match existing.map(|b| owners::is_controlled_by(&b.metadata, &uid)) {
                // Made before a crash, which may have come before it was told.
                Some(true) => report::created(policy, ctx, &name, slot, now).await?,
                Some(false) => report::name_taken(policy, ctx, &name, slot, now).await?,
                None => {}
            }
            Ok(None)
        }
        Err(error) if is_namespace_leaving(&error) => Ok(None),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            Ok(Some(status.message))
        }
        Err(error) => Err(Error::api(format!("create Backup {namespace}/{name}"))(
            error,
        )),
    }
}
