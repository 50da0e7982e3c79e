//! Plain objects in, series out.

mod failures;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use serde_json::{Value, json};
use tidelock_api::{Backup, BackupPolicy, BackupStorage, Restore};
use tidelock_core::queue::Limits;

use super::collector::{Replica, Writer, write};
use super::scene::{self, MOST_OBJECTS, Objects, Scene};
use super::*;
use crate::context::{Caches, object_key};
use crate::error::Class;

/// 2026-01-10, 12:00: ten hours after the slot of that day.
const NOW: &str = "2026-01-10T12:00:00Z";
const SLOT: &str = "2026-01-10T02:00:00Z";
const NEXT: &str = "2026-01-11T02:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn object(kind: &str, name: &str, created: &str, spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": "tidelock.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name, "namespace": "shop", "uid": name, "creationTimestamp": created,
        },
        "spec": spec,
        "status": status,
    })
}

fn ready(status: &str, reason: &str, since: &str) -> Value {
    json!([{
        "type": "Ready", "status": status, "reason": reason, "message": "",
        "lastTransitionTime": since,
    }])
}

/// The policy `nightly`; `more` is laid over its spec and status.
fn policy(spec: Value, status: Value) -> BackupPolicy {
    let mut base = object(
        "BackupPolicy",
        "nightly",
        "2026-01-01T10:00:07Z",
        json!({"schedule": "0 2 * * *", "target": {"pvcName": "data"}, "retention": {"keepLast": 7}}),
        json!({
            "lastScheduleTime": SLOT,
            "nextScheduledBackup": NEXT,
            "conditions": ready("True", "Scheduled", "2026-01-01T10:00:07Z"),
        }),
    );
    for (part, more) in [("spec", spec), ("status", status)] {
        for (key, value) in more.as_object().unwrap() {
            base[part][key] = value.clone();
        }
    }
    serde_json::from_value(base).unwrap()
}

/// A Backup of the policy `nightly`.
fn backup(name: &str, created: &str, status: Value) -> Backup {
    let mut backup = object(
        "Backup",
        name,
        created,
        json!({"policyRef": "nightly"}),
        status,
    );
    backup["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "tidelock.dev/v1alpha1", "kind": "BackupPolicy", "name": "nightly",
        "uid": "nightly", "controller": true,
    }]);
    serde_json::from_value(backup).unwrap()
}

fn completed(name: &str, day: u32) -> Backup {
    let begun = format!("2026-01-{day:02}T02:00:01Z");
    let ended = format!("2026-01-{day:02}T02:01:31Z");
    let mut conditions = ready("True", "Completed", &ended);
    for (kind, status) in [("Verified", "True"), ("Suspicious", "False")] {
        let mut more = ready(status, "ReadBack", &ended)[0].clone();
        more["type"] = json!(kind);
        conditions.as_array_mut().unwrap().push(more);
    }
    let status = json!({
        "phase": "Completed", "startTime": begun, "completionTime": ended,
        "size": {
            "logicalBytes": 5000, "storedBytes": 1000, "stored": "1000 B", "files": 12,
            "changedFiles": 1,
        },
        "verification": {"time": ended, "level": "Full", "result": "Passed"},
        "folder": {"checkTime": ended, "archives": 3, "unknownArchives": 2},
        "conditions": conditions,
    });
    backup(name, &begun, status)
}

fn failed(name: &str, day: u32, reason: &str) -> Backup {
    let begun = format!("2026-01-{day:02}T02:00:01Z");
    let status = json!({
        "phase": "Failed", "startTime": begun, "completionTime": begun,
        "failure": {"reason": reason, "message": ""},
        "conditions": ready("False", reason, &begun),
    });
    backup(name, &begun, status)
}

fn storage(name: &str, suspend: bool, status: Value) -> Arc<BackupStorage> {
    let storage = json!({
        "apiVersion": "tidelock.dev/v1alpha1", "kind": "BackupStorage",
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {"pvc": {"claimName": "store"}, "suspend": suspend},
        "status": status,
    });
    Arc::new(serde_json::from_value(storage).unwrap())
}

fn scene_of(policy: BackupPolicy, backups: Vec<Backup>) -> Scene {
    let objects = Objects {
        policies: vec![Arc::new(policy)],
        backups: backups.into_iter().map(Arc::new).collect(),
        ..Objects::default()
    };
    scene::observe(&objects, MOST_OBJECTS, at(NOW))
}

#[derive(Debug)]
struct Fixed(Replica, Scene);

