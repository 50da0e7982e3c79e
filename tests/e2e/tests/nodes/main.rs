//! What happens to the machines that runs depend on: control plane, kubelet, nodes.

mod control_plane;
mod drain;
mod lost;
mod placement;

use tokio::sync::Mutex;

/// All else on the cluster feels what these stories do, so they take turns.
static CLUSTER: Mutex<()> = Mutex::const_new(());
