//! Bounds how long the API server may take over one request.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response, Uri};
use hyper::body::{Body, Buf, Frame, SizeHint};
use kube::Config;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tower::{BoxError, Layer, Service};

/// Longest time that a request may take until its answer has been read. A watch is answered within
/// it too, and then goes on for as long as it lasts.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Longest time without a byte on a connection that a request waits on. A watch is quiet for 295 s
/// at most before the watcher itself begins another; this is the net below that.
const SILENT_FOR: Duration = Duration::from_secs(330);

/// A request that was given up.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the API server does not answer {method} {path} within {} s", ANSWER_WITHIN.as_secs())]
pub struct Unanswered {
    method: Method,
    path: String,
}

/// `config` with an end to the silence of a connection.
pub fn bounded(mut config: Config) -> Config {
    config.read_timeout = Some(SILENT_FOR);
    // What counts is the time since the request was sent, not since the connection was last used.
    config.reset_reader_on_write = true;
    config
}

/// Gives a request up that takes too long.
pub struct Patience;

impl<S> Layer<S> for Patience {
    type Service = Patient<S>;

    fn layer(&self, inner: S) -> Patient<S> {
        Patient(inner)
    }
}

/// A service whose requests are given up when they take too long.
pub struct Patient<S>(S);

type Answer<B> = Pin<Box<dyn Future<Output = Result<Response<Bounded<B>>, BoxError>> + Send>>;

impl<S, A, B> Service<Request<A>> for Patient<S>
where
    S: Service<Request<A>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Bounded<B>>;
    type Error = BoxError;
    type Future = Answer<B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let until = Instant::now() + ANSWER_WITHIN;
        let late = Unanswered {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
        };
        let watches = is_watch(request.uri());
        let answer = self.0.call(request);
        Box::pin(async move {
            let Ok(answer) = timeout_at(until, answer).await else {
                return Err(late.into());
            };
            Ok(answer?.map(|body| Bounded {
                body: Box::pin(body),
                end: (!watches).then(|| (Box::pin(sleep_until(until)), late)),
            }))
        })
    }
}

/// Whether a request is for a watch, whose answer has no end of its own.
pub fn is_watch(uri: &Uri) -> bool {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    pairs.any(|pair| matches!(pair, "watch=true" | "watch=1"))
}

/// The body of an answer, which has to be read in time.
pub struct Bounded<B> {
    body: Pin<Box<B>>,
    end: Option<(Pin<Box<Sleep>>, Unanswered)>,
}

impl<B> Body for Bounded<B>
where
    B: Body<Error: Into<BoxError>, Data: Buf>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        if let Poll::Ready(frame) = self.body.as_mut().poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some((end, late)) = &mut self.end else {
            return Poll::Pending;
        };
        let over = end.as_mut().poll(context);
        over.map(|()| Some(Err(late.clone().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, StreamBody};
    use hyper::body::Bytes;
    use tower::service_fn;

    use super::*;

    const POD: &str = "/api/v1/namespaces/shop/pods/x";

    /// Asks a server that says nothing, or begins an answer and never ends it, for `uri`.
    async fn ask(uri: &str, begins: bool) -> Result<(), BoxError> {
        let silent = service_fn(move |_: Request<()>| async move {
            if !begins {
                std::future::pending::<()>().await;
            }
            let begun = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::new()))]);
            let body =
                StreamBody::new(futures::StreamExt::chain(begun, futures::stream::pending()));
            Ok::<_, BoxError>(Response::new(body))
        });
        let request = Request::builder().uri(uri).body(()).unwrap();
        let answer = Patience.layer(silent).call(request).await?;
        answer.into_body().collect().await?;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
        for begins in [false, true] {
            let started = Instant::now();
            let error = ask(POD, begins).await.unwrap_err();
            assert!(error.is::<Unanswered>(), "{error}");
            assert_eq!(started.elapsed().as_secs(), 60);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_has_to_begin_in_time_and_then_goes_on() {
        let watch = "/api/v1/pods?allowWatchBookmarks=true&watch=true";
        let error = ask(watch, false).await.unwrap_err();
        assert!(error.is::<Unanswered>(), "{error}");
        let hour = Duration::from_secs(3600);
        let read = tokio::time::timeout(hour, ask(watch, true)).await;
        assert!(read.is_err(), "the watch was cut off: {read:?}");
    }

    #[test]
    fn a_connection_may_be_silent_for_as_long_as_a_watch_and_not_much_longer() {
        let config = bounded(Config::new("http://127.0.0.1:1".parse().unwrap()));
        let watch = Duration::from_secs(295);
        let limit = config.read_timeout.unwrap();
        assert!(limit > watch && limit < 2 * watch, "{limit:?}");
    }
}
