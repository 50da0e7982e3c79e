//! The measurements that docs/benchmarks.md quotes.

use std::process::Command;

use anyhow::Result;

use crate::e2e;
use crate::place::Place;
use crate::run;

/// The story that measures the operator.
const OPERATOR_STORY: &str = "a_quiet_cluster_is_quiet";

/// Measures the mover on trees of this machine, then the operator on a cluster.
pub fn bench(place: &Place, options: &e2e::Options) -> Result<()> {
    run::say("the mover: peak memory over shapes of trees");
    let mut mover = Command::new("cargo");
    mover
        .args(["run", "--profile", "dist", "--package", "tidelock-mover"])
        .args(["--example", "memory"])
        .current_dir(&place.checkout)
        .env("CARGO_TARGET_DIR", &place.target);
    run::visible(&mut mover)?;
    run::say("the operator: requests and peak memory with 20 settled policies");
    e2e::run(place, options, Some(OPERATOR_STORY))
}
