//! What was measured, as a table for docs/benchmarks.md.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tidelock_e2e::audit::Request;
use tidelock_e2e::effect;
use tidelock_e2e::metrics::{parse, quantile};
use tidelock_operator::telemetry::metrics::table;

/// Rows of what and how much.
#[derive(Default)]
pub struct Figures(Vec<(String, String)>);

impl Figures {
    /// Adds a row.
    pub fn add(&mut self, what: impl Into<String>, measured: impl Into<String>) {
        self.0.push((what.into(), measured.into()));
    }

    /// Adds a length of time.
    pub fn add_time(&mut self, what: impl Into<String>, time: Duration) {
        self.add(what, format!("{:.2} s", time.as_secs_f64()));
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("| what | measured |\n|---|---|");
        for (what, measured) in &self.0 {
            println!("| {what} | {measured} |");
        }
    }
}

/// How long it is from `earlier` to `later`; nothing where it is the other way round.
pub fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    later.duration_since(earlier).try_into().unwrap_or_default()
}

/// How often there is which verb and resource.
pub fn by_kind<'a>(requests: impl IntoIterator<Item = &'a Request>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        let (_, resource) = effect::resource_of(&request.uri).unwrap_or_default();
        *counts
            .entry(format!("{} {resource}", request.verb))
            .or_default() += 1;
    }
    counts
}

/// The same in words.
pub fn in_words(counts: &BTreeMap<String, usize>) -> String {
    let words: Vec<_> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(", ")
    }
}

/// How many reconciles of a kind have ended, by an exposition.
pub fn reconciles(exposition: &str, kind: &str) -> usize {
    let all = parse(exposition, table::RECONCILES.name);
    let own = all.iter().filter(|sample| sample.label("kind") == kind);
    own.map(|sample| sample.value).sum::<f64>() as usize
}

/// How long reconciles of a kind took, in words.
///
/// # Errors
/// When there was none.
pub fn latency(exposition: &str, kind: &str) -> Result<String> {
    let metric = format!("{}_bucket", table::RECONCILE_DURATION.name);
    let mut buckets = parse(exposition, &metric);
    buckets.retain(|sample| sample.label("kind") == kind);
    let millis = |rank| quantile(&buckets, rank).map(|seconds| seconds * 1000.0);
    let (median, most) = (millis(0.5), millis(0.99));
    let both = median.zip(most);
    let (median, most) = both.with_context(|| format!("no reconcile of a {kind}"))?;
    Ok(format!("{median:.1} ms, {most:.1} ms"))
}
