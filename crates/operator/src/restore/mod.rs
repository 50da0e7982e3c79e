//! Restores: one execution each.

mod plan;
mod run;

use std::sync::Arc;

use kube::runtime::controller::Action;
use tidelock_api::Restore;

use crate::context::Context;
use crate::error::Error;

/// Brings one Restore a step further. One that is being deleted needs nothing: its Job falls with
/// it, and the restored claim stays.
pub async fn reconcile(restore: Arc<Restore>, ctx: Arc<Context>) -> Result<Action, Error> {
    if restore.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    crate::run::reconcile::step(restore.as_ref(), &ctx, ctx.now()).await
}
