//! What the API server and the operator tell at `/metrics`.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::cluster::kubectl;

/// One line of metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// The label `name`; empty where it is not set.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The samples of `metric`, asked of the API server now.
pub fn samples(metric: &str) -> Result<Vec<Sample>> {
    let text = kubectl(&["get", "--raw", "/metrics"])?;
    Ok(parse(&text, metric))
}

/// How many requests the API server has answered, of those that `counts` picks by `verb`, `group`,
/// `resource` and the other labels of `apiserver_request_total`.
pub fn requests(counts: impl Fn(&Sample) -> bool) -> Result<u64> {
    let all = samples("apiserver_request_total")?;
    let sum: f64 = all.iter().filter(|s| counts(s)).map(|s| s.value).sum();
    Ok(sum as u64)
}

/// The value below which the share `rank` (0 to 1) of what a histogram observed lies, as Prometheus'
/// `histogram_quantile` estimates it, from the histogram's `_bucket` samples. Buckets of several
/// label sets count together.
/// None where nothing was observed; what lies above the last bound is told as that bound.
pub fn quantile(buckets: &[Sample], rank: f64) -> Option<f64> {
    let mut all: Vec<(f64, f64)> = Vec::new();
    for bucket in buckets {
        // "+Inf" is a number to Rust as well.
        let bound: f64 = bucket.label("le").parse().ok()?;
        match all.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, count)) => *count += bucket.value,
            None => all.push((bound, bucket.value)),
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (_, total) = *all.last().filter(|(_, total)| *total > 0.0)?;
    let wanted = rank * total;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in all {
        if count >= wanted && bound.is_finite() {
            let share = (wanted - below) / (count - below).max(f64::MIN_POSITIVE);
            return Some(lower + (bound - lower) * share);
        }
        if bound.is_finite() {
            (lower, below) = (bound, count);
        }
    }
    Some(lower)
}

/// The samples of `metric` in an exposition.
pub fn parse(text: &str, metric: &str) -> Vec<Sample> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(metric));
    lines.filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Sample> {
    let (labels, value) = match line.strip_prefix('{') {
        Some(rest) => rest.rsplit_once('}')?,
        None if line.starts_with(' ') => ("", line),
        None => return None,
    };
    let mut parsed = BTreeMap::new();
    let mut rest = labels;
    while let Some((name, after)) = rest.split_once("=\"") {
        let (text, after) = after.split_once('"')?;
        parsed.insert(name.trim_start_matches(',').to_owned(), text.to_owned());
        rest = after;
    }
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        labels: parsed,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_by_their_exact_name() {
        let text =
            "# TYPE a counter\na{verb=\"GET\",code=\"200\"} 3\na_more{verb=\"GET\"} 9\na 4\n";
        let found = parse(text, "a");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].label("verb"), found[0].value), ("GET", 3.0));
        assert_eq!(
            (found[0].label("code"), found[0].label("group")),
            ("200", "")
        );
        assert_eq!(found[1].value, 4.0);
    }

    #[test]
    fn quantiles_lie_within_their_bucket_as_prometheus_has_it() {
        let text = "d_bucket{le=\"1.0\"} 50\nd_bucket{le=\"2.0\"} 90\nd_bucket{le=\"+Inf\"} 100\n";
        let buckets = parse(text, "d_bucket");
        assert_eq!(quantile(&buckets, 0.5), Some(1.0));
        assert_eq!(quantile(&buckets, 0.7), Some(1.5));
        assert_eq!(quantile(&buckets, 0.99), Some(2.0));
        assert_eq!(quantile(&[], 0.5), None);
        let twice = [buckets.clone(), buckets].concat();
        assert_eq!(quantile(&twice, 0.7), Some(1.5));
    }
}
