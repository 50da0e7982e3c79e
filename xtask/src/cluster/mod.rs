//! A real Kubernetes on this machine, for tests and the demo.

pub mod cgroup;
mod control_plane;
mod daemon;
mod disrupt;
pub mod forward;
mod layout;
mod network;
mod node;
mod pki;
mod teardown;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

pub use disrupt::{start_daemons, stop_daemons, stop_node};
pub use layout::Cluster;
use layout::{MOST_NODES, Node};

use crate::go::{self, Programs};
use crate::host;
use crate::image::{self, Image};
use crate::place::Place;
use crate::run;

/// A cold machine under load takes a quarter of this.
const READY_DEADLINE: Duration = Duration::from_secs(120);

/// A cluster that is up.
pub struct Running {
    /// Its names and folders.
    pub cluster: Cluster,
    /// kubectl and the others.
    pub programs: Programs,
}

impl Running {
    /// A kubectl command that talks to this cluster and to no other.
    pub fn kubectl(&self) -> Result<Command> {
        self.cluster.kubectl(&self.programs)
    }

    /// Imports images on every node that does not hold them.
    pub fn load_images(&self, images: &[Image]) -> Result<()> {
        for node in self.cluster.started_nodes() {
            for image in images {
                self.cluster.load_image(&node, image)?;
            }
        }
        Ok(())
    }
}

/// Brings the cluster up, or finds it up.
///
/// # Guarantees
/// A cluster that works is left alone, and only gains the nodes that are missing. One that does
/// not work is removed and started again.
pub fn up(place: &Place, name: &str, nodes: u8) -> Result<Running> {
    host::require_root()?;
    if !(1..=MOST_NODES).contains(&nodes) {
        bail!("--nodes takes 1 to {MOST_NODES}, not {nodes}");
    }
    let cluster = Cluster::named(place, name)?;
    host::ensure_packages(place)?;
    let programs = go::ensure_programs(place)?;
    let _lock = cluster.lock()?;
    let started = Instant::now();
    let running = Running { cluster, programs };
    let cluster = &running.cluster;
    if cluster.is_healthy(&running.programs) {
        run::say(format!("cluster {} is up already", cluster.id));
    } else {
        if !cluster.leftovers()?.is_empty() {
            run::say("removing what is left of an earlier cluster");
            cluster.remove()?;
        }
        cluster.start_control_plane(&running.programs)?;
    }
    cluster.start_nodes(&running.programs, nodes)?;
    run::say(format!(
        "cluster {} is up: {} node(s), {:.1} s",
        cluster.id,
        cluster.started_nodes().len(),
        started.elapsed().as_secs_f64()
    ));
    Ok(running)
}

