//! The program in the Job pod: backup, restore, delete.
//!
//! [`run`] carries out a [`Request`] on a [`Storage`]; `main.rs` puts a process around it.

mod backup;
mod delete;
mod failure;
mod restore;
mod stored;
mod told;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use tidelock_protocol::{Failure, FailureReason, Outcome, Request, RunId, StorageTarget, Task};
use tidelock_storage::{Directory, Storage};

/// Carries out a request on the storage it names.
pub fn run_request(request: &Request, stop: &AtomicBool) -> Outcome {
    let StorageTarget::Directory { path } = &request.storage;
    match Directory::open(Path::new(path)) {
        Ok(storage) => run(request, &storage, stop),
        Err(error) => {
            let mut failure = failure::of_storage(&error);
            if failure.reason == FailureReason::ArchiveNotFound {
                failure.reason = FailureReason::StorageUnavailable;
            }
            Outcome::Failed(failure)
        }
    }
}

/// Carries out a request on a given storage; `stop` ends it early and cleanly.
pub fn run(request: &Request, storage: &dyn Storage, stop: &AtomicBool) -> Outcome {
    let run = &request.run;
    let done = check_run(run).and_then(|()| match &request.task {
        Task::Backup(task) => backup::backup(storage, run, task, stop).map(Outcome::BackedUp),
        Task::Restore(task) => restore::restore(storage, run, task, stop).map(Outcome::Restored),
        Task::Delete(task) => delete::delete(storage, task, stop).map(Outcome::Deleted),
    });
    done.unwrap_or_else(Outcome::Failed)
}

/// The UID becomes part of file names.
fn check_run(run: &RunId) -> Result<(), Failure> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    if (1..=64).contains(&run.uid.len()) && run.uid.bytes().all(valid) {
        return Ok(());
    }
    Err(failure::failure(
        FailureReason::InvalidRequest,
        format!(
            "run.uid {:?} is not 1 to 64 letters, digits, '-', '_' or '.'",
            run.uid
        ),
    ))
}
