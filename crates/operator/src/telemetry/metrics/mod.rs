//! Metrics.
//!
//! What they tell of objects is computed from the caches at each scrape: it is right after a
//! restart, and a series goes with its object. What they tell of this process is counted by it.

pub mod active;
pub mod collector;
pub mod counters;
pub mod known;
mod lateness;
mod load;
pub mod policy;
pub mod requests;
pub mod restore;
pub mod row;
pub mod scene;
mod storage;
pub mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::context::Context;
use crate::health::Health;
use crate::leader::Leading;
use crate::telemetry::metrics::collector::{Scope, Source};
use crate::telemetry::metrics::counters::Counters;

/// What [`Metrics::render`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that `/metrics` tells. Clones tell the same.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    source: Source,
}

impl Metrics {
    /// The metrics of a replica that tells of `scope`, leads when `leading` says so, has its caches
    /// filled when `health` does, and counts in `counters`.
    pub fn new(scope: Scope, leading: Leading, health: Health, counters: Counters) -> Self {
        let source = Source {
            scope,
            leading,
            health,
            context: Arc::default(),
        };
        let mut registry = Registry::default();
        counters.register(&mut registry);
        registry.register_collector(Box::new(source.clone()));
        Self {
            registry: Arc::new(registry),
            source,
        }
    }

    /// From now on tells of the objects that `context` knows; the first one given counts.
    pub fn tell_of(&self, context: Arc<Context>) {
        let _ = self.source.context.set(context);
    }

    /// All series as they are now, as OpenMetrics text.
    ///
    /// # Errors
    /// Only where the encoder refuses a value.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
