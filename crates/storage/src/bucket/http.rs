//! What is added to the requests of the library, and read from its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use http::header::{DATE, HeaderValue, IF_NONE_MATCH};
use http::{Method, Uri};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

/// Lets an upload in parts end only where its key is free, and keeps the store's clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connector {
    clock: Arc<AtomicI64>,
}

impl Connector {
    /// Seconds since the epoch by the clock of the store, as its last answer told; none before.
    pub(crate) fn clock(&self) -> Option<i64> {
        match self.clock.load(Ordering::Relaxed) {
            0 => None,
            seconds => Some(seconds),
        }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Conditional {
            inner,
            clock: Arc::clone(&self.clock),
        }))
    }
}

#[derive(Debug)]
struct Conditional {
    inner: HttpClient,
    clock: Arc<AtomicI64>,
}

#[async_trait]
impl HttpService for Conditional {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if completes_upload(request.method(), request.uri()) {
            // The library only asks for it when it copies. It need not be signed: only `host` and
            // `x-amz-*` must be (source: Signature Version 4, canonical request).
            let headers = request.headers_mut();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        let response = self.inner.execute(request).await?;
        let date = response.headers().get(DATE);
        let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let seconds = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
        if let Some(seconds) = seconds.and_then(|since| i64::try_from(since.as_secs()).ok()) {
            self.clock.store(seconds, Ordering::Relaxed);
        }
        Ok(response)
    }
}

fn completes_upload(method: &Method, uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    method == Method::POST && query.split('&').any(|part| part.starts_with("uploadId="))
}
