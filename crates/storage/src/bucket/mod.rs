//! A bucket of an object store.

mod compose;
mod config;
mod http;
mod listing;
mod lock;
mod parts;
mod reader;
mod request;
mod sweep;
mod upload;
mod words;

use std::future::Future;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, Certificate, ClientOptions, GetOptions, GetRange,
    ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};

pub use config::{BucketConfig, Composition, Credentials, Encryption};

use crate::bucket::http::Connector;
use crate::bucket::listing::{Objects, page};
use crate::bucket::reader::ObjectReader;
use crate::bucket::upload::BucketUpload;
use crate::bucket::words::{fault, plain};
use crate::keys::{check_run, split_key};
use crate::{ErrorClass, Lock, ObjectInfo, Storage, StorageError, Upload};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may be silent; on a slow line a part takes a while.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(300);

/// Storage in an S3-compatible bucket.
///
/// # Guarantees
/// - An upload in parts shows under its key when it is complete; both it and a small object are only
///   made where the key is free, which the store must know how to ask (`If-None-Match: *`).
/// - Each part carries its SHA-256, which the store compares.
/// - Beside a growing object a note `.tidelock-<run>-<random>` names its upload, so that what a
///   killed run leaves is found.
pub struct Bucket {
    store: Arc<AmazonS3>,
    /// The same for objects that become parts: a part's checksum is to be made of its bytes, and some
    /// stores take over that of the object instead, where it has one.
    pieces: Arc<AmazonS3>,
    client: HttpClient,
    connector: Connector,
    runtime: Runtime,
    name: String,
    region: String,
    composition: Composition,
    prefix: String,
    storage_class: Option<String>,
    /// Whether what is removed has to be removed as a version, and what is written can be locked.
    locks: bool,
}

impl Bucket {
    /// Opens the bucket and asks for one object, so that a wrong name, key or certificate is told
    /// now, by the store's own words.
    pub fn open(config: &BucketConfig) -> Result<Self, StorageError> {
        let name = &config.bucket;
        let invalid = |words: String| plain("open", name, ErrorClass::Denied, words);
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| invalid(format!("no thread for requests: {error}")))?;
        let options = client_options(config).map_err(|error| fault("open", name, &error))?;
        let connector = Connector::default();
        let client = connector.connect(&options);
        let client = client.map_err(|error| fault("open", name, &error))?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_region(&config.region)
            .with_virtual_hosted_style_request(!config.path_style)
            .with_credentials(Arc::new(config.credentials.clone()))
            .with_retry(retries())
            .with_disable_bulk_delete(true)
            .with_client_options(options)
            .with_http_connector(connector.clone());
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        builder = match &config.encryption {
            Encryption::Unset => builder,
            Encryption::Aes256 => {
                let key = "aws_server_side_encryption".parse();
                builder.with_config(key.map_err(|error| fault("open", name, &error))?, "AES256")
            }
            Encryption::Kms(key) => builder.with_sse_kms_encryption(key),
        };
        let build = |builder: AmazonS3Builder| {
            let built = builder.build().map_err(|error| fault("open", name, &error));
            built.map(Arc::new)
        };
        let pieces = build(builder.clone())?;
        let store = build(builder.with_checksum_algorithm(Checksum::SHA256))?;
        let bucket = Self {
            store,
            pieces,
            client,
            connector,
            runtime,
            name: name.clone(),
            region: config.region.clone(),
            composition: config.composition,
            prefix: config.prefix.clone(),
            storage_class: config.storage_class.clone(),
            locks: config.locks,
        };
        bucket.check(config.endpoint.as_deref().unwrap_or("AWS"))?;
        if config.locks {
            bucket.check_locks()?;
        }
        Ok(bucket)
    }

    /// Asks for one object of the store at `endpoint`.
    fn check(&self, endpoint: &str) -> Result<(), StorageError> {
        let asked = self.objects("", Some("1"), None).map(|_| ());
        asked.map_err(|fault| StorageError {
            action: "open",
            key: self.name.clone(),
            // A bucket, or whoever asks, that the store does not know is no missing object.
            class: match fault.class {
                ErrorClass::NotFound => ErrorClass::Denied,
                class => class,
            },
            source: match fault.class {
                // Whom was asked in vain is what a person looks for first.
                ErrorClass::Unavailable => {
                    std::io::Error::other(format!("{endpoint}: {}", fault.source))
                }
                _ => fault.source,
            },
        })
    }

    /// Waits for an answer; a caller is a thread of its own, never one of the runtime.
    fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    fn path(&self, action: &'static str, key: &str) -> Result<Path, StorageError> {
        split_key(action, key)?;
        Path::parse(self.full(key)).map_err(|_| {
            StorageError::invalid_key(action, key, "an object store takes no such characters")
        })
    }

    /// The key with the prefix of this part of the bucket.
    fn full(&self, key: &str) -> String {
        match self.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// The key of an object of ours; none for what is elsewhere, or cannot be a key.
    fn own<'k>(&self, full: &'k str) -> Option<&'k str> {
        let key = match self.prefix.as_str() {
            "" => full,
            prefix => full.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        split_key("list", key).is_ok().then_some(key)
    }

    /// The path of `name` in the folder of `path`.
    fn beside(&self, path: &Path, name: &str) -> Path {
        let parts: Vec<_> = path.parts().collect();
        let folder = &parts[..parts.len().saturating_sub(1)];
        Path::from_iter(folder.iter().cloned()).join(name)
    }

    fn attributes(&self) -> Attributes {
        let mut all = Attributes::new();
        if let Some(class) = &self.storage_class {
            all.insert(Attribute::StorageClass, class.clone().into());
        }
        all
    }

    fn objects(
        &self,
        prefix: &str,
        most: Option<&str>,
        token: Option<&str>,
    ) -> Result<Objects, StorageError> {
        self.listed(prefix, &self.full(prefix), most, token)
    }

    /// A page of what is below `full`, the prefix of this part of the bucket and all.
    fn listed(
        &self,
        key: &str,
        full: &str,
        most: Option<&str>,
        token: Option<&str>,
    ) -> Result<Objects, StorageError> {
        let mut query = vec![("list-type", "2"), ("prefix", full)];
        query.extend(most.map(|most| ("max-keys", most)));
        query.extend(token.map(|token| ("continuation-token", token)));
        let root = Path::default();
        let asked = page(&*self.store, &self.client, &root, &query, key);
        self.wait(asked)
    }

    /// Removes an object that was found; where versions are kept, this one, and not only its name.
    fn remove(&self, key: &str, found: &ObjectMeta) -> Result<(), StorageError> {
        let path = &found.location;
        match found.version.as_ref().filter(|_| self.locks) {
            Some(version) => self.delete_version(key, path, version),
            None => {
                let removed = self.wait(self.store.delete(path));
                removed.map_err(|error| fault("delete", key, &error))
            }
        }
    }

    /// Removes what is only ever this process's own, with one request where no versions are kept.
    fn remove_own(&self, key: &str, path: &Path) -> Result<(), StorageError> {
        if self.locks {
            let found = self.wait(self.store.head(path));
            let found = found.map_err(|error| fault("delete", key, &error))?;
            return self.remove(key, &found);
        }
        let removed = self.wait(self.store.delete(path));
        removed.map_err(|error| fault("delete", key, &error))
    }

    fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let path = self.path("read", key)?;
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(Box::new(std::io::empty()));
        }
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let result = self
            .wait(self.store.get_opts(&path, options))
            .map_err(|error| fault("read", key, &error))?;
        let handle = self.runtime.handle().clone();
        Ok(Box::new(ObjectReader::new(key, handle, result)))
    }
}

