use serde_json::{Value, json};

use super::*;
use crate::testing::{bodies, context};

const EVENTS: &str = "GET /api/v1/namespaces/shop/events";

fn warning(uid: &str, kind: &str, message: &str, minute: u32) -> Value {
    json!({
        "metadata": {"name": format!("e-{minute}"), "namespace": "shop"},
        "involvedObject": {"kind": "Pod", "uid": uid},
        "type": kind, "reason": "FailedMount", "message": message,
        "lastTimestamp": format!("2026-11-23T13:{minute:02}:00Z"),
    })
}

fn events() -> Vec<Event> {
    let all = [
        warning("p-1", "Warning", "first words", 1),
        warning(
            "p-1",
            "Warning",
            "hostPath type check failed: /x\nis not a directory",
            3,
        ),
        warning("p-1", "Normal", "all is well", 5),
        warning("p-2", "Warning", "of another pod", 6),
        warning("p-1", "Warning", "second words", 2),
    ];
    all.map(|event| serde_json::from_value(event).unwrap())
        .to_vec()
}

#[test]
fn the_newest_warning_about_the_pod_itself_is_told_in_one_line() {
    assert_eq!(
        newest(&events(), "p-1").as_deref(),
        Some("FailedMount: hostPath type check failed: /x is not a directory.")
    );
    assert_eq!(newest(&events(), "p-3"), None);
    let long = warning("p-1", "Warning", &"x".repeat(9000), 1);
    let long = newest(&[serde_json::from_value(long).unwrap()], "p-1").unwrap();
    assert!(long.len() <= MOST_BYTES, "{}", long.len());
}

/// What is told of a pod that was made at 13:00:00, and how often its Events were asked for.
async fn told(is_mute: bool, now: &str) -> (Option<String>, usize) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "now-backup-x", "namespace": "shop", "uid": "p-1"},
    }))
    .unwrap();
    let list = json!({
        "apiVersion": "v1", "kind": "EventList", "metadata": {},
        "items": serde_json::to_value(events()).unwrap(),
    });
    let (ctx, asked) = context(Vec::new(), Vec::new(), move |request| {
        request.starts_with(EVENTS).then(|| list.clone())
    });
    let made = "2026-11-23T13:00:00Z".parse().unwrap();
    let mut fact = PodFact::Waiting {
        pod: "now-backup-x".to_owned(),
        trouble: None,
        since: made,
        is_mute,
    };
    let now = now.parse().unwrap();
    listen(&ctx, &mut fact, &[Arc::new(pod)], made, now).await;
    let PodFact::Waiting { trouble, .. } = fact else {
        panic!("it starts by itself");
    };
    let asked = asked.lock().unwrap();
    for (request, _) in asked.iter() {
        assert!(request.contains("involvedObject.uid%3Dp-1"), "{request}");
        assert!(request.contains("limit=50"), "{request}");
    }
    (trouble, asked.len())
}

#[tokio::test]
async fn a_pod_that_says_nothing_for_long_is_told_in_the_kubelets_words() {
    let (trouble, _) = told(true, "2026-11-23T13:00:10Z").await;
    let words = trouble.unwrap();
    for part in [
        "Pod now-backup-x does not start",
        "FailedMount",
        "is not a directory",
    ] {
        assert!(words.contains(part), "{words}");
    }
}

#[tokio::test]
async fn nobody_is_asked_about_a_pod_that_is_young_or_speaks_for_itself() {
    assert_eq!(told(true, "2026-11-23T13:00:09Z").await, (None, 0));
    assert_eq!(told(false, "2026-11-23T13:09:00Z").await, (None, 0));
}

#[tokio::test]
async fn events_that_cannot_be_read_hold_nothing_up() {
    let (ctx, asked) = context(Vec::new(), Vec::new(), |_| None);
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {"namespace": "shop", "uid": "p-1"}})).unwrap();
    assert_eq!(newest_warning(&ctx, &pod).await, None);
    assert_eq!(bodies(&asked, EVENTS).len(), 1);
}
