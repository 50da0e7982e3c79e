//! containerd, kubelet and kube-proxy of one node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::cgroup;
use super::daemon::Daemon;
use super::layout::{Cluster, NAME_SERVICE_ADDRESS, Node};
use super::network::cni_config;
use super::pki::text;
use crate::go::Programs;
use crate::image::PAUSE_NAME;
use crate::run;

impl Cluster {
    /// Makes the node's folder, cgroup, certificate, network and configuration.
    pub fn prepare_node(&self, node: &Node) -> Result<()> {
        fs::create_dir_all(node.dir.join("cni"))?;
        cgroup::ensure(&node.group)?;
        self.make_node_certificate(node)?;
        self.make_network(node)?;
        fs::write(
            node.dir.join("cni/10-pods.conflist"),
            serde_json::to_vec_pretty(&cni_config(self, node))?,
        )?;
        fs::write(node.dir.join("containerd.toml"), containerd_config(node))?;
        fs::write(
            node.dir.join("kubelet.json"),
            serde_json::to_vec_pretty(&self.kubelet_config(node))?,
        )?;
        Ok(())
    }

    /// Starts the node's containerd.
    pub fn start_containerd(&self, node: &Node) -> Result<()> {
        self.start(&Daemon {
            name: format!("{}-containerd", node.name),
            network: Some(node),
            argv: vec![
                "containerd".to_owned(),
                "--config".to_owned(),
                text(&node.dir.join("containerd.toml")),
                "--log-level=info".to_owned(),
            ],
        })
    }

    /// Starts the node's kubelet and kube-proxy.
    pub fn start_node_agents(&self, node: &Node, programs: &Programs) -> Result<()> {
        let kubelet = self.write_inner_kubeconfig(&node.name)?;
        self.start(&Daemon {
            name: format!("{}-kubelet", node.name),
            network: Some(node),
            argv: [
                text(&programs.path("kubelet")?),
                format!("--config={}", node.dir.join("kubelet.json").display()),
                format!("--kubeconfig={kubelet}"),
                format!("--root-dir={}", node.dir.join("kubelet").display()),
                format!("--cert-dir={}", node.dir.join("kubelet/pki").display()),
                format!("--hostname-override={}", node.name),
                format!("--node-ip={}", node.address()),
            ]
            .to_vec(),
        })?;
        let proxy = self.write_inner_kubeconfig("kube-proxy")?;
        self.start(&Daemon {
            name: format!("{}-kube-proxy", node.name),
            network: Some(node),
            argv: [
                text(&programs.path("kube-proxy")?),
                format!("--kubeconfig={proxy}"),
                format!("--hostname-override={}", node.name),
                "--proxy-mode=iptables".to_owned(),
                // The limit belongs to the whole machine.
                "--conntrack-max-per-core=0".to_owned(),
                // Answers between two pods of one bridge would else bypass the address rules.
                "--masquerade-all=true".to_owned(),
                format!("--oom-score-adj={}", own_oom_score()),
            ]
            .to_vec(),
        })
    }

    fn kubelet_config(&self, node: &Node) -> serde_json::Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": format!("unix://{}", node.socket().display()),
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.pki("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", node.group),
            "failCgroupV1": false,
            "failSwapOn": false,
            "enforceNodeAllocatable": [],
            // Empty: pods take nothing from the machine's own resolver.
            "resolvConf": "",
            "clusterDNS": [NAME_SERVICE_ADDRESS],
            "clusterDomain": "cluster.local",
            "podLogsDir": node.dir.join("pod-logs"),
            "volumePluginDir": node.dir.join("volume-plugins"),
            "oomScoreAdj": own_oom_score(),
            "evictionHard": {
                "memory.available": "50Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
            // Images are imported, not pulled: one that is collected never comes back.
            "imageGCHighThresholdPercent": 100,
            "shutdownGracePeriod": "0s",
            // A minute's wait for changed Secrets and ConfigMaps helps no test.
            "configMapAndSecretChangeDetectionStrategy": "Watch",
        })
    }

    /// A `ctr` command that talks to the node's containerd.
    pub fn ctr(&self, node: &Node) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(node.socket())
            .args(["--namespace", "k8s.io"]);
        command
    }

    /// Imports an image unless the node holds the same bytes under the name.
    pub fn load_image(&self, node: &Node, image: &crate::image::Image) -> Result<()> {
        let listed =
            run::output(
                self.ctr(node)
                    .args(["images", "list", &format!("name=={}", image.name)]),
            )?;
        if listed.contains(&image.digest) {
            return Ok(());
        }
        run::output(
            self.ctr(node)
                .args(["images", "import"])
                .arg(&image.archive),
        )?;
        run::say(format!("{}: image {} loaded", node.name, image.name));
        Ok(())
    }

    /// Whether containerd answers.
    pub fn containerd_answers(&self, node: &Node) -> bool {
        node.socket().exists() && run::succeeds(self.ctr(node).args(["images", "list", "-q"]))
    }
}

/// Lowering the score below its own value needs a capability that root may lack.
fn own_oom_score() -> i32 {
    fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn containerd_config(node: &Node) -> String {
    let path = |name: &str| -> PathBuf { node.dir.join(name) };
    let quoted = |path: &Path| format!("{:?}", path.to_string_lossy());
    format!(
        r#"version = 2
root = {root}
state = {state}
disabled_plugins = ["io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
address = {socket}

[plugins."io.containerd.internal.v1.opt"]
path = {opt}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_NAME}"
# Without it a sandbox needs CAP_SYS_RESOURCE, which root in a container or microVM may lack.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = {cni}

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "runc"
Root = {runc}
SystemdCgroup = false
"#,
        root = quoted(&path("containerd")),
        state = quoted(&path("containerd-run")),
        socket = quoted(&node.socket()),
        opt = quoted(&path("containerd-opt")),
        cni = quoted(&path("cni")),
        runc = quoted(&path("runc")),
    )
}
