//! The operator itself.

use tidelock_operator::telemetry::metrics::table as metric;

use super::{Alert, MINUTE, Severity};
use crate::query::of;

/// The name of the one alert whose expression depends on what is installed.
pub const ABSENT: &str = "TidelockOperatorAbsent";

/// Holds where no operator of one of the namespaces `watched` is scraped; an empty one is all
/// namespaces. The chart's template writes the same over the plain `absent(…)`, as it knows them.
pub fn absent_in(watched: &[&str]) -> String {
    let each = watched.iter().map(|namespace| {
        format!(
            "absent({}{{watches=\"{namespace}\"}})",
            metric::BUILD_INFO.name
        )
    });
    each.collect::<Vec<_>>().join(" or ")
}

pub fn alerts() -> Vec<Alert> {
    vec![
        Alert {
            name: ABSENT,
            severity: Severity::Critical,
            holds_for: 5 * MINUTE,
            expr: |_| format!("absent({})", metric::BUILD_INFO.name),
            summary: "No Tidelock operator tells its metrics",
            description: "No backup or restore is started, and no other alert of Tidelock can fire: in the namespace \"{{ $labels.watches }}\", or in all where that is empty. Look at: kubectl --namespace tidelock-system get pods; if it runs, look at the scrape target.",
        },
        Alert {
            name: "TidelockNoLeader",
            severity: Severity::Critical,
            holds_for: 5 * MINUTE,
            expr: |_| {
                let (leads, filled) = (metric::LEADER.name, metric::CACHES_FILLED.name);
                format!("max by (watches) ({leads} * {filled}) == 0")
            },
            summary: "No Tidelock operator leads and has its caches filled",
            description: "Operators run, but none acts in the namespace \"{{ $labels.watches }}\", or in all where that is empty: no backup or restore is started there, and no alert about a policy can fire. Look at their logs: kubectl --namespace tidelock-system logs deployment/tidelock --all-pods",
        },
        Alert {
            name: "TidelockReconcileErrors",
            severity: Severity::Warning,
            holds_for: 15 * MINUTE,
            expr: |_| format!("{} > 0", of(metric::FAILING_OBJECTS, "")),
            summary: "The operator fails again and again on objects of kind {{ $labels.kind }}",
            description: "What keeps failing is told as an Event on the object: kubectl get events --all-namespaces --field-selector=reason=ReconcileFailed",
        },
        Alert {
            name: "TidelockClockSkew",
            severity: Severity::Warning,
            holds_for: 5 * MINUTE,
            expr: |_| {
                let clock = metric::CLOCK.name;
                format!("max by (instance) (abs(timestamp({clock}) - {clock})) > 60")
            },
            summary: "The clocks of Tidelock's operator and of Prometheus differ by more than a minute",
            description: "Slots come at the wrong time, and alerts that compare times cannot be relied on. Make sure that the clocks of all nodes are synchronised. Operator: {{ $labels.instance }}",
        },
        Alert {
            name: "TidelockSeriesLeftOut",
            severity: Severity::Warning,
            holds_for: 5 * MINUTE,
            expr: |_| format!("{} > 0", of(metric::LEFT_OUT, "")),
            summary: "There are more objects of kind {{ $labels.kind }} than the operator exports metrics for",
            description: "The youngest have no series, and no alert about them can fire. Delete what is not needed, raise --max-metrics-objects, or give single namespaces an operator of their own.",
        },
    ]
}
