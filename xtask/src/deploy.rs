//! Puts the operator into the test cluster, as its generated manifests say.

use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::cluster::Running;
use crate::image::Image;
use crate::run;

/// Where the generated manifests put the operator.
pub const NAMESPACE: &str = "tidelock-system";
const DEPLOYMENT: &str = "deployment/tidelock";
const ROLLOUT_TIMEOUT: &str = "--timeout=120s";

/// Applies `deploy/` and waits until the operator of exactly this image is available.
///
/// # Errors
/// Shows the pods and their output when the operator does not become available.
pub fn deploy(running: &Running, product: &Image) -> Result<()> {
    let manifests = running.cluster.place.checkout.join("deploy");
    let crds = manifests.join("crds.yaml");
    if !crds.exists() {
        bail!("{} does not exist; run `make generate`", crds.display());
    }
    apply(running.kubectl()?.arg("--filename").arg(&crds))?;
    run::output(running.kubectl()?.args([
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "--filename",
        &crds.to_string_lossy(),
    ]))?;

    // What kubectl learned before does not know the new kinds, and it looks for a category such as
    // `tidelock` there alone.
    match fs::remove_dir_all(running.cluster.discovery_cache()) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }

    let overlay = running.cluster.dir.join("deploy");
    fs::create_dir_all(&overlay)?;
    let install = manifests.join("install.yaml");
    fs::copy(&install, overlay.join("install.yaml"))
        .with_context(|| format!("cannot read {}", install.display()))?;
    fs::write(
        overlay.join("kustomization.yaml"),
        serde_json::to_vec_pretty(&kustomization(product))?,
    )?;
    apply(running.kubectl()?.arg("--kustomize").arg(&overlay))?;

    run::say("waiting for the operator to be available");
    let rollout = run::output(running.kubectl()?.args([
        "--namespace",
        NAMESPACE,
        "rollout",
        "status",
        DEPLOYMENT,
        ROLLOUT_TIMEOUT,
    ]));
    if let Err(error) = rollout {
        explain(running);
        return Err(error.context("the operator does not become available"));
    }
    run::say(format!("the operator runs in namespace {NAMESPACE}"));
    Ok(())
}

/// The tag does not change with the bytes behind it, so the pods are told by an annotation.
fn kustomization(product: &Image) -> serde_json::Value {
    let patch = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "tidelock"},
        "spec": {"template": {"metadata": {"annotations": {
            "tidelock.dev/image-digest": product.digest,
        }}}},
    });
    json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["install.yaml"],
        "patches": [{
            "target": {"kind": "Deployment", "name": "tidelock"},
            "patch": patch.to_string(),
        }],
    })
}

fn apply(kubectl: &mut Command) -> Result<()> {
    run::output(kubectl.args([
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=tidelock-xtask",
    ]))
    .map(|_| ())
}

/// Prints what a person would look at next.
fn explain(running: &Running) {
    for arguments in [
        ["get", "pods", "--output=wide"].as_slice(),
        &["describe", "pods"],
        &["get", "events", "--sort-by=.lastTimestamp"],
        &["logs", DEPLOYMENT, "--tail=50", "--all-containers"],
    ] {
        if let Ok(mut kubectl) = running.kubectl() {
            kubectl.args(["--namespace", NAMESPACE]).args(arguments);
            run::print(format!("--- {}", run::line(&kubectl)));
            let _ = run::visible(&mut kubectl);
        }
    }
}
