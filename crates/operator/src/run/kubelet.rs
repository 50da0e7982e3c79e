//! What keeps a pod from starting that says nothing itself. A volume that cannot be attached or mounted
//! shows in Events alone, which nobody watches: they are asked for while a pod waits.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tidelock_core::run::{self as core_run, PodFact};
use tidelock_core::text;

use crate::context::Context;
use crate::convert;
use crate::error;

/// Most Events that are read of one pod; Kubernetes counts repeats in one.
const MOST_EVENTS: u32 = 50;
/// Most of an Event's words that are repeated.
const MOST_BYTES: usize = 600;

/// Takes into `fact` what the newest warning about its pod says, where that has been without a word
/// for long. `asked` is when the Job was asked for.
///
/// Events are a help and no more: where they cannot be read, nothing is told.
pub async fn listen(
    ctx: &Context,
    fact: &mut PodFact,
    pods: &[Arc<Pod>],
    asked: Timestamp,
    now: Timestamp,
) {
    let PodFact::Waiting {
        pod: name,
        trouble,
        since,
        is_mute: true,
    } = fact
    else {
        return;
    };
    if !core_run::wants_events(*since, asked, now) {
        return;
    }
    if let Some(pod) = pods.iter().find(|pod| pod.name_any() == *name)
        && let Some(words) = newest_warning(ctx, pod).await
    {
        *trouble = Some(format!("Pod {name} does not start: {words}"));
    }
}

async fn newest_warning(ctx: &Context, pod: &Pod) -> Option<String> {
    let (namespace, uid) = (pod.namespace()?, pod.uid()?);
    let api: Api<Event> = Api::namespaced(ctx.client.clone(), &namespace);
    let of_pod = format!("involvedObject.uid={uid},type=Warning");
    let wanted = ListParams::default().fields(&of_pod).limit(MOST_EVENTS);
    match api.list(&wanted).await {
        Ok(events) => newest(&events.items, &uid),
        Err(error) => {
            let words = error::words(&error);
            tracing::warn!(pod = pod.name_any(), words, "cannot read the pod's Events");
            None
        }
    }
}

/// The words of the newest warning of `events` about the object with this UID. Who may make Events
/// may make any words: they are shown as one bounded line, and decide nothing.
fn newest(events: &[Event], uid: &str) -> Option<String> {
    let about = events.iter().filter(|event| {
        event.type_.as_deref() == Some("Warning")
            && event.involved_object.uid.as_deref() == Some(uid)
    });
    let newest = about.max_by_key(|event| last_told(event))?;
    let reason = newest.reason.as_deref().unwrap_or_default();
    let message = newest.message.as_deref().unwrap_or_default();
    let words = text::quoted(&format!("{reason}: {message}"), MOST_BYTES);
    (words != ":").then(|| text::sentence(&words))
}

fn last_told(event: &Event) -> Timestamp {
    let series = event.series.as_ref();
    let repeated = series.and_then(|series| series.last_observed_time.as_ref());
    let told = event.event_time.as_ref();
    let counted = event.last_timestamp.as_ref();
    let micro = repeated.or(told).map(|time| time.0);
    let times = [micro, counted.map(|time| time.0)];
    let newest = times.into_iter().flatten().max();
    newest.unwrap_or_else(|| convert::created(&event.metadata))
}

#[cfg(test)]
#[path = "kubelet_tests.rs"]
mod tests;
