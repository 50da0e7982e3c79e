//! Writes what is known as series, anew at each scrape.

use std::fmt;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::context::Context;
use crate::health::Health;
use crate::leader::Leading;
use crate::telemetry::metrics::known::PHASES;
use crate::telemetry::metrics::row::{Read, Row, of_time};
use crate::telemetry::metrics::scene::{self, Scene};
use crate::telemetry::metrics::table::{self as metric, Kind, Metric};
use crate::telemetry::metrics::{load, policy, restore, storage};

/// What a replica tells of itself at one moment.
#[derive(Debug, Default)]
pub struct Replica {
    /// The namespace that it looks after; empty for all.
    pub watches: String,
    /// Whether it leads.
    pub leads: bool,
    /// Whether its caches are filled.
    pub filled: bool,
    /// Its clock; none before it works.
    pub now: Option<Timestamp>,
    /// What its queue holds.
    pub load: load::Load,
    /// How many objects fail again and again, by kind.
    pub failing: Vec<(&'static str, usize)>,
}

/// What a replica tells of.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The namespace that it looks after; empty for all.
    pub watches: String,
    /// How many objects of a kind have series at most.
    pub most_objects: usize,
}

/// Where a scrape looks.
#[derive(Clone)]
pub struct Source {
    /// What this replica tells of.
    pub scope: Scope,
    /// Whether this replica leads.
    pub leading: Leading,
    /// Whether its caches are filled.
    pub health: Health,
    /// Caches and queue, once there are any.
    pub context: Arc<OnceLock<Arc<Context>>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Source {
    fn read(&self) -> (Replica, Scene) {
        let Some(context) = self.context.get() else {
            let replica = Replica {
                watches: self.scope.watches.clone(),
                leads: self.leading.is_leading(),
                ..Replica::default()
            };
            return (replica, Scene::default());
        };
        let now = context.now();
        let replica = Replica {
            watches: self.scope.watches.clone(),
            leads: self.leading.is_leading(),
            filled: self.health.ready().is_ok(),
            now: Some(now),
            load: load::of(context),
            failing: context.failing(),
        };
        // What half-filled caches lack is not gone, and what another replica leads is its to tell.
        if !replica.leads || !replica.filled {
            return (replica, Scene::default());
        }
        let objects = scene::Objects {
            policies: context.caches.policies.state(),
            backups: context.caches.backups.state(),
            restores: context.caches.restores.state(),
            storages: context.caches.storages.state(),
        };
        (
            replica,
            scene::observe(&objects, self.scope.most_objects, now),
        )
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (replica, scene) = self.read();
        write(&mut Writer(&mut encoder), &replica, &scene)
    }
}

/// Writes all series of `replica` and `scene`.
pub fn write(writer: &mut Writer<'_, '_>, replica: &Replica, scene: &Scene) -> fmt::Result {
    for row in policy::ROWS {
        let objects = scene.policies.iter();
        writer.row(row, objects.map(|p| (&p.namespace, &p.name, p)))?;
    }
    for row in restore::ROWS {
        let objects = scene.restores.iter();
        writer.row(row, objects.map(|r| (&r.namespace, &r.name, r)))?;
    }
    for row in storage::ROWS {
        let objects = scene.storages.iter();
        writer.row(row, objects.map(|s| (&s.namespace, &s.name, s)))?;
    }
    let unowned = scene.unowned.iter().flat_map(|(namespace, counts)| {
        let counts = PHASES.into_iter().zip(counts);
        counts.map(move |(phase, count)| (vec![namespace.as_str(), phase], f64::from(*count)))
    });
    writer.series(metric::UNOWNED_BACKUPS, unowned)?;
    writer.series(metric::LEFT_OUT, by_label(&scene.left_out))?;
    writer.series(metric::FAILING_OBJECTS, by_label(&replica.failing))?;
    writer.series(metric::QUEUED_MOVERS, by_label(&replica.load.queued))?;
    writer.series(metric::MOVER_LIMIT, by_label(&replica.load.limits))?;
    let running = replica.load.running as f64;
    writer.series(metric::RUNNING_MOVERS, [(Vec::new(), running)])?;
    let watches = replica.watches.as_str();
    let build = vec![env!("CARGO_PKG_VERSION"), watches];
    writer.series(metric::BUILD_INFO, [(build, 1.0)])?;
    for (metric, holds) in [
        (metric::LEADER, replica.leads),
        (metric::CACHES_FILLED, replica.filled),
    ] {
        let value = f64::from(u8::from(holds));
        writer.series(metric, [(vec![watches], value)])?;
    }
    let clock = of_time(replica.now).map(|now| (Vec::new(), now));
    writer.series(metric::CLOCK, clock)
}

fn by_label<'a>(counts: &'a [(&'static str, usize)]) -> impl Iterator<Item = (Vec<&'a str>, f64)> {
    counts
        .iter()
        .map(|(value, count)| (vec![*value], *count as f64))
}

/// Writes series with what the table says of their metric.
pub struct Writer<'a, 'b>(pub &'a mut DescriptorEncoder<'b>);

impl Writer<'_, '_> {
    /// One metric of many objects, each with its namespace and name.
    fn row<'a, T: 'a>(
        &mut self,
        row: &Row<T>,
        objects: impl Iterator<Item = (&'a String, &'a String, &'a T)>,
    ) -> fmt::Result {
        let unit = unit(&row.metric);
        let mut family = self.family(&row.metric, unit.as_ref())?;
        for (namespace, name, object) in objects {
            let own = [namespace.as_str(), name.as_str()];
            match row.read {
                Read::One(read) => {
                    if let Some(value) = read(object) {
                        one(&mut family, &row.metric, &own, value)?;
                    }
                }
                Read::Each(read) => {
                    for (label, value) in read(object) {
                        one(&mut family, &row.metric, &[own[0], own[1], label], value)?;
                    }
                }
                Read::Info(read) => {
                    let names = read(object);
                    let mut labels = own.to_vec();
                    labels.extend(names.iter().map(String::as_str));
                    one(&mut family, &row.metric, &labels, 1.0)?;
                }
            }
        }
        Ok(())
    }

    /// The series of one metric, by the values of its labels.
    fn series<'a>(
        &mut self,
        metric: Metric,
        series: impl IntoIterator<Item = (Vec<&'a str>, f64)>,
    ) -> fmt::Result {
        let unit = unit(&metric);
        let mut family = self.family(&metric, unit.as_ref())?;
        for (labels, value) in series {
            one(&mut family, &metric, &labels, value)?;
        }
        Ok(())
    }

    fn family<'a>(
        &'a mut self,
        metric: &Metric,
        unit: Option<&'a Unit>,
    ) -> Result<MetricEncoder<'a>, fmt::Error> {
        let kind = match metric.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
            Kind::Histogram => MetricType::Histogram,
        };
        self.0
            .encode_descriptor(metric.stem(), metric.sentence(), unit, kind)
    }
}

/// The unit as the encoder takes it.
pub fn unit(metric: &Metric) -> Option<Unit> {
    match metric.unit()? {
        "bytes" => Some(Unit::Bytes),
        _ => Some(Unit::Seconds),
    }
}

fn one(
    family: &mut MetricEncoder<'_>,
    metric: &Metric,
    labels: &[&str],
    value: f64,
) -> fmt::Result {
    let labels: Vec<(&str, &str)> = metric
        .labels
        .iter()
        .copied()
        .zip(labels.iter().copied())
        .collect();
    let mut series = if labels.is_empty() {
        return number(family, metric, value);
    } else {
        family.encode_family(&labels)?
    };
    number(&mut series, metric, value)
}

fn number(series: &mut MetricEncoder<'_>, metric: &Metric, value: f64) -> fmt::Result {
    match metric.kind {
        Kind::Counter => series.encode_counter::<NoLabelSet, _, f64>(&value, None),
        Kind::Gauge | Kind::Histogram => series.encode_gauge(&value),
    }
}
