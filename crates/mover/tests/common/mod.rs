//! A mover on real directories, and listings to compare trees with.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "each test file uses its own part of this")]

pub mod storage;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tidelock_protocol::{
    BackupReport, BackupTask, DeleteItem, DeleteReport, DeleteTask, Effect, ExitCode,
    ExpectedArchive, Failure, FailureReason, Format, Household, Location, Outcome, Overwrite,
    PROTOCOL_VERSION, Report, Request, RestoreReport, RestoreTask, RunId, StorageTarget, Task,
    UndoReport, UndoTask, VerificationLevel,
};

/// A source, a storage and a target of one test.
pub struct Place {
    pub dir: tempfile::TempDir,
    /// Of the backups that are made here.
    pub format: Format,
}

impl Place {
    pub fn new() -> Self {
        Self::of(Format::default())
    }

    pub fn of(format: Format) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["source", "storage", "target"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir, format }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn source(&self) -> PathBuf {
        self.path("source")
    }

    pub fn target(&self) -> PathBuf {
        self.path("target")
    }

    pub fn storage(&self) -> PathBuf {
        self.path("storage")
    }

    /// The stored object with this ending.
    pub fn object(&self, ending: &str) -> PathBuf {
        self.storage().join(format!("shop/data/nightly{ending}"))
    }

    /// The stored archive.
    pub fn archive(&self) -> PathBuf {
        self.object(self.format.ending())
    }

    /// Names of everything in storage beside the objects, temporaries too.
    pub fn stored_names(&self) -> Vec<String> {
        let dir = self.storage().join("shop/data");
        let Ok(entries) = fs::read_dir(dir) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn request(&self, uid: &str, task: Task) -> Request {
        Request {
            version: PROTOCOL_VERSION,
            run: RunId {
                namespace: "shop".into(),
                name: "nightly".into(),
                uid: uid.into(),
            },
            storage: match task {
                Task::Undo(_) => StorageTarget::None,
                _ => StorageTarget::Directory {
                    path: self.storage().to_str().unwrap().into(),
                },
            },
            limits: Default::default(),
            stall_timeout_seconds: None,
            task,
        }
    }

    pub fn backup_task(&self) -> Task {
        Task::Backup(BackupTask {
            recipients: Vec::new(),
            lock: None,
            source_path: self.source().to_str().unwrap().into(),
            location: location(),
            format: self.format,
            pvc_name: "data".into(),
            policy_name: Some("nightly".into()),
            verification: VerificationLevel::Full,
            household: Household::default(),
        })
    }

    pub fn restore_task(&self, backup: &BackupReport) -> Task {
        Task::Restore(RestoreTask {
            identities_path: None,
            target_path: self.target().to_str().unwrap().into(),
            location: location(),
            expected: ExpectedArchive {
                digest: backup.digest.clone(),
                stored_bytes: backup.stored_bytes,
                backup_uid: "u-1".into(),
            },
            overwrite: Overwrite::Never,
            effect: Effect::Write,
            paths: Vec::new(),
            read_back: false,
            allow_metadata_loss: false,
        })
    }

    /// Leaves the marker of a restore `r-1` that was killed while it wrote; gives its path.
    pub fn begin_restore(&self) -> PathBuf {
        let marker = self.target().join(".tidelock-restore-r-1");
        let text = r#"{"overwrite":"Never","stage":"Writing","root":{"mode":493,"uid":0,"gid":0,
            "mtime":{"seconds":0,"nanoseconds":0},"xattrs":[]}}"#;
        fs::write(&marker, text).unwrap();
        marker
    }

    /// The task of a restore that may overwrite.
    pub fn overwrite_task(&self, backup: &BackupReport, overwrite: Overwrite) -> RestoreTask {
        let Task::Restore(mut task) = self.restore_task(backup) else {
            panic!("no restore");
        };
        task.overwrite = overwrite;
        task
    }

    /// Takes back the restore `r-1`.
    pub fn undo(&self, overwrite: Overwrite) -> UndoReport {
        let task = Task::Undo(UndoTask {
            target_path: self.target().to_str().unwrap().into(),
            overwrite,
        });
        match self.run("r-1", task) {
            Outcome::Undone(report) => report,
            other => panic!("the undo ended as {other:?}"),
        }
    }

    /// Backs the source up as the run `u-1`.
    pub fn backup(&self) -> BackupReport {
        match self.run("u-1", self.backup_task()) {
            Outcome::BackedUp(report) => report,
            other => panic!("the backup ended as {other:?}"),
        }
    }

    pub fn backup_fails(&self) -> Failure {
        failure_of(self.run("u-1", self.backup_task()))
    }

    pub fn restore(&self, backup: &BackupReport) -> RestoreReport {
        match self.run("r-1", self.restore_task(backup)) {
            Outcome::Restored(report) => report,
            other => panic!("the restore ended as {other:?}"),
        }
    }

    pub fn restore_fails(&self, backup: &BackupReport) -> Failure {
        failure_of(self.run("r-1", self.restore_task(backup)))
    }

    pub fn delete(&self, backup_uid: &str) -> DeleteReport {
        let task = Task::Delete(DeleteTask {
            items: vec![DeleteItem {
                location: location(),
                backup_uid: backup_uid.into(),
                unfinished_only: false,
            }],
        });
        match self.run("d-1", task) {
            Outcome::Deleted(report) => report,
            other => panic!("the delete ended as {other:?}"),
        }
    }

    /// Runs the real binary as root, and checks that exit code and report agree.
    pub fn run(&self, uid: &str, task: Task) -> Outcome {
        self.run_with(uid, task, |command| command)
    }

    pub fn run_with(
        &self,
        uid: &str,
        task: Task,
        adapt: impl FnOnce(Command) -> Command,
    ) -> Outcome {
        let output = self.command(uid, task, adapt).output().unwrap();
        self.outcome(uid, &output)
    }

    /// The real binary, ready to run.
    pub fn command(
        &self,
        uid: &str,
        task: Task,
        adapt: impl FnOnce(Command) -> Command,
    ) -> Command {
        let mut command = adapt(Command::new(env!("CARGO_BIN_EXE_tidelock-mover")));
        let report = self.path("report.json");
        fs::write(&report, "").unwrap();
        fs::set_permissions(&report, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        command
            .env(
                tidelock_protocol::REQUEST_ENV,
                self.request(uid, task).to_json().unwrap(),
            )
            .arg("--report-file")
            .arg(&report);
        command
    }

    /// What a run that has ended reported.
    pub fn outcome(&self, uid: &str, output: &Output) -> Outcome {
        let text = fs::read_to_string(self.path("report.json")).unwrap();
        let report = Report::from_termination_message(&text, uid)
            .unwrap_or_else(|e| panic!("{e}: {text:?} {}", log_of(output)));
        let expected = match &report.outcome {
            Outcome::Failed(failure) => failure.reason.exit_code(),
            Outcome::Deleted(report) if report.failed_total > 0 => ExitCode::Permanent,
            _ => ExitCode::Success,
        };
        let expected = expected.code();
        assert_eq!(output.status.code(), Some(expected.into()), "{report:?}");
        report.outcome
    }
}

