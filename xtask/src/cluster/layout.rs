//! Names, addresses and folders of one test cluster.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::place::Place;

/// Where the API server listens, inside its network namespace.
pub const API_PORT: u16 = 6443;
/// The addresses of Services.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The address of the Service `kubernetes`: the first of [`SERVICE_RANGE`].
pub const SERVICE_ADDRESS: &str = "10.96.0.1";
/// Where pods ask for names.
pub const NAME_SERVICE_ADDRESS: &str = "10.96.0.10";
/// The one flat network of nodes and pods.
pub const SUBNET: &str = "10.88.0.0/16";
/// More nodes than this have no use on one machine.
pub const MOST_NODES: u8 = 4;

/// A unix socket's path has at most 107 bytes; the deepest one of a node is 45 below the folder.
const LONGEST_FOLDER: usize = 60;

/// A test cluster on this machine, running or not.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Folders of the checkout it belongs to.
    pub place: Place,
    /// Distinguishes it from the clusters of other checkouts.
    pub id: String,
    /// Everything the cluster writes lies here.
    pub dir: PathBuf,
}

impl Cluster {
    /// Names the cluster of this checkout; starts nothing.
    ///
    /// # Errors
    /// Refuses a folder so deep that unix sockets below it cannot be bound.
    pub fn named(place: &Place, name: &str) -> Result<Self> {
        let id = place.cluster_id(name);
        let dir = place.state.join(&id);
        if dir.as_os_str().len() > LONGEST_FOLDER {
            bail!(
                "{} is too long for unix sockets below it (at most {LONGEST_FOLDER} bytes); \
                 set XDG_STATE_HOME to a shorter folder",
                dir.display()
            );
        }
        Ok(Self {
            place: place.clone(),
            id,
            dir,
        })
    }

    /// The cgroup below each controller, and the prefix of all names outside the folder.
    pub fn group(&self) -> String {
        format!("tidelock-{}", self.id)
    }

    /// Where the administrator's kubeconfig for use outside the namespace is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Where the processes' output is.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Keys and certificates.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.dir.join("pki").join(file)
    }

    /// Configuration that processes read.
    pub fn config(&self, file: &str) -> PathBuf {
        self.dir.join("config").join(file)
    }

    /// Folders behind the PersistentVolumes of tests and the demo.
    pub fn volumes(&self) -> PathBuf {
        self.dir.join("volumes")
    }

    /// Held by whoever starts or ends the cluster.
    pub fn lock_file(&self) -> PathBuf {
        self.place.state.join(format!("{}.lock", self.id))
    }

    /// The n-th node, from 1.
    pub fn node(&self, number: u8) -> Node {
        let name = format!("node-{number}");
        Node {
            number,
            dir: self.dir.join(&name),
            network: format!("{}-{number}", self.group()),
            group: format!("{}/{name}", self.group()),
            name,
        }
    }

    /// The nodes that were started, as the state folder tells.
    pub fn started_nodes(&self) -> Vec<Node> {
        (1..=MOST_NODES)
            .map(|number| self.node(number))
            .filter(|node| node.dir.exists())
            .collect()
    }
}

/// A node: a network namespace with a bridge, a containerd, a kubelet and a kube-proxy.
#[derive(Clone, Debug)]
pub struct Node {
    /// From 1; the first one also runs the control plane.
    pub number: u8,
    /// What Kubernetes calls it.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Name of its network namespace.
    pub network: String,
    /// Its cgroup, which holds the pods.
    pub group: String,
}

impl Node {
    /// The bridge's address, which is the node's.
    pub fn address(&self) -> String {
        format!("10.88.0.{}", self.number)
    }

    /// First and last address of its pods.
    pub fn pod_range(&self) -> (String, String) {
        let number = self.number;
        (format!("10.88.{number}.2"), format!("10.88.{number}.254"))
    }

    /// The network namespace as a file.
    pub fn network_file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.network)
    }

    /// containerd's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }
}
