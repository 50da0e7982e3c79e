//! The operator's process: options, logs, signals.

mod options;

use anyhow::Context as _;
use clap::Parser;
use kube::Config;
use tidelock_operator::controller::{self, Process};
use tidelock_operator::health::Health;
use tidelock_operator::leader::fence::{self, Fence};
use tidelock_operator::leader::{Election, Keeper, Leading};
use tidelock_operator::stop::Stop;
use tidelock_operator::telemetry::metrics::Metrics;
use tidelock_operator::telemetry::metrics::collector::Scope;
use tidelock_operator::telemetry::metrics::counters::Counters;
use tidelock_operator::telemetry::{http, log};
use tokio::signal::unix::{SignalKind, signal};

use crate::options::Options;

// Two threads are plenty: the work is waiting for the API server.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    log::start(options.log_format, &options.log)?;
    let ended = run(options).await;
    if let Err(error) = &ended {
        let error = format!("{error:#}");
        tracing::error!(error, "ending");
    }
    ended
}

/// Works or stands by until told to stop, or until the process is better started anew.
async fn run(options: Options) -> anyhow::Result<()> {
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a TLS provider is installed already");
    }
    let config = Config::infer().await.context("find the API server")?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        mover_image = options.mover_image,
        namespace = options.namespace(),
        leader_elect = options.leader_elect,
        "starting"
    );
    let (health, counters) = (Health::default(), Counters::default());
    let (election, fence, leading) = election(&options, &config, &counters)?;
    let client = fence::client(config, fence, health.clone(), counters.clone())
        .context("connect to the API server")?;
    let metrics = Metrics::new(
        Scope {
            watches: options.namespace().unwrap_or_default().to_owned(),
            most_objects: options.max_metrics_objects,
        },
        leading.clone(),
        health.clone(),
        counters.clone(),
    );
    let process = Process {
        health: health.clone(),
        leading,
        stop: Stop::when(told_to_stop()?),
        counters,
        metrics: metrics.clone(),
    };
    let serving = http::serve(options.http_address, health.clone(), metrics);
    let controllers = controller::run(client, options.controller(), process);
    // One that could not work yet must not keep others from it.
    let filled = async move { health.filled().await };
    let mut keeper = Keeper::start(election, filled);
    tokio::select! {
        served = serving => served.with_context(|| format!("serve on {}", options.http_address)),
        ended = keeper.ended() => Err(ended.into()),
        ended = controllers => {
            ended?;
            keeper.resign().await;
            tracing::info!("stopped");
            Ok(())
        }
    }
}

/// This process's part in the election, if there is one, and the fence that goes with it.
fn election(
    options: &Options,
    config: &Config,
    counters: &Counters,
) -> anyhow::Result<(Option<Election>, Fence, Leading)> {
    if !options.leader_elect {
        return Ok((None, Fence::open(), Leading::new(true)));
    }
    let (fence, leading) = (Fence::closed(), Leading::new(false));
    // A client of its own: renewals wait for nothing else, and are what the fence depends on. Its
    // answers say nothing of the connection that the work is done over.
    let client = fence::client(
        config.clone(),
        Fence::open(),
        Health::default(),
        counters.clone(),
    )
    .context("connect to the API server")?;
    let election = Election::new(
        client,
        options.candidate()?,
        options.timing()?,
        fence.clone(),
        leading.clone(),
    );
    Ok((Some(election), fence, leading))
}

/// Ends on SIGTERM or SIGINT.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
