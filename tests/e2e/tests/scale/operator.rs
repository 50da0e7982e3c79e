//! The only operator of the cluster, as its image has it, watched from outside.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client, ResourceExt};
use rustix::process::Pid;
use serde_json::Value;
use tidelock_e2e::cluster::OPERATOR_NAMESPACE;
use tidelock_e2e::deployment;
use tidelock_e2e::pods::{operator_metrics, operator_pods, processes};
use tidelock_e2e::procfs::{Memory, cpu_time};
use tidelock_e2e::wait::DEADLINE;

/// Between two looks for the process and at its log.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Between two looks at its processor time.
const SAMPLE: Duration = Duration::from_millis(250);
/// A tenth of [`SAMPLE`]: renewing the lease and answering probes take less.
const BUSY: Duration = Duration::from_millis(25);
/// How long it does nothing once it has seen to everything.
const RESTED: Duration = Duration::from_secs(5);
/// How long it may take to see to everything.
const RESTS_WITHIN: Duration = Duration::from_secs(900);

/// The operator at work.
pub struct Operator {
    client: Client,
    /// Its pod's name.
    pod: String,
    process: Pid,
    /// When the process began, by its log.
    pub started: Timestamp,
    /// When its caches were filled, which is when it was ready.
    pub filled: Timestamp,
    /// When it led and began to reconcile.
    pub leads: Timestamp,
    /// When everything was reconciled once and it was at rest.
    pub rests: Timestamp,
}

/// What one scrape came to.
pub struct Scrape {
    /// The exposition.
    pub text: String,
    /// How long it took, by way of the API server.
    pub took: Duration,
}

impl Operator {
    /// Starts the cluster's Deployment with one replica, and waits until that is at rest.
    ///
    /// # Assumptions
    /// The Deployment has no replica.
    pub async fn start(client: &Client) -> Result<Self> {
        let (scaled, started) = tokio::join!(deployment::scale(client, 1), Self::follow(client));
        // Why it does not come up is what its own log and state say.
        let operator = started?;
        scaled?;
        Ok(operator)
    }

    /// Takes it away; it frees its lease.
    pub async fn stop(self) -> Result<()> {
        deployment::scale(&self.client, 0).await
    }

    async fn follow(client: &Client) -> Result<Self> {
        let pod = first_pod(client).await?;
        let said = async |message| said(client, &pod, message).await;
        let (started, filled) = (
            said("starting").await?,
            said("the caches are filled").await?,
        );
        let leads = said("reconciling").await?;
        let process = process_of(client, &pod).await?;
        let mut operator = Self {
            client: client.clone(),
            pod,
            process,
            started,
            filled,
            leads,
            rests: leads,
        };
        operator.rests = operator.at_rest().await?;
        Ok(operator)
    }

    /// Waits until it does nothing; since when.
    async fn at_rest(&self) -> Result<Timestamp> {
        let deadline = Instant::now() + RESTS_WITHIN;
        let (mut busy_until, mut busy_at) = (Timestamp::now(), Instant::now());
        let mut before = self.cpu_time().await?;
        while busy_at.elapsed() < RESTED {
            ensure!(Instant::now() < deadline, "the operator never rests");
            tokio::time::sleep(SAMPLE).await;
            let used = self.cpu_time().await?;
            if used.saturating_sub(before) > BUSY {
                (busy_until, busy_at) = (Timestamp::now(), Instant::now());
            }
            before = used;
        }
        Ok(busy_until)
    }

    /// How long it has been on a processor so far.
    pub async fn cpu_time(&self) -> Result<Duration> {
        match cpu_time(self.process) {
            Ok(time) => Ok(time),
            Err(error) => Err(self.why_gone().await.context(error)),
        }
    }

    /// Its memory.
    pub async fn memory(&self) -> Result<Memory> {
        match Memory::of(self.process) {
            Ok(memory) => Ok(memory),
            Err(error) => Err(self.why_gone().await.context(error)),
        }
    }

    /// What `/metrics` tells now.
    pub async fn scrape(&self) -> Result<Scrape> {
        let asked = Instant::now();
        let text = operator_metrics(&self.client, &self.pod).await?;
        let took = asked.elapsed();
        Ok(Scrape { text, took })
    }

    /// How its container ended, such as OOMKilled.
    async fn why_gone(&self) -> anyhow::Error {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let statuses = match pods.get(&self.pod).await {
            Ok(pod) => pod.status.and_then(|status| status.container_statuses),
            Err(error) => return error.into(),
        };
        let states = statuses.into_iter().flatten();
        let states: Vec<_> = states
            .map(|status| (status.state, status.last_state))
            .collect();
        anyhow::anyhow!("the operator's process ended: {states:?}")
    }
}

/// The operator's pod, as soon as there is one that stays.
async fn first_pod(client: &Client) -> Result<String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let pods = operator_pods(client).await?;
        let mut here = pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        if let Some(pod) = here.next() {
            return Ok(pod.name_any());
        }
        ensure!(Instant::now() < deadline, "no operator starts");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The process of the pod's container, once it has said something: before, it is the runtime's.
async fn process_of(client: &Client, pod: &str) -> Result<Pid> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let deadline = Instant::now() + DEADLINE;
    loop {
        // The kubelet names the container some time after it has started it.
        if let Some(process) = processes(&pods.get(pod).await?)?.first() {
            return Ok(*process);
        }
        ensure!(Instant::now() < deadline, "pod {pod} has no process");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits until the operator has logged `message`; when it did.
async fn said(client: &Client, pod: &str, message: &str) -> Result<Timestamp> {
    let deadline = Instant::now() + DEADLINE;
    let pods: Api<Pod> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    while Instant::now() < deadline {
        // There is none in the moment in which the container starts.
        let log = pods.logs(pod, &LogParams::default()).await;
        let log = log.unwrap_or_default();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut own = lines.filter(|line| line["fields"]["message"] == message);
        if let Some(line) = own.next() {
            let time = line["timestamp"]
                .as_str()
                .context("a line without a time")?;
            return Ok(time.parse()?);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    bail!("the operator never logs {message:?}")
}
