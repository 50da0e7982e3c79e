//! The network of a cluster: a namespace with a bridge for each node, joined by veth pairs.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::layout::{Cluster, Node};
use crate::run;

const BRIDGE: &str = "cni0";

impl Cluster {
    /// Makes the node's network namespace and its bridge, and joins it to the first node's.
    ///
    /// # Guarantees
    /// Nothing outside the namespaces changes: no link, no address, no rule.
    pub fn make_network(&self, node: &Node) -> Result<()> {
        ip(&["netns", "add", &node.network])?;
        let inside = |arguments: &[&str]| {
            let mut all = vec!["-n", &node.network];
            all.extend(arguments);
            ip(&all)
        };
        inside(&["link", "set", "lo", "up"])?;
        // Without one of its own, a bridge takes the least hardware address of its ports: it would
        // change as pods come and go, and the other nodes would send to the old one for seconds.
        let hardware = format!("02:00:0a:58:00:{:02x}", node.number);
        inside(&[
            "link", "add", BRIDGE, "address", &hardware, "type", "bridge",
        ])?;
        let address = format!("{}/16", node.address());
        inside(&["address", "add", &address, "dev", BRIDGE])?;
        inside(&["link", "set", BRIDGE, "up"])?;
        // The services' and other unknown addresses leave through the bridge; without a route
        // the kernel would refuse them before kube-proxy's rules see them.
        inside(&["route", "add", "default", "dev", BRIDGE])?;
        if node.number > 1 {
            self.join(node)?;
        }
        run::output(&mut run::command(
            "nsenter",
            [
                &format!("--net={}", node.network_file().display()),
                "/bin/sh",
                "-c",
                "echo 1 > /proc/sys/net/ipv4/ip_forward",
            ],
        ))?;
        Ok(())
    }

    fn join(&self, node: &Node) -> Result<()> {
        let first = self.node(1);
        let far_end = format!("to-{}", node.name);
        ip(&[
            "-n",
            &node.network,
            "link",
            "add",
            "uplink",
            "type",
            "veth",
            "peer",
            "name",
            &far_end,
            "netns",
            &first.network,
        ])?;
        for (network, link) in [(&node.network, "uplink"), (&first.network, &far_end)] {
            ip(&["-n", network, "link", "set", link, "master", BRIDGE])?;
            ip(&["-n", network, "link", "set", link, "up"])?;
        }
        Ok(())
    }

    /// Deletes the namespaces, and with them all their links and rules.
    pub fn remove_networks(&self) -> Result<()> {
        for name in self.network_leftovers() {
            ip(&["netns", "delete", &name])?;
        }
        Ok(())
    }

    /// The namespaces of this cluster that exist.
    pub fn network_leftovers(&self) -> Vec<String> {
        let prefix = format!("{}-", self.group());
        names_in("/run/netns", &prefix)
    }
}

/// Names in a folder that start with `prefix`.
pub fn names_in(folder: impl AsRef<Path>, prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// The CNI configuration of the node's pods.
pub fn cni_config(cluster: &Cluster, node: &Node) -> serde_json::Value {
    let (first, last) = node.pod_range();
    serde_json::json!({
        "cniVersion": "0.4.0",
        // Also the prefix of the plugins' cached results, by which `down` finds them.
        "name": format!("{}-{}", cluster.group(), node.number),
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": node.dir.join("cni-addresses"),
                    "ranges": [[{
                        "subnet": super::layout::SUBNET,
                        "rangeStart": first,
                        "rangeEnd": last,
                        "gateway": node.address(),
                    }]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn ip(arguments: &[&str]) -> Result<()> {
    run::output(&mut run::command("ip", arguments)).map(|_| ())
}
