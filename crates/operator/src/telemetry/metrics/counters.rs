//! What this process counts itself: work, not objects.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric as Encoded, Registry};

use crate::error::Class;
use crate::telemetry::metrics::collector::unit;
use crate::telemetry::metrics::table::{self, Metric};

type Labels = Vec<(&'static str, String)>;

/// From a look at caches to a chain of slow writes.
const DURATION_BUCKETS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// What this process counts. Clones count together.
#[derive(Clone)]
pub struct Counters(Arc<Families>);

struct Families {
    reconciles: Family<Labels, Counter>,
    errors: Family<Labels, Counter>,
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    requests: Family<Labels, Counter>,
}

impl Default for Counters {
    fn default() -> Self {
        Self(Arc::new(Families {
            reconciles: Family::default(),
            errors: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            requests: Family::default(),
        }))
    }
}

impl Counters {
    /// Counts a reconcile of an object of that kind.
    pub fn reconciled(&self, kind: &str, failure: Option<Class>, took: Duration) {
        let labels = labels(table::RECONCILES, [kind]);
        self.0.reconciles.get_or_create(&labels).inc();
        let durations = self.0.durations.get_or_create(&labels);
        durations.observe(took.as_secs_f64());
        drop(durations);
        if let Some(class) = failure {
            let class = match class {
                Class::Conflict => "Conflict",
                Class::Transient => "Transient",
            };
            let labels = self::labels(table::RECONCILE_ERRORS, [kind, class]);
            self.0.errors.get_or_create(&labels).inc();
        }
    }

    /// Counts a request to the API server that is over; `code` is `error` where there was no answer.
    pub fn requested(&self, verb: &str, resource: &str, code: &str) {
        let labels = labels(table::API_REQUESTS, [verb, resource, code]);
        self.0.requests.get_or_create(&labels).inc();
    }

    /// Lets `registry` export them.
    pub fn register(&self, registry: &mut Registry) {
        let families = &self.0;
        register(registry, table::RECONCILES, families.reconciles.clone());
        register(registry, table::RECONCILE_ERRORS, families.errors.clone());
        register(
            registry,
            table::RECONCILE_DURATION,
            families.durations.clone(),
        );
        register(registry, table::API_REQUESTS, families.requests.clone());
    }
}

fn labels<const N: usize>(metric: Metric, values: [&str; N]) -> Labels {
    let values = values.into_iter().map(str::to_owned);
    metric.labels.iter().copied().zip(values).collect()
}

fn register(registry: &mut Registry, metric: Metric, family: impl Encoded) {
    // The encoder ends the sentence itself.
    let help = metric.sentence().trim_end_matches('.');
    match unit(&metric) {
        Some(unit) => registry.register_with_unit(metric.stem(), help, unit, family),
        None => registry.register(metric.stem(), help, family),
    }
}
