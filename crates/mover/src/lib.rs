//! The program in the Job pod: backup, restore, undo, verify, delete.
//!
//! [`run`] carries out a [`Request`] on a [`Storage`]; `main.rs` puts a process around it.

mod backup;
mod delete;
mod failure;
mod household;
mod listener;
mod profile;
mod progress;
mod proof;
mod restore;
mod stall;
mod stored;
mod told;
mod undo;
mod unreadable;
mod verify;
mod words;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tidelock_protocol::{Failure, FailureReason, Outcome, Request, RunId, StorageTarget, Task};
use tidelock_storage::{Directory, Storage};

pub use listener::tell_progress;
pub use profile::{Limit, StepProfile};
pub use progress::{Progress, Watched};
pub use stall::Watchdog;

/// Carries out a request on the storage it names; what moves is counted in `progress`.
pub fn run_request(request: &Request, stop: &AtomicBool, progress: &Arc<Progress>) -> Outcome {
    let StorageTarget::Directory { path } = &request.storage else {
        return run_without_storage(request);
    };
    match Directory::open(Path::new(path)) {
        Ok(storage) => {
            let storage = Watched::new(&storage, Arc::clone(progress));
            carry_out(request, &storage, &Control { stop, progress })
        }
        Err(error) => {
            let mut failure = failure::of_storage(&error);
            if failure.reason == FailureReason::ArchiveNotFound {
                failure.reason = FailureReason::StorageUnavailable;
            }
            Outcome::Failed(failure)
        }
    }
}

/// Carries out a request that needs no storage.
fn run_without_storage(request: &Request) -> Outcome {
    let run = &request.run;
    let done = check_run(run).and_then(|()| match &request.task {
        Task::Undo(task) => undo::undo(run, task).map(Outcome::Undone),
        _ => Err(failure::failure(
            FailureReason::InvalidRequest,
            format!("the task needs storage, and run {} has none", run.name),
        )),
    });
    done.unwrap_or_else(Outcome::Failed)
}

/// Carries out a request on a given storage; `stop` ends it early and cleanly.
pub fn run(request: &Request, storage: &dyn Storage, stop: &AtomicBool) -> Outcome {
    let progress = &Progress::default();
    carry_out(request, storage, &Control { stop, progress })
}

/// What a run is told, and what it tells, while it is under way.
struct Control<'c> {
    /// Ends it early and cleanly.
    stop: &'c AtomicBool,
    progress: &'c Progress,
}

fn carry_out(request: &Request, storage: &dyn Storage, control: &Control<'_>) -> Outcome {
    let (run, stop) = (&request.run, control.stop);
    let done = check_run(run).and_then(|()| match &request.task {
        Task::Backup(task) => backup::backup(storage, run, task, control).map(Outcome::BackedUp),
        Task::Restore(task) => restore::restore(storage, run, task, control),
        Task::Undo(task) => undo::undo(run, task).map(Outcome::Undone),
        Task::Verify(task) => verify::verify(storage, run, task, control).map(Outcome::Verified),
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
