//! Who asked the API server for what: its audit log.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde::Deserialize;

use crate::cluster::{OPERATOR_NAMESPACE, state};
use crate::helm::RELEASE;

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
    /// Whom the user asked as, where it asked as another.
    #[serde(default)]
    impersonated_user: Option<User>,
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

/// What the user names of service accounts begin with.
const ACCOUNTS: &str = "system:serviceaccount:";
/// The service account of the cluster's own operator.
const OWN_ACCOUNT: &str = "tidelock";

impl Request {
    /// Namespace and name of the service account whose rights count; none for anybody else.
    fn account(&self) -> Option<(&str, &str)> {
        let user = self.impersonated_user.as_ref().unwrap_or(&self.user);
        user.username.strip_prefix(ACCOUNTS)?.split_once(':')
    }

    /// Whether a pod of the cluster's own operator sent it.
    fn is_of_clusters_operator(&self) -> bool {
        let is_its_own = self.impersonated_user.is_none();
        is_its_own && self.account() == Some((OPERATOR_NAMESPACE, OWN_ACCOUNT))
    }

    /// Whether an operator sent it: the cluster's own, one that a story runs with the same rights
    /// ([`crate::proxy`]), or one that a story installed ([`crate::helm`]).
    fn is_of_an_operator(&self) -> bool {
        self.account().is_some_and(|(namespace, name)| {
            (namespace, name) == (OPERATOR_NAMESPACE, OWN_ACCOUNT)
                || (namespace.ends_with("-system") && name == RELEASE)
        })
    }

    /// The namespace whose Deployment it takes away.
    fn undeployed(&self) -> Option<&str> {
        let path = self.uri.split('?').next().unwrap_or_default();
        let place = path.strip_prefix("/apis/apps/v1/namespaces/")?;
        let (namespace, rest) = place.split_once('/')?;
        let whole = rest.strip_prefix("deployments/")?;
        (self.verb == "delete" && !whole.contains('/')).then_some(namespace)
    }

    /// Whether this line of the log is the one by which the request counts: a watch counts when it
    /// starts, anything else when it has been answered.
    fn is_counted(&self) -> bool {
        match self.verb.as_str() {
            "watch" => self.stage == "ResponseStarted",
            _ => self.stage == "ResponseComplete",
        }
    }

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

    /// Whether it is about all objects of that resource, in the plural, in `namespace`, or about one
    /// that is to be made.
    pub fn is_about(&self, resource: &str, namespace: &str) -> bool {
        let path = self.uri.split('?').next().unwrap_or_default();
        path.ends_with(&format!("/namespaces/{namespace}/{resource}"))
    }

