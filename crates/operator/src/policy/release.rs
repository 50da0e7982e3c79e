//! A BackupPolicy that goes: its Backups outlive it.

use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, POLICY_FINALIZER};
use tidelock_core::text;

use crate::context::Context;
use crate::convert;
use crate::error::{Error, is_status};
use crate::finalizers;
use crate::owners;
use crate::policy::report;
use crate::telemetry::reasons;

/// Takes this policy off its Backups' owners, so that they and their data outlive it, then lets it
/// go.
pub async fn release(policy: &BackupPolicy, ctx: &Context, now: Timestamp) -> Result<(), Error> {
    if !finalizers::has(policy, POLICY_FINALIZER) {
        return Ok(());
    }
    let namespace = convert::namespace(policy)?;
    let uid = convert::uid(policy)?;
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    let all = api
        .list(&ListParams::default())
        .await
        .map_err(Error::api(format!("list the Backups of {namespace}")))?;
    let mut released = 0;
    for backup in &all.items {
        // One that is being deleted keeps its owner: that it falls with its policy, and its data
        // must not, shows by nothing else.
        let leaving = backup.metadata.deletion_timestamp.is_some();
        if !leaving && owners::is_controlled_by(&backup.metadata, &uid) {
            disown(&api, backup, &uid).await?;
            released += 1;
        }
    }
    if released > 0 {
        let note = format!(
            "Kept {} of this policy with their data; delete the Backups to remove it",
            text::count(released, "backup")
        );
        report::tell(policy, ctx, reasons::BACKUPS_RELEASED, false, note, now).await?;
    }
    finalizers::remove(policy, ctx, POLICY_FINALIZER).await
}

async fn disown(api: &Api<Backup>, backup: &Backup, policy_uid: &str) -> Result<(), Error> {
    let name = backup.name_any();
    let owners = backup.metadata.owner_references.iter().flatten();
    let rest: Vec<_> = owners.filter(|owner| owner.uid != policy_uid).collect();
    let patch = json!({"metadata": {
        "resourceVersion": backup.resource_version(),
        "ownerReferences": rest,
    }});
    match api
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => Err(Error::api(format!("release Backup {name}"))(error)),
    }
}
