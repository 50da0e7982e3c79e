//! The alerts as a rules file.

use serde_json::{Value, json};

use crate::alerts::{self, Alert, operator};
use crate::pace::Pace;

/// The rules file at a pace, as Prometheus reads it.
pub fn file(pace: Pace) -> Value {
    json!({"groups": groups(pace)})
}

/// The rules that the chart makes for operators of the namespaces `watched` and that differ from
/// those of [`file`].
pub fn of_namespaces(watched: &[&str]) -> Value {
    let all = alerts::all();
    let absent = all.iter().filter(|alert| alert.name == operator::ABSENT);
    let rules: Vec<Value> = absent
        .map(|alert| {
            let mut rule = rule(alert, Pace::REAL);
            rule["expr"] = json!(operator::absent_in(watched));
            rule
        })
        .collect();
    json!({"groups": [{"name": "tidelock", "rules": rules}]})
}

/// The same as an object for the Prometheus operator.
pub fn object() -> Value {
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "tidelock",
            "namespace": "tidelock-system",
            "labels": {"app.kubernetes.io/part-of": "tidelock"},
        },
        "spec": {"groups": groups(Pace::REAL)},
    })
}

fn groups(pace: Pace) -> Value {
    let rules: Vec<Value> = alerts::all()
        .iter()
        .map(|alert| rule(alert, pace))
        .collect();
    json!([{"name": "tidelock", "rules": rules}])
}

fn rule(alert: &Alert, pace: Pace) -> Value {
    json!({
        "alert": alert.name,
        "expr": (alert.expr)(pace),
        "for": pace.duration(alert.holds_for),
        "labels": {"severity": alert.severity.as_str()},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": alert.runbook_url(),
        },
    })
}
