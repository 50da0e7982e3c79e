//! What each alert does in which world, for `promtool test rules`: when it fires, when it does not,
//! and that it clears.

mod backups;
mod operator;
mod restores;
mod trust;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidelock_operator::telemetry::metrics::table::Metric;

use crate::alerts::Alert;

/// Names and values of labels.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// One world, minute by minute, and what one alert does in it.
pub struct Case {
    /// The alert.
    pub alert: &'static str,
    /// What is shown, as a sentence.
    pub shows: &'static str,
    /// Series and their values, a value for each minute.
    series: Vec<(String, String)>,
    /// At which minute how many fire, by the labels that tell them apart.
    looks: Vec<(u64, Vec<BTreeMap<String, String>>)>,
}

impl Case {
    fn new(alert: &'static str, shows: &'static str) -> Self {
        Self {
            alert,
            shows,
            series: Vec::new(),
            looks: Vec::new(),
        }
    }

    /// With `metric` having a value for so many minutes each; none is a gap.
    fn given(self, metric: Metric, labels: Labels<'_>, values: &[(Option<i64>, u64)]) -> Self {
        self.given_of("a", metric, labels, values)
    }

    /// As [`Self::given`], told by the replica `instance`.
    fn given_of(
        self,
        instance: &str,
        metric: Metric,
        labels: Labels<'_>,
        values: &[(Option<i64>, u64)],
    ) -> Self {
        let mut all = labels.to_vec();
        all.push(("instance", instance));
        self.given_foreign(metric.name, &all, values)
    }

    fn given_foreign(
        mut self,
        name: &str,
        labels: Labels<'_>,
        values: &[(Option<i64>, u64)],
    ) -> Self {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        let values: Vec<String> = values
            .iter()
            .map(|(value, minutes)| run(*value, *minutes))
            .collect();
        let series = format!("{name}{{{}}}", labels.join(","));
        self.series.push((series, values.join(" ")));
        self
    }

    /// Nothing fires at that minute.
    fn quiet_at(mut self, minute: u64) -> Self {
        self.looks.push((minute, Vec::new()));
        self
    }

    /// It fires at that minute, once, with these labels.
    fn fires_at(mut self, minute: u64, labels: Labels<'_>) -> Self {
        let owned = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self.looks.push((minute, vec![owned]));
        self
    }

    /// Whether it goes from quiet to firing and back.
    pub fn fires_and_clears(&self) -> bool {
        let firing: Vec<bool> = self
            .looks
            .iter()
            .map(|(_, alerts)| !alerts.is_empty())
            .collect();
        let first = firing.iter().position(|fires| *fires);
        first.is_some_and(|at| firing[..at].contains(&false) && firing[at..].contains(&false))
    }

    fn to_value(&self, alert: &Alert) -> Value {
        let series: Vec<Value> = self
            .series
            .iter()
            .map(|(series, values)| json!({"series": series, "values": values}))
            .collect();
        let looks: Vec<Value> = self
            .looks
            .iter()
            .map(|(minute, firing)| {
                let expected: Vec<Value> = firing
                    .iter()
                    .map(|labels| expected(alert, labels))
                    .collect();
                json!({
                    "eval_time": format!("{minute}m"),
                    "alertname": self.alert,
                    "exp_alerts": expected,
                })
            })
            .collect();
        json!({
            "name": self.shows,
            "interval": "1m",
            "input_series": series,
            "alert_rule_test": looks,
        })
    }
}

/// `value` for so many minutes, as promtool writes it.
fn run(value: Option<i64>, minutes: u64) -> String {
    match (value, minutes) {
        // A gap ends what was there: without the mark the last value would stand for five minutes.
        (None, 0 | 1) => "stale".to_owned(),
        (None, minutes) => format!("stale _x{}", minutes - 1),
        (Some(value), minutes) => format!("{value}+0x{}", minutes.saturating_sub(1)),
    }
}

fn expected(alert: &Alert, labels: &BTreeMap<String, String>) -> Value {
    let mut all = labels.clone();
    all.insert("severity".to_owned(), alert.severity.as_str().to_owned());
    json!({
        "exp_labels": all,
        "exp_annotations": {
            "summary": filled_in(alert.summary, labels),
            "description": filled_in(alert.description, labels),
            "runbook_url": alert.runbook_url(),
        },
    })
}

/// `text` with its labels filled in, as Prometheus does: one that is not there is empty.
fn filled_in(text: &str, labels: &BTreeMap<String, String>) -> String {
    let mut parts = text.split("{{ $labels.");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once(" }}").unwrap_or((part, ""));
        filled.push_str(labels.get(name).map_or("", String::as_str));
        filled.push_str(rest);
    }
    filled
}

/// All cases.
pub fn all() -> Vec<Case> {
    let mut all = backups::cases();
    all.extend(trust::cases());
    all.extend(restores::cases());
    all.extend(operator::cases());
    all
}

/// The tests of `alert`, as promtool reads them from a file two folders below the checkout.
pub fn file(alert: &Alert) -> Value {
    tests_of("../../deploy/alerts.yaml", alert, &all())
}

/// The namespaces of [`file_of_namespaces`], which have an operator each.
pub const NAMESPACES: [&str; 2] = ["shop", "bank"];

/// The tests of `alert` as the chart makes it for [`NAMESPACES`], whose rules lie in `rules`; none
/// where it makes the plain one.
pub fn file_of_namespaces(rules: &str, alert: &Alert) -> Option<Value> {
    let cases = operator::cases_of_namespaces();
    let own = cases.iter().any(|case| case.alert == alert.name);
    own.then(|| tests_of(rules, alert, &cases))
}

fn tests_of(rules: &str, alert: &Alert, cases: &[Case]) -> Value {
    let own = cases.iter().filter(|case| case.alert == alert.name);
    json!({
        "rule_files": [rules],
        "evaluation_interval": "1m",
        "tests": own.map(|case| case.to_value(alert)).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts;

    #[test]
    fn every_alert_is_shown_to_keep_quiet_to_fire_and_to_clear() {
        let cases = all();
        for alert in alerts::all() {
            let mut own = cases.iter().filter(|case| case.alert == alert.name);
            assert!(own.any(Case::fires_and_clears), "{}", alert.name);
        }
        for case in &cases {
            let known = alerts::all().iter().any(|alert| alert.name == case.alert);
            assert!(known, "{} is no alert", case.alert);
        }
    }
}
