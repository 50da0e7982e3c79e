//! Everything that is told of objects, read from the caches at one moment.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use tidelock_api::{Backup, BackupPolicy, BackupStorage, Restore};

use crate::convert;
use crate::owners;
use crate::telemetry::metrics::known::{self, PHASES};
use crate::telemetry::metrics::policy::{self, PolicyFacts};
use crate::telemetry::metrics::restore::{self, RestoreFacts};
use crate::telemetry::metrics::storage::{self, StorageFacts};

/// Most objects of a kind that have series where nothing else is said, and most namespaces whose
/// Backups without a policy are counted. A policy has some forty series, so this bounds them at some
/// 400,000.
pub const MOST_OBJECTS: usize = 10_000;

/// The objects as the caches hold them.
#[derive(Default)]
pub struct Objects {
    /// All BackupPolicies.
    pub policies: Vec<Arc<BackupPolicy>>,
    /// All Backups.
    pub backups: Vec<Arc<Backup>>,
    /// All Restores.
    pub restores: Vec<Arc<Restore>>,
    /// All BackupStorages.
    pub storages: Vec<Arc<BackupStorage>>,
}

/// How many Backups belong to no policy, by namespace and phase.
pub type Unowned = BTreeMap<String, [u32; PHASES.len()]>;

/// Everything that is told of objects.
#[derive(Debug, Default)]
pub struct Scene {
    /// By namespace and name.
    pub policies: Vec<PolicyFacts>,
    /// By namespace and name.
    pub restores: Vec<RestoreFacts>,
    /// By namespace and name.
    pub storages: Vec<StorageFacts>,
    /// Backups that belong to no policy.
    pub unowned: Unowned,
    /// How many objects have no series, by kind.
    pub left_out: [(&'static str, usize); 4],
}

/// What is told at `now` of `objects`, of `most` of each kind.
///
/// # Guarantees
/// A series exists while its object does. The number of series is bounded by the number of objects
/// and by `most`; the oldest objects come first, so that new ones cannot push them out.
pub fn observe(objects: &Objects, most: usize, now: Timestamp) -> Scene {
    let (by_policy, unowned) = by_policy(&objects.backups);
    let (policies, policies_left) = oldest(&objects.policies, most);
    let (restores, restores_left) = oldest(&objects.restores, most);
    let (storages, storages_left) = oldest(&objects.storages, most);
    let mut filled: HashMap<(Option<String>, &str), Timestamp> = HashMap::new();
    for restore in &objects.restores {
        if let Some(claim) = restore::filled(restore) {
            let latest = filled.entry((restore.namespace(), claim)).or_default();
            *latest = (*latest).max(convert::created(&restore.metadata));
        }
    }
    let namespaces_left = unowned.len().saturating_sub(most);
    Scene {
        policies: policies
            .iter()
            .map(|policy| {
                let uid = policy.metadata.uid.as_deref().unwrap_or_default();
                let own = by_policy.get(uid).map_or(&[][..], Vec::as_slice);
                policy::observe(policy, own, now)
            })
            .collect(),
        restores: restores
            .iter()
            .map(|restore| {
                let claim = restore::target(restore).unwrap_or_default();
                let at = filled.get(&(restore.namespace(), claim));
                restore::observe(restore, at.copied())
            })
            .collect(),
        storages: storages.into_iter().map(storage::observe).collect(),
        unowned: unowned.into_iter().take(most).collect(),
        left_out: [
            ("BackupPolicy", policies_left),
            ("Restore", restores_left),
            ("BackupStorage", storages_left),
            ("Namespace", namespaces_left),
        ],
    }
}

/// Backups by the UID of their policy, and how many have none.
fn by_policy(backups: &[Arc<Backup>]) -> (HashMap<&str, Vec<&Backup>>, Unowned) {
    let mut owned: HashMap<&str, Vec<&Backup>> = HashMap::new();
    let mut unowned = Unowned::new();
    for backup in backups {
        match owners::controller(&backup.metadata) {
            Some(owner) => owned.entry(&owner.uid).or_default().push(backup),
            None => {
                let phase = backup.status.as_ref().and_then(|status| status.phase);
                let namespace = backup.namespace().unwrap_or_default();
                unowned.entry(namespace).or_default()[known::phase_index(phase)] += 1;
            }
        }
    }
    (owned, unowned)
}

/// The `most` oldest that are not being deleted, by namespace and name, and how many there are
/// beyond.
fn oldest<K: Resource<DynamicType = ()>>(all: &[Arc<K>], most: usize) -> (Vec<&K>, usize) {
    let live = all.iter().map(Arc::as_ref);
    let mut live: Vec<&K> = live
        .filter(|object| object.meta().deletion_timestamp.is_none())
        .collect();
    let place = |object: &&K| (object.namespace(), object.name_any());
    let left = live.len().saturating_sub(most);
    if left > 0 {
        live.sort_by_cached_key(|object| (convert::created(object.meta()), place(object)));
        live.truncate(most);
    }
    live.sort_by_cached_key(place);
    (live, left)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str, second: u32) -> Arc<BackupPolicy> {
        let policy = json!({
            "apiVersion": "tidelock.dev/v1alpha1",
            "kind": "BackupPolicy",
            "metadata": {
                "name": name, "namespace": "shop", "uid": name,
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            },
            "spec": {"schedule": "0 2 * * *", "target": {"pvcName": "data"}},
        });
        Arc::new(serde_json::from_value(policy).unwrap())
    }

    #[test]
    fn beyond_the_cap_the_oldest_keep_their_series_and_the_rest_is_counted() {
        let objects = Objects {
            policies: vec![policy("a-new", 3), policy("z-old", 1), policy("m-older", 0)],
            ..Default::default()
        };
        let scene = observe(&objects, 2, Timestamp::UNIX_EPOCH);
        let names: Vec<&str> = scene.policies.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["m-older", "z-old"]);
        assert_eq!(scene.left_out[0], ("BackupPolicy", 1));
    }
}
