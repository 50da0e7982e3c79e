//! Runs the reconciles over the caches and queues.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::mpsc::UnboundedReceiver;
use futures::{FutureExt, StreamExt};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource};
use tidelock_core::queue::Limits;
use tidelock_core::text;
use tracing::Instrument;

use crate::context::{Context, object_key};
use crate::convert::named;
use crate::error::{Class, Error, back_off};
use crate::health::Health;
use crate::leader::Leading;
use crate::stop::Stop;
use crate::telemetry::events::Story;
use crate::telemetry::log::{self, ReconcileIds};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::counters::Counters;
use crate::telemetry::reasons;
use crate::{backup, policy, restore, storage, watch};

/// How often a reconcile may fail in a row before that is told on its object.
const TELL_AFTER: u32 = 3;
/// How many objects of a kind are reconciled at once.
const CONCURRENCY: u16 = 8;

/// How long reconciles that are under way may go on when this process is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// What an operator is told from outside.
pub struct Options {
    /// Look after this namespace only, instead of all.
    pub namespace: Option<String>,
    /// Image of the mover.
    pub mover_image: String,
    /// Name of this instance in Events.
    pub instance: String,
    /// Load limits.
    pub limits: Limits,
}

/// The state of the process that the controllers share with the rest of it.
#[derive(Clone)]
pub struct Process {
    /// What the probes are told.
    pub health: Health,
    /// Whether to work or to stand by.
    pub leading: Leading,
    /// Whether to end.
    pub stop: Stop,
    /// What it counts.
    pub counters: Counters,
    /// What it tells.
    pub metrics: Metrics,
}

/// A part of the operator ended by itself, which none ever should.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Nothing is heard of the cluster any more.
    #[error("the watches have ended")]
    Watches,
    /// Nothing is done any more.
    #[error("the reconcile loops have ended")]
    Loops,
}

/// Watches what is in `options.namespace`, or in all, and reconciles it while this process leads,
/// until it is told to stop. One that stands by keeps its caches as the cluster is, and writes
/// nothing.
///
/// # Crash window
/// Everything a reconcile does is found done by the next one, so being stopped at any point loses
/// nothing. What is under way when told to stop has [`DRAIN`] to end.
///
/// # Errors
/// When a part of it ends by itself.
pub async fn run(client: Client, options: Options, process: Process) -> Result<(), Ended> {
    let (caches, mut queues, watches) = watch::start(&client, options.namespace.as_deref());
    let ctx = Arc::new(Context::new(
        client,
        caches.clone(),
        options.mover_image,
        options.instance,
        options.limits,
        process.counters.clone(),
    ));
    process.metrics.tell_of(ctx.clone());
    let shift = Shift {
        ctx,
        health: process.health.clone(),
        stop: process.stop.clone(),
        ids: Arc::default(),
    };
    let stop = process.stop.clone();
    let work = async {
        wait_until_filled(&caches).await;
        process.health.set_filled();
        tracing::info!("the caches are filled");
        queues.discard_until(process.leading.wait()).await;
        tracing::info!("reconciling");
        tokio::join!(
            shift.drive(&caches.policies, queues.policies, policy::reconcile),
            shift.drive(&caches.backups, queues.backups, backup::reconcile),
            shift.drive(&caches.restores, queues.restores, restore::reconcile),
            shift.drive(&caches.storages, queues.storages, storage::reconcile),
        );
    };
    tokio::select! {
        () = watches => Err(Ended::Watches),
        () = work => if stop.is_told() { Ok(()) } else { Err(Ended::Loops) },
        () = patience(&process) => Ok(()),
    }
}

/// Ends when this process was told to stop and what was under way had its time.
async fn patience(process: &Process) {
    process.stop.clone().told().await;
    if process.leading.is_leading() {
        tokio::time::sleep(DRAIN).await;
        tracing::warn!("reconciles that are still under way are left to the next operator");
    }
}

async fn wait_until_filled(caches: &crate::context::Caches) {
    // An error means that the writer is gone, which ends `run` by itself.
    let _ = tokio::join!(
        caches.policies.wait_until_ready(),
        caches.backups.wait_until_ready(),
        caches.restores.wait_until_ready(),
        caches.storages.wait_until_ready(),
        caches.jobs.wait_until_ready(),
        caches.pods.wait_until_ready(),
    );
}

/// What the loops share.
struct Shift {
    ctx: Arc<Context>,
    health: Health,
    stop: Stop,
    ids: Arc<ReconcileIds>,
}