/// A run whose storage is away for longer fails as one that a later try may mend.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(10),
            base: 2.0,
        },
        max_retries: 6,
        retry_timeout: Duration::from_secs(120),
    }
}

fn client_options(config: &BucketConfig) -> object_store::Result<ClientOptions> {
    let endpoint = config.endpoint.as_deref().unwrap_or_default();
    let mut options = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout_disabled()
        .with_read_timeout(SILENCE_TIMEOUT)
        .with_allow_http(endpoint.starts_with("http://"));
    for certificate in match &config.ca_bundle {
        Some(pem) => Certificate::from_pem_bundle(pem)?,
        None => Vec::new(),
    } {
        options = options.with_root_certificate(certificate);
    }
    Ok(options)
}

impl Storage for Bucket {
    fn put<'a>(&'a self, key: &str, run: &str) -> Result<Box<dyn Upload + 'a>, StorageError> {
        let path = self.path("write", key)?;
        check_run(key, run)?;
        Ok(Box::new(BucketUpload::new(self, key, path, run)))
    }

    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        self.read(key, range)
    }

    /// A bucket is read over the network each time; nothing is kept here.
    fn get_fresh(&self, key: &str) -> Result<Box<dyn Read + Send>, StorageError> {
        self.read(key, None)
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StorageError> {
        let path = self.path("look up", key)?;
        let head = self.wait(self.store.head(&path));
        head.map(|meta| info_of(&meta))
            .map_err(|error| fault("look up", key, &error))
    }

    fn list(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(&str, ObjectInfo) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut token: Option<String> = None;
        loop {
            let found = self.objects(prefix, None, token.as_deref())?;
            for object in &found.contents {
                let Some(key) = self.own(&object.key) else {
                    continue;
                };
                let info = ObjectInfo {
                    bytes: object.size,
                    version: version(Some(&object.e_tag)),
                };
                visit(key, info)?;
            }
            match found.next_continuation_token {
                Some(next) if Some(&next) != token.as_ref() => token = Some(next),
                _ => return Ok(()),
            }
        }
    }

    fn delete(&self, key: &str) -> Result<bool, StorageError> {
        let path = self.path("delete", key)?;
        let fault = |error: object_store::Error| fault("delete", key, &error);
        match self.wait(self.store.head(&path)) {
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            other => self.remove(key, &other.map_err(fault)?)?,
        }
        Ok(true)
    }

    fn lock(&self, key: &str, lock: &Lock) -> Result<(), StorageError> {
        self.lock_object(key, lock)
    }

    fn sweep(&self, key: &str, run: &str) -> Result<u64, StorageError> {
        check_run(key, run)?;
        let path = self.path("sweep", key)?;
        self.sweep_notes(key, &path, |owner, _| Ok(owner == run))
    }

    fn sweep_dead(
        &self,
        key: &str,
        run: &str,
        min_age: Duration,
        is_alive: &dyn Fn(&str) -> bool,
    ) -> Result<u64, StorageError> {
        check_run(key, run)?;
        let path = self.path("sweep", key)?;
        self.sweep_old(key, &path, min_age, is_alive)
    }
}

fn info_of(meta: &ObjectMeta) -> ObjectInfo {
    ObjectInfo {
        bytes: meta.size,
        version: version(meta.e_tag.as_deref()),
    }
}

/// A store tells the entity tag with quotes in a header, and with or without them in a list.
fn version(e_tag: Option<&str>) -> String {
    e_tag.unwrap_or_default().trim_matches('"').to_owned()
}
