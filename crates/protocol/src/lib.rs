//! The contract between the operator and the mover.
//!
//! The operator hands the mover a [`Request`] in the environment variable [`REQUEST_ENV`]; the
//! mover leaves a [`Report`] at [`TERMINATION_LOG`] and ends with an [`ExitCode`]. Who asks a running
//! mover hears its [`ProgressReport`], on which nothing depends. Nothing else passes between them: the
//! mover talks to no Kubernetes API.
//!
//! Both sides come from one image, but a Job outlives an upgrade of the operator: a reader refuses
//! a [`PROTOCOL_VERSION`] it does not know instead of guessing.

mod check;
mod done;
mod exit;
mod location;
mod paths;
mod progress;
mod report;
mod request;

pub use check::{CheckReport, CheckTask, DescribedBackup, KnownBackups, KnownSet};
pub use done::{
    BackupReport, Change, Changes, DeleteFailure, DeleteReport, Done, Failure, FolderReport,
    ItemFault, ItemVerdict, Losses, RestoreReport, TargetState, UndoReport, VerifyReport,
};
pub use exit::{ExitCode, FailureReason};
pub use location::{Format, InvalidLocation, Location};
pub use paths::PathSample;
pub use progress::{MAX_PROGRESS_BYTES, PROGRESS_PORT, ProgressReport, Step};
pub use report::{InvalidReport, MAX_REPORT_BYTES, Outcome, Report};
pub use request::{
    BackupTask, BucketTarget, DeleteItem, DeleteTask, Effect, ExpectedArchive, Household,
    InvalidRequest, Limits, LockMode, ObjectLock, Overwrite, Request, RestoreTask, RunId,
    ServerSideEncryption, StorageTarget, Task, UndoTask, VerificationLevel, VerifyItem, VerifyTask,
};

/// Version of [`Request`] and [`Report`]; raised when a reader of the old one would misread the new.
pub const PROTOCOL_VERSION: u32 = 2;
/// Environment variable that carries the [`Request`] as JSON.
pub const REQUEST_ENV: &str = "TIDELOCK_REQUEST";
/// Where the mover leaves its [`Report`]; the kubelet copies it into the pod's status.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// Where the source volume is mounted, read-only.
pub const SOURCE_PATH: &str = "/source";
/// Where the storage volume is mounted.
pub const STORAGE_PATH: &str = "/storage";
/// Where the Secret of a bucket is mounted.
pub const CREDENTIALS_PATH: &str = "/credentials";
/// Where the Secret with identities of age is mounted.
pub const IDENTITIES_PATH: &str = "/identities";
/// Where the certificates to trust are mounted.
pub const CA_BUNDLE_PATH: &str = "/certificates";
/// Where the volume to restore into is mounted.
pub const TARGET_PATH: &str = "/target";