/// Ends the cluster; nothing of it stays.
pub fn down(place: &Place, name: &str) -> Result<()> {
    host::require_root()?;
    let cluster = Cluster::named(place, name)?;
    let _lock = cluster.lock()?;
    let started = Instant::now();
    if cluster.leftovers()?.is_empty() {
        run::say("no cluster is up");
        return Ok(());
    }
    cluster.remove()?;
    run::say(format!(
        "cluster {} is down, nothing is left of it ({:.1} s)",
        cluster.id,
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Lists what of the cluster exists on this machine, and its health.
pub fn doctor(place: &Place, name: &str) -> Result<()> {
    let cluster = Cluster::named(place, name)?;
    for name in cluster.daemons() {
        let dead = cluster.dead_daemons().contains(&name);
        run::print(format!(
            "{name}: {}",
            if dead { "ENDED" } else { "running" }
        ));
    }
    for line in cluster.leftovers()? {
        run::print(line);
    }
    Ok(())
}

impl Cluster {
    /// Waits for another `up` or `down` of the same cluster to finish.
    fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.place.state)?;
        let path = self.lock_file();
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            run::say("another command works on this cluster; waiting for it");
            flock(&file, FlockOperation::LockExclusive)?;
        }
        Ok(file)
    }

    /// Where kubectl keeps what it learned of the API. Never a person's own: that may be of an
    /// earlier cluster behind the same port.
    pub fn discovery_cache(&self) -> PathBuf {
        self.dir.join("kubectl-cache")
    }

    /// A kubectl command for this cluster; the user's own kubeconfig is never read.
    fn kubectl(&self, programs: &Programs) -> Result<Command> {
        let mut command = Command::new(programs.path("kubectl")?);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.discovery_cache());
        Ok(command)
    }

    fn is_healthy(&self, programs: &Programs) -> bool {
        let daemons = self.daemons();
        !daemons.is_empty()
            && self.dead_daemons().is_empty()
            && self.started_nodes().iter().all(|node| {
                daemons.contains(&format!("{}-kube-proxy", node.name))
                    && self.is_node_ready(node, programs).unwrap_or(false)
            })
            && self.is_api_ready(programs).unwrap_or(false)
    }

    fn is_api_ready(&self, programs: &Programs) -> Result<bool> {
        let mut kubectl = self.kubectl(programs)?;
        Ok(run::succeeds(kubectl.args([
            "get",
            "--raw=/readyz",
            "--request-timeout=5s",
        ])))
    }

    fn start_control_plane(&self, programs: &Programs) -> Result<()> {
        for folder in [self.dir.join("config"), self.logs(), self.volumes()] {
            fs::create_dir_all(folder)?;
        }
        cgroup::ensure(&self.group())?;
        self.make_authority()?;
        self.prepare_node(&self.node(1))?;
        self.start_api_server(programs)?;
        self.start_containerd(&self.node(1))?;
        self.start_forwarder()?;
        self.wait("the API server", || {
            let Some(port) = self.port() else {
                return Ok(false);
            };
            if !self.kubeconfig().exists() {
                self.write_admin_kubeconfig(port)?;
            }
            self.is_api_ready(programs)
        })?;
        self.start_controllers(programs)
    }

    /// Starts the nodes up to `count` that do not run yet.
    fn start_nodes(&self, programs: &Programs, count: u8) -> Result<()> {
        let pause = image::pause(&self.place, programs)?;
        let daemons = self.daemons();
        let missing: Vec<Node> = (1..=count)
            .map(|number| self.node(number))
            .filter(|node| !daemons.contains(&format!("{}-kube-proxy", node.name)))
            .collect();
        for node in &missing {
            if node.number > 1 {
                self.prepare_node(node)?;
                self.start_containerd(node)?;
            }
            self.wait(&format!("{}: containerd", node.name), || {
                Ok(self.containerd_answers(node))
            })?;
            self.load_image(node, &pause)?;
            self.start_node_agents(node, programs)?;
        }
        for node in &missing {
            self.wait(&format!("{} to be Ready", node.name), || {
                self.is_node_ready(node, programs)
            })?;
        }
        self.ensure_name_service(programs)?;
        self.wait("the default service account", || {
            let mut kubectl = self.kubectl(programs)?;
            Ok(run::succeeds(kubectl.args([
                "--namespace=default",
                "get",
                "serviceaccount",
                "default",
            ])))
        })?;
        Ok(())
    }

    /// Makes the address that pods ask for names; there is nobody behind it, so kube-proxy
    /// refuses at once. Without the address the kubelet warns about every pod.
    fn ensure_name_service(&self, programs: &Programs) -> Result<()> {
        let file = self.config("name-service.json");
        fs::write(&file, serde_json::to_vec_pretty(&name_service())?)?;
        let mut kubectl = self.kubectl(programs)?;
        run::output(kubectl.arg("apply").arg("--filename").arg(file)).map(|_| ())
    }

    fn is_node_ready(&self, node: &Node, programs: &Programs) -> Result<bool> {
        let mut kubectl = self.kubectl(programs)?;
        kubectl.args(["get", "node", &node.name, "--request-timeout=5s"]);
        kubectl.arg(r#"--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}"#);
        Ok(run::output(&mut kubectl).is_ok_and(|status| status == "True"))
    }

    /// Waits for something of this cluster, and fails at once when a daemon ends.
    fn wait(&self, what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        run::wait_for(what, READY_DEADLINE, || {
            self.require_daemons()?;
            ready()
        })
    }

    /// The line that makes a person's kubectl talk to this cluster.
    pub fn export_line(&self) -> String {
        format!("export KUBECONFIG={}", self.kubeconfig().display())
    }

    /// Where evidence of failures is collected; it outlives the cluster.
    pub fn evidence(&self) -> PathBuf {
        self.place.state.join("evidence").join(&self.id)
    }
}

fn name_service() -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "kube-system", "name": "kube-dns"},
        "spec": {
            "clusterIP": layout::NAME_SERVICE_ADDRESS,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        },
    })
}
