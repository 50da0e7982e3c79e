//! etcd, API server, controller manager and scheduler.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use serde_json::json;

use super::daemon::Daemon;
use super::layout::{API_PORT, Cluster, SERVICE_RANGE};
use super::pki::text;
use crate::go::Programs;

const ETCD_URL: &str = "http://127.0.0.1:2379";
const ETCD_PEER_URL: &str = "http://127.0.0.1:2380";

impl Cluster {
    /// Starts etcd and the API server.
    pub fn start_api_server(&self, programs: &Programs) -> Result<()> {
        let first = self.node(1);
        let data = self.dir.join("etcd");
        fs::create_dir_all(&data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        self.start(&Daemon {
            name: "etcd".to_owned(),
            network: Some(&first),
            argv: [
                text(&programs.path("etcd")?),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={ETCD_URL}"),
                format!("--advertise-client-urls={ETCD_URL}"),
                format!("--listen-peer-urls={ETCD_PEER_URL}"),
                format!("--initial-advertise-peer-urls={ETCD_PEER_URL}"),
                format!("--initial-cluster=default={ETCD_PEER_URL}"),
                // The data is thrown away with the cluster.
                "--unsafe-no-fsync".to_owned(),
                "--log-level=warn".to_owned(),
            ]
            .to_vec(),
        })?;
        self.start(&Daemon {
            name: "kube-apiserver".to_owned(),
            network: Some(&first),
            argv: self.api_server_arguments(programs)?,
        })
    }

    fn api_server_arguments(&self, programs: &Programs) -> Result<Vec<String>> {
        let policy = self.config("audit-policy.json");
        fs::write(&policy, serde_json::to_vec_pretty(&audit_policy())?)?;
        let pki = |file: &str| text(&self.pki(file));
        Ok([
            text(&programs.path("kube-apiserver")?),
            format!("--etcd-servers={ETCD_URL}"),
            "--bind-address=0.0.0.0".to_owned(),
            format!("--advertise-address={}", self.node(1).address()),
            format!("--secure-port={API_PORT}"),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", pki("service-account.key")),
            format!(
                "--service-account-signing-key-file={}",
                pki("service-account.key")
            ),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", self.audit_log().display()),
            "--audit-log-maxsize=500".to_owned(),
        ]
        .to_vec())
    }

    /// One JSON line for each request the API server answered.
    pub fn audit_log(&self) -> std::path::PathBuf {
        self.logs().join("audit.log")
    }

    /// Starts the controller manager and the scheduler.
    pub fn start_controllers(&self, programs: &Programs) -> Result<()> {
        let first = self.node(1);
        let pki = |file: &str| text(&self.pki(file));
        let manager = self.write_inner_kubeconfig("controller-manager")?;
        self.start(&Daemon {
            name: "kube-controller-manager".to_owned(),
            network: Some(&first),
            argv: [
                text(&programs.path("kube-controller-manager")?),
                format!("--kubeconfig={manager}"),
                format!("--authentication-kubeconfig={manager}"),
                format!("--authorization-kubeconfig={manager}"),
                "--leader-elect=false".to_owned(),
                "--use-service-account-credentials=true".to_owned(),
                // A claim and its volume that are made together conflict in this controller, which
                // tries again with its next resync.
                "--pvclaimbinder-sync-period=1s".to_owned(),
                format!(
                    "--service-account-private-key-file={}",
                    pki("service-account.key")
                ),
                format!("--root-ca-file={}", pki("ca.crt")),
                format!("--cluster-signing-cert-file={}", pki("ca.crt")),
                format!("--cluster-signing-key-file={}", pki("ca.key")),
            ]
            .to_vec(),
        })?;
        let scheduler = self.write_inner_kubeconfig("scheduler")?;
        self.start(&Daemon {
            name: "kube-scheduler".to_owned(),
            network: Some(&first),
            argv: [
                text(&programs.path("kube-scheduler")?),
                format!("--kubeconfig={scheduler}"),
                format!("--authentication-kubeconfig={scheduler}"),
                format!("--authorization-kubeconfig={scheduler}"),
                "--leader-elect=false".to_owned(),
            ]
            .to_vec(),
        })
    }
}

/// Who asked for what and when: enough to count requests, small enough to keep.
fn audit_policy() -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    })
}
