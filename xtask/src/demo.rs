//! The story that `make demo` tells.

use anyhow::Result;

use crate::cluster::Running;
use crate::run;

/// Tells the story on a cluster with the operator in it.
///
/// # Errors
/// Anything that is not as promised ends the demo.
pub fn tell(running: &Running) -> Result<()> {
    run::say(format!("the demo starts on cluster {}", running.cluster.id));
    Ok(())
}