    /// Whether it asks for an object of that resource, in the plural, to be made in `namespace`.
    pub fn makes(&self, resource: &str, namespace: &str) -> bool {
        self.verb == "create" && self.is_about(resource, namespace)
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

/// The requests of the cluster's own operator that came at `since` or later, oldest first.
pub fn of_operator(since: Timestamp) -> Result<Vec<Request>> {
    let marks = |line: &str| line.contains(ACCOUNTS) && line.contains(OWN_ACCOUNT);
    let mut requests = read(&folder()?.join(CURRENT), marks)?;
    requests.retain(|request| request.is_of_clusters_operator() && request.received >= since);
    requests.sort_by_key(|request| request.received);
    Ok(requests)
}

/// The requests of every operator that any story had, over the whole log, oldest first.
///
/// # Guarantees
/// Those of an operator whose Deployment has been deleted are not among them: its rights are taken
/// away beside it, while its pods have some seconds to end.
pub fn of_all_operators() -> Result<Vec<Request>> {
    let marks = |line: &str| {
        let of_an_account = line.contains(ACCOUNTS) && line.contains(OWN_ACCOUNT);
        of_an_account || line.contains("/deployments/")
    };
    let mut all = Vec::new();
    for path in files(&folder()?)? {
        all.extend(read(&path, marks)?);
    }
    all.sort_by_key(|request| request.received);
    Ok(of_operators_in_office(all))
}

/// Those of `all`, oldest first, that operators sent while they were installed.
fn of_operators_in_office(all: Vec<Request>) -> Vec<Request> {
    let mut gone = BTreeSet::new();
    let mut kept = Vec::new();
    for request in all {
        let undeployed = request.undeployed();
        if let Some(namespace) = undeployed.filter(|namespace| *namespace != OPERATOR_NAMESPACE) {
            gone.insert(namespace.to_owned());
        }
        let home = request.account().map(|(namespace, _)| namespace);
        let left = home.is_some_and(|home| gone.contains(home));
        if request.is_of_an_operator() && !left {
            kept.push(request);
        }
    }
    kept
}

/// The log that is written now.
const CURRENT: &str = "audit.log";

fn folder() -> Result<PathBuf> {
    Ok(state()?.join("logs"))
}

/// The log in `folder`, with the parts that became too long and were put aside.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("audit") && name.ends_with(".log") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The requests in the file `path` on whose lines `marks` holds, which is cheaper than parsing all.
fn read(path: &Path, marks: impl Fn(&str) -> bool) -> Result<Vec<Request>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut requests = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line?;
        // The last line may still be on its way.
        if marks(&line)
            && let Ok(request) = serde_json::from_str::<Request>(&line)
            && request.is_counted()
        {
            requests.push(request);
        }
    }
    Ok(requests)
}

/// A line of the log, for tests: what `user` asked for, as somebody else where that is said.
#[cfg(test)]
pub(crate) fn line(
    (user, as_whom): (&str, Option<&str>),
    (verb, uri): (&str, &str),
    (code, message): (u16, &str),
    second: u8,
) -> Request {
    let mut line = serde_json::json!({
        "verb": verb, "requestURI": uri, "stage": "ResponseComplete",
        "requestReceivedTimestamp": format!("2026-01-01T00:00:{second:02}.000000Z"),
        "user": {"username": user},
        "responseStatus": {"code": code, "message": message},
    });
    if let Some(username) = as_whom {
        line["impersonatedUser"] = serde_json::json!({"username": username});
    }
    serde_json::from_value(line).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "system:serviceaccount:tidelock-system:tidelock";
    const INSTALLED: &str = "system:serviceaccount:chart-life-x-system:tidelock-e2e";
    const JOBS: (&str, &str) = ("list", "/apis/batch/v1/jobs");

    #[test]
    fn an_operator_behind_the_proxy_is_one_but_not_the_clusters_own() {
        let own = line((OWN, None), JOBS, (200, ""), 0);
        let impersonated = line(("admin", Some(OWN)), JOBS, (200, ""), 0);
        let person = line(("admin", None), JOBS, (200, ""), 0);
        let of = |request: &Request| {
            (
                request.is_of_an_operator(),
                request.is_of_clusters_operator(),
            )
        };
        assert_eq!(of(&own), (true, true));
        assert_eq!(of(&impersonated), (true, false));
        assert_eq!(of(&person), (false, false));
    }

    #[test]
    fn one_that_is_installed_counts_until_its_deployment_is_deleted() {
        let deployment = "/apis/apps/v1/namespaces/chart-life-x-system/deployments/tidelock-e2e";
        let installed = |second| line((INSTALLED, None), JOBS, (403, "no"), second);
        let others = |second| line((OWN, None), JOBS, (200, ""), second);
        let status = format!("{deployment}/status");
        let all = vec![
            installed(1),
            line(("helm", None), ("patch", deployment), (200, ""), 2),
            line(("helm", None), ("delete", &status), (200, ""), 3),
            installed(4),
            line(("helm", None), ("delete", deployment), (200, ""), 5),
            installed(6),
            others(7),
        ];
        let kept = of_operators_in_office(all);
        let seconds: Vec<i64> = kept
            .iter()
            .map(|request| request.received.as_second() % 60)
            .collect();
        assert_eq!(seconds, [1, 4, 7]);
    }
}
