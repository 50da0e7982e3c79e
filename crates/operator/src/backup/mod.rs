//! Backups: one execution each.

pub mod household;
pub mod placing;
mod plan;
pub mod removal;
mod run;
pub mod suspicion;
pub mod verification;

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, DATA_FINALIZER, POLICY_LABEL, PVC_LABEL};
use tidelock_core::names;

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::finalizers;
use crate::owners;

pub use plan::location;

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
    if let Some(accepted) = suspicion::accepted(&backup, now) {
        crate::run::write_status(backup.as_ref(), accepted, &ctx).await?;
        return Ok(Action::await_change());
    }
    crate::run::reconcile::step(backup.as_ref(), &ctx, now).await
}

/// The policy that a Backup names.
fn policy(backup: &Backup, ctx: &Context) -> Option<Arc<BackupPolicy>> {
    let name = backup.spec.policy_ref.as_ref()?;
    let namespace = backup.namespace()?;
    ctx.caches
        .policies
        .get(&ObjectRef::new(name).within(&namespace))
}

/// Whether the Backup has its finalizer and the owner it should have. A run that has ended is not
/// claimed any more.
fn is_claimed(backup: &Backup, ctx: &Context) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    if convert::is_terminal(phase) {
        return true;
    }
    finalizers::has(backup, DATA_FINALIZER) && wanted_owner(backup, ctx).is_none()
}

/// The policy that should own this Backup and does not yet. One that has begun, or that saves
/// another claim, is not taken over: a policy re-made under the same name does not inherit it.
fn wanted_owner(backup: &Backup, ctx: &Context) -> Option<Arc<BackupPolicy>> {
    let has_begun = backup
        .status
        .as_ref()
        .is_some_and(|status| status.job_name.is_some());
    if has_begun || owners::controller(&backup.metadata).is_some() {
        return None;
    }
    policy(backup, ctx).filter(|policy| {
        let target = backup.spec.target.as_ref();
        policy.metadata.deletion_timestamp.is_none()
            && target.is_none_or(|target| *target == policy.spec.target)
    })
}

/// Adds finalizer, labels and owner in one write that fails if the object changed meanwhile.
async fn claim(backup: &Backup, ctx: &Context) -> Result<(), Error> {
    let namespace = convert::namespace(backup)?;
    let name = backup.name_any();
    let mut finalizers = backup.finalizers().to_vec();
    if !finalizers::has(backup, DATA_FINALIZER) {
        finalizers.push(DATA_FINALIZER.to_owned());
    }
    // Others stay as they are: a merge names only what it sets.
    let mut labels = BTreeMap::new();
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
