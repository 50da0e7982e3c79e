//! What went wrong, as the report tells it.

use std::error::Error;
use std::io;

use rustix::io::Errno;
use tidelock_archive::{ManifestError, PackError, RestoreError};
use tidelock_protocol::{Failure, FailureReason, PathSample};
use tidelock_storage::{ErrorClass, StorageError, storage_error_in};

/// A failure with its reason in a message for a person.
pub(crate) fn failure(reason: FailureReason, message: impl Into<String>) -> Failure {
    Failure {
        reason,
        message: message.into(),
        paths: PathSample::default(),
        target_touched: None,
        done: None,
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What a fault of storage means for the run.
pub(crate) fn of_storage(error: &StorageError) -> Failure {
    let (reason, advice) = match error.class {
        ErrorClass::NotFound => (
            FailureReason::ArchiveNotFound,
            "check that the storage is the one the backup was written to",
        ),
        ErrorClass::AlreadyExists => (
            FailureReason::ArchiveConflict,
            "another backup has this place; take another name",
        ),
        ErrorClass::Full => (
            FailureReason::StorageFull,
            "enlarge the storage or keep fewer backups",
        ),
        ErrorClass::Denied => (
            FailureReason::StorageDenied,
            "let the mover do this: a volume has to be writable, a bucket's key needs the right",
        ),
        ErrorClass::Damaged => (FailureReason::ArchiveCorrupt, USE_ANOTHER),
        ErrorClass::InvalidKey => (
            FailureReason::InvalidRequest,
            "check names and what stands in the storage",
        ),
        ErrorClass::Unavailable => (
            FailureReason::StorageUnavailable,
            "the run is tried again; check the storage if this stays",
        ),
    };
    failure(reason, format!("{}; {advice}", chain(error)))
}

/// What a fault of storage means for a run that writes: what it has put there and does not find
/// again was taken away by another pod of the same run.
pub(crate) fn of_storage_write(error: &StorageError) -> Failure {
    if error.class != ErrorClass::NotFound {
        return of_storage(error);
    }
    failure(
        FailureReason::StorageUnavailable,
        format!(
            "{}; another pod of this run may be at work, so it is tried again",
            chain(error)
        ),
    )
}

/// What a failed read or write of stored data means for the run.
pub(crate) fn of_stored_io(action: &str, error: &io::Error) -> Failure {
    match storage_error_in(error) {
        Some(error) => of_storage(error),
        None => failure(
            FailureReason::Internal,
            format!("cannot {action}: {}", chain(error)),
        ),
    }
}

/// What a failed pack means for the run; unreadable paths are filled in by the caller.
pub(crate) fn of_pack(error: &PackError) -> Failure {
    match error {
        PackError::Unreadable(count) => {
            let paths = if *count == 1 { "path" } else { "paths" };
            failure(
                FailureReason::SourceUnreadable,
                format!("{count} {paths} in the source cannot be read, so no archive was written"),
            )
        }
        PackError::Output(error) => of_stored_io("write the archive", error),
        PackError::Stopped => stopped(),
    }
}

/// What a failed check or unpack means for the run.
pub(crate) fn of_restore(error: &RestoreError) -> Failure {
    match error {
        RestoreError::Corrupt(_) => corrupt(&chain(error)),
        RestoreError::Read(error) => of_stored_io("read the archive", error),
        RestoreError::Selection(what) => failure(FailureReason::InvalidPath, what.as_str()),
        RestoreError::Stopped => stopped(),
        RestoreError::Target { source, .. }
            if Errno::from_io_error(source) == Some(Errno::AGAIN) =>
        {
            failure(
                FailureReason::StorageUnavailable,
                "another pod of this restore is at work on the target; it is tried again",
            )
        }
        RestoreError::Target { path, source, .. } => {
            let full = matches!(
                Errno::from_io_error(source),
                Some(Errno::NOSPC | Errno::DQUOT)
            );
            let (reason, advice) = if full {
                (FailureReason::TargetFull, "use a larger volume")
            } else {
                (FailureReason::TargetUnwritable, advice_for(source))
            };
            let mut failure = failure(reason, format!("{}; {advice}", chain(error)));
            failure.paths.push(path.as_bytes());
            failure
        }
    }
}

/// What to do about a target that refuses something.
fn advice_for(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::OPNOTSUPP) => "its file system cannot hold this; take another kind of volume",
        Some(Errno::ROFS) => "it is read-only; make it writable",
        Some(Errno::IO) => "the volume has a fault; take another one",
        Some(Errno::PERM | Errno::ACCESS) => "give the mover the rights it lacks there",
        _ => "see what the volume lacks, or take another one",
    }
}

/// What an unusable manifest means for the run.
pub(crate) fn of_manifest(error: &ManifestError) -> Failure {
    match error {
        ManifestError::Corrupt(_) => corrupt(&chain(error)),
        ManifestError::Unsupported(_) => {
            failure(FailureReason::UnsupportedFormat, error.to_string())
        }
    }
}

/// What to do about a damaged backup.
pub(crate) const USE_ANOTHER: &str = "use another backup";

/// Stored data is not what was written.
pub(crate) fn corrupt(what: &str) -> Failure {
    failure(
        FailureReason::ArchiveCorrupt,
        format!("{what}; {USE_ANOTHER}"),
    )
}

/// The run was told to stop.
pub(crate) fn stopped() -> Failure {
    failure(
        FailureReason::Interrupted,
        "told to stop before the task was done; a further try starts over",
    )
}
