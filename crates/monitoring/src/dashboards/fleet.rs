//! All policies: who is unprotected or late, what it takes, and how the operator fares.

use tidelock_operator::telemetry::metrics::table as metric;

use super::{Dashboard, Panel};
use crate::query::{age, by, object, of};

const EACH: &str = "{{namespace}}/{{policy}}";

pub fn dashboard() -> Dashboard {
    Dashboard {
        name: "fleet",
        title: "Tidelock: all policies",
        description: "Who is unprotected or late, what backups take, and how the operator fares.",
        variables: Vec::new(),
        rows: vec![
            ("At a glance", glance()),
            ("Who needs a look", worries()),
            ("Sizes and durations", sizes()),
            ("Restores", restores()),
            ("Queue and operator", operator()),
        ],
    }
}

/// How many objects `expr` holds for; 0 where for none.
fn how_many(expr: &str) -> String {
    format!("count({expr}) or vector(0)")
}

fn glance() -> Vec<Panel> {
    let newest = |state: &str| object(metric::POLICY_ACTIVE_SINCE, &format!("state=\"{state}\""));
    vec![
        Panel::stat("Policies").shows(how_many(&object(metric::POLICY_INFO, "")), "policies"),
        Panel::stat("Never ran").alarming().shows(
            how_many(&format!("{} == 1", of(metric::POLICY_NEVER_RUN, ""))),
            "policies",
        ),
        Panel::stat("Overdue")
            .alarming()
            .shows(how_many(&of(metric::POLICY_OVERDUE_SINCE, "")), "policies"),
        Panel::stat("Last backup failed").alarming().shows(
            how_many(&format!(
                "{} == 0",
                of(metric::POLICY_LAST_ATTEMPT_SUCCEEDED, "")
            )),
            "policies",
        ),
        Panel::stat("No good backup").alarming().shows(
            how_many(&format!("{} == 0", of(metric::POLICY_GOOD_BACKUPS, ""))),
            "policies",
        ),
        Panel::stat("Damaged backups").alarming().shows(
            format!(
                "sum({}) or vector(0)",
                of(metric::POLICY_DAMAGED_BACKUPS, "")
            ),
            "backups",
        ),
        Panel::stat("Suspicious").alarming().shows(
            how_many(&format!("{} == 1", of(metric::POLICY_LAST_SUSPICIOUS, ""))),
            "policies",
        ),
        Panel::stat("Suspended").shows(
            how_many(&format!("{} == 1", of(metric::POLICY_SUSPENDED, ""))),
            "policies",
        ),
        Panel::stat("Schedule invalid").alarming().shows(
            how_many(&format!("{} == 1", of(metric::POLICY_SCHEDULE_INVALID, ""))),
            "policies",
        ),
        Panel::stat("Not ready")
            .about("A suspended policy is ready: it does what it was told.")
            .shows(
                how_many(&format!("{} == 0", of(metric::POLICY_READY, ""))),
                "policies",
            ),
        Panel::stat("Running now").shows(how_many(&newest("Running")), "policies"),
        Panel::stat("Stored").unit("bytes").shows(
            format!("sum({}) or vector(0)", of(metric::POLICY_STORED, "")),
            "bytes",
        ),
    ]
}

fn worries() -> Vec<Panel> {
    let never = of(metric::POLICY_NEVER_RUN, "");
    let good = of(metric::POLICY_GOOD_BACKUPS, "");
    vec![
        Panel::table("Unprotected: never ran")
            .about("A backup was due and none has ever completed: nothing protects these volumes.")
            .shows(format!("{never} == 1"), EACH),
        Panel::table("Unprotected: no good backup")
            .about("Nothing that was stored can be relied on: it failed, is damaged or suspicious, was deleted, or was never made.")
            .shows(format!("{good} == 0"), EACH),
        Panel::table("Suspended for")
            .unit("s")
            .about("They are ready, as they do what they were told, and make no backups.")
            .shows(
                format!("sort_desc({})", age(metric::POLICY_SUSPENDED_SINCE, "")),
                EACH,
            ),
        Panel::table("Not ready").shows(format!("{} == 0", of(metric::POLICY_READY, "")), EACH),
        Panel::table("Storages that cannot be used, for")
            .unit("s")
            .about("A Job looked at them and could not write, read, list and remove an object.")
            .shows(
                format!("sort_desc({})", age(metric::STORAGE_UNUSABLE_SINCE, "")),
                "{{namespace}}/{{storage}}",
            ),
        Panel::table("Age of the newest good backup").unit("s").shows(
            format!("sort_desc({})", age(metric::POLICY_NEWEST_GOOD, "")),
            EACH,
        ),
        Panel::table("Age of the last success").unit("s").shows(
            format!("sort_desc({})", age(metric::POLICY_LAST_SUCCESS, "")),
            EACH,
        ),
        Panel::table("Overdue for").unit("s").shows(
            format!("sort_desc({})", age(metric::POLICY_OVERDUE_SINCE, "")),
            EACH,
        ),
        Panel::table("Failures in a row").shows(
            format!(
                "sort_desc({} > 0)",
                of(metric::POLICY_CONSECUTIVE_FAILURES, "")
            ),
            EACH,
        ),
        Panel::table("Why the last one failed").shows(
            of(metric::POLICY_LAST_FAILURE, ""),
            "{{namespace}}/{{policy}}: {{reason}}",
        ),
        Panel::table("What backups wait for").shows(
            of(metric::POLICY_WAITING, ""),
            "{{namespace}}/{{policy}}: {{reason}}",
        ),
        Panel::table("Age of the last reading back")
            .unit("s")
            .shows(
                format!("sort_desc({})", age(metric::POLICY_LAST_VERIFIED, "")),
                EACH,
            ),
        Panel::lines("Backups by phase").shows(
            format!("sum by (phase) ({})", of(metric::POLICY_BACKUPS, "")),
            "{{phase}}",
        ),
        Panel::lines("Backups without a policy").shows(
            format!("sum by (phase) ({})", of(metric::UNOWNED_BACKUPS, "")),
            "{{phase}}",
        ),
        Panel::lines("Skipped slots in an hour").shows(
            format!(
                "sum(max by (namespace, policy) (increase({}[1h])))",
                metric::POLICY_SKIPPED_SLOTS.name
            ),
            "slots",
        ),
        Panel::lines("Archives that no Backup names").shows(
            format!("sum({})", object(metric::POLICY_UNKNOWN_ARCHIVES, "")),
            "archives",
        ),
    ]
}

