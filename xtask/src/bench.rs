//! The measurements that docs/benchmarks.md quotes.

use std::process::Command;

use anyhow::Result;

use crate::check;
use crate::e2e;
use crate::go;
use crate::host;
use crate::place::Place;
use crate::run;

/// The story that measures the operator.
const OPERATOR_STORY: &str = "a_quiet_cluster_is_quiet";

/// Where the results of trees of full size belong.
const RESULTS: &str = "docs/benchmarks.json";
const FULL_PERCENT: u64 = 100;

/// How much of the mover's speed is measured.
#[derive(clap::Args)]
pub struct Amount {
    /// Size of the trees, in percent of what the goals are about.
    #[arg(long, default_value_t = FULL_PERCENT, env = "PERCENT")]
    percent: u64,
    /// Turns of each contestant.
    #[arg(long, default_value_t = 3, env = "RUNS")]
    runs: usize,
}

/// Measures the mover on trees of this machine, then the operator on a cluster.
pub fn bench(place: &Place, amount: &Amount, options: &e2e::Options) -> Result<()> {
    run::say("the mover: peak memory over shapes of trees");
    run::visible(&mut example(place, "memory"))?;
    speed(place, amount)?;
    run::say("the operator: requests and peak memory with 20 settled policies");
    e2e::run(place, options, Some(OPERATOR_STORY))
}

/// Measures the mover beside other people's tools, and renders the results.
fn speed(place: &Place, amount: &Amount) -> Result<()> {
    let mut arguments = vec!["--profile".into()];
    arguments.push(format!("--percent={}", amount.percent));
    arguments.push(format!("--runs={}", amount.runs));
    if amount.percent != FULL_PERCENT {
        run::say(format!(
            "the mover: speed beside other tools, at {} %; {RESULTS} stays as it is",
            amount.percent
        ));
        return part_of_speed(place, &arguments);
    }
    run::say(
        "the mover: speed beside other tools; some hours, and nothing else should run meanwhile \
         (`make bench PERCENT=5 RUNS=1` takes some minutes)",
    );
    let results = place.checkout.join(RESULTS);
    arguments.push(format!("--json={}", results.display()));
    part_of_speed(place, &arguments)?;
    check::generate(place, false)
}

/// Measures what `arguments` of the example `speed` choose.
pub fn part_of_speed(place: &Place, arguments: &[String]) -> Result<()> {
    host::ensure_peers(place)?;
    let peers = go::ensure_peers(place)?;
    let mut speed = example(place, "speed");
    speed.arg("--");
    for name in ["restic", "kopia", "rclone"] {
        speed.arg(format!("--{name}")).arg(peers.path(name)?);
    }
    speed.env("TIDELOCK_S3_SERVER", go::ensure_s3_server(place)?);
    run::visible(speed.args(arguments))
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
