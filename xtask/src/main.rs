//! Set-up, checks, test cluster, image and demo.

mod bench;
mod chart;
mod check;
mod cluster;
mod demo;
mod deploy;
mod e2e;
mod evidence;
mod freshness;
mod gate;
mod go;
mod host;
mod image;
mod place;
mod prometheus;
mod prove;
mod recovery;
mod run;
mod upgrade;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::FalseyValueParser;
use clap::{Parser, Subcommand};

use crate::place::Place;

/// Set-up, checks, test cluster, image and demo of Tidelock.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// A real Kubernetes on this machine.
    #[command(subcommand)]
    Cluster(ClusterTask),
    /// Build the images and write them as OCI archives.
    Image,
    /// Write the generated files anew.
    Generate {
        /// Only say whether they are up to date.
        #[arg(long)]
        check: bool,
    },
    /// Lint the chart, and render it with many sets of values.
    Chart,
    /// Format, lints, unit tests, generated files, the chart, licences.
    Check,
    /// Compare the mover's processor time and memory with fixed bounds.
    Gate {
        /// Another mover than the one that the image is made of.
        #[arg(long, value_name = "FILE")]
        mover: Option<PathBuf>,
    },
    /// Put the operator of this checkout into the running test cluster.
    Deploy {
        #[command(flatten)]
        cluster: ClusterOptions,
    },
    /// The end-to-end stories.
    E2e {
        #[command(flatten)]
        cluster: ClusterOptions,
        /// Only stories whose name holds this.
        filter: Option<String>,
    },
    /// Check, the mover's gate, the test cluster's proof, and all end-to-end stories.
    Test {
        #[command(flatten)]
        cluster: ClusterOptions,
    },
    /// See it work.
    Demo {
        #[command(flatten)]
        cluster: ClusterOptions,
    },
    /// Measure the mover's speed beside other tools, its and the operator's memory, and the
    /// operator's requests.
    Bench {
        #[command(flatten)]
        amount: bench::Amount,
        #[command(flatten)]
        cluster: ClusterOptions,
    },
    /// Measure a part of the mover's speed: `speed -- --help` tells which there are.
    Speed {
        /// Options of the mover's example `speed`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Carry connections from loopback into a network namespace.
    #[command(hide = true)]
    Forward(cluster::forward::Arguments),
}

#[derive(Subcommand)]
enum ClusterTask {
    /// Start it, or find it running.
    Up(ClusterOptions),
    /// End it; nothing of it stays.
    Down(ClusterOptions),
    /// List its processes and all it holds on this machine.
    Doctor(ClusterOptions),
    /// Prove on a cluster of its own that it is a real one and leaves nothing behind.
    Prove,
    /// Take a part of it away, or bring it back.
    #[command(subcommand)]
    Disrupt(DisruptTask),
}

#[derive(Subcommand)]
enum DisruptTask {
    /// End daemons, such as `kube-apiserver` or `node-2-kubelet`, as a crash would.
    Stop(Daemons),
    /// Start daemons that have ended, and wait until they answer.
    Start(Daemons),
    /// End a node and all of its pods, as a power cut would.
    StopNode {
        /// Its name.
        node: String,
        #[command(flatten)]
        cluster: ClusterOptions,
    },
}

#[derive(clap::Args)]
struct Daemons {
    /// Their names, as `cluster doctor` lists them.
    #[arg(required = true)]
    daemons: Vec<String>,
    #[command(flatten)]
    cluster: ClusterOptions,
}

#[derive(clap::Args)]
struct ClusterOptions {
    /// Tells several clusters of one checkout apart.
    #[arg(long, default_value = "", env = "TIDELOCK_CLUSTER")]
    name: String,
    /// How many nodes it has at least.
    #[arg(long, default_value_t = 1, env = "NODES")]
    nodes: u8,
    /// Leave it up afterwards.
    #[arg(long, env = "KEEP", value_parser = FalseyValueParser::new())]
    keep: bool,
}

impl From<ClusterOptions> for e2e::Options {
    fn from(options: ClusterOptions) -> Self {
        Self {
            name: options.name,
            nodes: options.nodes,
            keep: options.keep,
        }
    }
}

fn main() -> ExitCode {
    match run_task(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("[tidelock] failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_task(task: Task) -> Result<()> {
    if let Task::Forward(arguments) = &task {
        return cluster::forward::run(arguments);
    }
    freshness::ensure_own_build()?;
    let place = Place::find()?;
    match task {
        Task::Cluster(task) => cluster_task(&place, task),
        Task::Image => {
            let programs = go::ensure_programs(&place)?;
            image::build_all(&place, &programs).map(|_| ())
        }
        Task::Generate { check } => check::generate(&place, check),
        Task::Chart => chart::check(&place),
        Task::Check => check::check(&place),
        Task::Gate { mover } => gate::check(&place, mover.as_deref()),
        Task::Deploy { cluster } => e2e::prepare(&place, &cluster.into()).map(|running| {
            run::print(running.cluster.export_line());
        }),
        Task::E2e { cluster, filter } => e2e::run(&place, &cluster.into(), filter.as_deref()),
        Task::Test { cluster } => test(&place, &cluster.into()),
        Task::Demo { cluster } => demo::run(&place, cluster.into()),
        Task::Bench { amount, cluster } => bench::bench(&place, &amount, &cluster.into()),
        Task::Speed { arguments } => bench::part_of_speed(&place, &arguments),
        Task::Forward(_) => Ok(()),
    }
}

fn cluster_task(place: &Place, task: ClusterTask) -> Result<()> {
    match task {
        ClusterTask::Up(options) => {
            let running = cluster::up(place, &options.name, options.nodes)?;
            run::print(running.cluster.export_line());
            Ok(())
        }
        ClusterTask::Down(options) => cluster::down(place, &options.name),
        ClusterTask::Doctor(options) => cluster::doctor(place, &options.name),
        ClusterTask::Prove => prove::prove(place),
        ClusterTask::Disrupt(task) => disrupt(place, task),
    }
}

fn disrupt(place: &Place, task: DisruptTask) -> Result<()> {
    match task {
        DisruptTask::Stop(which) => {
            cluster::stop_daemons(place, &which.cluster.name, &which.daemons)
        }
        DisruptTask::Start(which) => {
            cluster::start_daemons(place, &which.cluster.name, &which.daemons)
        }
        DisruptTask::StopNode { node, cluster } => cluster::stop_node(place, &cluster.name, &node),
    }
}

fn test(place: &Place, options: &e2e::Options) -> Result<()> {
    check::check(place)?;
    gate::check(place, None)?;
    prove::prove(place)?;
    e2e::run(place, options, None)?;
    recovery::run(place, options)?;
    run::say(
        "test: check, the mover's gate, the test cluster's proof, the end-to-end stories and the recovery of a lost cluster passed; the long suites \
         run by name (`make e2e SUITE=…`, docs/test-cluster.md)",
    );
    Ok(())
}
