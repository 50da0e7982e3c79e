//! The cluster that the environment names, and the tools to talk to it.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "tidelock-system";
/// Image of operator and mover.
pub const PRODUCT_IMAGE: &str = "tidelock.dev/tidelock:dev";
/// Image of plain tools for workloads.
pub const TOOLBOX_IMAGE: &str = "tidelock.dev/toolbox:dev";

/// A client of the test cluster.
///
/// # Errors
/// `KUBECONFIG` and `TIDELOCK_E2E_STATE` must be set: stories never run on a cluster that only a
/// person's own configuration names.
pub async fn client() -> Result<Client> {
    // A second call finds it installed, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    state()?;
    let path = env::var("KUBECONFIG").context("KUBECONFIG is not set; run `cargo xtask e2e`")?;
    let kubeconfig = Kubeconfig::read_from(&path).with_context(|| format!("cannot read {path}"))?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    // Watches are quiet for long; the wait's own deadline ends them.
    config.read_timeout = Some(Duration::from_secs(600));
    Ok(Client::try_from(config)?)
}

/// The folder below which the cluster and its volumes live.
pub fn state() -> Result<PathBuf> {
    let state = env::var_os("TIDELOCK_E2E_STATE");
    state
        .map(PathBuf::from)
        .context("TIDELOCK_E2E_STATE is not set; run `cargo xtask e2e`")
}

/// What `kubectl <arguments>` prints.
pub fn kubectl(arguments: &[&str]) -> Result<String> {
    run("kubectl", arguments)
}

/// What a program prints.
///
/// # Errors
/// Carries what it wrote to both streams when it fails.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let (code, output) = try_run(program, arguments)?;
    if code != Some(0) {
        bail!("`{program} {}` failed: {output}", arguments.join(" "));
    }
    Ok(output)
}

/// How a program ends, and what it prints: standard output, then standard error.
pub fn try_run(program: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), text))
}
