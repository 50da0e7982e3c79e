//! What every reconcile has at hand.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::Store;
use kube::{Client, Resource, ResourceExt};
use tidelock_api::{Backup, BackupPolicy, BackupStorage, Restore};

use tidelock_core::queue::Limits;

use crate::gate::Gate;
use crate::owners;
use crate::run::progress::Asker;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::counters::Counters;

/// What every reconcile has at hand.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Caches, kept by one watch for each kind.
    pub caches: Caches,
    /// Image of the mover: the operator's own, so that their versions never part.
    pub mover_image: String,
    /// Publishes Events.
    pub events: Events,
    /// Load limits.
    pub gate: Gate,
    /// Asks movers how far they are.
    pub asker: Asker,
    /// What this process counts.
    pub counters: Counters,
    failures: Mutex<HashMap<String, u32>>,
}

/// How many failures in a row make an object one that fails again and again.
const FAILING: u32 = 3;

/// Most pods that are remembered after they are gone; their reports are read within moments.
const MOST_GONE_PODS: usize = 256;

/// Mover pods that were deleted, as they were last seen: a report that was left is not lost with
/// its pod while the operator watches.
#[derive(Default)]
pub struct GonePods(Mutex<VecDeque<Pod>>);

impl GonePods {
    /// Keeps `pod`; the oldest makes room.
    pub fn remember(&self, pod: &Pod) {
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pods.len() >= MOST_GONE_PODS {
            pods.pop_front();
        }
        pods.push_back(pod.clone());
    }

    /// The remembered pods of the Job with this UID.
    pub fn of_job(&self, job_uid: &str) -> Vec<Pod> {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = pods
            .iter()
            .filter(|pod| owners::is_controlled_by(&pod.metadata, job_uid));
        own.cloned().collect()
    }
}

/// Caches of what the operator watches.
#[derive(Clone)]
pub struct Caches {
    /// All BackupPolicies.
    pub policies: Store<BackupPolicy>,
    /// All Backups.
    pub backups: Store<Backup>,
    /// All Restores.
    pub restores: Store<Restore>,
    /// All BackupStorages.
    pub storages: Store<BackupStorage>,
    /// Our Jobs.
    pub jobs: Store<Job>,
    /// The pods of our Jobs.
    pub pods: Store<Pod>,
    /// Pods of our Jobs that are gone.
    pub gone_pods: Arc<GonePods>,
}

#[cfg(test)]
impl Caches {
    /// Caches that hold nothing.
    pub fn empty() -> Self {
        use kube::runtime::reflector::store;
        Self {
            policies: store().0,
            backups: store().0,
            restores: store().0,
            storages: store().0,
            jobs: store().0,
            pods: store().0,
            gone_pods: Arc::default(),
        }
    }
}

impl Context {
    /// A context over `client` and `caches`.
    pub fn new(
        client: Client,
        caches: Caches,
        mover_image: String,
        instance: String,
        limits: Limits,
        counters: Counters,
    ) -> Self {
        Self {
            events: Events::new(client.clone(), instance),
            gate: Gate::new(limits),
            asker: Asker::default(),
            client,
            caches,
            mover_image,
            counters,
            failures: Mutex::new(HashMap::new()),
        }
    }

    /// The time; the only place where the operator reads the clock, once for each reconcile.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Counts a failed reconcile of `object`; how many failed in a row before it.
    pub fn count_failure(&self, object: &str) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.to_owned()).or_insert(0);
        let before = *count;
        *count += 1;
        before
    }

    /// How many reconciles of `object` failed in a row.
    pub fn failures(&self, object: &str) -> u32 {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(object).copied().unwrap_or(0)
    }

    /// How many objects failed [`FAILING`] times in a row or more, by kind. Those that are gone are
    /// forgotten: no reconcile of theirs ever ends well.
    pub fn failing(&self) -> Vec<(&'static str, usize)> {
        let there = [
            ("BackupPolicy", keys(&self.caches.policies)),
            ("Backup", keys(&self.caches.backups)),
            ("Restore", keys(&self.caches.restores)),
            ("BackupStorage", keys(&self.caches.storages)),
        ];
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|key, _| there.iter().any(|(_, keys)| keys.contains(key)));
        let failing = |key: &&String| failures.get(*key).is_some_and(|count| *count >= FAILING);
        let counts = there
            .iter()
            .map(|(kind, keys)| (*kind, keys.iter().filter(failing).count()));
        counts.collect()
    }

    /// Forgets the failures of `object`.
    pub fn clear_failures(&self, object: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(object);
    }
}

/// The keys of all objects that `store` holds.
fn keys<K>(store: &Store<K>) -> HashSet<String>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let all = store.state();
    all.iter().map(|object| object_key(&**object)).collect()
}

/// What tells an object from all others, its namesakes before and after it included:
/// `Kind/namespace/name/UID`.
pub fn object_key<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!(
        "{}/{}/{}/{}",
        K::kind(&()),
        object.namespace().unwrap_or_default(),
        object.name_any(),
        object.uid().unwrap_or_default()
    )
}
