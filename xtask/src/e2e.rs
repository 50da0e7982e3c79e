//! Runs the end-to-end stories on a cluster of their own.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::cluster::{self, Running};
use crate::deploy;
use crate::evidence;
use crate::go;
use crate::host;
use crate::image;
use crate::place::Place;
use crate::prometheus;
use crate::recovery;
use crate::run;
use crate::upgrade;

/// Stories wait more than they compute, so more of them than processors run at once.
const THREADS: &str = "--test-threads=4";

/// Suites that are run only when asked for, as tests/e2e/Cargo.toml has them: they take long, or
/// take nodes away.
pub const SUITES: &[&str] = &[
    "clock", "nodes", "wave", "scale", "leader", "metrics", "upgrade", "large", "recovery",
];

/// Stories about drained and lost nodes need another node to go to.
const LEAST_NODES: u8 = 2;

/// Which cluster, and what happens to it afterwards.
pub struct Options {
    /// Name of the cluster.
    pub name: String,
    /// How many nodes it has.
    pub nodes: u8,
    /// Leave it up.
    pub keep: bool,
}

/// Brings up a cluster with the operator of this checkout in it.
pub fn prepare(place: &Place, options: &Options) -> Result<Running> {
    // What does not compile should be known before a cluster starts.
    host::require_root()?;
    host::ensure_packages(place)?;
    let programs = go::ensure_programs(place)?;
    let images = image::build_all(place, &programs)?;
    let running = cluster::up(place, &options.name, options.nodes)?;
    running.load_images(&images)?;
    if let Some(product) = images
        .iter()
        .find(|image| image.name == image::PRODUCT_NAME)
    {
        deploy::deploy(&running, product)?;
    }
    Ok(running)
}

/// Does `story` on a prepared cluster, and takes the cluster down afterwards unless told to keep
/// it; collects evidence when anything fails.
pub fn on_cluster(
    place: &Place,
    options: &Options,
    story: impl FnOnce(&Running) -> Result<()>,
) -> Result<()> {
    let result = prepare(place, options).and_then(|running| {
        let told = story(&running);
        if told.is_err()
            && let Err(error) = evidence::collect(&running)
        {
            run::say(format!("no evidence could be collected: {error:#}"));
        }
        if options.keep {
            run::say(format!(
                "the cluster stays up; `{}make cluster-down` ends it",
                variable_for(&options.name)
            ));
            run::print(running.cluster.export_line());
        }
        told
    });
    if options.keep {
        return result;
    }
    let ended = cluster::down(place, &options.name);
    // What failed first is what a person needs to read.
    result.and(ended)
}

/// What names a further cluster to `make`.
fn variable_for(name: &str) -> String {
    if name.is_empty() {
        String::new()
    } else {
        format!("TIDELOCK_CLUSTER={name} ")
    }
}

/// Runs the stories whose names hold `filter`.
pub fn run(place: &Place, options: &Options, filter: Option<&str>) -> Result<()> {
    let suite = suite();
    if suite.as_deref() == Some(OsStr::new(recovery::SUITE)) {
        return recovery::run(place, options);
    }
    let tools = Tools::ready(place, suite.as_deref())?;
    let previous = match &suite {
        Some(suite) if suite == upgrade::SUITE => Some(upgrade::previous(place)?),
        _ => None,
    };
    on_cluster(place, &with_nodes(options), |running| {
        let mut cargo = tools.stories(place, running, suite.as_deref(), &options.name)?;
        if let Some(previous) = &previous {
            running.load_images(std::slice::from_ref(&previous.image))?;
            cargo.env("TIDELOCK_E2E_PREVIOUS_CHART", &previous.chart);
        }
        cargo.args(["--", THREADS, "--show-output"]).args(filter);
        run::visible(&mut cargo)
    })
}

/// `options` with as many nodes as the stories need.
pub fn with_nodes(options: &Options) -> Options {
    Options {
        name: options.name.clone(),
        nodes: options.nodes.max(LEAST_NODES),
        keep: options.keep,
    }
}

/// Programs that stories run, beside those of the cluster.
pub struct Tools {
    operator: PathBuf,
    prometheus: PathBuf,
    s3_server: PathBuf,
}

impl Tools {
    /// Builds the stories of `suite`, or all, and what they need.
    pub fn ready(place: &Place, suite: Option<&OsStr>) -> Result<Self> {
        run::say("building the stories");
        run::visible(stories(place, suite).arg("--no-run"))?;
        Ok(Self {
            operator: local_operator(place)?,
            prometheus: prometheus::ensure(place)?.server(),
            s3_server: go::ensure_s3_server(place)?,
        })
    }

    /// What runs the stories of `suite`, or all, on the cluster `name` that is up.
    pub fn stories(
        &self,
        place: &Place,
        running: &Running,
        suite: Option<&OsStr>,
        name: &str,
    ) -> Result<Command> {
        let cluster = &running.cluster;
        let folder = running.programs.kubectl_folder()?;
        let mut path = folder.clone().into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let mut cargo = stories(place, suite);
        cargo
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("KUBECACHEDIR", cluster.discovery_cache())
            .env("TIDELOCK_E2E_STATE", &cluster.dir)
            .env("TIDELOCK_E2E_BIN", folder)
            .env("TIDELOCK_E2E_HELM", running.programs.path("helm")?)
            .env("TIDELOCK_E2E_OPERATOR", &self.operator)
            .env("TIDELOCK_E2E_PROMETHEUS", &self.prometheus)
            .env("TIDELOCK_E2E_XTASK", env::current_exe()?)
            .env("TIDELOCK_CLUSTER", name)
            .env("TIDELOCK_S3_SERVER", &self.s3_server)
            .env("TIDELOCK_E2E_NODE_NETWORK", cluster.node(1).network_file())
            .env("TIDELOCK_E2E_NODE_ADDRESS", cluster.node(1).address())
            .env("PATH", path);
        Ok(cargo)
    }
}

/// The operator for stories that run it as a process of this machine. Not the image's: that one is
/// linked statically, and a clock that a library fakes needs a dynamic one.
fn local_operator(place: &Place) -> Result<PathBuf> {
    const PACKAGE: &str = "tidelock-operator";
    run::visible(cargo(place).args(["build", "--package", PACKAGE]))?;
    Ok(place.target.join("debug").join(PACKAGE))
}

fn stories(place: &Place, suite: Option<&OsStr>) -> Command {
    let mut cargo = cargo(place);
    cargo.args(["test", "--package", "tidelock-e2e", "--no-fail-fast"]);
    if let Some(suite) = suite {
        cargo.arg("--test").arg(suite);
    }
    cargo
}

/// The only suite to run.
fn suite() -> Option<OsString> {
    env::var_os("SUITE").filter(|suite| !suite.is_empty())
}

fn cargo(place: &Place) -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(&place.checkout)
        .env("CARGO_TARGET_DIR", &place.target);
    cargo
}
