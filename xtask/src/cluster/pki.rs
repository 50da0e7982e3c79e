//! Keys, certificates and kubeconfigs of a test cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::layout::{API_PORT, Cluster, Node, SERVICE_ADDRESS};
use crate::run;

/// A test cluster lives for hours; a forgotten one should still not stop within the year.
const VALID_DAYS: &str = "365";

/// Who a certificate stands for.
struct Subject<'a> {
    file: &'a str,
    user: &'a str,
    group: &'a str,
    usage: &'a str,
    alternative_names: &'a str,
}

impl Cluster {
    /// Makes the authority, the control plane's certificates and the service-account key.
    pub fn make_authority(&self) -> Result<()> {
        fs::create_dir_all(self.dir.join("pki"))?;
        fs::set_permissions(self.dir.join("pki"), fs::Permissions::from_mode(0o700))?;
        self.make_key("ca.key")?;
        let mut arguments = ["req", "-x509", "-new", "-key"].map(str::to_owned).to_vec();
        arguments.push(text(&self.pki("ca.key")));
        arguments.extend(
            [
                "-subj",
                "/CN=tidelock-test-cluster",
                "-days",
                VALID_DAYS,
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
                "-out",
            ]
            .map(str::to_owned),
        );
        arguments.push(text(&self.pki("ca.crt")));
        run::output(&mut run::command("openssl", arguments))?;

        self.make_key("service-account.key")?;
        let names = format!(
            "subjectAltName=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,\
             DNS:kubernetes.default.svc,IP:127.0.0.1,IP:{SERVICE_ADDRESS},IP:{}",
            self.node(1).address()
        );
        self.make_certificate(&Subject {
            file: "apiserver",
            user: "kube-apiserver",
            group: "",
            usage: "serverAuth",
            alternative_names: &names,
        })?;
        for (file, user, group) in [
            (
                "kubelet-client",
                "kube-apiserver-kubelet-client",
                "system:masters",
            ),
            ("admin", "kubernetes-admin", "system:masters"),
            ("controller-manager", "system:kube-controller-manager", ""),
            ("scheduler", "system:kube-scheduler", ""),
            ("kube-proxy", "system:kube-proxy", ""),
        ] {
            self.make_client(file, user, group)?;
        }
        Ok(())
    }

    /// Makes the certificate that a kubelet proves itself with.
    pub fn make_node_certificate(&self, node: &Node) -> Result<()> {
        self.make_client(
            &node.name,
            &format!("system:node:{}", node.name),
            "system:nodes",
        )
    }

    fn make_client(&self, file: &str, user: &str, group: &str) -> Result<()> {
        self.make_certificate(&Subject {
            file,
            user,
            group,
            usage: "clientAuth",
            alternative_names: "",
        })
    }

    fn make_key(&self, file: &str) -> Result<()> {
        let path = text(&self.pki(file));
        run::output(&mut run::command(
            "openssl",
            [
                "ecparam",
                "-name",
                "prime256v1",
                "-genkey",
                "-noout",
                "-out",
                &path,
            ],
        ))
        .map(|_| ())
    }

    fn make_certificate(&self, subject: &Subject<'_>) -> Result<()> {
        let key = format!("{}.key", subject.file);
        self.make_key(&key)?;
        let organisation = if subject.group.is_empty() {
            String::new()
        } else {
            format!("/O={}", subject.group)
        };
        let request = text(&self.pki(&format!("{}.csr", subject.file)));
        run::output(&mut run::command(
            "openssl",
            [
                "req",
                "-new",
                "-key",
                &text(&self.pki(&key)),
                "-subj",
                &format!("{organisation}/CN={}", subject.user),
                "-out",
                &request,
            ],
        ))?;
        let extensions = self.pki(&format!("{}.ext", subject.file));
        fs::write(
            &extensions,
            format!(
                "extendedKeyUsage={}\nkeyUsage=digitalSignature\n{}\n",
                subject.usage, subject.alternative_names
            ),
        )?;
        run::output(&mut run::command(
            "openssl",
            [
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &text(&self.pki("ca.crt")),
                "-CAkey",
                &text(&self.pki("ca.key")),
                "-CAcreateserial",
                "-days",
                VALID_DAYS,
                "-extfile",
                &text(&extensions),
                "-out",
                &text(&self.pki(&format!("{}.crt", subject.file))),
            ],
        ))
        .map(|_| ())
    }

    /// Writes a kubeconfig for use inside the namespaces and returns its path.
    pub fn write_inner_kubeconfig(&self, user: &str) -> Result<String> {
        let path = self.config(&format!("{user}.kubeconfig"));
        let server = format!("https://{}:{API_PORT}", self.node(1).address());
        self.write_kubeconfig(&path, user, &server)?;
        Ok(text(&path))
    }

    /// Writes the administrator's kubeconfig, which reaches the cluster over loopback.
    pub fn write_admin_kubeconfig(&self, port: u16) -> Result<()> {
        let server = format!("https://127.0.0.1:{port}");
        self.write_kubeconfig(&self.kubeconfig(), "admin", &server)
    }

    fn write_kubeconfig(&self, path: &Path, user: &str, server: &str) -> Result<()> {
        let inline = |file: String| -> Result<String> {
            let content =
                fs::read(self.pki(&file)).with_context(|| format!("cannot read {file}"))?;
            Ok(STANDARD.encode(content))
        };
        let name = self.group();
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": {
                "server": server,
                "certificate-authority-data": inline("ca.crt".to_owned())?,
            }}],
            "users": [{"name": user, "user": {
                "client-certificate-data": inline(format!("{user}.crt"))?,
                "client-key-data": inline(format!("{user}.key"))?,
            }}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        });
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec_pretty(&config)?)?;
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o600))?;
        fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A path as an argument; ours are made of plain ASCII below the state folder.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
