//! The operator's Deployment in the cluster.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::cluster::OPERATOR_NAMESPACE;
use crate::pods::operator_pods;
use crate::wait::DEADLINE;

/// How many operators the cluster has: one that leads, and one that stands by.
pub const REPLICAS: i32 = 2;

/// Between two looks at the operators that are on their way out.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Sets the number of operators and waits until so many are ready and all others are gone: one that
/// was told to stop ends what it has begun.
pub async fn scale(client: &Client, replicas: i32) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let patch = json!({"spec": {"replicas": replicas}});
    api.patch("tidelock", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let ready = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.is_some_and(|status| {
            status.ready_replicas.unwrap_or(0) == replicas
                && status.replicas.unwrap_or(0) == replicas
        })
    };
    let waited = kube::runtime::wait::await_condition(api, "tidelock", ready);
    tokio::time::timeout(DEADLINE, waited).await??;
    let others_gone = async {
        while i32::try_from(operator_pods(client).await?.len())? > replicas {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(DEADLINE, others_gone).await?
}
