//! Runs of the real mover on real folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use tidelock_protocol::{
    BackupReport, BackupTask, Effect, ExpectedArchive, Format, Household, Location, Outcome,
    Overwrite, PROTOCOL_VERSION, Report, Request, RestoreTask, RunId, StorageTarget, Task,
    VerificationLevel,
};

use crate::place::Place;
use crate::run;

const UID: &str = "gate";
/// Trees and archives are on a disk: what is written to a tmpfs counts as memory of who writes.
const FOLDER: &str = "gate";

/// A mover, and folders that are removed afterwards.
pub struct Lab {
    mover: PathBuf,
    dir: PathBuf,
}

/// What a run of the mover came to.
pub struct Done {
    pub outcome: Outcome,
    /// Its peak of resident memory, as it tells it.
    pub peak_kib: u64,
}

impl Lab {
    pub fn new(place: &Place, mover: PathBuf) -> Result<Self> {
        let dir = place.target.join(FOLDER);
        let lab = Self { mover, dir };
        lab.clear("")?;
        Ok(lab)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Empties a folder, and makes it where it is not there.
    pub fn clear(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        let cleared = match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&path),
        };
        cleared.with_context(|| format!("cannot empty {}", path.display()))?;
        Ok(path)
    }

    /// Backs the folder `source` up, into an empty storage.
    pub fn backup(&self, start: impl FnOnce(Command) -> Result<Output>) -> Result<Done> {
        self.clear("storage")?;
        let task = Task::Backup(BackupTask {
            recipients: Vec::new(),
            lock: None,
            source_path: text(&self.path("source")),
            location: location()?,
            // What the other tools of the gate make.
            format: Format::TarGz,
            pvc_name: "data".into(),
            policy_name: None,
            verification: VerificationLevel::None,
            household: Household::default(),
        });
        self.run(task, start)
    }

    /// Restores `backup` into the folder `target`, which is emptied before.
    pub fn restore(
        &self,
        backup: &BackupReport,
        start: impl FnOnce(Command) -> Result<Output>,
    ) -> Result<Done> {
        self.clear("target")?;
        let task = Task::Restore(RestoreTask {
            identities_path: None,
            target_path: text(&self.path("target")),
            location: location()?,
            expected: ExpectedArchive {
                digest: backup.digest.clone(),
                stored_bytes: backup.stored_bytes,
                backup_uid: UID.into(),
            },
            overwrite: Overwrite::Never,
            effect: Effect::Write,
            paths: Vec::new(),
            read_back: false,
            allow_metadata_loss: false,
        });
        self.run(task, start)
    }

    fn run(&self, task: Task, start: impl FnOnce(Command) -> Result<Output>) -> Result<Done> {
        let (request, report) = (self.path("request.json"), self.path("report.json"));
        let asked = Request {
            version: PROTOCOL_VERSION,
            run: RunId {
                namespace: "gate".into(),
                name: "gate".into(),
                uid: UID.into(),
            },
            storage: StorageTarget::Directory {
                path: text(&self.path("storage")),
            },
            limits: Default::default(),
            stall_timeout_seconds: None,
            task,
        };
        fs::write(&request, asked.to_json()?)?;
        let mut mover = run::command(&self.mover, [Path::new("--request-file"), &request]);
        mover.arg("--report-file").arg(&report);
        let output = start(mover)?;
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "the mover ended with {}; its log:\n{log}",
            output.status
        );
        let report = Report::from_termination_message(&fs::read_to_string(&report)?, UID)?;
        Ok(Done {
            outcome: report.outcome,
            peak_kib: peak_of(&log).context("the mover's log tells no peak_memory_kib")?,
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Done {
    pub fn backed_up(self) -> Result<BackupReport> {
        match self.outcome {
            Outcome::BackedUp(report) => Ok(report),
            other => bail!("the backup ended as {other:?}"),
        }
    }
}

fn location() -> Result<Location> {
    Ok(Location::new("gate", "data", "gate")?)
}

pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The peak that the last line of the mover's log tells.
fn peak_of(log: &str) -> Option<u64> {
    let last: serde_json::Value = serde_json::from_str(log.lines().last()?).ok()?;
    last.pointer("/fields/peak_memory_kib")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_that_of_the_last_line() {
        let log = "{\"fields\":{\"message\":\"started\"}}\n{\"fields\":{\"message\":\"done\",\"peak_memory_kib\":12}}\n";
        assert_eq!(peak_of(log), Some(12));
        assert_eq!(peak_of(""), None);
    }
}