impl Shift {
    /// Reconciles everything there is of a kind, and then what the queue names; ends when told to
    /// stop and nothing is under way.
    async fn drive<K, F>(
        &self,
        store: &Store<K>,
        queue: UnboundedReceiver<ObjectRef<K>>,
        reconcile: fn(Arc<K>, Arc<Context>) -> F,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        F: Future<Output = Result<Action, Error>> + Send + 'static,
    {
        let (health, ids) = (self.health.clone(), self.ids.clone());
        let step = move |object: Arc<K>, ctx: Arc<Context>| {
            let id = ids.next();
            let span = log::span(object.as_ref(), &id);
            let at_work = health.at_work_on(&id);
            let done = async move {
                let _at_work = at_work;
                let started = Instant::now();
                let done = reconcile(object.clone(), ctx.clone()).await;
                let failure = done.as_ref().err().map(Error::class);
                ctx.counters
                    .reconciled(&K::kind(&()), failure, started.elapsed());
                let key = object_key(object.as_ref());
                match &done {
                    Ok(_) => ctx.clear_failures(&key),
                    Err(error) => failed(object.as_ref(), error, &ctx, &key).await,
                }
                done
            };
            Box::pin(done.instrument(span))
        };
        // The objects themselves would live for as long as the reconciles do.
        let there: Vec<_> = store.state().iter().map(|o| named(o.as_ref())).collect();
        let all = futures::stream::iter(there).chain(queue);
        applier(
            step,
            on_error,
            self.ctx.clone(),
            store.clone(),
            // The end of its queue tells the applier to take nothing new and finish what it has.
            all.map(Ok::<_, Infallible>)
                .take_until(self.stop.clone().told().boxed()),
            Config::default().concurrency(CONCURRENCY),
        )
        // Errors are dealt with by `failed`; what is left is an object that went meanwhile.
        .for_each(|_| std::future::ready(()))
        .await;
    }
}

/// Logs and counts a reconcile that failed, and tells on the object itself what keeps failing, so
/// that it does not stand in a log alone.
async fn failed<K: Resource<DynamicType = ()>>(
    object: &K,
    error: &Error,
    ctx: &Context,
    key: &str,
) {
    let attempt = ctx.count_failure(key);
    if error.class() == Class::Conflict {
        tracing::debug!(%error, "somebody else wrote first");
        return;
    }
    let pause = back_off(error.class(), attempt);
    tracing::warn!(%error, attempt, ?pause, "reconcile failed");
    if attempt < TELL_AFTER {
        return;
    }
    let note = text::sentence(&error.to_string());
    let story = Story {
        warning: true,
        reason: reasons::RECONCILE_FAILED,
        action: "Reconcile",
        note: note.clone(),
        key: &note,
    };
    if let Err(error) = ctx.events.tell(object, story, ctx.now()).await {
        tracing::warn!(%error, "a repeated failure could not be told");
    }
}

/// When to try again; [`failed`] has counted it.
fn on_error<K: Resource<DynamicType = ()>>(
    object: Arc<K>,
    error: &Error,
    ctx: Arc<Context>,
) -> Action {
    let failures = ctx.failures(&object_key(object.as_ref()));
    Action::requeue(back_off(error.class(), failures.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::channel::mpsc::unbounded;
    use kube::ResourceExt;
    use kube::runtime::reflector::store;
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;
    use tidelock_api::Backup;

    use super::*;
    use crate::context::Caches;

    /// What became of the reconciles of the test: their names when they end.
    static ENDED: Mutex<Vec<String>> = Mutex::new(Vec::new());

    async fn slow(backup: Arc<Backup>, _: Arc<Context>) -> Result<Action, Error> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        ENDED.lock().unwrap().push(backup.name_any());
        // Due again long before the test is over.
        Ok(Action::requeue(Duration::from_millis(10)))
    }

    async fn quick(_: Arc<Backup>, _: Arc<Context>) -> Result<Action, Error> {
        Ok(Action::await_change())
    }

    /// A cache of one Backup, which `Writer` changes.
    fn with_one_backup() -> (Store<Backup>, Writer<Backup>, Caches) {
        let (backups, mut writer) = store();
        let caches = Caches {
            backups: backups.clone(),
            ..Caches::empty()
        };
        let mut there = Backup::new("there", serde_json::from_str("{}").unwrap());
        there.metadata.namespace = Some("shop".to_owned());
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitApply(there));
        writer.apply_watcher_event(&Event::InitDone);
        (backups, writer, caches)
    }

    fn shift(caches: Caches, stop: Stop) -> Shift {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let limits = Limits {
            total: 1,
            per_node: 1,
            per_storage: 1,
        };
        let client = Client::try_from(config).unwrap();
        let (image, instance) = ("image".to_owned(), "test".to_owned());
        Shift {
            ctx: Arc::new(Context::new(
                client,
                caches,
                image,
                instance,
                limits,
                Counters::default(),
            )),
            health: Health::default(),
            stop,
            ids: Arc::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn told_to_stop_it_ends_what_is_under_way_and_begins_nothing_new() {
        let (backups, mut writer, caches) = with_one_backup();
        let mut late = backups.state()[0].as_ref().clone();
        late.metadata.name = Some("late".to_owned());
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let stop = Stop::when(async move {
            let _ = told.await;
        });
        let shift = shift(caches, stop);
        let (sender, queue) = unbounded();
        let story = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            tell.send(()).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            writer.apply_watcher_event(&Event::Apply(late.clone()));
            let _ = sender.unbounded_send(ObjectRef::from_obj(&late));
        };
        let drive = shift.drive(&backups, queue, slow);
        let both = async { tokio::join!(drive, story) };
        let ended = tokio::time::timeout(Duration::from_secs(5), both).await;
        assert!(ended.is_ok(), "it never ends");
        assert_eq!(*ENDED.lock().unwrap(), ["there"]);
        assert!(shift.health.alive().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_object_was_like_before_it_changed_is_not_kept() {
        let (backups, mut writer, caches) = with_one_backup();
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let stop = Stop::when(async move {
            let _ = told.await;
        });
        let shift = shift(caches, stop);
        let (_sender, queue) = unbounded();
        let story = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let before = Arc::downgrade(&backups.state()[0]);
            let changed = backups.state()[0].as_ref().clone();
            writer.apply_watcher_event(&Event::Apply(changed));
            tell.send(()).unwrap();
            before.upgrade().is_some()
        };
        let (_, is_kept) = tokio::join!(shift.drive(&backups, queue, quick), story);
        assert!(!is_kept);
    }
}
