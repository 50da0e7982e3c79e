//! Alerts, their tests, dashboards, and the reference of metrics and alerts.

use std::fmt::Write;

use anyhow::{Context, Result};
use tidelock_monitoring::alerts::{self, Alert};
use tidelock_monitoring::pace::Pace;
use tidelock_monitoring::{cases, dashboards, rules};
use tidelock_operator::telemetry::metrics::scene::MOST_OBJECTS;
use tidelock_operator::telemetry::metrics::table;

use crate::reference::cell;
use crate::{Generated, NOTE, yaml};

/// All of them.
pub fn files() -> Result<Vec<Generated>> {
    let alerts = alerts::all();
    let mut files = vec![
        Generated::new(
            "deploy/alerts.yaml",
            yaml::documents(&[rules::file(Pace::REAL)])?,
        ),
        Generated::new(
            "deploy/chart/files/alerts.yaml",
            yaml::documents(&[rules::file(Pace::REAL)])?,
        ),
        Generated::new(
            "deploy/prometheusrule.yaml",
            yaml::documents(&[rules::object()])?,
        ),
        Generated::new("docs/reference/metrics.md", metrics()?),
        Generated::new("docs/reference/alerts.md", page_of_alerts(&alerts)?),
    ];
    for alert in &alerts {
        let path = format!("tests/alerts/{}.yaml", alert.name);
        files.push(Generated::new(
            path,
            yaml::documents(&[cases::file(alert)])?,
        ));
    }
    files.push(Generated::new(
        "tests/alerts/rules/two-namespaces.yaml",
        yaml::documents(&[rules::of_namespaces(&cases::NAMESPACES)])?,
    ));
    for alert in &alerts {
        if let Some(tests) = cases::file_of_namespaces("rules/two-namespaces.yaml", alert) {
            let path = format!("tests/alerts/{}-two-namespaces.yaml", alert.name);
            files.push(Generated::new(path, yaml::documents(&[tests])?));
        }
    }
    for dashboard in dashboards::all() {
        let text = serde_json::to_string_pretty(&dashboard.to_value())
            .with_context(|| format!("cannot write dashboard {}", dashboard.name))?;
        for folder in ["deploy", "deploy/chart/files"] {
            let path = format!("{folder}/dashboards/{}.json", dashboard.name);
            files.push(Generated::new(path, format!("{text}\n")));
        }
    }
    Ok(files)
}

fn metrics() -> Result<String> {
    let mut page = format!("<!-- {NOTE} -->\n# Metrics\n\n");
    writeln!(
        page,
        "The operator serves them at `/metrics` on its HTTP port (8080), as OpenMetrics text. Times are \
         seconds since 1970, sizes bytes, truths 1 or 0. What is told of objects is computed from them \
         at each scrape, so it is right after a restart, and a series goes with its object.\n\n\
         - Scrape every replica. Only the one that leads, with its caches filled, exports the series of \
         objects; the others tell of themselves. Take the maximum over replicas, as the alerts and \
         dashboards do.\n\
         - Keep our label `namespace` (`honor_labels: true`; `honorLabels: true` in a ServiceMonitor \
         or PodMonitor): it is that of the object, not that of the operator.\n\
         - Label values are names of objects, or words of Tidelock's own. At most {MOST_OBJECTS} \
         policies and as many restores have series, the oldest first, and Backups without a policy are \
         counted in as many namespaces (`--max-metrics-objects`); `{}` says how many are left out.\n",
        table::LEFT_OUT.name
    )?;
    writeln!(
        page,
        "| Metric | Type | Labels | Meaning |\n|---|---|---|---|"
    )?;
    for metric in table::ALL {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            labels.join(", "),
            cell(metric.sentence())
        )?;
    }
    Ok(page)
}

fn page_of_alerts(alerts: &[Alert]) -> Result<String> {
    let mut page = format!("<!-- {NOTE} -->\n# Alerts\n\n");
    writeln!(
        page,
        "As a rules file for Prometheus in [deploy/alerts.yaml](../../deploy/alerts.yaml), and as a \
         PrometheusRule in [deploy/prometheusrule.yaml](../../deploy/prometheusrule.yaml). Each clears \
         by itself when its cause is gone. The chart's PrometheusRule differs in one: its \
         `TidelockOperatorAbsent` misses each operator that the chart installs by itself. What each does in which world is tested with promtool \
         ([tests/alerts](../../tests/alerts)).\n\n\
         | Alert | Severity | For | What it says |\n|---|---|---|---|"
    )?;
    for alert in alerts {
        let summary = alert
            .summary
            .replace("{{ $labels.", "<")
            .replace(" }}", ">");
        writeln!(
            page,
            "| [{0}](../runbooks/{0}.md) | {1} | {2} | {3} |",
            alert.name,
            alert.severity.as_str(),
            Pace::REAL.duration(alert.holds_for),
            cell(&summary.replace('<', "&lt;").replace('>', "&gt;"))
        )?;
    }
    Ok(page)
}
