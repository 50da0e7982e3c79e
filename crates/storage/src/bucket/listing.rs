//! What is in a bucket, and what was left half uploaded.

use std::time::Duration;

use http::Method;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::bucket::request::answer;
use crate::bucket::words;
use crate::{ErrorClass, StorageError};

/// How long a signed request is good for.
pub(crate) const SIGNED_FOR: Duration = Duration::from_secs(300);
/// Most bytes of an answer that are read: a thousand of the longest keys.
const MAX_ANSWER: usize = 8 << 20;
/// Pauses before a request is made again.
pub(crate) const PAUSES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(800),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// A page of objects.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Objects {
    #[serde(default)]
    pub(crate) contents: Vec<Object>,
    #[serde(default)]
    pub(crate) next_continuation_token: Option<String>,
}

/// One object of a page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) size: u64,
    #[serde(rename = "ETag", default)]
    pub(crate) e_tag: String,
    #[serde(default)]
    pub(crate) last_modified: String,
}

/// A page of uploads in parts that have not ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Uploads {
    #[serde(default, rename = "Upload")]
    pub(crate) uploads: Vec<UploadListed>,
    #[serde(default)]
    pub(crate) is_truncated: bool,
    #[serde(default)]
    pub(crate) next_key_marker: Option<String>,
    #[serde(default)]
    pub(crate) next_upload_id_marker: Option<String>,
}

/// One upload of a page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UploadListed {
    pub(crate) key: String,
    pub(crate) upload_id: String,
    #[serde(default)]
    pub(crate) initiated: String,
}

/// A page of the parts of an upload.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Parts {
    #[serde(default, rename = "Part")]
    pub(crate) parts: Vec<PartListed>,
    #[serde(default)]
    pub(crate) is_truncated: bool,
    #[serde(default)]
    pub(crate) next_part_number_marker: Option<String>,
}

/// One part of a page.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PartListed {
    #[serde(default)]
    pub(crate) last_modified: String,
}

/// Asks for a page with a signed request, again while the fault may pass.
pub(crate) async fn page<P: DeserializeOwned>(
    signer: &impl Signer,
    client: &HttpClient,
    path: &Path,
    query: &[(&str, &str)],
    key: &str,
) -> Result<P, StorageError> {
    let mut pauses = PAUSES.iter();
    loop {
        let fault = match ask(signer, client, path, query, key).await {
            Ok(text) => {
                return quick_xml::de::from_str(&text).map_err(|error| {
                    let words = format!("the answer to a listing is not understood: {error}");
                    words::plain("list", key, ErrorClass::Unavailable, words)
                });
            }
            Err(fault) => fault,
        };
        match pauses.next() {
            Some(pause) if fault.class == ErrorClass::Unavailable => {
                tokio::time::sleep(*pause).await;
            }
            _ => return Err(fault),
        }
    }
}

async fn ask(
    signer: &impl Signer,
    client: &HttpClient,
    path: &Path,
    query: &[(&str, &str)],
    key: &str,
) -> Result<String, StorageError> {
    let passing = |words: String| words::plain("list", key, ErrorClass::Unavailable, words);
    let options = SignedUrlOptions::new().with_query(query.iter().copied());
    let url = signer
        .signed_url_opts(Method::GET, path, SIGNED_FOR, &options)
        .await
        .map_err(|error| words::fault("list", key, &error))?;
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.uri_mut() = url
        .as_str()
        .parse()
        .map_err(|error| passing(format!("the address of the store is none: {error}")))?;
    let answered = answer(client, request, MAX_ANSWER).await;
    let (status, text) = answered.map_err(passing)?;
    if status.is_success() {
        return Ok(text);
    }
    Err(words::refusal("list", key, status, &text))
}
