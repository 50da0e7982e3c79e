//! One watch for each kind: it fills a cache, and wakes what an event is about.

mod cached;

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tidelock_api::{Backup, BackupPolicy, BackupStorage, RUN_KIND_LABEL, Restore};

use crate::conditions::ready_reason;
use crate::context::{Caches, GonePods};
use crate::convert::{self, named};
use crate::job::{MANAGED_BY, MANAGED_BY_LABEL, RUN_NAME_ANNOTATION, RunKind};
use crate::owners;
use crate::run::observe::is_finished;
use crate::telemetry::reasons;
use crate::watch::cached::{Cached, strip};

/// Objects of a list that are asked for at once: all of them are held as they are, with all that a
/// cache drops, before the first one is taken, and the memory for that is kept ever after.
const PAGE: u32 = 100;
/// Label that the Job controller puts on its pods.
const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";

/// Ends of the queues that wake the reconciles.
#[derive(Clone)]
struct Wakers {
    policies: UnboundedSender<ObjectRef<BackupPolicy>>,
    backups: UnboundedSender<ObjectRef<Backup>>,
    restores: UnboundedSender<ObjectRef<Restore>>,
    storages: UnboundedSender<ObjectRef<BackupStorage>>,
}

/// The queues of objects to look at.
pub struct Queues {
    /// BackupPolicies to look at.
    pub policies: UnboundedReceiver<ObjectRef<BackupPolicy>>,
    /// Backups to look at.
    pub backups: UnboundedReceiver<ObjectRef<Backup>>,
    /// Restores to look at.
    pub restores: UnboundedReceiver<ObjectRef<Restore>>,
    /// BackupStorages to look at.
    pub storages: UnboundedReceiver<ObjectRef<BackupStorage>>,
}

impl Queues {
    /// Drops what is queued until `end`, so that the queues of a process that stands by stay empty:
    /// what they name is in the caches as well.
    pub async fn discard_until(&mut self, end: impl Future<Output = ()>) {
        let discarded = async {
            tokio::join!(
                discard(&mut self.policies),
                discard(&mut self.backups),
                discard(&mut self.restores),
                discard(&mut self.storages),
            )
        };
        tokio::select! {
            _ = discarded => {}
            () = end => {}
        }
    }
}

async fn discard<T>(queue: &mut UnboundedReceiver<T>) {
    while queue.next().await.is_some() {}
}

/// Where to watch.
#[derive(Clone, Copy)]
struct Place<'a> {
    client: &'a Client,
    /// None is every namespace.
    namespace: Option<&'a str>,
}

