//! The operator as a process of this machine, for one namespace: it can be killed to the instant,
//! and its clock can be set.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use jiff::SignedDuration;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::cluster::{self, OPERATOR_NAMESPACE, PRODUCT_IMAGE};
use crate::proxy::{Fault, Ledger, Proxy};
use crate::{Story, evidence};

/// Debian's libfaketime, for programs with threads.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// What operators take for the time; the monotonic clock goes on.
pub struct Clock {
    offset: PathBuf,
}

impl Clock {
    /// The story's; it has to be set before an operator starts.
    pub fn of(story: &Story) -> Result<Self> {
        let offset = story.volumes_folder()?.join("clock");
        Ok(Self { offset })
    }

    /// Steps it to `offset` from the true time, in one step.
    pub fn set(&self, offset: SignedDuration) -> Result<()> {
        let next = self.offset.with_extension("next");
        fs::write(&next, format!("{:+}\n", offset.as_secs()))?;
        fs::rename(next, &self.offset)?;
        Ok(())
    }
}

/// One operator that looks after the story's namespace alone.
pub struct LocalOperator {
    child: Child,
    process: Pid,
    proxy: Proxy,
}

/// How operators of one story are started.
#[derive(Clone)]
pub struct Launch {
    /// What they wrote, all together.
    pub ledger: Arc<Ledger>,
    environment: Vec<(OsString, OsString)>,
    lease: Option<String>,
    http: String,
    log: PathBuf,
}

impl Launch {
    /// Operators that write their output behind one another into a file of the story.
    pub fn new(story: &Story) -> Result<Self> {
        let folder = evidence::folder()?;
        Ok(Self {
            ledger: Arc::default(),
            environment: Vec::new(),
            lease: None,
            http: "127.0.0.1:0".to_owned(),
            log: folder.join(format!("{}.operator.log", story.namespace)),
        })
    }

    /// With a variable more in their environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With `clock` for the time.
    #[must_use]
    pub fn with_clock(self, clock: &Clock) -> Self {
        self.with("LD_PRELOAD", FAKETIME)
            .with("FAKETIME_TIMESTAMP_FILE", &clock.offset)
            .with("FAKETIME_NO_CACHE", "1")
            .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .with("DONT_FAKE_MONOTONIC", "1")
    }

    /// Working only while they hold the Lease `name` in the operator's namespace.
    #[must_use]
    pub fn with_lease(mut self, name: &str) -> Self {
        self.lease = Some(name.to_owned());
        self
    }

    /// Serving probes and metrics at `address`.
    #[must_use]
    pub fn at(mut self, address: &str) -> Self {
        self.http = address.to_owned();
        self
    }

    /// The same, with nothing in the ledger.
    #[must_use]
    pub fn with_new_ledger(mut self) -> Self {
        self.ledger = Arc::default();
        self
    }

    /// Where their output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Removes their output, which is wanted after a failure only.
    pub fn forget_log(&self) {
        let _ = fs::remove_file(&self.log);
    }

    /// Starts one that dies as `fault` says.
    pub async fn start(&self, story: &Story, fault: Option<Fault>) -> Result<LocalOperator> {
        self.start_named(story, "local", fault).await
    }

    /// Starts one that is called `name` in its lease and in the ledger, and dies as `fault` says.
    pub async fn start_named(
        &self,
        story: &Story,
        name: &str,
        fault: Option<Fault>,
    ) -> Result<LocalOperator> {
        let proxy = Proxy::start(story.client.clone(), name, self.ledger.clone(), fault).await?;
        let kubeconfig = story.volumes_folder()?;
        let kubeconfig = kubeconfig.with_extension(format!("{name}.kubeconfig"));
        fs::write(&kubeconfig, kubeconfig_for(&proxy)?)?;
        let output = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(program()?);
        if let Some(lease) = &self.lease {
            command
                .args(["--leader-elect", "--lease-name", lease])
                .args(["--lease-namespace", OPERATOR_NAMESPACE]);
        }
        let child = command
            .args(["--mover-image", PRODUCT_IMAGE, "--instance", name])
            .args(["--watch-namespace", &story.namespace])
            .args(["--http-address", &self.http])
            .args([
                "--log",
                "debug,hyper=info,h2=info,tower=info,kube_client=info",
            ])
            .env("KUBECONFIG", &kubeconfig)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the operator")?;
        let process = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let process = process.context("the operator ended at once")?;
        proxy.aim_at(process);
        Ok(LocalOperator {
            child,
            process,
            proxy,
        })
    }
}

impl LocalOperator {
    /// Ends when the fault has struck and the process is gone.
    ///
    /// # Errors
    /// When the process ends by itself.
    pub async fn killed(&mut self) -> Result<()> {
        tokio::select! {
            biased;
            () = self.proxy.struck() => {}
            ended = self.child.wait() => {
                // Both may be seen at once.
                if tokio::time::timeout(std::time::Duration::ZERO, self.proxy.struck()).await.is_err() {
                    bail!("the operator ended by itself: {}", ended?);
                }
            }
        }
        self.child.wait().await?;
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.process, signal).context("signal the operator")
    }

    /// Cuts it off from the API server, or lets it through again.
    pub fn cut(&self, cut: bool) {
        self.proxy.cut(cut);
    }

    /// Ends when the process has ended, and tells how.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let ended = tokio::time::timeout(crate::wait::DEADLINE, self.child.wait()).await;
        Ok(ended.context("the operator does not end")??)
    }

    /// Kills it.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("kill the operator")
    }
}

/// The operator's program, as `cargo xtask e2e` built it.
///
/// # Errors
/// `TIDELOCK_E2E_OPERATOR` must be set.
fn program() -> Result<PathBuf> {
    let path = std::env::var_os("TIDELOCK_E2E_OPERATOR");
    path.map(PathBuf::from)
        .context("TIDELOCK_E2E_OPERATOR is not set; run `cargo xtask e2e`")
}

fn kubeconfig_for(proxy: &Proxy) -> Result<Vec<u8>> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", proxy.address)}}],
        "users": [{"name": "test", "user": {}}],
    });
    Ok(serde_json::to_vec(&config)?)
}

/// Runs `work` while the cluster's own operator is away; it is back afterwards, however `work`
/// ends.
pub async fn in_place_of_the_clusters<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    use futures::FutureExt;
    let client = cluster::client().await?;
    crate::deployment::scale(&client, 0).await?;
    let done = std::panic::AssertUnwindSafe(work).catch_unwind().await;
    let back = crate::deployment::scale(&client, crate::deployment::REPLICAS).await;
    match done {
        Ok(done) => done.and_then(|value| back.map(|()| value)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
