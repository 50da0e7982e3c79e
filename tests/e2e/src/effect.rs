//! What a request of the operator changes, in words that are the same in every run.

use std::fmt;

use serde_json::Value;
use tidelock_operator::telemetry::reasons::{STOPPING, TAKING_BACK};

use crate::normal;

/// Reasons of a run that is Running yet, and whose failure is recorded.
const ENDING: [&str; 2] = [STOPPING, TAKING_BACK];

/// One kind of write: equal in two runs when it does the same to the same object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Effect {
    /// `create`, `update`, `patch`, `delete` or `deletecollection`, as RBAC calls it.
    pub verb: &'static str,
    /// API group; empty is the core group.
    pub group: String,
    /// Resource or subresource, as RBAC calls it.
    pub resource: String,
    /// To which object, and what becomes of it.
    pub detail: String,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.resource, self.detail)
    }
}

impl Effect {
    /// What this request changes; none where it only reads.
    pub fn of(method: &str, path: &str, body: &[u8]) -> Option<Self> {
        let place = Place::of(path)?;
        let verb = match (method, &place.name) {
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", Some(_)) => "delete",
            ("DELETE", None) => "deletecollection",
            _ => return None,
        };
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let own_name = body["metadata"]["name"].as_str().map(str::to_owned);
        let name = place.name.or(own_name).unwrap_or_default();
        let name = normal::name(&name);
        let detail = match (verb, place.resource.as_str()) {
            ("create", "events") => told(&body),
            ("create", _) => format!("{name}{}", run_kind(&body)),
            ("update", _) => format!("{name} {}", standing(&body)),
            ("patch", _) => format!("{name} {}", changes(&body)),
            _ => name,
        };
        Some(Self {
            verb,
            group: place.group,
            resource: place.resource,
            detail,
        })
    }
}

/// Group and resource, with its subresource, that a path is about, as RBAC calls them.
pub fn resource_of(path: &str) -> Option<(String, String)> {
    let place = Place::of(path)?;
    Some((place.group, place.resource))
}

/// Where in the API a path leads.
struct Place {
    group: String,
    resource: String,
    name: Option<String>,
}

impl Place {
    fn of(path: &str) -> Option<Self> {
        let path = path.split('?').next()?;
        let mut parts = path.trim_start_matches('/').split('/');
        let group = match parts.next()? {
            "api" => String::new(),
            "apis" => parts.next()?.to_owned(),
            _ => return None,
        };
        let _version = parts.next()?;
        let mut resource = parts.next()?.to_owned();
        let mut name = parts.next().map(str::to_owned);
        if resource == "namespaces"
            && let Some(within) = parts.next()
        {
            resource = within.to_owned();
            name = parts.next().map(str::to_owned);
        }
        if let Some(subresource) = parts.next() {
            resource = format!("{resource}/{subresource}");
        }
        Some(Self {
            group,
            resource,
            name,
        })
    }
}

fn told(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = &event["involvedObject"];
    format!(
        "{} about {} {}",
        text(&event["reason"]),
        text(&about["kind"]),
        normal::name(&text(&about["name"])),
    )
}

fn run_kind(object: &Value) -> String {
    let label = &object["metadata"]["labels"]["tidelock.dev/run-kind"];
    let kind = label.as_str().map(|kind| format!(" ({kind})"));
    kind.unwrap_or_default()
}

