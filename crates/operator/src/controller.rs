//! Runs the three reconciles over the caches and queues.

use std::future::Future;
use std::sync::Arc;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};
use std::fmt::Debug;
use tidelock_core::text;

use crate::context::Context;
use crate::error::{Class, Error, back_off};
use crate::telemetry::events::Story;
use crate::telemetry::http::Readiness;
use crate::telemetry::reasons;
use crate::{backup, policy, restore, watch};

/// How often a reconcile may fail in a row before that is told on its object.
const TELL_AFTER: u32 = 3;
/// How many objects of a kind are reconciled at once.
const CONCURRENCY: u16 = 8;

/// Watches and reconciles until `stop` ends.
///
/// # Crash window
/// Everything a reconcile does is found done by the next one, so being stopped at any point loses
/// nothing.
pub async fn run(
    client: Client,
    mover_image: String,
    instance: String,
    readiness: Readiness,
    stop: impl Future<Output = ()>,
) {
    let (caches, queues, watches) = watch::start(&client);
    let ctx = Arc::new(Context::new(client, caches.clone(), mover_image, instance));
    let work = async {
        wait_until_filled(&caches).await;
        readiness.set_ready();
        tracing::info!("caches are filled; reconciling");
        tokio::join!(
            drive(
                &ctx,
                caches.policies.clone(),
                queues.policies,
                policy::reconcile
            ),
            drive(
                &ctx,
                caches.backups.clone(),
                queues.backups,
                backup::reconcile
            ),
            drive(
                &ctx,
                caches.restores.clone(),
                queues.restores,
                restore::reconcile
            ),
        );
    };
    tokio::select! {
        () = watches => {}
        () = work => {}
        () = stop => tracing::info!("told to stop"),
    }
}

async fn wait_until_filled(caches: &crate::context::Caches) {
    // An error means that the writer is gone, which ends `run` by itself.
    let _ = tokio::join!(
        caches.policies.wait_until_ready(),
        caches.backups.wait_until_ready(),
        caches.restores.wait_until_ready(),
        caches.jobs.wait_until_ready(),
        caches.pods.wait_until_ready(),
    );
}

async fn drive<K, F>(
    ctx: &Arc<Context>,
    store: Store<K>,
    queue: UnboundedReceiver<ObjectRef<K>>,
    reconcile: fn(Arc<K>, Arc<Context>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let step = move |object: Arc<K>, ctx: Arc<Context>| {
        let key = key(object.as_ref());
        Box::pin(async move {
            let done = reconcile(object.clone(), ctx.clone()).await;
            match &done {
                Ok(_) => ctx.clear_failures(&key),
                Err(error) => tell_repeated(object.as_ref(), error, &ctx, &key).await,
            }
            done
        })
    };
    applier(
        step,
        on_error,
        ctx.clone(),
        store,
        watch::queue(queue),
        Config::default().concurrency(CONCURRENCY),
    )
    // Errors are dealt with by `on_error`; what is left is an object that went meanwhile.
    .for_each(|_| std::future::ready(()))
    .await;
}

/// Tells on the object itself what keeps failing, so that it does not stand in a log alone.
async fn tell_repeated<K: Resource<DynamicType = ()>>(
    object: &K,
    error: &Error,
    ctx: &Context,
    key: &str,
) {
    if error.class() == Class::Conflict || ctx.failures(key) < TELL_AFTER {
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
        tracing::warn!(object = key, %error, "a repeated failure could not be told");
    }
}

/// When to try again.
fn on_error<K: Resource<DynamicType = ()>>(
    object: Arc<K>,
    error: &Error,
    ctx: Arc<Context>,
) -> Action {
    let key = key(object.as_ref());
    let attempt = ctx.count_failure(&key);
    let pause = back_off(error.class(), attempt);
    match error.class() {
        Class::Conflict => tracing::debug!(object = key, %error, "somebody else wrote first"),
        Class::Transient => {
            tracing::warn!(object = key, %error, attempt, ?pause, "reconcile failed");
        }
    }
    Action::requeue(pause)
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!(
        "{}/{}/{}",
        K::kind(&()),
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}
