//! A real S3 server that pods reach, in the network of the first node.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{Story, evidence};

/// The first port; each server of a test program takes the next.
const FIRST_PORT: u16 = 7070;
const KEY_ID: &str = "AKIDEXAMPLE";
const SECRET_KEY: &str = "secret-of-the-story";
/// The bucket that is there.
pub const BUCKET: &str = "backups";
/// The Secret that [`S3::secret`] makes.
pub const CREDENTIALS: &str = "s3-credentials";

/// One server with one bucket, whose objects the test sees as files.
pub struct S3 {
    endpoint: String,
    root: PathBuf,
    _server: Child,
}

impl S3 {
    /// Starts one for `story` and waits until it listens.
    pub async fn start(story: &Story) -> Result<Self> {
        Self::start_at(story, story.volumes_folder()?.join("s3")).await
    }

    /// As [`Self::start`], with what the folder `root` holds.
    pub async fn start_at(story: &Story, root: PathBuf) -> Result<Self> {
        fs::create_dir_all(root.join(BUCKET))?;
        let address = format!("{}:{}", variable("TIDELOCK_E2E_NODE_ADDRESS")?, port());
        let output = evidence::folder()?.join(format!("{}.s3.log", story.namespace));
        let output = File::create(output)?;
        let network = variable("TIDELOCK_E2E_NODE_NETWORK")?;
        let server = Command::new("nsenter")
            .arg(format!("--net={network}"))
            .arg(variable("TIDELOCK_S3_SERVER")?)
            .args(["--port", &address, "posix"])
            .arg(&root)
            .env("ROOT_ACCESS_KEY", KEY_ID)
            .env("ROOT_SECRET_KEY", SECRET_KEY)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the S3 server")?;
        let started = Self {
            endpoint: format!("http://{address}"),
            root,
            _server: server,
        };
        started.listens(&network, &address).await?;
        Ok(started)
    }

    /// It listens in a network of its own, so it is asked from there.
    async fn listens(&self, network: &str, address: &str) -> Result<()> {
        let (host, port) = address.split_once(':').context("no port")?;
        let look = format!("exec 3<>/dev/tcp/{host}/{port}");
        for _ in 0..300 {
            let mut asked = Command::new("nsenter");
            asked.arg(format!("--net={network}"));
            let asked = asked.args(["bash", "-c", &look]).stderr(Stdio::null());
            if asked.status().await?.success() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the S3 server does not listen at {address}")
    }

    /// Where a story's BackupStorage finds it; `more` is laid over.
    pub fn spec(&self, more: Value) -> Value {
        let mut s3 = json!({
            "bucket": BUCKET,
            "endpoint": self.endpoint,
            "credentialsSecretRef": {"name": CREDENTIALS},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            s3[key] = value.clone();
        }
        json!({"s3": s3})
    }

    /// The folder that holds the bucket's objects.
    pub fn bucket(&self) -> PathBuf {
        self.root.join(BUCKET)
    }

    /// Names of all objects of the bucket, in order.
    pub fn objects(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        walk(&self.bucket(), &self.bucket(), &mut found)?;
        found.sort();
        Ok(found)
    }
}

/// The server keeps what it needs itself in folders of names that start with a dot.
fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        if name.starts_with(".sgwtmp") {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, found)?;
        } else {
            found.push(name);
        }
    }
    Ok(())
}

/// Makes the Secret with the keys of every server here, or with another secret key.
pub async fn secret(story: &Story, secret_key: Option<&str>) -> Result<()> {
    let object: Secret = serde_json::from_value(json!({
        "metadata": {"name": CREDENTIALS},
        "stringData": {
            "accessKeyID": KEY_ID,
            "secretAccessKey": secret_key.unwrap_or(SECRET_KEY),
        },
    }))?;
    let api = story.api::<Secret>();
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set; run `cargo xtask e2e`"))
}
