//! What the cluster knows of a volume's folder in storage.

use kube::ResourceExt;
use tidelock_api::{Backup, FolderStatus, RUN_UID_LABEL};
use tidelock_core::names;
use tidelock_protocol::{FolderReport, Household};

use crate::backup::archived;
use crate::context::Context;
use crate::convert::{self, to_i64};
use crate::run::observe::is_live;
use crate::store::StoreRef;
use jiff::Timestamp;

/// Most Backups of a volume that are listed for the mover; keeps the request well below the size
/// of an environment variable.
const MOST_KNOWN: usize = 1000;
/// Most runs that may be writing that are listed for the mover.
const MOST_ACTIVE: usize = 500;

/// What the caches tell of the folder of the claim `pvc` on `store`.
///
/// # Guarantees
/// Every run of the namespace that may be writing is listed: those that have not ended, those that
/// are being deleted, and whatever has a pod that is not at its end. Where the lists would be too
/// long there are none, and then the mover sweeps and lists nothing.
pub fn household(ctx: &Context, namespace: &str, pvc: &str, store: &StoreRef) -> Household {
    let backups = ctx
        .caches
        .backups
        .state_filter(|backup| backup.namespace().as_deref() == Some(namespace));
    let kept_there = |backup: &&std::sync::Arc<Backup>| {
        let saved = backup
            .status
            .as_ref()
            .and_then(|status| status.pvc_name.as_deref());
        saved == Some(pvc) && StoreRef::recorded(backup).as_ref() == Some(store)
    };
    let known: Vec<String> = backups
        .iter()
        .filter(kept_there)
        .map(|backup| names::storage_stem(&archived::name(backup)))
        .collect();
    let mut active: Vec<String> = backups
        .iter()
        .filter(|backup| may_write(backup))
        .filter_map(|backup| backup.uid())
        .collect();
    active.extend(live_runs(ctx, namespace));
    active.sort();
    active.dedup();
    Household {
        known: (known.len() <= MOST_KNOWN).then_some(known),
        active: (active.len() <= MOST_ACTIVE).then_some(active),
    }
}

fn may_write(backup: &Backup) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    !convert::is_terminal(phase) || backup.metadata.deletion_timestamp.is_some()
}

fn live_runs(ctx: &Context, namespace: &str) -> Vec<String> {
    let live = ctx
        .caches
        .pods
        .state_filter(|pod| pod.namespace().as_deref() == Some(namespace) && is_live(pod));
    live.iter()
        .filter_map(|pod| pod.labels().get(RUN_UID_LABEL).cloned())
        .collect()
}

/// What a mover found in the folder, as a status shows it.
pub fn folder_status(folder: &FolderReport, now: Timestamp) -> FolderStatus {
    FolderStatus {
        check_time: convert::whole_seconds(now),
        archives: to_i64(folder.archives),
        unknown_archives: to_i64(folder.unknown.total),
        unknown: folder.unknown.first.clone(),
        swept: to_i64(folder.swept),
    }
}
