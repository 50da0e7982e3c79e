//! An API server of which a test writes the answers.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tidelock_core::queue::Limits;
use tower::service_fn;

use crate::context::{Caches, Context};
use crate::telemetry::metrics::counters::Counters;

/// `METHOD path?query`, and the body.
pub type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// What was asked for by a request that starts with `head`.
pub fn bodies(asked: &Asked, head: &str) -> Vec<Value> {
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    let meant = asked
        .iter()
        .filter(|(request, _)| request.starts_with(head));
    meant.map(|(_, body)| body.clone()).collect()
}

/// A context over these pods and Jobs, whose API server answers as `answer` says; what it has no
/// answer to is not found, and what is written is taken as it is.
pub fn context(
    pods: Vec<Pod>,
    jobs: Vec<Job>,
    answer: impl Fn(&str) -> Option<Value> + Clone + Send + 'static,
) -> (Context, Asked) {
    let asked = Asked::default();
    let log = asked.clone();
    let server = service_fn(move |request: Request<Body>| {
        let (log, answer) = (log.clone(), answer.clone());
        async move {
            let what = format!("{} {}", request.method(), request.uri());
            let bytes = request.into_body().collect_bytes().await.unwrap();
            let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let known = answer(&what);
            let is_write = !what.starts_with("GET") && !what.starts_with("DELETE");
            let (code, text) = match known {
                Some(known) => (200, known),
                None if is_write => (200, body.clone()),
                None => (
                    404,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "reason": "NotFound", "message": what, "code": 404}),
                ),
            };
            log.lock().unwrap().push((what, body));
            let answer = Response::builder().status(code);
            Ok::<_, Infallible>(
                answer
                    .body(Body::from(text.to_string().into_bytes()))
                    .unwrap(),
            )
        }
    });
    let caches = Caches {
        jobs: filled(jobs),
        pods: filled(pods),
        ..Caches::empty()
    };
    let limits = Limits {
        total: 1,
        per_node: 1,
        per_storage: 1,
    };
    let client = kube::Client::new(server, "shop");
    let (image, instance) = ("mover".to_owned(), "test".to_owned());
    let context = Context::new(client, caches, image, instance, limits, Counters::default());
    (context, asked)
}

fn filled<K>(objects: Vec<K>) -> reflector::Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, mut writer) = reflector::store();
    for object in objects {
        writer.apply_watcher_event(&Event::Apply(object));
    }
    store
}
