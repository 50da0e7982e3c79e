use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

use super::*;
use crate::testing::{Asked, bodies, context};

const RESTORE: &str = "/apis/tidelock.dev/v1alpha1/namespaces/shop/restores/back";
const JOBS: &str = "POST /apis/batch/v1/namespaces/shop/jobs";
const EVENTS: &str = "POST /api/v1/namespaces/shop/events";

fn failed(status: &Value) -> Restore {
    let mut all = json!({
        "phase": "Failed", "jobName": "back-restore", "undoJobName": "back-restore-undo",
        "endingSince": "2026-11-23T12:00:00Z",
    });
    for (field, value) in status.as_object().unwrap() {
        all[field] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "tidelock.dev/v1alpha1", "kind": "Restore",
        "metadata": {
            "name": "back", "namespace": "shop", "uid": "r-1", "resourceVersion": "7",
            "creationTimestamp": "2026-11-23T11:00:00Z",
            "deletionTimestamp": "2026-11-23T13:00:00Z",
            "finalizers": [RESTORE_FINALIZER],
            "annotations": {PUT_BACK_ANNOTATION: "true"},
        },
        "spec": {"backupName": "now", "targetPVC": "data", "overwrite": "Replace"},
        "status": all,
    }))
    .unwrap()
}

/// The undo Job of a Restore that leaves, with a condition of that type.
fn undo_job(condition: &str) -> Job {
    serde_json::from_value(json!({
        "metadata": {
            "name": "back-restore-undo-last", "namespace": "shop", "uid": "j-2",
            "ownerReferences": [{
                "apiVersion": "tidelock.dev/v1alpha1", "kind": "Restore", "name": "back",
                "uid": "r-1", "controller": true,
            }],
        },
        "status": {"conditions": [{"type": condition, "status": "True"}]},
    }))
    .unwrap()
}

async fn left(restore: &Restore, jobs: Vec<Job>, has_target: bool, now: &str) -> Asked {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "shop"},
    });
    let patched = serde_json::to_value(restore).unwrap();
    let mut as_read = patched.clone();
    as_read["apiVersion"] = json!("meta.k8s.io/v1");
    as_read["kind"] = json!("PartialObjectMetadata");
    let is_there = restore.metadata.resource_version.as_deref() != Some("gone");
    let (ctx, asked) = context(Vec::new(), jobs, move |request| {
        if request.starts_with("GET /api/v1/namespaces/shop/persistentvolumeclaims/data") {
            has_target.then(|| claim.clone())
        } else if request.starts_with(&format!("GET {RESTORE}")) {
            is_there.then(|| as_read.clone())
        } else if request.starts_with("GET /api/v1/namespaces/shop/pods") {
            Some(json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []}))
        } else if request.starts_with("GET /api/v1/namespaces/shop") {
            Some(json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": "shop"},
            }))
        } else {
            let is_patch = request.starts_with(&format!("PATCH {RESTORE}"));
            is_patch.then(|| patched.clone())
        }
    });
    leave(restore, &ctx, true, now.parse().unwrap())
        .await
        .unwrap();
    asked
}

fn has_gone(asked: &Asked) -> bool {
    let patches = bodies(asked, &format!("PATCH {RESTORE}"));
    patches
        .iter()
        .any(|patch| patch["metadata"]["finalizers"] == json!([]))
}

fn reasons_told(asked: &Asked) -> Vec<String> {
    let events = bodies(asked, EVENTS);
    let reasons = events.iter().map(|event| event["reason"].as_str());
    reasons.flatten().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_failed_restore_whose_target_was_not_put_back_goes_only_when_it_is() {
    let pending = failed(&json!({"undoPending": true}));
    let asked = left(&pending, Vec::new(), true, "2026-11-23T13:00:01Z").await;
    let made = bodies(&asked, JOBS);
    assert_eq!(made.len(), 1, "{asked:?}");
    assert_eq!(made[0]["metadata"]["name"], "back-restore-undo-last");
    assert!(!has_gone(&asked), "{asked:?}");

    let jobs = vec![undo_job("Complete")];
    let asked = left(&pending, jobs, true, "2026-11-23T13:01:00Z").await;
    assert!(has_gone(&asked), "{asked:?}");
    assert_eq!(reasons_told(&asked), [reasons::TARGET_PUT_BACK]);
}

#[tokio::test]
async fn a_target_that_cannot_be_put_back_is_told_with_what_to_do_and_holds_nothing_up() {
    let pending = failed(&json!({"undoPending": true}));
    for (jobs, has_target, now) in [
        (Vec::new(), false, "2026-11-23T13:00:01Z"),
        (vec![undo_job("Failed")], true, "2026-11-23T13:01:00Z"),
        (Vec::new(), true, "2026-11-23T18:00:00Z"),
    ] {
        let asked = left(&pending, jobs, has_target, now).await;
        assert!(has_gone(&asked), "{asked:?}");
        let events = bodies(&asked, EVENTS);
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0]["reason"], reasons::TARGET_LEFT);
        let note = events[0]["message"].as_str().unwrap();
        assert!(note.contains(".tidelock-replaced-r-1"), "{note}");
    }
}

#[tokio::test]
async fn what_a_cache_tells_of_a_restore_that_is_gone_makes_no_job() {
    let mut gone = failed(&json!({"undoPending": true}));
    gone.metadata.resource_version = Some("gone".to_owned());
    let asked = left(&gone, Vec::new(), true, "2026-11-23T13:00:01Z").await;
    assert!(bodies(&asked, JOBS).is_empty(), "{asked:?}");
}

#[tokio::test]
async fn a_target_is_left_as_it_is_unless_a_person_says_that_it_is_to_be_put_back() {
    for told in [None, Some("false"), Some("")] {
        let mut pending = failed(&json!({"undoPending": true}));
        let annotations = pending.annotations_mut();
        annotations.remove(PUT_BACK_ANNOTATION);
        annotations.extend(told.map(|told| (PUT_BACK_ANNOTATION.to_owned(), told.to_owned())));
        let asked = left(&pending, Vec::new(), true, "2026-11-23T13:00:01Z").await;
        assert!(bodies(&asked, JOBS).is_empty(), "{asked:?}");
        assert!(has_gone(&asked), "{asked:?}");
        assert_eq!(reasons_told(&asked), [reasons::TARGET_LEFT]);
    }
}

#[tokio::test]
async fn nothing_is_taken_back_from_a_target_that_is_as_it_should_be() {
    let again = "2026-11-23T13:00:00Z";
    for status in [
        json!({}),
        json!({"phase": "Completed"}),
        // It failed because it was deleted, and the target was tried to be put back then.
        json!({"undoPending": true, "endingSince": again}),
    ] {
        let asked = left(&failed(&status), Vec::new(), true, "2026-11-23T13:00:01Z").await;
        assert!(has_gone(&asked), "{asked:?}");
        assert!(bodies(&asked, JOBS).is_empty(), "{asked:?}");
    }
}
