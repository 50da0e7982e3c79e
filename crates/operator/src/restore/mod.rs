//! Restores: one execution each.

mod leaving;
mod outcome;
mod pin;
mod plan;
mod run;

use std::sync::Arc;

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
        return leaving::leave(&restore, &ctx, ended, now).await;
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
