//! A bucket of a real S3 server on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tidelock_benchmarks::Contest;
use tidelock_protocol::{BucketTarget, ServerSideEncryption, StorageTarget};
use tidelock_test_s3::{BUCKET, Proxy, Server};

/// What the keys of the mover start with.
pub(crate) const PREFIX: &str = "mover";
const REGION: &str = "us-east-1";

pub(crate) struct Bucket {
    server: Server,
    endpoint: String,
}

impl Bucket {
    /// Starts a server whose files are below `folder`; none when no contest needs one, or there is no
    /// program.
    pub(crate) fn of(folder: &Path, contests: &[Contest]) -> Result<Option<Self>> {
        let needed = [Contest::Upload, Contest::Download];
        if !contests.iter().any(|contest| needed.contains(contest)) {
            return Ok(None);
        }
        if std::env::var_os(tidelock_test_s3::PROGRAM).is_none() {
            eprintln!(
                "{} is not set: nothing goes to a bucket",
                tidelock_test_s3::PROGRAM
            );
            return Ok(None);
        }
        let server = Server::start_in(tempfile::tempdir_in(folder)?);
        let endpoint = at(server.address);
        Ok(Some(Self { server, endpoint }))
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The folder that holds its objects.
    pub(crate) fn folder(&self) -> PathBuf {
        self.server.bucket()
    }

    /// What the mover is told of it.
    pub(crate) fn target(&self, endpoint: &str) -> StorageTarget {
        StorageTarget::Bucket(BucketTarget {
            bucket: BUCKET.into(),
            prefix: PREFIX.into(),
            endpoint: Some(endpoint.into()),
            region: REGION.into(),
            path_style: true,
            credentials_path: self.server.secret.path().to_string_lossy().into_owned(),
            ca_bundle_path: None,
            storage_class: None,
            server_side_encryption: ServerSideEncryption::Unset,
            locks: false,
        })
    }

    /// What rclone is told of it; it reads no configuration.
    pub(crate) fn variables(&self, command: &mut Command, endpoint: &str) {
        let (key_id, secret) = self.server.keys();
        command
            .env("RCLONE_CONFIG", "/dev/null")
            .env("RCLONE_S3_PROVIDER", "Other")
            .env("RCLONE_S3_ENDPOINT", endpoint)
            .env("RCLONE_S3_REGION", REGION)
            .env("RCLONE_S3_ACCESS_KEY_ID", key_id)
            .env("RCLONE_S3_SECRET_ACCESS_KEY", secret)
            .env("RCLONE_S3_NO_CHECK_BUCKET", "true");
    }

    /// Stands before the server and counts.
    pub(crate) fn counter(&self) -> Counter {
        let proxy = Proxy::before(self.server.address);
        let counts: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
        let counting = Arc::clone(&counts);
        proxy.with(move |request| {
            let mut counts = counting.lock().unwrap_or_else(PoisonError::into_inner);
            *counts.entry(request.what().to_owned()).or_default() += 1;
            None
        });
        Counter { proxy, counts }
    }
}

/// Counts requests until it is dropped.
pub(crate) struct Counter {
    proxy: Proxy,
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Counter {
    pub(crate) fn endpoint(&self) -> String {
        at(self.proxy.address)
    }

    pub(crate) fn counted(&self) -> BTreeMap<String, u64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }
}

fn at(address: SocketAddr) -> String {
    format!("http://{address}")
}