impl Collector for Fixed {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        write(&mut Writer(&mut encoder), &self.0, &self.1)
    }
}

fn text(scene: Scene) -> String {
    let replica = Replica {
        watches: "shop".to_owned(),
        leads: true,
        filled: true,
        now: Some(at(NOW)),
        load: load::Load {
            queued: vec![("Restore", 1), ("Backup", 2), ("Verify", 0)],
            running: 3,
            limits: vec![("total", 20), ("node", 5), ("storage", 10)],
        },
        failing: vec![("BackupPolicy", 0), ("Backup", 1), ("Restore", 0)],
    };
    let counters = Counters::default();
    counters.reconciled("Backup", Some(Class::Transient), Duration::from_millis(30));
    counters.requested("update", "backups/status", "200");
    let mut registry = Registry::default();
    counters.register(&mut registry);
    registry.register_collector(Box::new(Fixed(replica, scene)));
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    text
}

/// The value of the only series of `metric`, or of the one that `label` picks.
fn value(text: &str, metric: table::Metric, label: &str) -> Option<f64> {
    let lines = text.lines().filter(|line| {
        let name = line.split(['{', ' ']).next().unwrap();
        name == metric.name && line.contains(label)
    });
    let all: Vec<f64> = lines
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(
        all.len() < 2,
        "{} {label} is not one series:\n{text}",
        metric.name
    );
    all.first().copied()
}

fn world() -> Scene {
    let mut queued = ready("False", "Queued", "2026-01-09T12:00:00Z");
    let mut turn = ready("True", "Queued", "2026-01-09T12:05:00Z")[0].clone();
    turn["type"] = json!("Queued");
    queued.as_array_mut().unwrap().push(turn);
    let queued = json!({"phase": "Pending", "conditions": queued});
    let mut alone = backup("alone", NOW, json!({}));
    alone.metadata.owner_references = None;
    let restore = |name: &str, created: &str, status: Value| {
        let spec = json!({"backupName": "b-1", "targetPVC": "data"});
        let restore = object("Restore", name, created, spec, status);
        Arc::new(serde_json::from_value::<Restore>(restore).unwrap())
    };
    let ended = json!({
        "phase": "Completed", "startTime": "2026-01-10T11:00:00Z",
        "completionTime": "2026-01-10T11:00:10Z", "restoredBytes": 77, "restoredFiles": 3,
    });
    let failure = json!({"reason": "TargetNotEmpty", "message": ""});
    let refused = json!({"phase": "Failed", "failure": failure});
    let verification = json!({"schedule": "0 4 * * 0"});
    let status = json!({
        "lastScheduleTime": SLOT, "skippedSlots": 4,
        "lastVerificationScheduleTime": "2026-01-10T04:00:00Z",
        "lastVerificationTime": "2026-01-04T04:00:00Z",
    });
    // Its schedule was invalid before it was suspended.
    let mut conditions = ready("True", "Suspended", "2026-01-03T00:00:00Z");
    let mut condition = ready("True", "Suspended", "2026-01-05T00:00:00Z")[0].clone();
    condition["type"] = json!("Suspended");
    conditions.as_array_mut().unwrap().push(condition);
    let mut suspended = policy(
        json!({"suspend": true}),
        json!({
            "conditions": conditions,
            "nextScheduledBackup": null,
        }),
    );
    suspended.metadata.name = Some("suspended".to_owned());
    suspended.metadata.uid = Some("suspended".to_owned());
    let objects = Objects {
        policies: vec![
            Arc::new(policy(json!({"verification": verification}), status)),
            Arc::new(suspended),
        ],
        backups: vec![
            Arc::new(completed("b-1", 7)),
            Arc::new(failed("b-2", 8, "StorageFull")),
            Arc::new(failed("b-3", 9, "words of a stranger")),
            Arc::new(backup("b-4", "2026-01-09T12:00:00Z", queued)),
            Arc::new(alone),
        ],
        restores: vec![
            restore("first", "2026-01-10T10:00:00Z", refused),
            restore("second", "2026-01-10T11:00:00Z", ended),
            restore("third", "2026-01-10T11:59:00Z", json!({"phase": "Pending"})),
        ],
        storages: vec![
            storage(
                "offsite",
                false,
                json!({
                    "conditions": ready("False", "StorageDenied", "2026-01-10T09:00:00Z"),
                    "lastCheckTime": "2026-01-10T11:00:00Z",
                }),
            ),
            storage(
                "nearby",
                false,
                json!({
                    "conditions": ready("True", "StorageReady", "2026-01-01T09:00:00Z"),
                    "lastCheckTime": "2026-01-10T11:00:00Z", "backups": 7, "storedBytes": 4096,
                    "unknownArchives": 1, "freeBytes": 1_000_000,
                }),
            ),
            storage(
                "asleep",
                true,
                json!({
                    "conditions": ready("False", "StorageSuspended", "2026-01-10T09:00:00Z"),
                }),
            ),
        ],
    };
    scene::observe(&objects, MOST_OBJECTS, at(NOW))
}

