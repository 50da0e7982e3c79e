//! The measurements that docs/benchmarks.md quotes.

use std::process::Command;

use anyhow::Result;

use crate::e2e;
use crate::host;
use crate::place::Place;
use crate::run;

/// The story that measures the operator.
const OPERATOR_STORY: &str = "a_quiet_cluster_is_quiet";

/// Measures the mover on trees of this machine, then the operator on a cluster.
pub fn bench(place: &Place, options: &e2e::Options) -> Result<()> {
    host::ensure_peers(place)?;
    run::say("the mover: peak memory over shapes of trees");
    run::visible(&mut example(place, "memory"))?;
    run::say("the mover: speed beside other tools, with cold caches (some 40 minutes)");
    run::visible(&mut example(place, "speed"))?;
    run::say("the operator: requests and peak memory with 20 settled policies");
    e2e::run(place, options, Some(OPERATOR_STORY))
}

/// A program of the mover's that measures it.
fn example(place: &Place, name: &str) -> Command {
    let mut mover = Command::new("cargo");
    mover
        .args(["run", "--profile", "dist", "--package", "tidelock-mover"])
        .args(["--example", name])
        .current_dir(&place.checkout)
        .env("CARGO_TARGET_DIR", &place.target);
    mover
}
