//! Parts of queries.

use tidelock_operator::telemetry::metrics::table::Metric;

/// `metric` of each object, whichever replica tells it; `matchers` as in `state="Running"`.
pub fn of(metric: Metric, matchers: &str) -> String {
    let braces = match matchers {
        "" => String::new(),
        some => format!("{{{some}}}"),
    };
    let by = metric.labels.join(", ");
    format!("max by ({by}) ({}{braces})", metric.name)
}

/// As [`of`], by the labels of the object alone.
pub fn object(metric: Metric, matchers: &str) -> String {
    by(
        metric,
        &metric.labels[..metric.labels.len().min(2)],
        matchers,
    )
}

/// As [`of`], by these labels alone.
pub fn by(metric: Metric, labels: &[&str], matchers: &str) -> String {
    let only = Metric {
        labels: &[],
        ..metric
    };
    let by = labels.join(", ");
    of(only, matchers).replacen("by ()", &format!("by ({by})"), 1)
}

/// How long ago the moment in `metric` is, in seconds.
pub fn age(metric: Metric, matchers: &str) -> String {
    format!("time() - {}", of(metric, matchers))
}

/// A regular expression that matches one of `words`.
pub fn any(words: &[&str]) -> String {
    words.join("|")
}

#[cfg(test)]
mod tests {
    use tidelock_operator::telemetry::metrics::table;

    use super::*;

    #[test]
    fn replicas_do_not_show() {
        assert_eq!(
            of(table::POLICY_BACKUPS, "phase=\"Failed\""),
            "max by (namespace, policy, phase) (tidelock_policy_backups{phase=\"Failed\"})"
        );
        assert_eq!(
            object(table::POLICY_BACKUPS, ""),
            "max by (namespace, policy) (tidelock_policy_backups)"
        );
    }
}
