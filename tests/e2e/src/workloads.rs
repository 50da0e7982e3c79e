//! Pods beside which movers run: of one user, on one node, under a Pod Security Standard.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::Story;
use crate::cluster::TOOLBOX_IMAGE;

/// A workload that has a volume open and does nothing.
pub struct Workload<'a> {
    /// Its name.
    pub name: &'a str,
    /// The claim that it mounts.
    pub claim: &'a str,
    /// User and group it runs as.
    pub user: i64,
    /// Its node; none leaves it to the scheduler.
    pub node: Option<&'a str>,
    /// What it tolerates.
    pub tolerations: Value,
}

impl<'a> Workload<'a> {
    /// One of `user`, anywhere.
    pub fn of_user(name: &'a str, claim: &'a str, user: i64) -> Self {
        Self {
            name,
            claim,
            user,
            node: None,
            tolerations: json!([]),
        }
    }

    /// One on `node`.
    pub fn on_node(name: &'a str, claim: &'a str, node: &'a str) -> Self {
        Self {
            node: Some(node),
            ..Self::of_user(name, claim, 1000)
        }
    }

    /// As every Pod Security Standard takes it.
    fn manifest(&self) -> Value {
        json!({
            "metadata": {"name": self.name},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "nodeSelector": self.node.map(|node| json!({"kubernetes.io/hostname": node})),
                "tolerations": self.tolerations,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": self.user,
                    "runAsGroup": self.user,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "main",
                    "image": TOOLBOX_IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }],
                "volumes": [{
                    "name": "data",
                    "persistentVolumeClaim": {"claimName": self.claim},
                }],
            },
        })
    }
}

impl Story {
    /// Lets the story's namespace enforce a Pod Security Standard.
    pub async fn enforce(&self, level: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let labels = json!({"pod-security.kubernetes.io/enforce": level});
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        namespaces
            .patch(&self.namespace, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("cannot make {} {level}", self.namespace))?;
        Ok(())
    }

    /// The pod of `workload`, once it runs.
    pub async fn start(&self, workload: &Workload<'_>) -> Result<Pod> {
        let pod: Pod = serde_json::from_value(workload.manifest())?;
        self.api().create(&PostParams::default(), &pod).await?;
        self.wait_for(workload.name, "to run", |pod: &Pod| {
            Some(pod.status.as_ref()?.phase.as_deref()? == "Running")
        })
        .await
    }
}
