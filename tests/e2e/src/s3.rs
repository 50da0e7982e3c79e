//! A real S3 server that pods reach, in the network of the first node.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::PostParams;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use tidelock_test_s3::{Fault, Proxy, Request};
use tokio::process::{Child, Command};

use crate::{Story, evidence, tree};

/// The first port; each server of a test program takes the next.
const FIRST_PORT: u16 = 7070;
const KEY_ID: &str = "AKIDEXAMPLE";
const SECRET_KEY: &str = "secret-of-the-story";
/// The bucket that is there.
pub const BUCKET: &str = "backups";
/// The ConfigMap that trusts a server with TLS.
pub const CERTIFICATES: &str = "s3-certificates";
/// The Secret that [`secret`] makes.
pub const CREDENTIALS: &str = "s3-credentials";

/// One server with one bucket, whose objects the test sees as files.
pub struct S3 {
    address: SocketAddr,
    scheme: &'static str,
    root: PathBuf,
    _server: Child,
}

/// The files of a server with TLS.
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
}

impl S3 {
    /// Starts one for `story` and waits until it listens.
    pub async fn start(story: &Story) -> Result<Self> {
        Self::start_at(story, story.volumes_folder()?.join("s3")).await
    }

    /// As [`Self::start`], over TLS; whom to trust is in `ca.crt` of the ConfigMap [`CERTIFICATES`].
    pub async fn start_with_tls(story: &Story) -> Result<Self> {
        let folder = story.volumes_folder()?;
        fs::create_dir_all(&folder)?;
        let tls = certify(&folder).await?;
        let object: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": CERTIFICATES},
            "data": {"ca.crt": fs::read_to_string(folder.join("ca.crt"))?},
        }))?;
        let api = story.api::<ConfigMap>();
        api.create(&PostParams::default(), &object).await?;
        Self::serve(story, folder.join("s3"), Some(&tls)).await
    }

    /// As [`Self::start`], with what the folder `root` holds.
    pub async fn start_at(story: &Story, root: PathBuf) -> Result<Self> {
        Self::serve(story, root, None).await
    }

    /// As [`Self::start`], with a bucket that keeps versions and locks objects.
    pub async fn start_locking(story: &Story) -> Result<Self> {
        let folder = story.volumes_folder()?;
        let (root, versions) = (folder.join("s3"), folder.join("s3-versions"));
        fs::create_dir_all(&root)?;
        fs::create_dir_all(&versions)?;
        let options = ["--versioning-dir".as_ref(), versions.as_os_str()];
        let server = Self::run(story, root, None, &options).await?;
        let lock = "x-amz-bucket-object-lock-enabled: true";
        server.ask("PUT", "", "", Some(lock)).await?;
        Ok(server)
    }

    /// The versions of an object, those that say that it was removed included.
    pub async fn versions(&self, object: &str) -> Result<Vec<String>> {
        let path = format!("?prefix={}&versions=", object.replace('/', "%2F"));
        let answer = self.ask("GET", &path, "", None).await?;
        // The prefix is that of longer names as well.
        let own = format!("<Key>{object}</Key>");
        let entries = answer.split("</Version>");
        let entries = entries.flat_map(|part| part.split("</DeleteMarker>"));
        let id = |entry: &str| {
            let (_, rest) = entry.split_once("<VersionId>")?;
            Some(rest.split_once('<')?.0.to_owned())
        };
        let entries = entries.filter(|entry| entry.contains(&own));
        Ok(entries.filter_map(id).collect())
    }

    /// Lets the lock of an object end in two seconds, as who has the right to may do.
    pub async fn unlock(&self, object: &str) -> Result<()> {
        let soon = jiff::Timestamp::now().as_second() + 2;
        let until = jiff::Timestamp::from_second(soon)?;
        let body = format!(
            "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
        );
        let bypass = "x-amz-bypass-governance-retention: true";
        let path = format!("/{object}?retention=");
        self.ask("PUT", &path, &body, Some(bypass)).await?;
        Ok(())
    }

    /// What the server answers to a request about the bucket or what is in it, which `curl` makes.
    ///
    /// # Errors
    /// With the server's words, when it refuses.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        body: &str,
        header: Option<&str>,
    ) -> Result<String> {
        const SCRIPT: &str = r#"
            hash=$(printf %s "$BODY" | sha256sum | cut -d' ' -f1)
            sum=$(printf %s "$BODY" | openssl dgst -sha256 -binary | base64)
            exec curl --silent --show-error --fail-with-body --request "$METHOD" \
                --aws-sigv4 aws:amz:us-east-1:s3 --user "$KEY" \
                --header "x-amz-content-sha256: $hash" --header "x-amz-checksum-sha256: $sum" \
                ${HEADER:+--header "$HEADER"} ${BODY:+--data-binary "$BODY"} "$URL""#;
        let mut asked = Command::new("nsenter");
        asked
            .arg(format!("--net={}", network()?))
            .args(["sh", "-ec", SCRIPT])
            .env("METHOD", method)
            .env("BODY", body)
            .env("HEADER", header.unwrap_or_default())
            .env("KEY", format!("{KEY_ID}:{SECRET_KEY}"))
            .env("URL", format!("http://{}/{BUCKET}{path}", self.address));
        let output = asked.output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("{method} {path}: {error}{text}");
        }
        Ok(text)
    }

    async fn serve(story: &Story, root: PathBuf, tls: Option<&Tls>) -> Result<Self> {
        fs::create_dir_all(root.join(BUCKET))?;
        Self::run(story, root, tls, &[]).await
    }

    async fn run(
        story: &Story,
        root: PathBuf,
        tls: Option<&Tls>,
        options: &[&OsStr],
    ) -> Result<Self> {
        let address = next_address()?;
        let output = evidence::folder()?.join(format!("{}.s3.log", story.namespace));
        let output = File::create(output)?;
        let mut server = Command::new("nsenter");
        server
            .arg(format!("--net={}", network()?))
            .arg(variable("TIDELOCK_S3_SERVER")?)
            .args(["--port", &address.to_string()]);
        if let Some(tls) = tls {
            server.arg("--cert").arg(&tls.certificate);
            server.arg("--key").arg(&tls.key);
        }
        let server = server
            .arg("posix")
            .args(options)
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
            address,
            scheme: if tls.is_some() { "https" } else { "http" },
            root,
            _server: server,
        };
        started.listens().await?;
        Ok(started)
    }

    /// Stands before it, without TLS, and does to requests as `decide` says; the spec's endpoint is
    /// `http://` and the proxy's address.
    pub fn behind(
        &self,
        decide: impl FnMut(&Request) -> Option<Fault> + Send + 'static,
    ) -> Result<Proxy> {
        let (network, server, address) = (network()?, self.address, next_address()?);
        // A thread that has gone into another network does not come back.
        let started = std::thread::spawn(move || {
            let network = File::open(network)?;
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            anyhow::Ok(Proxy::on(TcpListener::bind(address)?, server))
        });
        let proxy = started.join().map_err(|_| anyhow!("it panicked"))??;
        proxy.with(decide);
        Ok(proxy)
    }

    /// It listens in a network of its own, so it is asked from there.
    async fn listens(&self) -> Result<()> {
        let (host, port) = (self.address.ip(), self.address.port());
        let network = network()?;
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
        bail!("the S3 server does not listen at {}", self.address)
    }

    /// Where a story's BackupStorage finds it; `more` is laid over.
    pub fn spec(&self, more: Value) -> Value {
        let mut s3 = json!({
            "bucket": BUCKET,
            "endpoint": format!("{}://{}", self.scheme, self.address),
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
        let found = tree::stored(&self.bucket(), "")?;
        Ok(found
            .into_iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect())
    }
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

/// An authority of its own, and a certificate from it for the servers' address, in `folder`.
async fn certify(folder: &Path) -> Result<Tls> {
    let file = |name: &str| folder.join(name);
    let address = next_address()?.ip();
    fs::write(file("s3.ext"), format!("subjectAltName=IP:{address}\n"))?;
    let script = "\
        new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        openssl req -x509 $new -days 2 -subj '/CN=authority of a story' -keyout ca.key -out ca.crt
        openssl req $new -subj '/CN=s3 of a story' -keyout s3.key -out s3.csr
        openssl x509 -req -in s3.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile s3.ext -out s3.crt";
    let mut shell = Command::new("sh");
    let made = shell.args(["-ec", script]).current_dir(folder).output();
    let made = made.await.context("cannot start openssl")?;
    if !made.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(Tls {
        certificate: file("s3.crt"),
        key: file("s3.key"),
    })
}

/// Where nobody listens yet, and pods reach whoever will.
fn next_address() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    let host = variable("TIDELOCK_E2E_NODE_ADDRESS")?;
    let host = host.parse().context("the node's address is none")?;
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(SocketAddr::new(host, port))
}

fn network() -> Result<String> {
    variable("TIDELOCK_E2E_NODE_NETWORK")
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set; run `cargo xtask e2e`"))
}