#[test]
fn the_series_of_a_small_world_keep_their_shape() {
    insta::assert_snapshot!(text(world()));
}

#[test]
fn what_the_table_lists_is_what_is_exported() {
    let text = text(world());
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let exported: BTreeSet<&str> = series
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .map(|name| {
            let of_histogram = ["_bucket", "_count", "_sum"];
            let base = of_histogram.iter().find_map(|end| name.strip_suffix(end));
            base.unwrap_or(name)
        })
        .collect();
    let listed: BTreeSet<&str> = table::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(exported, listed);
    for metric in table::ALL {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{}{{", metric.name)));
        for label in metric
            .labels
            .iter()
            .filter(|_| metric.kind != table::Kind::Histogram)
        {
            assert!(
                line.unwrap().contains(&format!("{label}=\"")),
                "{line:?} lacks {label}"
            );
        }
    }
}

#[test]
fn a_slot_without_a_backup_is_overdue_until_one_is_made() {
    let missed = text(scene_of(
        policy(json!({}), json!({})),
        vec![completed("b", 9)],
    ));
    let since = value(&missed, table::POLICY_OVERDUE_SINCE, "");
    assert_eq!(since, Some(at(SLOT).as_second() as f64));
    let made = vec![completed("b", 9), completed("c", 10)];
    let kept = text(scene_of(policy(json!({}), json!({})), made));
    assert_eq!(value(&kept, table::POLICY_OVERDUE_SINCE, ""), None);
}

#[test]
fn a_slot_that_nobody_took_up_is_overdue() {
    let status = json!({"nextScheduledBackup": SLOT, "lastScheduleTime": "2026-01-09T02:00:00Z"});
    let late = text(scene_of(policy(json!({}), status), vec![completed("b", 9)]));
    assert!(value(&late, table::POLICY_OVERDUE_SINCE, "").is_some());
}

#[test]
fn neither_a_new_nor_a_suspended_policy_is_overdue_or_never_ran() {
    // A policy begins with its own making as dealt with, which is no slot.
    for began in ["2026-01-10T11:59:07Z", "2026-01-10T11:59:00Z"] {
        let fresh = policy(json!({}), json!({"lastScheduleTime": began}));
        let fresh = text(scene_of(fresh, Vec::new()));
        assert_eq!(value(&fresh, table::POLICY_OVERDUE_SINCE, ""), None);
        assert_eq!(value(&fresh, table::POLICY_NEVER_RUN, ""), Some(0.0));
    }
    let held = policy(
        json!({"suspend": true}),
        json!({"nextScheduledBackup": null}),
    );
    let held = text(scene_of(held, Vec::new()));
    assert_eq!(value(&held, table::POLICY_OVERDUE_SINCE, ""), None);
    assert_eq!(value(&held, table::POLICY_NEVER_RUN, ""), Some(0.0));
}

#[test]
fn a_policy_whose_slot_passed_without_any_backup_never_ran() {
    let never = text(scene_of(policy(json!({}), json!({})), Vec::new()));
    assert_eq!(value(&never, table::POLICY_NEVER_RUN, ""), Some(1.0));
    let failing = text(scene_of(
        policy(json!({}), json!({})),
        vec![failed("b", 10, "JobLost")],
    ));
    assert_eq!(value(&failing, table::POLICY_NEVER_RUN, ""), Some(1.0));
    let once = text(scene_of(
        policy(json!({}), json!({})),
        vec![completed("b", 10)],
    ));
    assert_eq!(value(&once, table::POLICY_NEVER_RUN, ""), Some(0.0));
}

#[test]
fn a_damaged_backup_is_not_good_and_a_verdict_of_the_past_is_not_the_last_proof() {
    let mut damaged = completed("b", 6);
    let conditions = &mut damaged.status.as_mut().unwrap().conditions;
    conditions[1].status = "False".to_owned();
    let told = text(scene_of(policy(json!({}), json!({})), vec![damaged]));
    assert_eq!(value(&told, table::POLICY_DAMAGED_BACKUPS, ""), Some(1.0));
    assert_eq!(value(&told, table::POLICY_GOOD_BACKUPS, ""), Some(0.0));
    assert_eq!(value(&told, table::POLICY_LAST_VERIFIED, ""), None);
}

#[test]
fn a_verification_slot_is_overdue_when_something_was_stored_and_nothing_read_since() {
    let status = json!({"lastVerificationScheduleTime": "2026-01-10T04:00:00Z"});
    let overdue = |status: Value, backups| {
        let told = text(scene_of(policy(json!({}), status), backups));
        value(&told, table::POLICY_VERIFICATION_OVERDUE_SINCE, "")
    };
    assert!(overdue(status.clone(), vec![completed("b", 9)]).is_some());
    assert_eq!(overdue(status.clone(), Vec::new()), None);
    let mut read = status;
    read["lastVerificationTime"] = json!("2026-01-10T04:00:30Z");
    assert_eq!(overdue(read, vec![completed("b", 9)]), None);
}

#[test]
fn a_policy_that_is_going_has_no_series() {
    let mut going = policy(json!({}), json!({}));
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    let told = text(scene_of(going, vec![completed("b", 9)]));
    assert!(!told.contains("nightly"), "{told}");
}

fn scope(watches: &str) -> Scope {
    Scope {
        watches: watches.to_owned(),
        most_objects: MOST_OBJECTS,
    }
}

#[test]
fn a_replica_without_caches_tells_of_itself_alone() {
    let (leading, health) = (Leading::new(true), Health::default());
    let metrics = Metrics::new(scope("shop"), leading, health, Counters::default());
    let told = metrics.render().unwrap();
    assert_eq!(value(&told, table::CACHES_FILLED, ""), Some(0.0));
    for metric in [table::LEADER, table::BUILD_INFO] {
        assert_eq!(value(&told, metric, "watches=\"shop\""), Some(1.0));
    }
    assert!(!told.contains("namespace="), "{told}");
}

/// A context whose caches hold the policy `nightly` alone, and whose client is never used.
fn context(counters: Counters) -> Arc<Context> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let nowhere = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    let client = kube::Client::try_from(nowhere).unwrap();
    let (policies, mut writer) = reflector::store();
    let nightly = policy(json!({}), json!({}));
    for event in [Event::Init, Event::InitApply(nightly), Event::InitDone] {
        writer.apply_watcher_event(&event);
    }
    let caches = Caches {
        policies,
        ..Caches::empty()
    };
    let limits = Limits {
        total: 20,
        per_node: 5,
        per_storage: 10,
    };
    let (image, instance) = ("image".to_owned(), "one".to_owned());
    Arc::new(Context::new(
        client, caches, image, instance, limits, counters,
    ))
}

#[tokio::test]
async fn only_the_leader_with_filled_caches_tells_of_objects() {
    let (leading, health) = (Leading::new(true), Health::default());
    let counters = Counters::default();
    let metrics = Metrics::new(scope(""), leading.clone(), health.clone(), counters.clone());
    metrics.tell_of(context(counters));
    let tells = || metrics.render().unwrap().contains("nightly");
    assert!(!tells(), "its caches are not filled");
    health.set_filled();
    assert!(tells());
    leading.set(false);
    assert!(!tells(), "it does not lead");
    let told = metrics.render().unwrap();
    assert_eq!(value(&told, table::LEADER, ""), Some(0.0));
    leading.set(true);
    assert!(tells());
}

#[tokio::test]
async fn an_object_fails_again_and_again_until_it_succeeds_or_is_gone() {
    let context = context(Counters::default());
    let nightly = object_key(&policy(json!({}), json!({})));
    // One that is gone, and one whose name another has now.
    let ghosts = ["BackupPolicy/shop/gone/1", "BackupPolicy/shop/nightly/old"];
    for _ in 0..3 {
        context.count_failure(&nightly);
        for ghost in ghosts {
            context.count_failure(ghost);
        }
    }
    context.count_failure("Backup/shop/once/1");
    assert_eq!(context.failing()[0], ("BackupPolicy", 1));
    assert_eq!(context.failing()[1], ("Backup", 0));
    for ghost in ghosts {
        assert_eq!(context.failures(ghost), 0, "{ghost} is remembered");
    }
    context.clear_failures(&nightly);
    assert_eq!(context.failing()[0], ("BackupPolicy", 0));
}
