//! Alerts and dashboards over the operator's metrics, as tables.
//!
//! Every query is made from the constants of `tidelock_operator::telemetry::metrics::table`, so
//! none can name a metric that is not exported. Every query takes the maximum over replicas: which
//! of two leads, and when that changes, must not show.

pub mod alerts;
pub mod cases;
pub mod dashboards;
pub mod names;
pub mod pace;
pub mod query;
pub mod rules;
