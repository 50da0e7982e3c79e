//! What of an object is kept.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::Resource;
use tidelock_api::{Backup, BackupPolicy, BackupStorage, Restore};

/// What a cache holds of a kind: what nothing here reads is dropped, which bounds what a tenant's
/// own objects can fill it with.
pub(super) trait Cached: Resource {
    /// Drops what nothing here reads beside the metadata.
    fn slim(&mut self) {}
}

impl Cached for BackupPolicy {
    fn slim(&mut self) {
        if let Some(status) = &mut self.status {
            status.conditions.shrink_to_fit();
        }
    }
}

/// Of Backups there are by far the most.
impl Cached for Backup {
    fn slim(&mut self) {
        self.metadata.labels = None;
        if let Some(status) = &mut self.status {
            status.conditions.shrink_to_fit();
        }
    }
}

impl Cached for Restore {
    fn slim(&mut self) {
        if let Some(status) = &mut self.status {
            status.conditions.shrink_to_fit();
        }
    }
}

impl Cached for BackupStorage {}

impl Cached for Job {
    fn slim(&mut self) {
        self.spec = self.spec.take().map(|spec| JobSpec {
            ttl_seconds_after_finished: spec.ttl_seconds_after_finished,
            active_deadline_seconds: spec.active_deadline_seconds,
            ..Default::default()
        });
    }
}

impl Cached for Pod {
    fn slim(&mut self) {
        self.spec = self.spec.take().map(|spec| PodSpec {
            node_name: spec.node_name,
            ..Default::default()
        });
    }
}

pub(super) fn strip<K: Cached>(object: &mut K) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    // A map of one entry has room for eleven, a list of one for four.
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    meta.annotations
        .take_if(|annotations| annotations.is_empty());
    meta.owner_references
        .iter_mut()
        .for_each(Vec::shrink_to_fit);
    meta.finalizers.iter_mut().for_each(Vec::shrink_to_fit);
    object.slim();
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_backup_a_cache_keeps_what_is_read_of_it() {
        let mut backup: Backup = serde_json::from_value(json!({
            "apiVersion": "tidelock.dev/v1alpha1",
            "kind": "Backup",
            "metadata": {
                "name": "now",
                "namespace": "shop",
                "labels": {"tidelock.dev/policy": "nightly"},
                "annotations": {
                    "tidelock.dev/scheduled-for": "2026-11-26T02:00:00Z",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                },
                "finalizers": ["tidelock.dev/data"],
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {},
        }))
        .unwrap();
        let finalizers = backup.metadata.finalizers.clone();
        strip(&mut backup);
        assert_eq!(backup.metadata.finalizers, finalizers);
        assert_eq!(backup.annotations().len(), 1);
        assert_eq!(backup.metadata.labels, None);
        assert_eq!(backup.metadata.managed_fields, None);
        backup.annotations_mut().clear();
        strip(&mut backup);
        assert_eq!(backup.metadata.annotations, None);
    }
}
