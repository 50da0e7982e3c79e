//! Kubernetes Events, each told once.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use tidelock_core::names;

use crate::convert::whole_seconds;
use crate::error::{Error, is_namespace_leaving, is_status, words};
use crate::telemetry::reasons;

const CONTROLLER: &str = "tidelock.dev/operator";
/// Longest note that the API server takes (source: core/v1 Event validation).
const MAX_NOTE_BYTES: usize = 1024;

/// Publishes Events.
pub struct Events {
    client: Client,
    instance: String,
}

/// One Event to tell.
pub struct Story<'a> {
    /// Whether a person should worry.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// What the operator was doing, one word.
    pub action: &'static str,
    /// The sentence.
    pub note: String,
    /// What tells this telling from others with the same reason about the same object; the same
    /// reason and key are told once.
    pub key: &'a str,
}

impl Events {
    /// Publishes through `client` as `instance` (the pod's name).
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance }
    }

    /// Tells `story` about `object`, once: its name is fixed by object, reason and key, so telling
    /// it again after a crash makes no second Event.
    ///
    /// # Errors
    /// When the API server cannot be reached. A refusal (namespace leaving, quota) is logged and
    /// passed over: an Event never holds up the work it tells of.
    pub async fn tell<K>(&self, object: &K, story: Story<'_>, now: Timestamp) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let namespace = object.namespace().unwrap_or_default();
        let event = self.build(object, &namespace, &story, now);
        let name = event.name_any();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => Ok(()),
            Err(error) if is_status(&error, 409) => Ok(()),
            Err(error) if is_namespace_leaving(&error) => Ok(()),
            Err(error) if is_refusal(&error) => {
                let words = words(&error);
                tracing::warn!(event = name, words, "the API server refused an Event");
                Ok(())
            }
            Err(error) => Err(Error::api(format!("publish Event {namespace}/{name}"))(
                error,
            )),
        }
    }

    fn build<K>(&self, object: &K, namespace: &str, story: &Story<'_>, now: Timestamp) -> Event
    where
        K: Resource<DynamicType = ()>,
    {
        let uid = object.uid().unwrap_or_default();
        let involved_object = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: object.meta().name.clone(),
            namespace: Some(namespace.to_owned()),
            uid: Some(uid.clone()),
            ..Default::default()
        };
        let telling = format!("{}/{}", story.reason, story.key);
        let rank = reasons::rank(story.reason);
        // kubectl sorts by lastTimestamp, in whole seconds, and leaves the rest in the order of
        // names: hence the old fields beside eventTime, and the rank in the name.
        let seconds = Some(whole_seconds(now));
        Event {
            metadata: ObjectMeta {
                name: Some(names::event_name(&object.name_any(), rank, &uid, &telling)),
                namespace: Some(namespace.to_owned()),
                ..Default::default()
            },
            involved_object,
            action: Some(story.action.to_owned()),
            count: Some(1),
            event_time: Some(MicroTime(now)),
            first_timestamp: seconds.clone(),
            last_timestamp: seconds,
            message: Some(cut(&story.note)),
            reason: Some(story.reason.to_owned()),
            reporting_component: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(if story.warning { "Warning" } else { "Normal" }.to_owned()),
            ..Default::default()
        }
    }
}

/// Whether trying again is in vain: a client error other than "too many requests".
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if (400..500).contains(&status.code) && status.code != 429)
}

fn cut(note: &str) -> String {
    if note.len() <= MAX_NOTE_BYTES {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(MAX_NOTE_BYTES - '…'.len_utf8());
    format!("{}…", &note[..end])
}
