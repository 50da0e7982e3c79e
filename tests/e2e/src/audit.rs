//! Who asked the API server for what: its audit log.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde::Deserialize;

use crate::cluster::{OPERATOR_NAMESPACE, state};

/// One answered request.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// When it came.
    #[serde(rename = "requestReceivedTimestamp")]
    pub received: Timestamp,
    /// How it was answered.
    #[serde(default)]
    pub response_status: Option<Response>,
    stage: String,
    user: User,
}

/// How a request was answered.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// HTTP status.
    #[serde(default)]
    pub code: u16,
    /// What a refusal says.
    #[serde(default)]
    pub message: String,
}

#[derive(Debug, Clone, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

impl Request {
    /// Whether it asks for a change.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether it is about the lease of leader election, which is renewed for ever.
    pub fn is_about_lease(&self) -> bool {
        self.uri.starts_with("/apis/coordination.k8s.io/")
    }

    /// Whether the role of who asked does not allow it. A quota and a namespace on its way out
    /// answer with the same status.
    pub fn is_denied(&self) -> bool {
        let answer = self.response_status.as_ref();
        let others = ["being terminated", "exceeded quota"];
        let other =
            answer.is_some_and(|answer| others.iter().any(|own| answer.message.contains(own)));
        self.code() == 403 && !other
    }

    /// Whether it asks for an object of that resource, in the plural, to be made in `namespace`.
    pub fn makes(&self, resource: &str, namespace: &str) -> bool {
        let path = self.uri.split('?').next().unwrap_or_default();
        self.verb == "create" && path.ends_with(&format!("/namespaces/{namespace}/{resource}"))
    }

    /// HTTP status of the answer; 0 while there is none.
    pub fn code(&self) -> u16 {
        self.response_status
            .as_ref()
            .map_or(0, |answer| answer.code)
    }
}

/// How often the log is read again while something is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Waits until the operator has written nothing but its lease for as long as `quiet`.
///
/// # Errors
/// After `patience`, with the last of its writes.
pub async fn until_nothing_is_written(quiet: Duration, patience: Duration) -> Result<()> {
    let deadline = Timestamp::now() + patience;
    loop {
        let mut writes = of_operator(Timestamp::now() - quiet)?
            .into_iter()
            .filter(|request| request.is_write() && !request.is_about_lease());
        let Some(last) = writes.next_back() else {
            return Ok(());
        };
        ensure!(
            Timestamp::now() < deadline,
            "the operator never stops writing: {last:#?}"
        );
        // There is no event for "nothing happened".
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The operator's requests that came at `since` or later, oldest first. A watch counts when it
/// starts.
pub fn of_operator(since: Timestamp) -> Result<Vec<Request>> {
    let path = state()?.join("logs/audit.log");
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let operator = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:tidelock");
    let mut requests = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line?;
        // Most lines are of others; those of the operator are few enough to parse.
        if !line.contains(&operator) {
            continue;
        }
        let Ok(request) = serde_json::from_str::<Request>(&line) else {
            // The last line may still be on its way.
            continue;
        };
        let counted = match request.verb.as_str() {
            "watch" => request.stage == "ResponseStarted",
            _ => request.stage == "ResponseComplete",
        };
        if counted && request.user.username == operator && request.received >= since {
            requests.push(request);
        }
    }
    requests.sort_by_key(|request| request.received);
    Ok(requests)
}
