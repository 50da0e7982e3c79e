//! What the operator is told at its start, as flags or in its environment.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::{ArgAction, Parser};
use tidelock_core::lease::{Timing, TimingError};
use tidelock_core::queue::Limits;
use tidelock_operator::clock::moment;
use tidelock_operator::controller;
use tidelock_operator::leader::Candidate;
use tidelock_operator::telemetry::log::Format;
use tidelock_operator::telemetry::metrics::scene::MOST_OBJECTS;

/// Takes scheduled, retention-aware backups of PersistentVolumeClaims and restores them.
#[derive(Debug, Parser)]
#[command(name = "tidelock-operator", version)]
pub struct Options {
    /// Image of the mover; the operator's own, so that their versions never part.
    #[arg(long, env = "TIDELOCK_MOVER_IMAGE")]
    pub mover_image: String,
    /// Name of this instance in Events and in the lease; the pod's name.
    #[arg(long, env = "POD_NAME", default_value = "tidelock")]
    pub instance: String,
    /// Where to serve /healthz, /readyz and /metrics.
    #[arg(long, env = "TIDELOCK_HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    pub http_address: SocketAddr,
    /// Look after this namespace only, instead of all; so several operators share a cluster.
    #[arg(long, env = "WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// How many movers run at once in all; the others wait for their turn, restores first.
    #[arg(long, env = "MAX_MOVERS", default_value_t = 20)]
    max_movers: u32,
    /// How many movers run at once on one node.
    #[arg(long, env = "MAX_MOVERS_PER_NODE", default_value_t = 5)]
    max_movers_per_node: u32,
    /// How many movers work on one storage at once.
    #[arg(long, env = "MAX_MOVERS_PER_STORAGE", default_value_t = 10)]
    max_movers_per_storage: u32,
    /// How many policies, and how many restores, have series at /metrics, the oldest first; those
    /// beyond are counted, and no alert about them can fire.
    #[arg(long, env = "MAX_METRICS_OBJECTS", default_value_t = MOST_OBJECTS)]
    pub max_metrics_objects: usize,
    /// Work only while holding a Lease, so that of several replicas one works.
    #[arg(
        long,
        env = "LEADER_ELECT",
        default_value_t = false,
        num_args = 0..=1,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub leader_elect: bool,
    /// Name of the Lease; by default `tidelock`, or `tidelock-<namespace>` with one to watch.
    #[arg(long, env = "LEASE_NAME")]
    lease_name: Option<String>,
    /// Namespace of the Lease; the operator's own.
    #[arg(long, env = "POD_NAMESPACE")]
    lease_namespace: Option<String>,
    /// How long others wait for a leader that is not heard of, in seconds.
    #[arg(long, env = "LEASE_DURATION_SECONDS", default_value_t = 15)]
    lease_duration_seconds: u32,
    /// How long after its last renewal a leader ends, in seconds.
    #[arg(long, env = "RENEW_DEADLINE_SECONDS", default_value_t = 10)]
    renew_deadline_seconds: u32,
    /// How often the Lease is renewed or looked at, in seconds.
    #[arg(long, env = "RETRY_PERIOD_SECONDS", default_value_t = 2)]
    retry_period_seconds: u32,
    /// How log lines look.
    #[arg(long, env = "TIDELOCK_LOG_FORMAT", value_enum, default_value_t = Format::Json)]
    pub log_format: Format,
    /// What to log, such as `info` or `tidelock_operator=debug`.
    #[arg(long, env = "TIDELOCK_LOG", default_value = "info,kube_runtime=warn")]
    pub log: String,
}

impl Options {
    /// The namespace to look after; none is all.
    pub fn namespace(&self) -> Option<&str> {
        given(self.watch_namespace.as_deref())
    }

    /// What the controllers are told.
    pub fn controller(&self) -> controller::Options {
        controller::Options {
            namespace: self.namespace().map(str::to_owned),
            mover_image: self.mover_image.clone(),
            instance: self.instance.clone(),
            limits: Limits {
                total: self.max_movers,
                per_node: self.max_movers_per_node,
                per_storage: self.max_movers_per_storage,
            },
        }
    }

    /// Where the lease is, and who asks for it.
    ///
    /// # Errors
    /// When no namespace is named.
    pub fn candidate(&self) -> anyhow::Result<Candidate> {
        let namespace = given(self.lease_namespace.as_deref()).context(
            "--leader-elect needs --lease-namespace (or POD_NAMESPACE), the namespace of the Lease",
        )?;
        let name = match (given(self.lease_name.as_deref()), self.namespace()) {
            (Some(name), _) => name.to_owned(),
            (None, Some(watched)) => format!("tidelock-{watched}"),
            (None, None) => "tidelock".to_owned(),
        };
        // A container that starts anew keeps its pod's name, but is another process.
        let started = moment().as_duration().as_nanos();
        Ok(Candidate {
            namespace: namespace.to_owned(),
            name,
            identity: format!("{}_{:x}-{started:x}", self.instance, std::process::id()),
        })
    }

    /// The times of the election.
    ///
    /// # Errors
    /// When they make none.
    pub fn timing(&self) -> Result<Timing, TimingError> {
        Timing::new(
            self.lease_duration_seconds,
            self.renew_deadline_seconds,
            self.retry_period_seconds,
        )
    }
}

/// An empty variable means what an unset one does.
fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Options {
        let fixed = ["tidelock-operator", "--mover-image", "x"];
        Options::parse_from(fixed.iter().chain(arguments))
    }

    #[test]
    fn a_plain_process_is_its_own_leader_and_one_that_elects_needs_a_place_for_it() {
        assert!(!parse(&[]).leader_elect);
        assert!(!parse(&["--leader-elect=false"]).leader_elect);
        let elects = parse(&["--leader-elect", "--lease-namespace="]);
        assert!(elects.leader_elect);
        let error = elects.candidate().unwrap_err().to_string();
        assert!(error.contains("POD_NAMESPACE"), "{error}");
    }

    #[test]
    fn operators_of_one_namespace_have_a_lease_of_their_own() {
        let place = ["--leader-elect", "--lease-namespace=ops"];
        let name = |more: &[&str]| parse(&[&place, more].concat()).candidate().unwrap().name;
        assert_eq!(name(&[]), "tidelock");
        assert_eq!(name(&["--watch-namespace="]), "tidelock");
        assert_eq!(name(&["--watch-namespace=shop"]), "tidelock-shop");
        assert_eq!(name(&["--watch-namespace=shop", "--lease-name=x"]), "x");
    }

    #[test]
    fn two_processes_in_one_pod_have_two_identities() {
        let options = parse(&["--lease-namespace=ops", "--instance=pod-1"]);
        let (one, two) = (options.candidate().unwrap(), options.candidate().unwrap());
        assert!(one.identity.starts_with("pod-1_"), "{}", one.identity);
        assert_ne!(one.identity, two.identity);
    }
}
