//! Where and as whom a mover looks after what a Backup has stored.

use tidelock_api::Backup;
use tidelock_core::identity::Ids;
use tidelock_core::run::Readiness;

use crate::backup::plan;
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::placement::{self, DataOwner, Placement, Wanted};
use crate::store::{self, Store, StoreRef};

/// As whom the mover of `backup` wrote, where that was not root: who may read and remove it again.
pub fn written_as(backup: &Backup) -> Option<Ids> {
    let status = backup.status.as_ref()?;
    status.security_context.as_deref().map(placement::recorded)
}

/// The storage of `backup`, and where and as whom a mover runs that has it alone.
///
/// # Errors
/// The inner error says what keeps it from running anywhere.
pub async fn on_storage(
    backup: &Backup,
    ctx: &Context,
) -> Result<Result<(Store, Placement), Readiness>, Error> {
    let namespace = convert::namespace(backup)?;
    let status = backup.status.clone().unwrap_or_default();
    let source = status.pvc_name.unwrap_or_default();
    let reference = StoreRef::recorded(backup).unwrap_or_default();
    let store = match store::find(ctx, &namespace, &reference).await? {
        Ok(store) => store,
        Err(not_ready) => return Ok(Err(not_ready)),
    };
    let recorded = written_as(backup);
    let mut owners: Vec<DataOwner<'_>> = recorded.iter().map(DataOwner::Recorded).collect();
    owners.push(DataOwner::PodsOf(&source));
    let volumes: Vec<_> = store.volume().into_iter().collect();
    let wanted = Wanted {
        namespace: &namespace,
        volumes: &volumes,
        unused: None,
        mover: &plan::mover(backup, super::policy(backup, ctx).as_deref()),
        data: &source,
        owners: &owners,
    };
    let placed = placement::place(ctx, &wanted).await?;
    Ok(placed.map(|placement| (store.clone(), placement)))
}
