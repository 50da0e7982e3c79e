//! Which metrics a text names.

use std::collections::BTreeSet;

use tidelock_operator::telemetry::metrics::table::{self, Kind};

/// What the kubelet knows to be free on a mounted volume.
pub const KUBELET_AVAILABLE: &str = "kubelet_volume_stats_available_bytes";
/// The size of a mounted volume, as the kubelet knows it.
pub const KUBELET_CAPACITY: &str = "kubelet_volume_stats_capacity_bytes";

/// Our own crates, which are named in options for logs.
const CRATES: [&str; 1] = ["tidelock_operator"];

/// The metrics of Tidelock that `text` names, without what a histogram appends.
pub fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with("tidelock_") && !CRATES.contains(word))
        .map(base)
        .collect()
}

fn base(name: &str) -> String {
    let histograms = table::ALL
        .iter()
        .filter(|metric| metric.kind == Kind::Histogram);
    let found = histograms.map(|metric| metric.name).find(|own| {
        let rest = name.strip_prefix(own);
        rest.is_some_and(|rest| ["_bucket", "_count", "_sum"].contains(&rest))
    });
    found.unwrap_or(name).to_owned()
}

/// Those of `names` that no operator exports.
pub fn unknown(names: &BTreeSet<String>) -> Vec<&str> {
    let exported: BTreeSet<&str> = table::ALL.iter().map(|metric| metric.name).collect();
    let names = names.iter().map(String::as_str);
    names.filter(|name| !exported.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_queries_and_prose() {
        let text = "`tidelock_leader` and rate(tidelock_reconcile_duration_seconds_bucket[5m]), \
                    not tidelock_operator=debug, but tidelock_nonsense";
        let names = named(text);
        assert_eq!(names.len(), 3);
        assert_eq!(unknown(&names), ["tidelock_nonsense"]);
    }
}
