//! Which bucket, and who asks.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

/// How long credentials that were read from files are used before they are read again.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// An S3-compatible bucket, or a part of one.
#[derive(Debug, Clone)]
pub struct BucketConfig {
    /// Its name.
    pub bucket: String,
    /// What every key starts with, without slashes at either end; empty for the whole bucket.
    pub prefix: String,
    /// `http://` or `https://`, host and port; none for AWS.
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    pub region: String,
    /// Whether the bucket is named in the path and not in the host.
    pub path_style: bool,
    /// Who asks.
    pub credentials: Credentials,
    /// Certificates to trust beside those of the system, PEM.
    pub ca_bundle: Option<Vec<u8>>,
    /// Storage class of new objects; none for the bucket's own.
    pub storage_class: Option<String>,
    /// Encryption by the store.
    pub encryption: Encryption,
    /// Whether objects are locked here, which the bucket must have been made for: they can be, and what
    /// is removed goes as a version, so that not only its name does.
    pub locks: bool,
    /// Of what large objects are made.
    pub composition: Composition,
}

/// Of what an object is made that is larger than one part of 8 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Composition {
    /// How many parts are sent as they are.
    pub direct: usize,
    /// How many parts make one of the pieces that follow.
    pub piece: usize,
}

/// 37.5 GiB as they are, and then pieces of a GiB: with the 10,000 parts that a store takes that is more
/// than the 5 TiB of its largest object.
impl Default for Composition {
    fn default() -> Self {
        Self {
            direct: 4_800,
            piece: 128,
        }
    }
}

/// How the store encrypts new objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket says.
    #[default]
    Unset,
    /// With keys of the store, `AES256`.
    Aes256,
    /// With a key of the store's key management, by its id.
    Kms(String),
}

/// Files, one for each part of the credentials, as a Secret is mounted. They are read again while a
/// run goes on, so that a rotated key is taken.
#[derive(Clone)]
pub struct Credentials {
    folder: PathBuf,
    read: Arc<Mutex<Option<Read>>>,
}

/// What the files held, and when.
type Read = (Instant, Arc<AwsCredential>);

impl Credentials {
    /// File, and key of the Secret, of the access key's id.
    pub const ACCESS_KEY_ID: &'static str = "accessKeyID";
    /// File, and key of the Secret, of the secret key.
    pub const SECRET_ACCESS_KEY: &'static str = "secretAccessKey";
    /// File, and key of the Secret, of a session's token; may be left out.
    pub const SESSION_TOKEN: &'static str = "sessionToken";

    /// Credentials in the files of `folder`.
    pub fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            read: Arc::default(),
        }
    }

    fn part(&self, name: &str) -> Result<Option<String>, String> {
        let path = self.folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let text = text.trim();
                let is_plain = |c: char| c.is_ascii_graphic();
                if !text.chars().all(is_plain) {
                    return Err(format!(
                        "{name} of the Secret holds white space or characters that no key has"
                    ));
                }
                Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{name} of the Secret cannot be read: {error}")),
        }
    }

    fn read(&self) -> Result<AwsCredential, String> {
        let needed = |name| {
            self.part(name)?
                .ok_or_else(|| format!("{name} of the Secret is missing or empty"))
        };
        Ok(AwsCredential {
            key_id: needed(Self::ACCESS_KEY_ID)?,
            secret_key: needed(Self::SECRET_ACCESS_KEY)?,
            token: self.part(Self::SESSION_TOKEN)?,
        })
    }
}

/// Tells nothing of what the files hold.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.folder).finish()
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, known)) = &*read
            && at.elapsed() < READ_AGAIN
        {
            return Ok(Arc::clone(known));
        }
        let fresh = self
            .read()
            .map_err(|words| object_store::Error::Unauthenticated {
                path: String::new(),
                source: words.into(),
            })?;
        let fresh = Arc::new(fresh);
        *read = Some((Instant::now(), Arc::clone(&fresh)));
        Ok(fresh)
    }
}
