//! Counts the requests to the API server.

use std::pin::Pin;
use std::task::{self, Poll};

use axum::http::{Method, Request, Response, StatusCode};
use tower::{Layer, Service};

use crate::patience::is_watch;
use crate::rbac::{OWN_NAMESPACE, PERMISSIONS};
use crate::telemetry::metrics::counters::Counters;

/// Counts what goes through.
pub struct Counting(pub Counters);

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted {
            inner,
            counters: self.0.clone(),
        }
    }
}

/// A service whose requests are counted.
pub struct Counted<S> {
    inner: S,
    counters: Counters,
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<S, A, B> Service<Request<A>> for Counted<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (resource, named) = resource(request.uri().path());
        let sent = Sent {
            counters: self.counters.clone(),
            verb: verb(request.method(), is_watch(request.uri()), named),
            resource,
            status: None,
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut sent = sent;
            let answer = answer.await;
            sent.status = answer.as_ref().ok().map(Response::status);
            answer
        })
    }
}

/// A request that is counted when it is over, also where whoever sent it waits for it no longer.
struct Sent {
    counters: Counters,
    verb: &'static str,
    resource: &'static str,
    status: Option<StatusCode>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        let code = self.status.as_ref().map_or("error", StatusCode::as_str);
        self.counters.requested(self.verb, self.resource, code);
    }
}

/// The resource, with its subresource, that a path is about, and whether it names one object. What
/// is in no permission of the operator is `other`.
fn resource(path: &str) -> (&'static str, bool) {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    // /api/v1/… or /apis/<group>/<version>/…
    let skipped = match parts.next() {
        Some("api") => 1,
        Some("apis") => 2,
        _ => return ("other", false),
    };
    let parts: Vec<&str> = parts.skip(skipped).collect();
    let parts = match parts.as_slice() {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let name = match parts {
        [plural, _, sub, ..] => format!("{plural}/{sub}"),
        [plural, ..] => (*plural).to_owned(),
        [] => return ("other", false),
    };
    let known = PERMISSIONS.iter().chain(OWN_NAMESPACE);
    let known = known
        .map(|permission| permission.resource)
        .find(|known| *known == name);
    (known.unwrap_or("other"), parts.len() > 1)
}

fn verb(method: &Method, watches: bool, named: bool) -> &'static str {
    match (method.as_str(), named) {
        ("GET", _) if watches => "watch",
        ("GET", true) => "get",
        ("GET", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_request_is_told_by_resource_and_verb_alone() {
        let told = |method: Method, path: &str, query: &str| {
            let (resource, named) = resource(path);
            let uri = format!("{path}?{query}").parse().unwrap();
            (verb(&method, is_watch(&uri), named), resource)
        };
        let group = "/apis/tidelock.dev/v1alpha1";
        let shop = format!("{group}/namespaces/shop/backups");
        assert_eq!(
            told(Method::GET, &format!("{group}/backups"), "limit=500"),
            ("list", "backups")
        );
        assert_eq!(
            told(Method::GET, &shop, "a=b&watch=true"),
            ("watch", "backups")
        );
        assert_eq!(told(Method::POST, &shop, ""), ("create", "backups"));
        assert_eq!(
            told(Method::PUT, &format!("{shop}/nightly/status"), ""),
            ("update", "backups/status")
        );
        assert_eq!(
            told(Method::DELETE, "/apis/batch/v1/namespaces/shop/jobs/x", ""),
            ("delete", "jobs")
        );
        assert_eq!(
            told(Method::GET, "/api/v1/namespaces/shop", ""),
            ("get", "namespaces")
        );
        assert_eq!(told(Method::GET, "/api/v1/secrets", ""), ("list", "other"));
        assert_eq!(told(Method::GET, "/healthz/ping", ""), ("list", "other"));
    }

    #[tokio::test]
    async fn a_request_without_an_answer_is_counted_as_an_error() {
        let told = Counters::default();
        let mut registry = Registry::default();
        told.register(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let server = tower::service_fn(|request: Request<&'static str>| async move {
            match request.into_body() {
                "answers" => Ok(Response::new(())),
                "refuses" => Err("connection refused"),
                _ => std::future::pending().await,
            }
        });
        let mut service = Counting(told).layer(server);
        let mut ask = |what| {
            let request = Request::get("/api/v1/namespaces/shop/pods/x").body(what);
            service.call(request.unwrap())
        };
        ask("answers").await.unwrap();
        ask("refuses").await.unwrap_err();
        let given_up = ask("hangs");
        drop(given_up);
        let series =
            |code, count| format!("{{verb=\"get\",resource=\"pods\",code=\"{code}\"}} {count}\n");
        let text = text();
        for line in [series("200", 1), series("error", 2)] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
    }
}
