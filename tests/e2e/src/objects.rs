//! Policies, backups and restores as a person writes them, and the Events about them.

use anyhow::{Context, Result};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use tidelock_api::{Backup, BackupPolicy, Restore};

use crate::Story;
use crate::wait::Watched;

/// `group/version` of our kinds.
pub const API_VERSION: &str = "tidelock.dev/v1alpha1";

impl Story {
    /// Makes an object of ours from its spec.
    pub async fn make<K: Watched>(&self, name: &str, spec: Value) -> Result<K> {
        let object: K = serde_json::from_value(json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": name},
            "spec": spec,
        }))?;
        self.api()
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("cannot make {} {name}", K::kind(&())))
    }

    /// A policy for the claim `data`; `more` is laid over its spec.
    pub async fn policy(&self, name: &str, schedule: &str, more: Value) -> Result<BackupPolicy> {
        let mut spec = json!({"schedule": schedule, "target": {"pvcName": "data"}});
        if let Some(storage) = self.archives.reference() {
            spec["storage"] = storage;
        }
        self.make(name, merged(spec, more)).await
    }

    /// A backup by hand of the claim `data`; `more` is laid over its spec.
    pub async fn backup(&self, name: &str, more: Value) -> Result<Backup> {
        let mut spec = json!({"target": {"pvcName": "data"}});
        // With a policy, that says where to.
        if let Some(storage) = self.archives.reference()
            && more.get("policyRef").is_none()
        {
            spec["storage"] = storage;
        }
        self.make(name, merged(spec, more)).await
    }

    /// A restore into an existing claim.
    pub async fn restore(&self, name: &str, backup: &str, claim: &str) -> Result<Restore> {
        let spec = json!({"backupName": backup, "targetPVC": claim});
        self.make(name, spec).await
    }

    /// As [`Self::restore`], with so little processor time that its pod is seen to run and can be met
    /// at work.
    pub async fn slow_restore(&self, name: &str, backup: &str, claim: &str) -> Result<Restore> {
        let slow = json!({"resources": {"limits": {"cpu": "200m", "memory": "128Mi"}}});
        let spec = json!({"backupName": backup, "targetPVC": claim, "mover": slow});
        self.make(name, spec).await
    }

    /// Merges `patch` into the object `name`.
    pub async fn patch<K: Watched>(&self, name: &str, patch: Value) -> Result<K> {
        self.api()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| format!("cannot patch {} {name}", K::kind(&())))
    }

    /// The Events about `object`, oldest first.
    pub async fn events<K: Resource<DynamicType = ()>>(&self, object: &K) -> Result<Vec<Event>> {
        let uid = object.uid().context("an object of the cluster has a UID")?;
        let about = ListParams::default().fields(&format!("regarding.uid={uid}"));
        let mut events = self.api::<Event>().list(&about).await?.items;
        events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        Ok(events)
    }

    /// The reasons of the Events about `object`, oldest first.
    pub async fn event_reasons<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
    ) -> Result<Vec<String>> {
        let events = self.events(object).await?;
        Ok(events
            .into_iter()
            .filter_map(|event| event.reason)
            .collect())
    }
}

fn merged(mut spec: Value, more: Value) -> Value {
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    spec
}
