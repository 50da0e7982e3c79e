//! What the API server counted.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::cluster::kubectl;

/// One line of the API server's metrics.
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

fn parse(text: &str, metric: &str) -> Vec<Sample> {
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
}
