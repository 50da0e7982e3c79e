//! Backups: one execution each.

pub mod archived;
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
    if !has_ended(&backup) {
        let owner = wanted_owner(&backup, &ctx).await?;
        if owner.is_some() || !finalizers::has(&*backup, DATA_FINALIZER) {
            claim(&backup, owner.as_deref(), &ctx).await?;
            return Ok(Action::await_change());
        }
    }
    if let Some(archive) = &backup.spec.archive
        && !has_ended(&backup)
    {
        return archived::take_in(&backup, archive, &ctx, now).await;
    }
    if let Some(accepted) = suspicion::accepted(&backup, now) {
        crate::run::write_status(backup.as_ref(), accepted, &ctx).await?;
        return Ok(Action::await_change());
    }
    crate::run::reconcile::step(backup.as_ref(), &ctx, now).await
}

/// The policy that a Backup names, as the cache knows it.
fn policy(backup: &Backup, ctx: &Context) -> Option<Arc<BackupPolicy>> {
    let name = backup.spec.policy_ref.as_ref()?;
    let namespace = backup.namespace()?;
    ctx.caches
        .policies
        .get(&ObjectRef::new(name).within(&namespace))
}

/// The policy that a Backup names: from the cache, or from the API server where the cache has none
/// (it may lag behind a policy that was applied together with the Backup).
async fn find_policy(backup: &Backup, ctx: &Context) -> Result<Option<Arc<BackupPolicy>>, Error> {
    let cached = policy(backup, ctx);
    let Some(name) = backup.spec.policy_ref.as_ref().filter(|_| cached.is_none()) else {
        return Ok(cached);
    };
    let namespace = convert::namespace(backup)?;
    let api: Api<BackupPolicy> = Api::namespaced(ctx.client.clone(), &namespace);
    let live = api
        .get_opt(name)
        .await
        .map_err(Error::api(format!("read BackupPolicy {namespace}/{name}")))?;
    Ok(live.map(Arc::new))
}

/// Whether the run has ended; such a Backup is not claimed any more.
fn has_ended(backup: &Backup) -> bool {
    convert::is_terminal(backup.status.as_ref().and_then(|status| status.phase))
}

/// The policy that should own this Backup and does not yet. One that has begun, or that saves
/// another claim, is not taken over: a policy re-made under the same name does not inherit it.
async fn wanted_owner(backup: &Backup, ctx: &Context) -> Result<Option<Arc<BackupPolicy>>, Error> {
    let has_begun = backup
        .status
        .as_ref()
        .is_some_and(|status| status.job_name.is_some());
    if has_begun || owners::controller(&backup.metadata).is_some() {
        return Ok(None);
    }
    let policy = find_policy(backup, ctx).await?;
    Ok(policy.filter(|policy| {
        let target = backup.spec.target.as_ref();
        policy.metadata.deletion_timestamp.is_none()
            && target.is_none_or(|target| *target == policy.spec.target)
    }))
}

/// Adds finalizer, labels and owner in one write that fails if the object changed meanwhile.
async fn claim(backup: &Backup, owner: Option<&BackupPolicy>, ctx: &Context) -> Result<(), Error> {
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
    if let Some(owner) = owner.and_then(|policy| policy.controller_owner_ref(&())) {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{bodies, context};

    fn backup(metadata: Value) -> Arc<Backup> {
        let mut backup = json!({
            "apiVersion": "tidelock.dev/v1alpha1", "kind": "Backup",
            "metadata": {
                "name": "now", "namespace": "shop", "uid": "b-1", "resourceVersion": "7",
                "creationTimestamp": jiff::Timestamp::now(),
            },
            "spec": {"policyRef": "nightly"},
        });
        let own = backup["metadata"].as_object_mut().unwrap();
        own.extend(metadata.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(backup).unwrap())
    }

    /// What is written about `backup` by a step of an operator that has not heard of the policy,
    /// while the API server has it or not.
    async fn asked(backup: Arc<Backup>, has_policy: bool) -> crate::testing::Asked {
        let as_read = serde_json::to_value(&*backup).unwrap();
        let (ctx, asked) = context(Vec::new(), Vec::new(), move |request| {
            let policy = json!({
                "apiVersion": "tidelock.dev/v1alpha1", "kind": "BackupPolicy",
                "metadata": {"name": "nightly", "namespace": "shop", "uid": "p-1"},
                "spec": {"target": {"pvcName": "data"}, "schedule": "0 0 * * *"},
            });
            if request.ends_with("/backuppolicies/nightly") {
                return has_policy.then_some(policy);
            }
            request.contains("/backups/now").then(|| as_read.clone())
        });
        reconcile(backup, Arc::new(ctx)).await.unwrap();
        asked
    }

    #[tokio::test]
    async fn a_policy_applied_together_with_its_backup_owns_it_though_the_cache_lags() {
        let asked = asked(backup(json!({})), true).await;
        let patches = bodies(&asked, "PATCH ");
        let owners = &patches[0]["metadata"]["ownerReferences"];
        assert_eq!(owners[0]["uid"], "p-1", "{patches:#?}");
    }

    #[tokio::test]
    async fn only_a_policy_that_the_api_server_does_not_know_is_said_to_be_missing() {
        let events = "POST /api/v1/namespaces/shop/events";
        let policy = json!([{
            "apiVersion": "tidelock.dev/v1alpha1", "kind": "BackupPolicy", "name": "nightly",
            "uid": "p-1", "controller": true,
        }]);
        let owned = json!({"finalizers": [DATA_FINALIZER], "ownerReferences": policy});
        let free = json!({"finalizers": [DATA_FINALIZER]});
        let missing = "BackupPolicy nightly does not exist";
        for (metadata, has_policy, said) in [(owned, true, false), (free, false, true)] {
            let asked = asked(backup(metadata), has_policy).await;
            let notes = bodies(&asked, events);
            let note = notes[0]["message"].as_str().unwrap();
            assert_eq!(note.contains(missing), said, "{note}");
        }
    }
}
