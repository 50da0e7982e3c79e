//! Who asked the API server for what: its audit log.

use std::fs::File;
use std::io::{BufRead, BufReader};

use anyhow::{Context, Result};
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

    /// HTTP status of the answer; 0 while there is none.
    pub fn code(&self) -> u16 {
        self.response_status
            .as_ref()
            .map_or(0, |answer| answer.code)
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