/// Where a status says that its object stands. What a running pod is doing is left out: it may be
/// over before it is seen. What the operator does to a run itself is not.
fn standing(object: &Value) -> String {
    let status = &object["status"];
    let phase = status["phase"].as_str();
    let conditions = status["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let reason = ready.and_then(|condition| condition["reason"].as_str());
    let leaves = !object["metadata"]["deletionTimestamp"].is_null();
    let is_ending = leaves || reason.is_some_and(|reason| ENDING.contains(&reason));
    if phase == Some("Running") && !is_ending {
        return "Running".to_owned();
    }
    let last = status["lastBackup"]["phase"].as_str();
    let leaving = leaves.then_some("(leaving)");
    let words: Vec<&str> = [leaving, phase, reason, last]
        .into_iter()
        .flatten()
        .collect();
    words.join(" ")
}

/// The fields that a merge patch sets.
fn changes(patch: &Value) -> String {
    let mut found = Vec::new();
    collect(patch, "", &mut found);
    found.sort();
    found.join(" ")
}

fn collect(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) if path.split('.').count() < 3 => {
            for (name, field) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                collect(field, &path, found);
            }
        }
        // They say which object is meant.
        _ if path == "metadata.resourceVersion" || path == "metadata.uid" => {}
        _ if path == "metadata.finalizers" => {
            let all = value.as_array().into_iter().flatten();
            let names: Vec<&str> = all.filter_map(Value::as_str).collect();
            found.push(format!("{path}=[{}]", names.join(",")));
        }
        Value::Array(items) => found.push(format!("{path}[{}]", items.len())),
        _ => found.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(method: &str, path: &str, body: &str) -> Option<String> {
        Effect::of(method, path, body.as_bytes()).map(|effect| effect.to_string())
    }

    #[test]
    fn a_path_leads_to_a_resource() {
        let of = |path| resource_of(path).map(|(_, resource)| resource);
        assert_eq!(of("/api/v1/namespaces/shop").as_deref(), Some("namespaces"));
        assert_eq!(
            of("/api/v1/namespaces/shop/pods?watch=true").as_deref(),
            Some("pods")
        );
        assert_eq!(of("/apis/batch/v1/jobs?limit=5").as_deref(), Some("jobs"));
        let status = "/apis/tidelock.dev/v1alpha1/namespaces/shop/backups/now/status";
        assert_eq!(of(status).as_deref(), Some("backups/status"));
        assert_eq!(of("/healthz"), None);
    }

    #[test]
    fn a_write_is_told_in_the_words_of_rbac() {
        let told = effect(
            "PUT",
            "/apis/tidelock.dev/v1alpha1/namespaces/x/backups/now/status?a=b",
            r#"{"status":{"phase":"Failed","conditions":[{"type":"Ready","reason":"PVCNotFound"}]}}"#,
        );
        assert_eq!(
            told.as_deref(),
            Some("update backups/status now Failed PVCNotFound")
        );
        let told = effect(
            "POST",
            "/api/v1/namespaces/x/events",
            r#"{"reason":"BackupFailed","involvedObject":{"kind":"Backup","name":"now"},"metadata":{"name":"now.51"}}"#,
        );
        assert_eq!(
            told.as_deref(),
            Some("create events BackupFailed about Backup now")
        );
    }

    #[test]
    fn names_that_differ_between_runs_do_not_tell_writes_apart() {
        let told = |hash: &str| {
            let body = format!(
                r#"{{"metadata":{{"name":"tidelock-delete-{hash}","labels":{{"tidelock.dev/run-kind":"Delete"}}}}}}"#
            );
            effect("POST", "/apis/batch/v1/namespaces/x/jobs", &body)
        };
        assert_eq!(told("0123456789"), told("abcdef0123"));
        assert_eq!(
            told("0123456789").as_deref(),
            Some("create jobs tidelock-delete-<hash> (Delete)")
        );
    }

    #[test]
    fn adding_and_removing_a_finalizer_are_two_effects() {
        let path = "/apis/tidelock.dev/v1alpha1/namespaces/x/backups/now";
        let patch = |list: &str| {
            let body = format!(r#"{{"metadata":{{"resourceVersion":"7","finalizers":[{list}]}}}}"#);
            effect("PATCH", path, &body)
        };
        assert_ne!(patch(""), patch(r#""tidelock.dev/data""#));
    }

    #[test]
    fn each_step_of_a_bad_end_is_an_effect_and_what_a_pod_does_is_none() {
        let path = "/apis/tidelock.dev/v1alpha1/namespaces/x/restores/back/status";
        let told = |reason: &str, metadata: &str| {
            let body = format!(
                r#"{{"metadata":{metadata},"status":{{"phase":"Running","conditions":[{{"type":"Ready","reason":"{reason}"}}]}}}}"#
            );
            effect("PUT", path, &body).unwrap_or_default()
        };
        assert_eq!(told("Starting", "{}"), told("PodPending", "{}"));
        let leaving = r#"{"deletionTimestamp":"2026-01-02T03:04:05Z"}"#;
        assert_eq!(
            [
                told("Stopping", "{}"),
                told("TakingBack", "{}"),
                told("Stopping", leaving)
            ],
            [
                "update restores/status back Running Stopping",
                "update restores/status back Running TakingBack",
                "update restores/status back (leaving) Running Stopping",
            ]
        );
    }

    #[test]
    fn a_read_is_no_effect() {
        assert_eq!(effect("GET", "/api/v1/namespaces/x/pods", ""), None);
        assert_eq!(effect("POST", "/version", ""), None);
    }
}
