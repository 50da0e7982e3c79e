//! One policy in depth.

use tidelock_operator::telemetry::metrics::table::{self as metric, Metric};

use super::{Dashboard, Panel};
use crate::query::{age, of};

/// What a person chose.
const CHOSEN: &str = "namespace=\"$namespace\", policy=\"$policy\"";

pub fn dashboard() -> Dashboard {
    let info = metric::POLICY_INFO.name;
    Dashboard {
        name: "policy",
        title: "Tidelock: one policy",
        description: "One BackupPolicy in depth.",
        variables: vec![
            ("namespace", format!("label_values({info}, namespace)")),
            (
                "policy",
                format!("label_values({info}{{namespace=\"$namespace\"}}, policy)"),
            ),
        ],
        rows: vec![
            ("Now", now()),
            ("Schedule", schedule()),
            ("Backups", backups()),
            ("Trust", trust()),
        ],
    }
}

fn chosen(metric: Metric) -> String {
    of(metric, CHOSEN)
}

/// `metric` as a moment that Grafana understands: in milliseconds.
fn moment(metric: Metric) -> String {
    format!("{} * 1000", chosen(metric))
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat("Age of the last success")
            .unit("s")
            .shows(age(metric::POLICY_LAST_SUCCESS, CHOSEN), "age"),
        Panel::stat("Age of the newest good backup")
            .unit("s")
            .about("How old the state is that a restore would bring back. Empty where no backup can be relied on.")
            .shows(age(metric::POLICY_NEWEST_GOOD, CHOSEN), "age"),
        Panel::stat("Last backup completed")
            .unit("bool_yes_no")
            .shows(chosen(metric::POLICY_LAST_ATTEMPT_SUCCEEDED), "completed"),
        Panel::stat("Failures in a row")
            .alarming()
            .shows(chosen(metric::POLICY_CONSECUTIVE_FAILURES), "failures"),
        Panel::stat("Good backups")
            .about("Completed, not suspicious, and verified where verification is on.")
            .shows(chosen(metric::POLICY_GOOD_BACKUPS), "good"),
        Panel::stat("To be kept")
            .about("Empty where retention keeps all.")
            .shows(chosen(metric::POLICY_KEEP_LAST), "kept"),
        Panel::stat("Never ran")
            .alarming()
            .unit("bool_yes_no")
            .shows(chosen(metric::POLICY_NEVER_RUN), "never ran"),
        Panel::stat("Suspended")
            .unit("bool_yes_no")
            .shows(chosen(metric::POLICY_SUSPENDED), "suspended"),
        Panel::stat("Schedule invalid")
            .alarming()
            .unit("bool_yes_no")
            .shows(chosen(metric::POLICY_SCHEDULE_INVALID), "invalid"),
        Panel::stat("Ready")
            .about("A suspended policy is ready: it does what it was told.")
            .unit("bool_yes_no")
            .shows(chosen(metric::POLICY_READY), "ready"),
        Panel::table("Volume and storage").shows(chosen(metric::POLICY_INFO), "{{pvc}}"),
    ]
}

fn schedule() -> Vec<Panel> {
    vec![
        Panel::stat("Made")
            .unit("dateTimeAsIso")
            .shows(moment(metric::POLICY_CREATED), "made"),
        Panel::stat("Next")
            .unit("dateTimeAsIso")
            .shows(moment(metric::POLICY_NEXT_SCHEDULE), "next"),
        Panel::stat("Last attempt")
            .unit("dateTimeAsIso")
            .shows(moment(metric::POLICY_LAST_ATTEMPT), "last"),
        Panel::stat("Overdue for")
            .unit("s")
            .about("Empty unless a slot has passed without a backup.")
            .shows(age(metric::POLICY_OVERDUE_SINCE, CHOSEN), "overdue"),
        Panel::stat("Suspended for")
            .unit("s")
            .about("Empty unless it is suspended.")
            .shows(age(metric::POLICY_SUSPENDED_SINCE, CHOSEN), "suspended"),
        Panel::stat("Skipped slots").shows(chosen(metric::POLICY_SKIPPED_SLOTS), "slots"),
        Panel::lines("Age of the last success")
            .unit("s")
            .shows(age(metric::POLICY_LAST_SUCCESS, CHOSEN), "age"),
        Panel::lines("Under way for")
            .unit("s")
            .shows(age(metric::POLICY_ACTIVE_SINCE, CHOSEN), "{{state}}"),
    ]
}

fn backups() -> Vec<Panel> {
    vec![
        Panel::lines("Backups by phase").shows(chosen(metric::POLICY_BACKUPS), "{{phase}}"),
        Panel::lines("What they wait for, and why the last one failed")
            .shows(chosen(metric::POLICY_WAITING), "waits: {{reason}}")
            .shows(chosen(metric::POLICY_LAST_FAILURE), "failed: {{reason}}"),
        Panel::lines("Size of the last backup")
            .unit("bytes")
            .shows(chosen(metric::POLICY_LAST_LOGICAL), "files")
            .shows(chosen(metric::POLICY_LAST_STORED), "archive"),
        Panel::lines("Files in the last backup")
            .shows(chosen(metric::POLICY_LAST_FILES), "files")
            .shows(
                chosen(metric::POLICY_LAST_CHANGED_FILES),
                "changed while read",
            ),
        Panel::lines("Duration of the last backup")
            .unit("s")
            .shows(chosen(metric::POLICY_LAST_DURATION), "duration"),
        Panel::lines("All archives")
            .unit("bytes")
            .shows(chosen(metric::POLICY_STORED), "stored"),
    ]
}

fn trust() -> Vec<Panel> {
    vec![
        Panel::stat("Read back when made")
            .unit("bool_yes_no")
            .shows(chosen(metric::POLICY_VERIFIES), "verifies"),
        Panel::stat("Last read back")
            .unit("s")
            .shows(age(metric::POLICY_LAST_VERIFIED, CHOSEN), "ago"),
        Panel::stat("Reading again overdue for")
            .unit("s")
            .about("Empty unless a slot for reading again has passed.")
            .shows(
                age(metric::POLICY_VERIFICATION_OVERDUE_SINCE, CHOSEN),
                "overdue",
            ),
        Panel::stat("Damaged")
            .alarming()
            .shows(chosen(metric::POLICY_DAMAGED_BACKUPS), "damaged"),
        Panel::stat("Last one suspicious")
            .alarming()
            .unit("bool_yes_no")
            .shows(chosen(metric::POLICY_LAST_SUSPICIOUS), "suspicious"),
        Panel::stat("Unknown archives").shows(chosen(metric::POLICY_UNKNOWN_ARCHIVES), "archives"),
        Panel::lines("Good, suspicious and damaged")
            .shows(chosen(metric::POLICY_GOOD_BACKUPS), "good")
            .shows(chosen(metric::POLICY_SUSPICIOUS_BACKUPS), "suspicious")
            .shows(chosen(metric::POLICY_DAMAGED_BACKUPS), "damaged"),
    ]
}
