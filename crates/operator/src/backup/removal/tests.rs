use serde_json::{Value, json};

use super::*;
use crate::testing::{Asked, bodies, context};

const BACKUP: &str = "PATCH /apis/tidelock.dev/v1alpha1/namespaces/shop/backups/now";

fn deleted() -> Backup {
    serde_json::from_value(json!({
        "apiVersion": "tidelock.dev/v1alpha1", "kind": "Backup",
        "metadata": {
            "name": "now", "namespace": "shop", "uid": "u-1", "resourceVersion": "7",
            "creationTimestamp": "2026-11-23T12:00:00Z",
            "deletionTimestamp": "2026-11-23T13:00:00Z",
            "finalizers": [DATA_FINALIZER],
        },
        "spec": {"target": {"pvcName": "data"}},
        "status": {
            "phase": "Running", "jobName": "now-backup", "pvcName": "data",
            "storagePvcName": "backup-storage", "backupLocation": "shop/data/now.tar.gz",
            "conditions": [{
                "type": "Ready", "status": "False", "reason": reasons::DELETING, "message": "",
                "lastTransitionTime": "2026-11-23T13:00:00Z",
            }],
        },
    }))
    .unwrap()
}

/// Looks at a deleted Backup whose mover's node is silent, in a namespace with this metadata.
async fn looked_at(namespace: Value, now: &str) -> Asked {
    let pod = serde_json::from_value(json!({
        "metadata": {
            "name": "now-backup-x", "namespace": "shop", "uid": "p-1",
            "labels": {"tidelock.dev/run-uid": "u-1", "tidelock.dev/run-kind": "Backup"},
        },
        "spec": {"nodeName": "node-2", "containers": []},
        "status": {"phase": "Running"},
    }))
    .unwrap();
    let (ctx, asked) = context(vec![pod], Vec::new(), move |request| {
        if request.starts_with(BACKUP) {
            return serde_json::to_value(deleted()).ok();
        }
        let whole = request.strip_prefix("GET /api/v1/namespaces/shop")?;
        (whole.is_empty() || whole.starts_with('?')).then(|| {
            json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": namespace,
            })
        })
    });
    reconcile(&deleted(), &ctx, now.parse().unwrap())
        .await
        .unwrap();
    asked
}

fn note(asked: &Asked) -> Option<String> {
    let told = bodies(asked, "POST /api/v1/namespaces/shop/events");
    Some(told.first()?["message"].as_str()?.to_owned())
}

#[tokio::test]
async fn a_backup_on_a_silent_node_goes_after_a_while_and_says_what_stays() {
    let lives = json!({"name": "shop"});
    let asked = looked_at(lives.clone(), "2026-11-23T13:04:59Z").await;
    assert!(bodies(&asked, BACKUP).is_empty(), "{asked:?}");
    let asked = looked_at(lives, "2026-11-23T13:05:00Z").await;
    assert_eq!(bodies(&asked, BACKUP).len(), 1, "{asked:?}");
    let note = note(&asked).unwrap();
    for part in ["shop/data/now.tar.gz", "Pod now-backup-x does not end"] {
        assert!(note.contains(part), "{note}");
    }
}

#[tokio::test]
async fn nothing_is_waited_for_in_a_namespace_that_is_being_deleted() {
    let leaves = json!({"name": "shop", "deletionTimestamp": "2026-11-23T13:00:00Z"});
    let asked = looked_at(leaves, "2026-11-23T13:00:01Z").await;
    assert_eq!(bodies(&asked, BACKUP).len(), 1, "{asked:?}");
    assert!(
        note(&asked)
            .unwrap()
            .contains("its namespace is being deleted")
    );
}
