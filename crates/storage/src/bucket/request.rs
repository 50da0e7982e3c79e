//! Requests that the library does not make.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::Signer;

use crate::bucket::Bucket;
use crate::bucket::listing::{PAUSES, SIGNED_FOR};
use crate::bucket::words::{self, plain};
use crate::{ErrorClass, StorageError};

/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

/// What is asked of one object.
pub(crate) struct Ask<'a> {
    /// What is done, for what is told.
    pub(crate) action: &'static str,
    /// To which key, for the same.
    pub(crate) key: &'a str,
    pub(crate) method: Method,
    pub(crate) path: &'a Path,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Bucket {
    /// Asks, and again while the fault may pass; `understood` says what an answer means.
    pub(crate) fn ask<T>(
        &self,
        ask: &Ask<'_>,
        understood: impl Fn(StatusCode, &str) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut pauses = PAUSES.iter();
        loop {
            let asked = self.wait(self.ask_once(ask));
            let fault = match asked.and_then(|(status, text)| understood(status, &text)) {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            match pauses.next() {
                Some(pause) if fault.class == ErrorClass::Unavailable => std::thread::sleep(*pause),
                _ => return Err(fault),
            }
        }
    }

    async fn ask_once(&self, ask: &Ask<'_>) -> Result<(StatusCode, String), StorageError> {
        let passing = |words: String| plain(ask.action, ask.key, ErrorClass::Unavailable, words);
        let lost = |error| words::fault(ask.action, ask.key, &error);
        // The library knows where an object is; of what it signs here the address alone is taken.
        let method = ask.method.clone();
        let signed = self.store.signed_url(method, ask.path, SIGNED_FOR).await;
        let mut url = signed.map_err(lost)?;
        url.query_pairs_mut().clear().extend_pairs(&ask.query);
        let body = match ask.body.is_empty() {
            true => HttpRequestBody::empty(),
            false => HttpRequestBody::from(ask.body.clone()),
        };
        let mut request = HttpRequest::new(body);
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = url
            .as_str()
            .parse()
            .map_err(|error| passing(format!("the address of the store is none: {error}")))?;
        for (name, value) in &ask.headers {
            let value = HeaderValue::from_str(value)
                .map_err(|error| passing(format!("a value that no header takes: {error}")))?;
            let headers = request.headers_mut();
            headers.insert(HeaderName::from_static(name), value);
        }
        let credential = self.store.credentials().get_credential().await;
        let credential = credential.map_err(lost)?;
        let authorizer = AwsAuthorizer::new(&credential, "s3", &self.region);
        let authorized = authorizer.try_authorize(&mut request, None);
        authorized.map_err(lost)?;
        let answer = answer(&self.client, request, MAX_ANSWER).await;
        answer.map_err(passing)
    }
}

/// Sends a request, and reads up to `most` bytes of what comes back.
///
/// # Errors
/// What went wrong, in words; another try may go well.
pub(crate) async fn answer(
    client: &HttpClient,
    request: HttpRequest,
    most: usize,
) -> Result<(StatusCode, String), String> {
    let response = client.execute(request).await;
    let response = response.map_err(|error| words::innermost(&error))?;
    let (head, body) = response.into_parts();
    let body = http_body_util::Limited::new(body, most)
        .collect()
        .await
        .map_err(|error| format!("the answer broke off: {error}"))?;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok((head.status, text))
}
