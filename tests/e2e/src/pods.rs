//! Workloads that use a volume, and violence against processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::Story;
use crate::cluster::{OPERATOR_NAMESPACE, TOOLBOX_IMAGE};
use crate::wait::DEADLINE;

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

/// All that the operator's pod `name` tells at `/metrics`, by way of the API server: pods' own
/// addresses are known inside the cluster's network alone.
pub async fn operator_metrics(client: &Client, name: &str) -> Result<String> {
    let path =
        format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/http:{name}:8080/proxy/metrics");
    metrics_at(client, path).await
}

/// All that the kubelet of `node` tells at `/metrics`, by way of the API server.
pub async fn kubelet_metrics(client: &Client, node: &str) -> Result<String> {
    metrics_at(client, format!("/api/v1/nodes/{node}/proxy/metrics")).await
}

async fn metrics_at(client: &Client, path: String) -> Result<String> {
    let request = Request::get(path).body(Vec::new())?;
    Ok(client.request_text(request).await?)
}

/// Ends every process of the pod's containers with SIGKILL; how many there were.
///
/// # Assumptions
/// The node is this machine, so its processes are seen here, each in a control group named after
/// its container.
pub fn kill_processes(pod: &Pod) -> Result<usize> {
    let all = processes(pod)?;
    signal(&all, Signal::KILL)?;
    Ok(all.len())
}

/// Halts every process of a pod that restores into `target`, as soon as it has moved aside what
/// was there; its status need not be told yet.
///
/// # Errors
/// When the restore is done by then.
pub async fn pause_in_replace(pod: &Pod, target: &Path) -> Result<()> {
    let uid = pod.uid().context("the pod has no UID")?;
    let target = target.to_owned();
    // A thread of its own, which nothing else holds up.
    let paused = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + DEADLINE;
        let is_aside = || aside(&target).is_some_and(|folder| !is_empty(&folder));
        while !is_aside() {
            ensure!(Instant::now() < deadline, "nothing was moved aside");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&processes_of(&uid)?, Signal::STOP)?;
        ensure!(is_aside(), "the mover was too fast");
        Ok(())
    });
    paused.await?
}

/// Where a restore keeps what it replaces.
fn aside(target: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(target).ok()?;
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
    folders
        .filter(|path| path.is_dir())
        .find(|path| path.to_string_lossy().contains("/.tidelock-"))
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

/// Halts every process of the pod's containers.
///
/// # Errors
/// When there is none any more.
pub fn pause(pod: &Pod) -> Result<()> {
    let all = processes_of(&pod.uid().context("the pod has no UID")?)?;
    ensure!(!all.is_empty(), "pod {} has no process", pod.name_any());
    signal(&all, Signal::STOP)
}

/// Lets the processes that were paused go on.
pub fn resume(pod: &Pod) -> Result<()> {
    let all = processes_of(&pod.uid().context("the pod has no UID")?)?;
    signal(&all, Signal::CONT)
}

fn signal(processes: &[Pid], signal: Signal) -> Result<()> {
    for process in processes {
        kill_process(*process, signal)
            .with_context(|| format!("cannot signal process {}", process.as_raw_nonzero()))?;
    }
    Ok(())
}

/// The processes of the pod's containers on this machine.
pub fn processes(pod: &Pod) -> Result<Vec<Pid>> {
    let mut all = Vec::new();
    for container in container_ids(pod) {
        all.extend(processes_of(&container)?);
    }
    Ok(all)
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

/// The processes in a control group whose path holds `part`.
fn processes_of(part: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while it is looked at.
        let groups = fs::read_to_string(format!("/proc/{number}/cgroup")).unwrap_or_default();
        if groups.contains(part) {
            found.extend(Pid::from_raw(number));
        }
    }
    Ok(found)
}
