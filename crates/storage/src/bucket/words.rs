//! What an answer of the store means.

use std::io;

use http::StatusCode;
use object_store::Error;

use crate::{ErrorClass, StorageError};

/// An error of the library, classified, in the store's own words.
pub(crate) fn fault(action: &'static str, key: &str, error: &Error) -> StorageError {
    let words = words(error);
    StorageError {
        action,
        key: key.to_owned(),
        class: class(error, &words),
        source: io::Error::other(words),
    }
}

/// A fault of ours or of a bare request.
pub(crate) fn plain(
    action: &'static str,
    key: &str,
    class: ErrorClass,
    words: impl Into<String>,
) -> StorageError {
    StorageError {
        action,
        key: key.to_owned(),
        class,
        source: io::Error::other(words.into()),
    }
}

/// The class of an answer by what it says: a store tells a missing bucket with the status of a
/// missing object.
fn class_of(code: &str, otherwise: ErrorClass) -> ErrorClass {
    match code {
        "NoSuchBucket"
        | "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "AccountProblem"
        | "AllAccessDisabled"
        | "InvalidBucketName"
        | "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "MethodNotAllowed"
        | "InvalidRequest"
        | "InvalidObjectState" => ErrorClass::Denied,
        "QuotaExceeded"
        | "BucketQuotaExceeded"
        | "XMinioStorageFull"
        | "InsufficientCapacity"
        | "EntityTooLarge" => ErrorClass::Full,
        "PreconditionFailed" | "ConditionalRequestConflict" => ErrorClass::AlreadyExists,
        "NoSuchKey" | "NoSuchUpload" => ErrorClass::NotFound,
        _ => otherwise,
    }
}

fn class(error: &Error, words: &str) -> ErrorClass {
    let by_kind = match error {
        Error::NotFound { .. } => ErrorClass::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => ErrorClass::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => ErrorClass::Denied,
        Error::InvalidPath { .. } => ErrorClass::InvalidKey,
        _ => ErrorClass::Unavailable,
    };
    let code = words.split(':').next().unwrap_or_default();
    class_of(code, by_kind)
}

/// `Code: message` of the store's answer where there is one, else the innermost cause, which is
/// what a person can do something about: a name that does not resolve, a certificate.
fn words(error: &Error) -> String {
    let told = causes(error).find_map(|cause| answer(&cause.to_string()));
    told.unwrap_or_else(|| innermost(error))
}

/// What is at the bottom of an error.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let last = causes(error).last();
    last.map(ToString::to_string).unwrap_or_default()
}

fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// What a request that is refused means: by the store's own words, or else by the status.
pub(crate) fn refusal(
    action: &'static str,
    key: &str,
    status: StatusCode,
    text: &str,
) -> StorageError {
    let told = answer(text).unwrap_or_else(|| format!("the store answers {status}"));
    let by_status = match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => ErrorClass::Denied,
        StatusCode::NOT_FOUND => ErrorClass::NotFound,
        _ => ErrorClass::Unavailable,
    };
    let code = told.split(':').next().unwrap_or_default();
    let class = class_of(code, by_status);
    plain(action, key, class, told)
}

/// `Code: message` of an error document.
fn answer(text: &str) -> Option<String> {
    let code = element(text, "Code")?;
    let message = element(text, "Message").unwrap_or_default();
    Some(format!("{code}: {message}"))
}

fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner).filter(|inner| !inner.is_empty() && inner.len() < 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_in_the_stores_words() {
        let text = "Server returned non-2xx status code: 404 Not Found: <?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>";
        let told = answer(text).unwrap();
        assert_eq!(told, "NoSuchBucket: The specified bucket does not exist");
        let code = told.split(':').next().unwrap();
        assert_eq!(class_of(code, ErrorClass::NotFound), ErrorClass::Denied);
        assert_eq!(answer("<html>502</html>"), None);
    }
}
