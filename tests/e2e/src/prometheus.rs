//! A real Prometheus on loopback that scrapes the operators in the cluster and follows our alerts.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tidelock_monitoring::pace::Pace;
use tidelock_monitoring::rules;
use tidelock_operator::telemetry::metrics::CONTENT_TYPE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::cluster;
use crate::pods::{kubelet_metrics, operator_metrics, operator_pods};
use crate::wait::DEADLINE;
use crate::{Story, evidence};

/// How many operators are looked for; a target without one is down, as a scrape of a pod that is
/// gone would be.
const REPLICAS: usize = 2;
/// How often a state of Prometheus is asked for; it evaluates each second.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// A Prometheus under way; it ends when this is dropped.
pub struct Prometheus {
    address: String,
    _server: Child,
    relay: JoinHandle<()>,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

/// What is scraped.
struct Target {
    job: String,
    address: String,
    path: String,
}

impl Prometheus {
    /// Starts one whose alerts run at `pace`, and waits until it has scraped an operator of the
    /// cluster.
    ///
    /// # Errors
    /// `TIDELOCK_E2E_PROMETHEUS` must be set; after [`DEADLINE`], with what was last seen.
    pub async fn start(story: &Story, pace: Pace) -> Result<Self> {
        let (relay, address) = relay(story.client.clone()).await?;
        let operator = |replica| Target {
            job: format!("operator-{replica}"),
            address: address.clone(),
            path: format!("/operators/{replica}"),
        };
        let mut targets: Vec<Target> = (0..REPLICAS).map(operator).collect();
        for node in nodes(&story.client).await? {
            targets.push(Target {
                path: format!("/kubelets/{node}"),
                job: node,
                address: address.clone(),
            });
        }
        let started = Self::start_with(story, pace, relay, &targets).await?;
        started
            .sees("max(tidelock_leader * tidelock_caches_filled) == 1")
            .await?;
        Ok(started)
    }

    /// Starts one that scrapes the operator at `address` on loopback, and waits until it has.
    ///
    /// # Errors
    /// As [`Prometheus::start`].
    pub async fn start_at(story: &Story, pace: Pace, address: &str) -> Result<Self> {
        let target = Target {
            job: "operator".to_owned(),
            address: address.to_owned(),
            path: "/metrics".to_owned(),
        };
        let nothing = tokio::spawn(async {});
        let started = Self::start_with(story, pace, nothing, &[target]).await?;
        started.sees("tidelock_build_info").await?;
        Ok(started)
    }

    async fn start_with(
        story: &Story,
        pace: Pace,
        relay: JoinHandle<()>,
        targets: &[Target],
    ) -> Result<Self> {
        let program = env::var_os("TIDELOCK_E2E_PROMETHEUS")
            .context("TIDELOCK_E2E_PROMETHEUS is not set; run `cargo xtask e2e`")?;
        let folder = cluster::state()?.join("prometheus").join(&story.namespace);
        fs::create_dir_all(&folder)?;
        let configuration = configure(&folder, targets, pace)?;
        let address = free_address().await?;
        let output = evidence::folder()?.join(format!("{}.prometheus.log", story.namespace));
        let output = File::create(output)?;
        let server = Command::new(program)
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start Prometheus")?;
        Ok(Self {
            address,
            _server: server,
            relay,
        })
    }

    /// Waits until `expr` gives something.
    pub async fn sees(&self, expr: &str) -> Result<()> {
        self.wait(
            &format!("{expr} to give something"),
            |prometheus| async move {
                // It does not answer at once.
                let found = prometheus.query(expr).await;
                Ok(found.is_ok_and(|found| !found.is_empty()))
            },
        )
        .await
    }

    /// The series that `expr` gives now.
    ///
    /// # Errors
    /// In Prometheus' words where it does not take the query.
    pub async fn query(&self, expr: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", escaped(expr));
        let answer = self.get(&path).await?;
        ensure!(answer["status"] == "success", "{expr}: {}", answer["error"]);
        let found = answer["data"]["result"].as_array();
        Ok(found.cloned().unwrap_or_default())
    }

    /// The labels of the alerts of that name that fire now.
    pub async fn firing(&self, alert: &str) -> Result<Vec<BTreeMap<String, String>>> {
        let answer = self.get("/api/v1/alerts").await?;
        let all = answer["data"]["alerts"].as_array();
        let all = all.context("Prometheus tells of no alerts")?;
        let own = all
            .iter()
            .filter(|one| one["labels"]["alertname"] == alert && one["state"] == "firing");
        let labels = own.map(|one| serde_json::from_value(one["labels"].clone()));
        Ok(labels.collect::<Result<_, _>>()?)
    }

