//! The operator's process: options, logs, signals.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Parser;
use kube::{Client, Config};
use tidelock_operator::controller;
use tidelock_operator::telemetry::http::{self, Readiness};
use tokio::signal::unix::{SignalKind, signal};

/// Takes scheduled, retention-aware backups of PersistentVolumeClaims and restores them.
#[derive(Debug, Parser)]
#[command(name = "tidelock-operator", version)]
struct Options {
    /// Image of the mover; the operator's own, so that their versions never part.
    #[arg(long, env = "TIDELOCK_MOVER_IMAGE")]
    mover_image: String,
    /// Name of this instance in Events; the pod's name.
    #[arg(long, env = "POD_NAME", default_value = "tidelock")]
    instance: String,
    /// Where to serve /healthz and /readyz.
    #[arg(long, env = "TIDELOCK_HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    http_address: SocketAddr,
    /// What to log, such as `info` or `tidelock_operator=debug`.
    #[arg(long, env = "TIDELOCK_LOG", default_value = "info,kube_runtime=warn")]
    log: String,
}

// Two threads are plenty: the work is waiting for the API server.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(tracing_subscriber::EnvFilter::try_new(&options.log)?)
        .with_writer(std::io::stderr)
        .init();
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a TLS provider is installed already");
    }
    let config = Config::infer().await.context("find the API server")?;
    let client = Client::try_from(config).context("connect to the API server")?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        mover_image = options.mover_image,
        "starting"
    );
    let readiness = Readiness::default();
    let serving = http::serve(options.http_address, readiness.clone());
    let controllers = controller::run(
        client,
        options.mover_image,
        options.instance,
        readiness,
        told_to_stop()?,
    );
    tokio::select! {
        served = serving => served.with_context(|| format!("serve on {}", options.http_address)),
        () = controllers => Ok(()),
    }
}

/// Ends on SIGTERM or SIGINT.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