/// Runs the mover in a mount namespace of its own, after `setup`.
pub fn with_mounts(setup: String) -> impl FnOnce(Command) -> Command {
    move |mover| {
        let mut outer = Command::new("unshare");
        let script = format!("{setup} && exec \"$0\" \"$@\"");
        outer
            .args(["--mount", "--", "sh", "-c", &script])
            .arg(mover.get_program());
        outer
    }
}

pub fn location() -> Location {
    Location::new("shop", "data", "nightly").unwrap()
}

pub fn failure_of(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("it ended as {other:?}"),
    }
}

pub fn log_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that a failure has the reason and says all of `words`.
pub fn assert_says(failure: &Failure, reason: FailureReason, words: &[&str]) {
    assert_eq!(failure.reason, reason, "{failure:?}");
    for word in words {
        assert!(failure.message.contains(word), "{word:?} in {failure:?}");
    }
}

/// Everything about one file that a backup keeps.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    size: u64,
    device: u64,
    /// The first path, in order, that has the same inode.
    same_as: PathBuf,
    content: Vec<u8>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// Everything below `root`, and the root itself as `.`.
pub fn list(root: &Path) -> BTreeMap<PathBuf, Listed> {
    let mut paths = vec![PathBuf::from(".")];
    let mut at = 0;
    while at < paths.len() {
        let path = root.join(&paths[at]);
        if path.symlink_metadata().unwrap().is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                paths.push(paths[at].join(entry.unwrap().file_name()));
            }
        }
        at += 1;
    }
    paths.sort();
    let mut inodes = BTreeMap::new();
    let mut listing = BTreeMap::new();
    for path in paths {
        let full = root.join(&path);
        let meta = full.symlink_metadata().unwrap();
        let same_as = inodes
            .entry((meta.dev(), meta.ino()))
            .or_insert(path.clone())
            .clone();
        let listed = listed(&full, &meta, same_as);
        listing.insert(path, listed);
    }
    listing
}

fn listed(path: &Path, meta: &fs::Metadata, same_as: PathBuf) -> Listed {
    let kind = meta.file_type();
    let (name, content) = if kind.is_file() {
        ("file", fs::read(path).unwrap())
    } else if kind.is_symlink() {
        let target = fs::read_link(path).unwrap();
        ("symlink", target.as_os_str().as_bytes().to_vec())
    } else if kind.is_dir() {
        ("directory", Vec::new())
    } else if kind.is_fifo() {
        ("fifo", Vec::new())
    } else if kind.is_char_device() || kind.is_block_device() {
        ("device", Vec::new())
    } else {
        ("socket", Vec::new())
    };
    Listed {
        kind: name,
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        size: if kind.is_dir() { 0 } else { meta.size() },
        device: meta.rdev(),
        same_as,
        content,
        xattrs: xattrs(path),
    }
}

pub fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    names.truncate(length);
    names
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (OsString::from_vec(name.to_vec()), value)
        })
        .collect()
}

/// How GNU tar is told what the archive is.
pub fn tar_flag(format: Format) -> &'static str {
    match format {
        Format::TarGz => "--gzip",
        Format::TarZst => "--zstd",
    }
}

/// Runs a tool that must succeed.
pub fn tool(name: &str, arguments: &[&str], dir: &Path) -> Output {
    let output = Command::new(name)
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(output.status.success(), "{name}: {}", log_of(&output));
    output
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
