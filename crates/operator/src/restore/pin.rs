//! Which Backup of a policy a Restore takes: chosen once, so that later backups never retarget it.

use jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::controller::Action;
use tidelock_api::{Backup, Restore};
use tidelock_core::fact::{BackupFact, Standard};
use tidelock_core::{from, text};

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::fact;
use crate::run::report::RunFailure;
use crate::run::{fail, tell, write_status};
use crate::telemetry::reasons;

/// Whether a Restore is still to be pinned.
pub fn is_wanted(restore: &Restore) -> bool {
    let status = restore.status.as_ref();
    let pinned = status.is_some_and(|status| status.backup_name.is_some());
    let ended = convert::is_terminal(status.and_then(|status| status.phase));
    restore.spec.from.is_some() && !pinned && !ended
}

/// Chooses the Backup among those that the API server has now, and records it.
///
/// # Crash window
/// After the Event and before the status, another Backup may be chosen if one completed meanwhile
/// (`asOf` unset); nothing was done with the first, and the Event of the second is told as well.
pub async fn pin(restore: &Restore, ctx: &Context, now: Timestamp) -> Result<Action, Error> {
    let Some(from) = &restore.spec.from else {
        return Ok(Action::await_change());
    };
    let namespace = convert::namespace(restore)?;
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    let list = api
        .list(&ListParams::default())
        .await
        .map_err(Error::api(format!("list the Backups of {namespace}")))?;
    let of_policy: Vec<BackupFact> = list
        .items
        .iter()
        .filter(|backup| backup.spec.policy_ref.as_ref() == Some(&from.policy_name))
        .map(fact::of_backup)
        .collect();
    let as_of = from.as_of.as_ref().map_or(now, |time| time.0);
    let standard = if restore.spec.allow_unverified {
        Standard::Completed
    } else {
        Standard::Verified
    };
    match from::latest(&of_policy, as_of, standard) {
        Ok(chosen) => {
            let note = format!(
                "Restoring Backup {}, the latest of BackupPolicy {} completed at or before {as_of}",
                chosen.name, from.policy_name
            );
            let key = chosen.name.as_str();
            tell(
                restore,
                ctx,
                (reasons::BACKUP_CHOSEN, false, key),
                note,
                now,
            )
            .await?;
            let mut changed = restore.clone();
            changed.status.get_or_insert_default().backup_name = Some(chosen.name.clone());
            write_status(restore, changed, ctx).await?;
        }
        Err(words) => {
            let message = format!(
                "BackupPolicy {}: {}",
                from.policy_name,
                text::sentence(&words)
            );
            let failure = RunFailure::new(reasons::BACKUP_NOT_FOUND, message);
            fail(restore, ctx, &failure, now).await?;
        }
    }
    Ok(Action::await_change())
}