impl Place<'_> {
    fn api<K>(self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

/// The caches of `namespace`, or of all, the queues, and the future that keeps both going for as
/// long as it is polled.
pub fn start(
    client: &Client,
    namespace: Option<&str>,
) -> (Caches, Queues, impl Future<Output = ()> + Send + use<>) {
    let place = Place { client, namespace };
    let (policy_store, policy_writer) = reflector::store();
    let (backup_store, backup_writer) = reflector::store();
    let (restore_store, restore_writer) = reflector::store();
    let (storage_store, storage_writer) = reflector::store();
    let (job_store, job_writer) = reflector::store();
    let (pod_store, pod_writer) = reflector::store();
    let caches = Caches {
        policies: policy_store,
        backups: backup_store,
        restores: restore_store,
        storages: storage_store,
        jobs: job_store,
        pods: pod_store,
        gone_pods: Arc::new(GonePods::default()),
    };
    let (policies, policy_queue) = unbounded();
    let (backups, backup_queue) = unbounded();
    let (restores, restore_queue) = unbounded();
    let (storages, storage_queue) = unbounded();
    let wakers = Wakers {
        policies,
        backups,
        restores,
        storages,
    };
    let queues = Queues {
        policies: policy_queue,
        backups: backup_queue,
        restores: restore_queue,
        storages: storage_queue,
    };
    let all = || watcher::Config::default().page_size(PAGE);
    let ours = all().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let (w, c) = (wakers.clone(), caches.clone());
    let policy_watch = follow(place, all(), policy_writer, move |o, _| w.policy(o, &c));
    let w = wakers.clone();
    let backup_watch = follow(place, all(), backup_writer, move |o, _| w.backup(o));
    let w = wakers.clone();
    let restore_watch = follow(place, all(), restore_writer, move |o, _| w.restore(o));
    let (w, c) = (wakers.clone(), caches.clone());
    let storage_watch = follow(place, all(), storage_writer, move |o, _| w.storage(o, &c));
    let (w, c) = (wakers.clone(), caches.clone());
    let job_watch = follow(place, ours.clone(), job_writer, move |o, change| {
        w.job(o, change, &c);
    });
    let w = wakers.clone();
    let c = caches.clone();
    let pod_watch = follow(place, ours, pod_writer, move |o, change| {
        if change == Change::Gone {
            c.gone_pods.remember(o);
        }
        w.pod(o, &c);
    });
    let claim_watch = follow_claims(place, wakers, caches.clone());
    let running = async move {
        tokio::join!(
            policy_watch,
            backup_watch,
            restore_watch,
            storage_watch,
            job_watch,
            pod_watch,
            claim_watch
        );
    };
    (caches, queues, running)
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It is there.
    Seen,
    /// It is gone; this is how it was last seen.
    Gone,
}

/// Keeps `writer` like the cluster and hands every object that appears, changes or goes to `wake`.
fn follow<K, W>(
    place: Place<'_>,
    config: watcher::Config,
    mut writer: Writer<K>,
    wake: W,
) -> impl Future<Output = ()> + Send + use<K, W>
where
    W: Fn(&K, Change) + Send,
    K: Cached<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
    K::DynamicType: Eq + Hash,
{
    let events = watcher::watcher(place.api::<K>(), config)
        .modify(strip)
        .default_backoff();
    async move {
        let mut events = std::pin::pin!(events);
        let reader = writer.as_reader();
        let mut before_list = Vec::new();
        while let Some(event) = next(&mut events, &K::kind(&())).await {
            writer.apply_watcher_event(&event);
            match &event {
                Event::Apply(object) => wake(object, Change::Seen),
                Event::Delete(object) => wake(object, Change::Gone),
                Event::Init => before_list = reader.state(),
                Event::InitApply(_) => {}
                Event::InitDone => {
                    let seen = reader.state();
                    seen.iter().for_each(|object| wake(object, Change::Seen));
                    // What a fresh list lacks went unseen.
                    let gone = std::mem::take(&mut before_list);
                    gone.iter()
                        .filter(|object| {
                            reader.get(&ObjectRef::from_obj(object.as_ref())).is_none()
                        })
                        .for_each(|object| wake(object, Change::Gone));
                }
            }
        }
    }
}

/// Wakes the runs that wait for a claim; claims are not cached, only their names are read.
fn follow_claims(
    place: Place<'_>,
    wakers: Wakers,
    caches: Caches,
) -> impl Future<Output = ()> + Send + use<> {
    let api = place.api::<PartialObjectMeta<PersistentVolumeClaim>>();
    let events =
        watcher::watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff();
    async move {
        let mut events = std::pin::pin!(events);
        while let Some(event) = next(&mut events, "PersistentVolumeClaim").await {
            match event {
                Event::Apply(claim) | Event::Delete(claim) => {
                    wakers.claim(claim.namespace().as_deref(), &caches);
                }
                // What happened before a fresh list went unseen.
                Event::InitDone => wakers.claim(None, &caches),
                Event::Init | Event::InitApply(_) => {}
            }
        }
    }
}

/// The next event; failures are logged, and the watch starts again with growing pauses.
async fn next<T>(
    events: &mut (impl Stream<Item = watcher::Result<Event<T>>> + Unpin),
    kind: &str,
) -> Option<Event<T>> {
    loop {
        match events.try_next().await {
            Ok(event) => return event,
            Err(error) => tracing::warn!(kind, %error, "watch interrupted; it starts again"),
        }
    }
}

impl Wakers {
    fn policy(&self, policy: &BackupPolicy, caches: &Caches) {
        send(&self.policies, named(policy));
        self.backups_of(policy, caches);
    }

    fn backup(&self, backup: &Backup) {
        send(&self.backups, named(backup));
        let namespace = backup.namespace().unwrap_or_default();
        for owner in owners::owners_of_kind::<BackupPolicy>(&backup.metadata) {
            send(
                &self.policies,
                ObjectRef::new(&owner.name).within(&namespace),
            );
        }
    }

    fn restore(&self, restore: &Restore) {
        send(&self.restores, named(restore));
        // A Backup that is being deleted may wait for its reader.
        let status = restore.status.as_ref();
        if let Some(backup) = status.and_then(|status| status.backup_name.as_ref()) {
            let namespace = restore.namespace().unwrap_or_default();
            send(&self.backups, ObjectRef::new(backup).within(&namespace));
        }
    }

    /// Wakes a storage, and what may wait for it.
    fn storage(&self, storage: &BackupStorage, caches: &Caches) {
        send(&self.storages, named(storage));
        self.waiting(storage.namespace().as_deref(), caches);
    }

    /// Wakes what a Job is about, and, where a mover ended, what waits for its turn.
    fn job(&self, job: &Job, change: Change, caches: &Caches) {
        if change == Change::Gone || is_finished(job) {
            self.queued(caches);
        }
        self.owners_of(job);
    }

    /// Wakes the runs that wait for their turn; the gate looks at each in memory.
    fn queued(&self, caches: &Caches) {
        let is_queued = |conditions: &[Condition]| ready_reason(conditions) == reasons::QUEUED;
        let restores = caches.restores.state_filter(|restore| {
            let status = restore.status.as_ref();
            status.is_some_and(|status| is_queued(&status.conditions))
        });
        for restore in restores {
            send(&self.restores, named(restore.as_ref()));
        }
        let backups = caches.backups.state_filter(|backup| {
            let status = backup.status.as_ref();
            status.is_some_and(|status| is_queued(&status.conditions))
        });
        for backup in backups {
            send(&self.backups, named(backup.as_ref()));
        }
    }

    fn owners_of(&self, job: &Job) {
        let namespace = job.namespace().unwrap_or_default();
        for owner in owners::owners_of_kind::<BackupPolicy>(&job.metadata) {
            send(
                &self.policies,
                ObjectRef::new(&owner.name).within(&namespace),
            );
        }
        for owner in owners::owners_of_kind::<Backup>(&job.metadata) {
            send(
                &self.backups,
                ObjectRef::new(&owner.name).within(&namespace),
            );
        }
        for owner in owners::owners_of_kind::<BackupStorage>(&job.metadata) {
            send(
                &self.storages,
                ObjectRef::new(&owner.name).within(&namespace),
            );
        }
        for owner in owners::owners_of_kind::<Restore>(&job.metadata) {
            send(
                &self.restores,
                ObjectRef::new(&owner.name).within(&namespace),
            );
        }
    }

    fn pod(&self, pod: &Pod, caches: &Caches) {
        let namespace = pod.namespace().unwrap_or_default();
        let (Some(kind), Some(name)) = (
            pod.labels().get(RUN_KIND_LABEL),
            pod.annotations().get(RUN_NAME_ANNOTATION),
        ) else {
            return;
        };
        if kind == RunKind::Backup.as_str() {
            send(&self.backups, ObjectRef::new(name).within(&namespace));
        } else if kind == RunKind::Restore.as_str() {
            send(&self.restores, ObjectRef::new(name).within(&namespace));
        } else {
            let job = pod.labels().get(JOB_NAME_LABEL).unwrap_or(name);
            if let Some(job) = caches.jobs.get(&ObjectRef::new(job).within(&namespace)) {
                self.owners_of(&job);
            }
        }
    }

    /// Wakes what may wait for a claim of `namespace`, or of any where none is given.
    fn claim(&self, namespace: Option<&str>, caches: &Caches) {
        self.waiting(namespace, caches);
        let storages = caches.storages.state_filter(|storage| {
            let here = namespace.is_none_or(|n| storage.namespace().as_deref() == Some(n));
            here && storage.spec.pvc.is_some()
        });
        for storage in storages {
            send(&self.storages, named(storage.as_ref()));
        }
    }

    /// Wakes the runs of `namespace` that have not begun, or of any where none is given.
    fn waiting(&self, namespace: Option<&str>, caches: &Caches) {
        let here = |own: Option<String>| namespace.is_none_or(|n| own.as_deref() == Some(n));
        let backups = caches.backups.state_filter(|backup| {
            let leaving = backup.metadata.deletion_timestamp.is_some();
            let phase = backup.status.as_ref().and_then(|status| status.phase);
            here(backup.namespace()) && (leaving || is_waiting(phase))
        });
        for backup in backups {
            send(&self.backups, named(backup.as_ref()));
        }
        let restores = caches.restores.state_filter(|restore| {
            let phase = restore.status.as_ref().and_then(|status| status.phase);
            here(restore.namespace()) && is_waiting(phase)
        });
        for restore in restores {
            send(&self.restores, named(restore.as_ref()));
        }
    }

    /// Wakes the Backups that wait for `policy`.
    fn backups_of(&self, policy: &BackupPolicy, caches: &Caches) {
        let name = policy.name_any();
        let waiting = caches.backups.state_filter(|backup| {
            backup.namespace() == policy.namespace()
                && backup.spec.policy_ref.as_ref() == Some(&name)
                && is_waiting(backup.status.as_ref().and_then(|status| status.phase))
        });
        for backup in waiting {
            send(&self.backups, named(backup.as_ref()));
        }
    }
}

fn is_waiting(phase: Option<tidelock_api::Phase>) -> bool {
    !convert::is_terminal(phase) && phase != Some(tidelock_api::Phase::Running)
}

/// Queues `object`; a queue that is closed belongs to an operator that is stopping.
fn send<K: Resource>(queue: &UnboundedSender<ObjectRef<K>>, object: ObjectRef<K>) {
    let _ = queue.unbounded_send(object);
}
