//! What is told of runs that failed, and of what can be relied on nevertheless.

use super::*;

#[test]
fn failures_are_counted_up_to_the_last_success() {
    let all = vec![
        failed("a", 5, "JobLost"),
        completed("b", 6),
        failed("c", 7, "JobLost"),
        failed("told-to-end", 7, "Cancelled"),
        failed("d", 8, "StorageFull"),
    ];
    let told = text(scene_of(policy(json!({}), json!({})), all));
    assert_eq!(
        value(&told, table::POLICY_CONSECUTIVE_FAILURES, ""),
        Some(2.0)
    );
    assert_eq!(
        value(&told, table::POLICY_LAST_FAILURE, "StorageFull"),
        Some(1.0)
    );
    assert_eq!(
        value(&told, table::POLICY_LAST_ATTEMPT_SUCCEEDED, ""),
        Some(0.0)
    );
    assert_eq!(value(&told, table::POLICY_GOOD_BACKUPS, ""), Some(1.0));
}

/// A failed Backup that its policy cancelled for the next slot's sake.
fn replaced(name: &str, day: u32) -> Backup {
    let mut backup = failed(name, day, "Cancelled");
    let slot = format!("2026-01-{:02}T02:00:00Z", day + 1);
    let annotation = (tidelock_api::REPLACED_ANNOTATION.to_owned(), slot);
    backup.metadata.annotations = Some([annotation].into());
    backup
}

#[test]
fn three_backups_that_were_replaced_in_a_row_are_three_failures() {
    let all = vec![
        completed("a", 5),
        replaced("b", 6),
        replaced("c", 7),
        replaced("d", 8),
    ];
    let told = text(scene_of(policy(json!({}), json!({})), all));
    let failures = value(&told, table::POLICY_CONSECUTIVE_FAILURES, "");
    assert_eq!(failures, Some(3.0));
    let reason = value(&told, table::POLICY_LAST_FAILURE, "reason=\"Replaced\"");
    assert_eq!(reason, Some(1.0));
}

#[test]
fn what_a_person_cancelled_is_no_failure_in_a_row() {
    let all = vec![
        completed("a", 5),
        failed("b", 6, "Cancelled"),
        failed("c", 7, "Cancelled"),
        failed("d", 8, "Cancelled"),
    ];
    let told = text(scene_of(policy(json!({}), json!({})), all));
    let failures = value(&told, table::POLICY_CONSECUTIVE_FAILURES, "");
    assert_eq!(failures, Some(0.0));
    let reason = value(&told, table::POLICY_LAST_FAILURE, "reason=\"Cancelled\"");
    assert_eq!(reason, Some(1.0));
}

#[test]
fn the_newest_good_backup_is_told_by_when_it_was_taken_and_none_by_nothing() {
    let newest = |backups| {
        let told = text(scene_of(policy(json!({}), json!({})), backups));
        value(&told, table::POLICY_NEWEST_GOOD, "")
    };
    let mut damaged = completed("c", 8);
    damaged.status.as_mut().unwrap().conditions[1].status = "False".to_owned();
    let all = vec![
        completed("a", 5),
        completed("b", 7),
        damaged.clone(),
        failed("d", 9, "JobLost"),
    ];
    let taken = at("2026-01-07T02:00:01Z").as_second() as f64;
    assert_eq!(newest(all), Some(taken));
    assert_eq!(newest(vec![damaged]), None);
}

/// A failed Restore; `spec` is laid over what it asks for.
fn failed_restore(spec: Value, reason: &str) -> Scene {
    let mut whole = json!({"backupName": "b-1", "targetPVC": "data"});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let status = json!({"phase": "Failed", "failure": {"reason": reason, "message": ""}});
    let restore = object("Restore", "back", SLOT, whole, status);
    let objects = Objects {
        restores: vec![Arc::new(serde_json::from_value(restore).unwrap())],
        ..Objects::default()
    };
    scene::observe(&objects, MOST_OBJECTS, at(NOW))
}

#[test]
fn a_failed_restore_tells_its_reason_in_words_of_ours_and_a_dry_run_tells_none() {
    let failed = |spec, reason| text(failed_restore(spec, reason));
    for (given, told) in [
        ("TargetFull", "reason=\"TargetFull\""),
        ("Cancelled", "reason=\"Cancelled\""),
        ("words of a stranger", "reason=\"Other\""),
    ] {
        let series = failed(json!({}), given);
        assert_eq!(value(&series, table::RESTORE_FAILURE, told), Some(1.0));
    }
    let tried = failed(json!({"dryRun": true}), "TargetFull");
    assert_eq!(value(&tried, table::RESTORE_FAILURE, ""), None);
    let phase = value(&tried, table::RESTORE_PHASE, "phase=\"Failed\"");
    assert_eq!(phase, Some(1.0));
}
