//! Parts that the store makes of objects that it has.

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::signer::Signer;
use serde::Deserialize;

use crate::bucket::Bucket;
use crate::bucket::listing::{PAUSES, SIGNED_FOR};
use crate::bucket::words::{self, plain};
use crate::{ErrorClass, StorageError};

/// Which object a part is copied from (source: S3, UploadPartCopy).
const COPY_SOURCE: &str = "x-amz-copy-source";
/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

/// What the store says of a part that it made.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CopyPartResult {
    #[serde(rename = "ETag")]
    e_tag: String,
    #[serde(default, rename = "ChecksumSHA256")]
    checksum_sha256: Option<String>,
}

impl CopyPartResult {
    /// As the library tells its own parts apart when it completes an upload.
    fn into_part(self) -> PartId {
        let checksum = self.checksum_sha256.filter(|checksum| !checksum.is_empty());
        let content_id = match checksum {
            Some(checksum) => format!(
                "<PartMetadata><e_tag>{}</e_tag><checksum_sha256>{checksum}</checksum_sha256></PartMetadata>",
                self.e_tag
            ),
            None => self.e_tag,
        };
        PartId { content_id }
    }
}

impl Bucket {
    /// Lets the object at `piece` be the part `index` (from 0) of the upload `id` to `path`; again
    /// while the fault may pass.
    pub(crate) fn copy_part(
        &self,
        key: &str,
        (path, id, index): (&Path, &str, usize),
        piece: &Path,
    ) -> Result<PartId, StorageError> {
        let mut pauses = PAUSES.iter();
        loop {
            let asked = self.ask_copy(key, (path, id, index), piece);
            let fault = match self.wait(asked) {
                Ok(copied) => return Ok(copied.into_part()),
                Err(fault) => fault,
            };
            match pauses.next() {
                Some(pause) if fault.class == ErrorClass::Unavailable => std::thread::sleep(*pause),
                _ => return Err(fault),
            }
        }
    }

    async fn ask_copy(
        &self,
        key: &str,
        (path, id, index): (&Path, &str, usize),
        piece: &Path,
    ) -> Result<CopyPartResult, StorageError> {
        let passing = |words: String| plain("write", key, ErrorClass::Unavailable, words);
        let lost = |error| words::fault("write", key, &error);
        // The library knows where an object is; of what it signs here the address alone is taken.
        let signed = self.store.signed_url(Method::PUT, path, SIGNED_FOR).await;
        let mut url = signed.map_err(lost)?;
        url.query_pairs_mut()
            .clear()
            .append_pair("partNumber", &(index + 1).to_string())
            .append_pair("uploadId", id);
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = url
            .as_str()
            .parse()
            .map_err(|error| passing(format!("the address of the store is none: {error}")))?;
        let source = format!("{}/{piece}", self.name)
            .parse()
            .map_err(|error| passing(format!("a name that no header takes: {error}")))?;
        request.headers_mut().insert(COPY_SOURCE, source);
        let credential = self.store.credentials().get_credential().await;
        let credential = credential.map_err(lost)?;
        let authorizer = AwsAuthorizer::new(&credential, "s3", &self.region);
        let authorized = authorizer.try_authorize(&mut request, None);
        authorized.map_err(lost)?;
        let response = self.client.execute(request).await;
        let response = response.map_err(|error| passing(words::innermost(&error)))?;
        let (head, body) = response.into_parts();
        let body = http_body_util::Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| passing(format!("the answer broke off: {error}")))?;
        understood(key, head.status, &body.to_bytes())
    }
}

/// What an answer says. A copy takes its time, so a store may say that it goes well before it fails.
fn understood(key: &str, status: StatusCode, body: &[u8]) -> Result<CopyPartResult, StorageError> {
    let text = String::from_utf8_lossy(body);
    if status.is_success()
        && let Ok(copied) = quick_xml::de::from_str(&text)
    {
        return Ok(copied);
    }
    Err(words::refusal("write", key, status, &text))
}
