//! Workloads that use a volume, and violence against processes.

use std::fs;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::Story;
use crate::cluster::{OPERATOR_NAMESPACE, TOOLBOX_IMAGE};

impl Story {
    /// A pod that mounts `claim` at `/data` and runs `script` with sh, once it runs.
    pub async fn workload(&self, name: &str, claim: &str, script: &str) -> Result<Pod> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "main",
                    "image": TOOLBOX_IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-ec", script],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
            },
        }))?;
        self.api().create(&PostParams::default(), &pod).await?;
        self.wait_for(name, "to run", |pod: &Pod| {
            Some(pod.status.as_ref()?.phase.as_deref()? == "Running")
        })
        .await
    }
}

/// The operator's pods.
pub async fn operator_pods(client: &Client) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let own = ListParams::default().labels("app.kubernetes.io/name=tidelock");
    Ok(pods.list(&own).await?.items)
}

/// Ends every process of the pod's containers with SIGKILL; how many there were.
///
/// # Assumptions
/// The node is this machine, so its processes are seen here, each in a control group named after
/// its container.
pub fn kill_processes(pod: &Pod) -> Result<usize> {
    let mut killed = 0;
    for container in container_ids(pod) {
        for process in processes_of(&container)? {
            kill_process(process, Signal::KILL)
                .with_context(|| format!("cannot kill process {}", process.as_raw_nonzero()))?;
            killed += 1;
        }
    }
    Ok(killed)
}

/// The processes of the pod's containers on this machine.
pub fn processes(pod: &Pod) -> Result<Vec<Pid>> {
    let mut all = Vec::new();
    for container in container_ids(pod) {
        all.extend(processes_of(&container)?);
    }
    Ok(all)
}

/// Most memory a process has had in RAM so far, in bytes.
pub fn peak_memory_bytes(process: Pid) -> Result<u64> {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|text| text.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .with_context(|| format!("no VmHWM in {path}"))?
        .parse()?;
    Ok(kib * 1024)
}

fn container_ids(pod: &Pod) -> Vec<String> {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| &status.container_statuses);
    let ids = statuses
        .flatten()
        .filter_map(|status| status.container_id.as_deref());
    ids.filter_map(|id| id.split_once("://"))
        .map(|(_, id)| id.to_owned())
        .collect()
}

fn processes_of(container: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while it is looked at.
        let groups = fs::read_to_string(format!("/proc/{number}/cgroup")).unwrap_or_default();
        if groups.contains(container) {
            found.extend(Pid::from_raw(number));
        }
    }
    Ok(found)
}
