//! Restores.

use tidelock_operator::telemetry::metrics::table as metric;

use super::{Alert, DAY, HOUR, MINUTE, Severity};
use crate::query::{age, of};

pub fn alerts() -> Vec<Alert> {
    vec![
        Alert {
            name: "TidelockRestoreFailed",
            severity: Severity::Critical,
            holds_for: 0,
            expr: |pace| {
                let failed = of(metric::RESTORE_FAILURE, "reason!=\"Cancelled\"");
                let ended = age(metric::RESTORE_ENDED, "");
                let superseded = of(metric::RESTORE_SUPERSEDED, "");
                let day = pace.seconds(DAY);
                let on = "on (namespace, restore)";
                format!("{failed} == 1 and {on} {ended} < {day} unless {on} {superseded} == 1")
            },
            summary: "Restore {{ $labels.namespace }}/{{ $labels.restore }} failed: {{ $labels.reason }}",
            description: "Somebody waits for this data. What happened, what became of the target, and what to do: kubectl --namespace {{ $labels.namespace }} describe restore {{ $labels.restore }}. This clears after a day, when the Restore is deleted, or when a later one into the same claim completes.",
        },
        Alert {
            name: "TidelockRestoreStuck",
            severity: Severity::Critical,
            holds_for: 0,
            expr: |pace| {
                let in_state = |states: &str| {
                    age(
                        metric::RESTORE_ACTIVE_SINCE,
                        &format!("state=~\"{states}\""),
                    )
                };
                let (start, queued) = (in_state("Pending|Starting"), in_state("Queued"));
                let (end, running) = (in_state("Stopping|Deleting"), in_state("Running"));
                let (a, b) = (pace.seconds(15 * MINUTE), pace.seconds(HOUR));
                let (c, d) = (pace.seconds(2 * HOUR + 15 * MINUTE), pace.seconds(DAY));
                format!("{start} > {a} or {queued} > {b} or {end} > {c} or {running} > {d}")
            },
            summary: "Restore {{ $labels.namespace }}/{{ $labels.restore }} is stuck ({{ $labels.state }})",
            description: "It waits for something that does not come, or runs for more than a day. Its Ready condition says for what: kubectl --namespace {{ $labels.namespace }} describe restore {{ $labels.restore }}",
        },
    ]
}
