//! Stands in front of every request to the API server: no write leaves a process that does not lead.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::{Method, Request};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tidelock_core::lease::Moment;
use tokio::sync::Notify;
use tower::{BoxError, Layer, Service};

use crate::clock::moment;
use crate::health::Health;
use crate::patience::{self, Patience};
use crate::telemetry::metrics::counters::Counters;
use crate::telemetry::metrics::requests::Counting;

/// Reviews: a POST that stores nothing.
const REVIEWS: [&str; 2] = [
    "/apis/authentication.k8s.io/",
    "/apis/authorization.k8s.io/",
];

/// Until when this process may write. Clones share it.
#[derive(Clone)]
pub struct Fence(Arc<Shared>);

struct Shared {
    /// In nanoseconds of [`moment`]; zero is never, `u64::MAX` for ever.
    open_until: AtomicU64,
    refused: Notify,
}

/// A write that was not sent.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path} is not sent: this process does not lead, or leads no longer")]
pub struct Refused {
    method: Method,
    path: String,
}

impl Fence {
    /// Nothing may be written yet.
    pub fn closed() -> Self {
        Self::until(0)
    }

    /// Everything may be written, always: for a process that is the only one.
    pub fn open() -> Self {
        Self::until(u64::MAX)
    }

    fn until(nanoseconds: u64) -> Self {
        Self(Arc::new(Shared {
            open_until: AtomicU64::new(nanoseconds),
            refused: Notify::new(),
        }))
    }

    /// From now on writes are sent until `end`; never again where none is given.
    pub fn set(&self, end: Option<Moment>) {
        let nanoseconds = end.map_or(0, nanoseconds);
        self.0.open_until.store(nanoseconds, Ordering::SeqCst);
    }

    /// Whether a write may be sent at `now`.
    pub fn permits(&self, now: Moment) -> bool {
        nanoseconds(now) < self.0.open_until.load(Ordering::SeqCst)
    }

    /// Ends when a write has been refused.
    pub async fn refused(&self) {
        self.0.refused.notified().await;
    }

    fn refuse(&self, method: &Method, path: &str) -> BoxError {
        self.0.refused.notify_one();
        Refused {
            method: method.clone(),
            path: path.to_owned(),
        }
        .into()
    }
}

fn nanoseconds(moment: Moment) -> u64 {
    // Half a thousand years.
    u64::try_from(moment.as_duration().as_nanos()).unwrap_or(u64::MAX)
}

/// A client of the API server whose writes pass `fence`, whose answers `health` hears of, whose
/// requests have their time, and are counted once they are sent.
///
/// # Errors
/// When `config` makes no client.
pub fn client(
    config: Config,
    fence: Fence,
    health: Health,
    counters: Counters,
) -> kube::Result<Client> {
    let builder = ClientBuilder::try_from(patience::bounded(config))?
        .with_layer(&Patience)
        .with_layer(&Counting(counters));
    Ok(builder.with_layer(&FenceLayer { fence, health }).build())
}

struct FenceLayer {
    fence: Fence,
    health: Health,
}

impl<S> Layer<S> for FenceLayer {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced {
            inner,
            fence: self.fence.clone(),
            health: self.health.clone(),
        }
    }
}

struct Fenced<S> {
    inner: S,
    fence: Fence,
    health: Health,
}

impl<S> Service<Request<Body>> for Fenced<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let writes = writes(&method, &path);
        if writes && !self.fence.permits(moment()) {
            return Box::pin(std::future::ready(Err(self.fence.refuse(&method, &path))));
        }
        let (fence, health) = (self.fence.clone(), self.health.clone());
        let mut answer = Box::pin(self.inner.call(request));
        Box::pin(async move {
            // A request may wait for a connection, a token or another try, and this process may
            // sleep meanwhile: hence the look before each of its steps.
            let answer = std::future::poll_fn(|context| {
                if writes && !fence.permits(moment()) {
                    return Poll::Ready(Err(fence.refuse(&method, &path)));
                }
                answer.as_mut().poll(context)
            })
            .await;
            if answer.is_ok() {
                health.answered();
            }
            answer
        })
    }
}

/// Whether a request changes anything.
fn writes(method: &Method, path: &str) -> bool {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    let reviews = REVIEWS.iter().any(|group| path.starts_with(group));
    !reads && !reviews
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    /// Counts how often it is polled, and answers when it is told to.
    struct Server {
        polled: Arc<AtomicUsize>,
        answers: bool,
    }

    impl Service<Request<Body>> for Server {
        type Response = ();
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let (polled, answers) = (self.polled.clone(), self.answers);
            Box::pin(std::future::poll_fn(move |_| {
                polled.fetch_add(1, Ordering::SeqCst);
                if !answers {
                    return Poll::Pending;
                }
                Poll::Ready(Ok(()))
            }))
        }
    }

    fn fenced(fence: &Fence, answers: bool) -> (Fenced<Server>, Arc<AtomicUsize>) {
        let polled = Arc::new(AtomicUsize::new(0));
        let server = Server {
            polled: polled.clone(),
            answers,
        };
        let layer = FenceLayer {
            fence: fence.clone(),
            health: Health::default(),
        };
        (layer.layer(server), polled)
    }

    fn request(method: &str, path: &str) -> Request<Body> {
        let request = Request::builder().method(method).uri(path);
        request.body(Body::empty()).unwrap()
    }

    const JOBS: &str = "/apis/batch/v1/namespaces/shop/jobs";

    #[tokio::test]
    async fn a_closed_fence_lets_reads_and_reviews_through_and_no_write() {
        let (mut service, sent) = fenced(&Fence::closed(), true);
        let review = "/apis/authentication.k8s.io/v1/tokenreviews";
        for (method, path) in [("GET", JOBS), ("POST", review)] {
            service.call(request(method, path)).await.unwrap();
        }
        assert_eq!(sent.load(Ordering::SeqCst), 2);
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let answer = service.call(request(method, JOBS)).await;
            let error = answer.err().unwrap();
            assert!(error.is::<Refused>(), "{error}");
        }
        assert_eq!(sent.load(Ordering::SeqCst), 2, "a write was sent");
    }

    #[tokio::test]
    async fn the_fence_opens_with_the_term_and_closes_with_its_end() {
        let fence = Fence::closed();
        let (mut service, _) = fenced(&fence, true);
        fence.set(Some(moment() + Duration::from_secs(60)));
        service.call(request("POST", JOBS)).await.unwrap();
        fence.set(Some(moment()));
        let refused = service.call(request("POST", JOBS)).await;
        assert!(refused.is_err());
        // Whoever keeps the lease hears of it.
        fence.refused().await;
    }

    #[tokio::test]
    async fn a_write_that_waits_is_not_sent_once_the_term_is_over() {
        let fence = Fence::open();
        let (mut service, polled) = fenced(&fence, false);
        let mut answer = service.call(request("POST", JOBS));
        let first = futures::poll!(&mut answer);
        assert!(first.is_pending());
        fence.set(None);
        let error = answer.await.err().unwrap();
        assert!(error.is::<Refused>(), "{error}");
        assert_eq!(polled.load(Ordering::SeqCst), 1, "it was let go on");
    }
}
