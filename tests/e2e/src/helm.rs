//! The real Helm, and namespaces for operators that it installs.

use std::env;
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::cluster::run;
use crate::{Story, tell};

/// What a story's release is called.
pub const RELEASE: &str = "tidelock-e2e";

/// This checkout's chart.
pub fn chart() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/chart").to_owned()
}

/// What Helm prints.
///
/// # Errors
/// `TIDELOCK_E2E_HELM` must be set.
pub fn helm(arguments: &[&str]) -> Result<String> {
    let helm = env::var("TIDELOCK_E2E_HELM");
    run(
        &helm.context("TIDELOCK_E2E_HELM is not set; run `cargo xtask e2e`")?,
        arguments,
    )
}

/// Helm's arguments with `values` set.
pub fn with<'a>(arguments: &[&'a str], values: &[&'a str]) -> Vec<&'a str> {
    let set = values.iter().flat_map(|value| ["--set", value]);
    arguments.iter().copied().chain(set).collect()
}

/// A namespace for an operator of the story alone.
pub struct Home {
    namespaces: Api<Namespace>,
    /// Its name.
    pub name: String,
}

impl Home {
    async fn make(story: &Story) -> Result<Self> {
        let name = format!("{}-system", story.namespace);
        let namespaces: Api<Namespace> = Api::all(story.client.clone());
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        }))?;
        namespaces.create(&PostParams::default(), &object).await?;
        Ok(Self { namespaces, name })
    }

    /// Installs `chart` in it, or upgrades to it, and waits until it is available.
    pub fn release(&self, verb: &[&str], chart: &Path, values: &[&str]) -> Result<()> {
        let chart = chart.display().to_string();
        let place = ["--namespace", &self.name, "--wait", "--timeout=120s"];
        let arguments = [verb, &[RELEASE, &chart], &place].concat();
        helm(&with(&arguments, values)).map(|_| ())
    }

    /// Takes the release away, and waits until it is gone.
    pub fn uninstall(&self) -> Result<()> {
        helm(&["uninstall", RELEASE, "--namespace", &self.name, "--wait"]).map(|_| ())
    }

    /// Best effort: what cannot be deleted goes with the cluster.
    async fn leave(&self) {
        let _ = helm(&["uninstall", RELEASE, "--namespace", &self.name]);
        let params = DeleteParams::background();
        let _ = self.namespaces.delete(&self.name, &params).await;
    }
}

/// Tells a story about a namespace for an operator.
pub async fn at_home(
    name: &str,
    story: impl AsyncFnOnce(&Story, &Home) -> Result<()>,
) -> Result<()> {
    tell(name, async |setting: Story| {
        let home = Home::make(&setting).await?;
        let told = story(&setting, &home).await;
        home.leave().await;
        told
    })
    .await
}
