//! Parts that the store makes of objects that it has.

use bytes::Bytes;
use http::{Method, StatusCode};
use object_store::multipart::PartId;
use object_store::path::Path;
use serde::Deserialize;

use crate::StorageError;
use crate::bucket::Bucket;
use crate::bucket::request::Ask;
use crate::bucket::words;

/// Which object a part is copied from (source: S3, UploadPartCopy).
const COPY_SOURCE: &str = "x-amz-copy-source";

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
        let ask = Ask {
            action: "write",
            key,
            method: Method::PUT,
            path,
            query: vec![
                ("partNumber", (index + 1).to_string()),
                ("uploadId", id.to_owned()),
            ],
            headers: vec![(COPY_SOURCE, format!("{}/{piece}", self.name))],
            body: Bytes::new(),
        };
        let copied = self.ask(&ask, |status, text| understood(key, status, text))?;
        Ok(copied.into_part())
    }
}

/// What an answer says. A copy takes its time, so a store may say that it goes well before it fails.
fn understood(key: &str, status: StatusCode, text: &str) -> Result<CopyPartResult, StorageError> {
    if status.is_success()
        && let Ok(copied) = quick_xml::de::from_str(text)
    {
        return Ok(copied);
    }
    Err(words::refusal("write", key, status, text))
}
