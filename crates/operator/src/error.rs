//! What can go wrong in a reconcile, and what the controller does about it.

use std::time::Duration;

/// A reconcile that did not get through; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    // The answer stands in the text in place of the source's own, which repeats itself at length.
    #[error("cannot {action}: {}", words(.source))]
    Api {
        /// What was tried, and on what.
        action: String,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// An object lacks what the API server always sets.
    #[error("{object} has no {field}; this is a fault of the API server or of Tidelock")]
    Incomplete {
        /// Kind and name.
        object: String,
        /// What is missing.
        field: &'static str,
    },
    /// An object has changed since it was read.
    #[error("{object} has changed since it was read")]
    Stale {
        /// Kind and name.
        object: String,
    },
    /// A request for the mover could not be written.
    #[error("cannot write the mover's request for {object}: {source}")]
    Request {
        /// Kind and name.
        object: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A name from the API server does not make a location.
    #[error(transparent)]
    Location(#[from] tidelock_protocol::InvalidLocation),
}

/// What became of an API call, told apart where the next step differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Somebody else wrote first: look again at once.
    Conflict,
    /// May pass: try again, with growing pauses.
    Transient,
}

impl Error {
    /// For `map_err`: names what was tried.
    pub fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Api {
            action,
            source: Box::new(source),
        }
    }

    /// How to go on.
    pub fn class(&self) -> Class {
        match self {
            Self::Stale { .. } => Class::Conflict,
            Self::Api { source, .. } if is_status(source, 409) => Class::Conflict,
            _ => Class::Transient,
        }
    }
}

/// What the API server said, or why it said nothing.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => {
            let mut text = other.to_string();
            let mut next = std::error::Error::source(other);
            while let Some(cause) = next {
                text.push_str(&format!(": {cause}"));
                next = cause.source();
            }
            text
        }
    }
}

/// Pause before try number `attempt` (from 0). After a conflict: 200 ms, doubled, at most 30
/// seconds, as the watch is about to bring the news. Else: one second, doubled, at most five
/// minutes.
pub fn back_off(class: Class, attempt: u32) -> Duration {
    let doubled = 1u64 << attempt.min(9);
    match class {
        Class::Conflict => Duration::from_millis((200 * doubled).min(30_000)),
        Class::Transient => Duration::from_secs(doubled.min(300)),
    }
}

/// Whether the API server answered with this HTTP status.
pub fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Whether the API server refused to make something because the namespace is being deleted.
pub fn is_namespace_leaving(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403
        && causes
            .into_iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
}
