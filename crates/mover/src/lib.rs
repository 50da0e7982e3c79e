//! The program in the Job pod: backup, restore, undo, verify, delete, check.
//!
//! [`run`] carries out a [`Request`] on a [`Storage`]; `main.rs` puts a process around it.

mod backup;
mod check;
mod delete;
mod failure;
mod household;
mod limit;
mod listener;
mod lock;
mod objects;
mod profile;
mod progress;
mod proof;
mod restore;
mod sealing;
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

use tidelock_protocol::{
    BucketTarget, Failure, FailureReason, Outcome, Request, RunId, ServerSideEncryption,
    StorageTarget, Task,
};
use tidelock_storage::{
    Bucket, BucketConfig, Composition, Credentials, Directory, Encryption, Storage,
};

use crate::limit::Limited;

pub use listener::tell_progress;
pub use profile::{Limit, StepProfile};
pub use progress::{Progress, Watched};
pub use stall::Watchdog;

/// Carries out a request on the storage it names; what moves is counted in `progress`.
pub fn run_request(request: &Request, stop: &AtomicBool, progress: &Arc<Progress>) -> Outcome {
    let opened = match &request.storage {
        StorageTarget::None => return run_without_storage(request),
        StorageTarget::Directory { path } => directory(path),
        StorageTarget::Bucket(target) => bucket(target),
    };
    match opened {
        Ok(storage) => {
            let storage = Limited::new(&*storage, &request.limits);
            let storage = Watched::new(&storage, Arc::clone(progress));
            carry_out(request, &storage, &Control { stop, progress })
        }
        Err(failure) => Outcome::Failed(failure),
    }
}

fn directory(path: &str) -> Result<Box<dyn Storage>, Failure> {
    match Directory::open(Path::new(path)) {
        Ok(storage) => Ok(Box::new(storage)),
        Err(error) => {
            let mut failure = failure::of_storage(&error);
            if failure.reason == FailureReason::ArchiveNotFound {
                failure.reason = FailureReason::StorageUnavailable;
            }
            Err(failure)
        }
    }
}

fn bucket(target: &BucketTarget) -> Result<Box<dyn Storage>, Failure> {
    let ca_bundle = target.ca_bundle_path.as_ref().map(|path| {
        std::fs::read(path).map_err(|error| {
            let text = format!("the certificates to trust cannot be read from {path}: {error}");
            failure::failure(FailureReason::StorageDenied, text)
        })
    });
    let config = BucketConfig {
        bucket: target.bucket.clone(),
        prefix: target.prefix.clone(),
        endpoint: target.endpoint.clone(),
        region: target.region.clone(),
        path_style: target.path_style,
        credentials: Credentials::of(Path::new(&target.credentials_path)),
        ca_bundle: ca_bundle.transpose()?,
        storage_class: target.storage_class.clone(),
        encryption: match &target.server_side_encryption {
            ServerSideEncryption::Unset => Encryption::Unset,
            ServerSideEncryption::Aes256 => Encryption::Aes256,
            ServerSideEncryption::Kms { key_id } => Encryption::Kms(key_id.clone()),
        },
        locks: target.locks,
        composition: Composition::default(),
    };
    match Bucket::open(&config) {
        Ok(storage) => Ok(Box::new(storage)),
        Err(error) => Err(failure::of_storage(&error)),
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
        Task::Check(task) => check::check(storage, run, task, control).map(Outcome::Checked),
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
