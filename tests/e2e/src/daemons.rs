//! Parts of the cluster that stop and come back: what a crash, a reboot or a power cut takes away.
//! For the stories of a binary that runs alone: all else on the cluster feels it too.

use std::env;
use std::ffi::OsString;
use std::future::Future;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cluster::kubectl;

/// Does `story` while `daemons` are stopped, and starts them afterwards whatever came of it.
///
/// # Guarantees
/// Nothing of the cluster answers for them from the first moment of `story` on; when this
/// returns, they do again. They are stopped in the order given, and started the other way round.
pub async fn while_stopped<Told, Found>(
    daemons: &[&str],
    story: impl FnOnce() -> Told,
) -> Result<Found>
where
    Told: Future<Output = Result<Found>>,
{
    disrupt("stop", daemons)?;
    let told = story().await;
    let mut reversed = daemons.to_vec();
    reversed.reverse();
    let started = disrupt("start", &reversed);
    // What failed first is what a person needs to read.
    let found = told?;
    started.map(|()| found)
}

/// Stops daemons and starts them again at once.
pub async fn restart(daemons: &[&str]) -> Result<()> {
    while_stopped(daemons, || async { Ok(()) }).await
}

/// Does `story` while the node is gone like a machine without power, and brings it back
/// afterwards whatever came of it: empty, schedulable and without a taint.
pub async fn without_node<Told, Found>(node: &str, story: impl FnOnce() -> Told) -> Result<Found>
where
    Told: Future<Output = Result<Found>>,
{
    disrupt("stop-node", &[node])?;
    let told = story().await;
    let back = bring_back(node);
    let found = told?;
    back.map(|()| found)
}

/// Starts a node's daemons, and lets pods come to it.
fn bring_back(node: &str) -> Result<()> {
    // An administrator who takes a node back removes the mark first.
    let _ = kubectl(&["taint", "nodes", node, "node.kubernetes.io/out-of-service-"]);
    let daemons = ["containerd", "kube-proxy", "kubelet"].map(|kind| format!("{node}-{kind}"));
    disrupt("start", &daemons.each_ref().map(String::as_str))?;
    kubectl(&["uncordon", node]).map(|_| ())
}

fn disrupt(action: &str, parts: &[&str]) -> Result<()> {
    let xtask: OsString = env::var_os("TIDELOCK_E2E_XTASK")
        .context("TIDELOCK_E2E_XTASK is not set; run `cargo xtask e2e`")?;
    let output = Command::new(xtask)
        .args(["cluster", "disrupt", action])
        .args(parts)
        .output()
        .context("cannot start xtask")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("cannot {action} {}: {said}", parts.join(", "));
    }
    Ok(())
}