fn sizes() -> Vec<Panel> {
    let top = |query: String| format!("topk(10, {query})");
    vec![
        Panel::lines("Largest in storage")
            .unit("bytes")
            .shows(top(of(metric::POLICY_STORED, "")), EACH),
        Panel::lines("Largest volumes")
            .unit("bytes")
            .shows(top(of(metric::POLICY_LAST_LOGICAL, "")), EACH),
        Panel::lines("Longest last backups")
            .unit("s")
            .shows(top(of(metric::POLICY_LAST_DURATION, "")), EACH),
        Panel::lines("Most files").shows(top(of(metric::POLICY_LAST_FILES, "")), EACH),
    ]
}

fn restores() -> Vec<Panel> {
    let each = "{{namespace}}/{{restore}}";
    vec![
        Panel::lines("Restores by phase").shows(
            format!("sum by (phase) ({})", of(metric::RESTORE_PHASE, "")),
            "{{phase}}",
        ),
        Panel::table("Why they failed").shows(
            of(metric::RESTORE_FAILURE, ""),
            "{{namespace}}/{{restore}}: {{reason}}",
        ),
        Panel::table("Duration")
            .unit("s")
            .shows(of(metric::RESTORE_DURATION, ""), each),
        Panel::table("Written")
            .unit("bytes")
            .shows(of(metric::RESTORE_WRITTEN, ""), each),
        Panel::table("Under way for")
            .unit("s")
            .shows(age(metric::RESTORE_ACTIVE_SINCE, ""), each),
    ]
}

fn operator() -> Vec<Panel> {
    let rate = |name: &str| format!("rate({name}[5m])");
    let durations = format!("{}_bucket", metric::RECONCILE_DURATION.name);
    vec![
        Panel::lines("Movers")
            .shows(format!("max({})", metric::RUNNING_MOVERS.name), "running")
            .shows(of(metric::QUEUED_MOVERS, ""), "queued: {{kind}}")
            .shows(
                by(metric::MOVER_LIMIT, &["scope"], "scope=\"total\""),
                "limit",
            ),
        Panel::lines("Reconciles").unit("ops").shows(
            format!("sum by (kind) ({})", rate(metric::RECONCILES.name)),
            "{{kind}}",
        ),
        Panel::lines("Errors").unit("ops").shows(
            format!(
                "sum by (kind, class) ({}) or vector(0)",
                rate(metric::RECONCILE_ERRORS.name)
            ),
            "{{kind}} {{class}}",
        ),
        Panel::lines("Duration of 99 % of reconciles")
            .unit("s")
            .shows(
                format!(
                    "histogram_quantile(0.99, sum by (kind, le) ({}))",
                    rate(&durations)
                ),
                "{{kind}}",
            ),
        Panel::lines("Requests to the API server")
            .unit("reqps")
            .shows(
                format!(
                    "sum by (verb, resource) ({})",
                    rate(metric::API_REQUESTS.name)
                ),
                "{{verb}} {{resource}}",
            ),
        Panel::lines("Requests by answer").unit("reqps").shows(
            format!("sum by (code) ({})", rate(metric::API_REQUESTS.name)),
            "{{code}}",
        ),
        Panel::table("Replicas").shows(
            format!(
                "{} + on (instance) group_left (version) 0 * {}",
                metric::LEADER.name,
                metric::BUILD_INFO.name
            ),
            "{{instance}} {{version}}",
        ),
        Panel::lines("Objects that fail again and again, or have no series")
            .shows(of(metric::FAILING_OBJECTS, ""), "failing: {{kind}}")
            .shows(of(metric::LEFT_OUT, ""), "left out: {{kind}}"),
        Panel::lines("Replicas at work")
            .shows(format!("sum({})", metric::LEADER.name), "leaders")
            .shows(
                format!("sum({})", metric::CACHES_FILLED.name),
                "with filled caches",
            )
            .shows(
                format!("max(abs(timestamp({0}) - {0}))", metric::CLOCK.name),
                "largest difference of clocks, seconds",
            ),
    ]
}
