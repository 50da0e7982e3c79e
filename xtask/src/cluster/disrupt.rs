//! Takes parts of a running cluster away, and brings them back.

use anyhow::{Context, Result};

use super::cgroup;
use super::layout::{Cluster, MOST_NODES, Node};
use super::{READY_DEADLINE, Running};
use crate::go::{self, Programs};
use crate::host;
use crate::place::Place;
use crate::run;

/// Ends daemons as a crash would, in the order given.
pub fn stop_daemons(place: &Place, name: &str, daemons: &[String]) -> Result<()> {
    host::require_root()?;
    let cluster = Cluster::named(place, name)?;
    daemons
        .iter()
        .try_for_each(|daemon| cluster.kill_daemon(daemon))
}

/// Starts daemons that have ended, in the order given, and waits for each until it answers. One
/// that ends again is started again, as a service manager does: a kubelet gives up when containerd
/// has not come to itself.
pub fn start_daemons(place: &Place, name: &str, daemons: &[String]) -> Result<()> {
    host::require_root()?;
    let running = Running {
        cluster: Cluster::named(place, name)?,
        programs: go::ensure_programs(place)?,
    };
    for daemon in daemons {
        run::wait_for(&format!("{daemon} to answer"), READY_DEADLINE, || {
            running.cluster.restart_daemon(daemon)?;
            running.answers(daemon)
        })?;
    }
    Ok(())
}

/// Ends a node as a power cut would: its daemons and all of its pods' processes.
///
/// # Guarantees
/// The pods cannot end well meanwhile: what would tell of their end goes first.
pub fn stop_node(place: &Place, name: &str, node: &str) -> Result<()> {
    host::require_root()?;
    let cluster = Cluster::named(place, name)?;
    let node = cluster.node_named(node)?;
    for daemon in node.daemons() {
        cluster.kill_daemon(&daemon)?;
    }
    cgroup::kill_all(&node.group)?;
    Ok(())
}

impl Running {
    fn answers(&self, daemon: &str) -> Result<bool> {
        let cluster = &self.cluster;
        let Some((node, kind)) = cluster.node_of(daemon) else {
            return match daemon {
                "etcd" | "kube-apiserver" => cluster.is_api_ready(&self.programs),
                _ => Ok(true),
            };
        };
        match kind {
            "containerd" => Ok(cluster.containerd_answers(&node)),
            // The control plane calls a node ready for a while that no longer is.
            "kubelet" => Ok(cluster.is_node_ready(&node, &self.programs)?
                && cluster.kubelet_answers(&node, &self.programs)?),
            _ => Ok(true),
        }
    }
}

impl Cluster {
    fn kubelet_answers(&self, node: &Node, programs: &Programs) -> Result<bool> {
        let path = format!("--raw=/api/v1/nodes/{}/proxy/healthz", node.name);
        let mut kubectl = self.kubectl(programs)?;
        Ok(run::succeeds(kubectl.args([
            "get",
            &path,
            "--request-timeout=5s",
        ])))
    }

    fn node_named(&self, name: &str) -> Result<Node> {
        let nodes = self.started_nodes();
        let found = nodes.into_iter().find(|node| node.name == name);
        found.with_context(|| format!("the cluster has no {name}"))
    }

    /// The node that a daemon belongs to, and what it does there.
    fn node_of<'d>(&self, daemon: &'d str) -> Option<(Node, &'d str)> {
        (1..=MOST_NODES).find_map(|number| {
            let node = self.node(number);
            let kind = daemon.strip_prefix(&node.name)?.strip_prefix('-')?;
            Some((node, kind))
        })
    }
}

impl Node {
    /// Its daemons, in the order in which they are ended: who tells of the pods first.
    fn daemons(&self) -> [String; 3] {
        ["kubelet", "kube-proxy", "containerd"].map(|kind| format!("{}-{kind}", self.name))
    }
}
