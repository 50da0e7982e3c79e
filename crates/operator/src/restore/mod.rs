//! Restores: one execution each.

mod outcome;
mod pin;
mod plan;
mod run;

use std::sync::Arc;

use jiff::Timestamp;
use kube::runtime::controller::Action;
use tidelock_api::{RESTORE_FINALIZER, Restore};

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::finalizers;

/// Brings one Restore a step further.
pub async fn reconcile(restore: Arc<Restore>, ctx: Arc<Context>) -> Result<Action, Error> {
    let now = ctx.now();
    let phase = restore.status.as_ref().and_then(|status| status.phase);
    let ended = convert::is_terminal(phase);
    if restore.metadata.deletion_timestamp.is_some() {
        return leave(&restore, &ctx, ended, now).await;
    }
    if !ended && !finalizers::has(restore.as_ref(), RESTORE_FINALIZER) {
        finalizers::add(restore.as_ref(), &ctx, RESTORE_FINALIZER).await?;
        return Ok(Action::await_change());
    }
    if pin::is_wanted(&restore) {
        return pin::pin(&restore, &ctx, now).await;
    }
    crate::run::reconcile::step(restore.as_ref(), &ctx, now).await
}

/// Lets a deleted Restore go once it has ended; one that is under way is cancelled first, so that
/// its target is put back. What was restored stays.
async fn leave(
    restore: &Restore,
    ctx: &Context,
    ended: bool,
    now: Timestamp,
) -> Result<Action, Error> {
    if !finalizers::has(restore, RESTORE_FINALIZER) {
        return Ok(Action::await_change());
    }
    let began = restore
        .status
        .as_ref()
        .is_some_and(|status| status.job_name.is_some());
    if began && !ended {
        return crate::run::reconcile::step(restore, ctx, now).await;
    }
    finalizers::remove(restore, ctx, RESTORE_FINALIZER).await?;
    Ok(Action::await_change())
}