    /// Waits until the alert fires with these labels, among others.
    pub async fn fires(&self, alert: &str, labels: &[(&str, &str)]) -> Result<()> {
        self.wait(
            &format!("{alert} {labels:?} to fire"),
            |prometheus| async move { prometheus.fires_now(alert, labels).await },
        )
        .await?;
        println!("{alert} {labels:?} fires");
        Ok(())
    }

    /// Waits until the alert does not fire with these labels any more.
    pub async fn clears(&self, alert: &str, labels: &[(&str, &str)]) -> Result<()> {
        self.wait(
            &format!("{alert} {labels:?} to clear"),
            |prometheus| async move { Ok(!prometheus.fires_now(alert, labels).await?) },
        )
        .await?;
        println!("{alert} {labels:?} has cleared");
        Ok(())
    }

    async fn fires_now(&self, alert: &str, labels: &[(&str, &str)]) -> Result<bool> {
        let firing = self.firing(alert).await?;
        let has = |one: &BTreeMap<String, String>| {
            let mut wanted = labels.iter();
            wanted.all(|(name, value)| one.get(*name).is_some_and(|own| own == value))
        };
        Ok(firing.iter().any(has))
    }

    /// Waits until `holds`; twice as long as for the cluster, as a slot may be a minute away.
    pub async fn wait<'a, F>(&'a self, what: &str, holds: impl Fn(&'a Self) -> F) -> Result<()>
    where
        F: Future<Output = Result<bool>>,
    {
        let looked = async {
            // Prometheus has no watch.
            while !holds(self).await? {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok(())
        };
        match tokio::time::timeout(DEADLINE * 2, looked).await {
            Ok(found) => found,
            Err(_) => {
                let all = self.get("/api/v1/alerts").await.unwrap_or_default();
                bail!(
                    "waited {} s for {what}; alerts: {all:#}",
                    2 * DEADLINE.as_secs()
                )
            }
        }
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(&self.address).await?;
        // The old version closes when it is done and sends the body in one piece.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
        let body = body.with_context(|| format!("no answer to {path}: {answer:?}"))?;
        serde_json::from_str(body).with_context(|| format!("the answer to {path} is {body:?}"))
    }
}

/// `text` as a part of a query string.
fn escaped(text: &str) -> String {
    let bytes = text.bytes().map(|byte| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    bytes.collect()
}

/// An address on loopback where nobody listens yet.
pub async fn free_address() -> Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    Ok(listener.local_addr()?.to_string())
}

/// Writes the configuration, and our rules at `pace`, as JSON, which is YAML too.
fn configure(folder: &std::path::Path, targets: &[Target], pace: Pace) -> Result<PathBuf> {
    let rules_file = folder.join("alerts.yaml");
    fs::write(&rules_file, serde_json::to_vec_pretty(&rules::file(pace))?)?;
    let scrape = |target: &Target| {
        json!({
            "job_name": target.job,
            "honor_labels": true,
            "metrics_path": target.path,
            "static_configs": [{
                "targets": [target.address],
                "labels": {"job": "tidelock", "instance": target.job},
            }],
        })
    };
    let configuration = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [rules_file],
        "scrape_configs": targets.iter().map(scrape).collect::<Vec<Value>>(),
    });
    let path = folder.join("prometheus.yaml");
    fs::write(&path, serde_json::to_vec_pretty(&configuration)?)?;
    Ok(path)
}

async fn nodes(client: &Client) -> Result<Vec<String>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await?;
    Ok(nodes.iter().map(ResourceExt::name_any).collect())
}

/// Serves the metrics of the operators' pods and of the kubelets on loopback, through the API
/// server: pods' own addresses are known inside the cluster's network alone.
async fn relay(client: Client) -> Result<(JoinHandle<()>, String)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?.to_string();
    let router = axum::Router::new()
        .route("/operators/{replica}", get(operator))
        .route("/kubelets/{node}", get(kubelet))
        .with_state(client);
    let serving = tokio::spawn(async move {
        // It serves until it is aborted.
        let _ = axum::serve(listener, router).await;
    });
    Ok((serving, address))
}

async fn operator(State(client): State<Client>, Path(replica): Path<usize>) -> Response {
    pass(metrics_of(&client, replica).await, CONTENT_TYPE)
}

async fn kubelet(State(client): State<Client>, Path(node): Path<String>) -> Response {
    pass(kubelet_metrics(&client, &node).await, "text/plain")
}

fn pass(metrics: Result<String>, form: &'static str) -> Response {
    match metrics {
        Ok(text) => ([(header::CONTENT_TYPE, form)], text).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn metrics_of(client: &Client, replica: usize) -> Result<String> {
    let mut pods = operator_pods(client).await?;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    pods.sort_by_key(ResourceExt::name_any);
    let pod = pods.get(replica).context("there is no such replica")?;
    operator_metrics(client, &pod.name_any()).await
}
