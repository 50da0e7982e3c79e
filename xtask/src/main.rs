//! Set-up, checks, test cluster, image and demo.

mod cluster;
mod go;
mod host;
mod image;
mod place;
mod run;

use anyhow::Result;
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
    /// Carry connections from loopback into a network namespace.
    #[command(hide = true)]
    Forward(cluster::forward::Arguments),
}

#[derive(Subcommand)]
enum ClusterTask {
    /// Start it, or find it running.
    Up {
        #[command(flatten)]
        which: Which,
        /// How many nodes it has.
        #[arg(long, default_value_t = 1, env = "NODES")]
        nodes: u8,
    },
    /// End it; nothing of it stays.
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// List its processes and all it holds on this machine.
    Doctor {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(clap::Args)]
struct Which {
    /// Tells several clusters of one checkout apart.
    #[arg(long = "name", default_value = "", env = "TIDELOCK_CLUSTER")]
    name: String,
}

fn main() -> Result<()> {
    let task = Arguments::parse().task;
    if let Task::Forward(arguments) = &task {
        return cluster::forward::run(arguments);
    }
    let place = Place::find()?;
    match task {
        Task::Cluster(ClusterTask::Up { which, nodes }) => {
            let running = cluster::up(&place, &which.name, nodes)?;
            println!("{}", running.cluster.export_line());
            Ok(())
        }
        Task::Cluster(ClusterTask::Down { which }) => cluster::down(&place, &which.name),
        Task::Cluster(ClusterTask::Doctor { which }) => cluster::doctor(&place, &which.name),
        Task::Image => {
            let programs = go::ensure_programs(&place)?;
            image::build_all(&place, &programs).map(|_| ())
        }
        Task::Forward(_) => Ok(()),
    }
}
