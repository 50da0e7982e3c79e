//! The cluster's nodes, and where pods go.

use std::future::Future;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};

use crate::Story;
use crate::cluster::{OPERATOR_NAMESPACE, kubectl};
use crate::pods::operator_pods;
use crate::wait::DEADLINE;

/// The node that the stories take away; the other one carries the control plane.
pub const LOST: &str = "node-2";
/// The node that stays.
pub const LEFT: &str = "node-1";

/// Does `story` while new pods go to [`LOST`] alone.
pub async fn starting_on_the_second<Told, Found>(story: impl FnOnce() -> Told) -> Result<Found>
where
    Told: Future<Output = Result<Found>>,
{
    kubectl(&["cordon", LEFT])?;
    let told = story().await;
    let open = kubectl(&["uncordon", LEFT]);
    let found = told?;
    open.map(|_| found)
}

/// The node that a pod runs on.
pub fn of(pod: &Pod) -> Result<&str> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.context("the pod is on no node")
}

/// Both nodes are there and take pods, and the operator runs on [`LEFT`]: what a story wants to
/// hear about a lost node, an operator on it could not tell.
pub async fn ready_to_lose(story: &Story) -> Result<()> {
    let nodes: Api<Node> = Api::all(story.client.clone());
    for name in [LEFT, LOST] {
        let ready = await_condition(nodes.clone(), name, |node: Option<&Node>| {
            node.is_some_and(is_ready)
        });
        let node = tokio::time::timeout(DEADLINE, ready).await;
        let node = node.with_context(|| format!("{name} is not ready"))??;
        let closed = node.and_then(|node| node.spec?.unschedulable);
        ensure!(closed != Some(true), "{name} was left cordoned");
    }
    kubectl(&["cordon", LOST])?;
    let moved = move_operator(story).await;
    let open = kubectl(&["uncordon", LOST]);
    moved?;
    open.map(|_| ())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|c| c.type_ == "Ready");
    ready.is_some_and(|condition| condition.status == "True")
}

/// Replaces operators on [`LOST`], which takes no new ones.
async fn move_operator(story: &Story) -> Result<()> {
    let namespace = ["--namespace", OPERATOR_NAMESPACE];
    for pod in operator_pods(&story.client).await? {
        if of(&pod).is_ok_and(|node| node == LOST) {
            let delete = ["delete", "pod", &pod.name_any()];
            kubectl(&[&namespace[..], &delete].concat())?;
        }
    }
    let available = ["rollout", "status", "deployment/tidelock", "--timeout=120s"];
    kubectl(&[&namespace[..], &available].concat()).map(|_| ())
}
