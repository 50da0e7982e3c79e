use serde_json::{Value, json};
use tidelock_api::Restore;

use super::*;
use crate::testing::{bodies, context};

fn restore() -> Restore {
    serde_json::from_value(json!({
        "apiVersion": "tidelock.dev/v1alpha1", "kind": "Restore",
        "metadata": {
            "name": "back", "namespace": "shop", "uid": "r-1", "resourceVersion": "7",
            "creationTimestamp": "2026-11-23T13:00:00Z", "finalizers": ["tidelock.dev/restore"],
        },
        "spec": {
            "backupName": "now", "targetPVC": "data", "overwrite": "Replace", "cancel": true,
        },
        "status": {
            "phase": "Running", "jobName": "back-restore", "startTime": "2026-11-23T13:00:00Z",
        },
    }))
    .unwrap()
}

fn job() -> Job {
    serde_json::from_value(json!({
        "metadata": {
            "name": "back-restore", "namespace": "shop", "uid": "j-1",
            "creationTimestamp": "2026-11-23T13:00:00Z",
            "ownerReferences": [{
                "apiVersion": "tidelock.dev/v1alpha1", "kind": "Restore", "name": "back",
                "uid": "r-1", "controller": true,
            }],
        },
    }))
    .unwrap()
}

/// A pod of the restore that no node has.
fn unplaced() -> k8s_openapi::api::core::v1::Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "back-restore-2", "namespace": "shop", "uid": "p-2",
            "creationTimestamp": "2026-11-23T13:05:00Z",
            "labels": {"tidelock.dev/run-uid": "r-1", "tidelock.dev/run-kind": "Restore"},
        },
        "spec": {"containers": []},
        "status": {"phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/2 nodes are available",
        }]},
    }))
    .unwrap()
}

/// The status that a step writes.
async fn written(restore: &Restore, jobs: Vec<Job>) -> Value {
    let live = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "back", "namespace": "shop", "resourceVersion": "7"},
    });
    let path = "/apis/tidelock.dev/v1alpha1/namespaces/shop/restores/back";
    let (ctx, asked) = context(vec![unplaced()], jobs, move |request| {
        request
            .starts_with(&format!("GET {path}"))
            .then(|| live.clone())
    });
    let now = "2026-11-23T13:10:00Z".parse().unwrap();
    step(restore, &ctx, now).await.unwrap();
    let puts = bodies(&asked, &format!("PUT {path}/status"));
    puts.last().expect("no status was written")["status"].clone()
}

#[tokio::test]
async fn a_restore_whose_pod_was_drained_is_taken_back_though_its_replacement_has_no_node() {
    let status = written(&restore(), vec![job()]).await;
    assert_eq!(status["phase"], "Running", "{status:#}");
    assert_eq!(status["undoJobName"], "back-restore-undo", "{status:#}");
    assert!(status["endingSince"].is_string(), "{status:#}");
}

#[tokio::test]
async fn a_restore_whose_job_was_never_made_fails_at_once() {
    let mut waiting = restore();
    waiting.status = None;
    let status = written(&waiting, Vec::new()).await;
    assert_eq!(status["phase"], "Failed", "{status:#}");
    assert!(status["undoJobName"].is_null(), "{status:#}");
}
