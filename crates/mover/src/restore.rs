//! From a stored backup into a directory.

use std::cell::OnceCell;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Instant;

use tidelock_archive::{
    Changes, Comparison, Content, Finished, Job, Losses, Manifest, Overwrite, Phase, Plan, Reading,
    RestoreError, Selection, Stage, Survey, Target, Try, compare, locate_damage, plan, unpack,
    verify_index, verify_members, verify_object,
};
use tidelock_protocol::{
    Done, Effect, Failure, FailureReason, Outcome, PathSample, RestoreReport, RestoreTask, RunId,
    Step,
};
use tidelock_seal::Sealed;
use tidelock_storage::Storage;

use crate::Control;
use crate::failure::{failure, of_restore};
use crate::progress::Total;
use crate::sealing;
use crate::stored::{Object, Stretches, check_size, expected_manifest, get};
use crate::words;

/// Checks the backup of `task` and the target, then unpacks the one into the other, or tells what
/// that would change.
///
/// # Guarantees
/// - Before the first write: the manifest is whole, known and the one the cluster expects; index
///   and archive have its digests; every path matches something; the target holds nothing that may
///   not be there and nothing that stands in the way, and has room for what is coming.
/// - A failure says how far it got, and whether the target was touched.
///
/// # Crash window
/// A further try of the same run goes on with what it finds, by the target's marker.
pub(crate) fn restore(
    storage: &dyn Storage,
    run: &RunId,
    task: &RestoreTask,
    control: &Control<'_>,
) -> Result<Outcome, Failure> {
    let selection = selection(task).map_err(|failure| Failure {
        target_touched: Some(false),
        ..failure
    })?;
    let target = Target::open(Path::new(&task.target_path), &run.uid).map_err(|error| {
        // A user that may not open it never could; else an earlier try may have written to it.
        let is_denied = matches!(
            &error,
            RestoreError::Target { source, .. } if source.kind() == ErrorKind::PermissionDenied
        );
        Failure {
            target_touched: is_denied.then_some(false),
            ..of_restore(&error)
        }
    })?;
    let sealed = OnceCell::new();
    let mut restore = Restore {
        storage,
        sealed: &sealed,
        task,
        overwrite: words::overwrite(task.overwrite),
        selection,
        survey: Survey::default(),
        target,
        control,
        clock: Instant::now(),
        is_known: false,
        stage: None,
        done: Finished::default(),
    };
    let ended = restore.run();
    ended.map_err(|failure| restore.told(failure))
}

/// What the task asks for.
fn selection(task: &RestoreTask) -> Result<Selection, Failure> {
    if task.overwrite == tidelock_protocol::Overwrite::Replace && !task.paths.is_empty() {
        let text = "paths cannot be used with overwrite Replace, which makes the target equal to the whole backup; use Merge";
        return Err(failure(FailureReason::InvalidRequest, text));
    }
    Selection::new(&task.paths).map_err(|error| {
        let text = format!("{error}; correct spec.paths in a new Restore");
        failure(FailureReason::InvalidPath, text)
    })
}

struct Restore<'r> {
    storage: &'r dyn Storage,
    /// What decrypts an encrypted backup, once it was opened.
    sealed: &'r OnceCell<Sealed<'r>>,
    task: &'r RestoreTask,
    overwrite: Overwrite,
    selection: Selection,
    survey: Survey,
    target: Target,
    control: &'r Control<'r>,
    clock: Instant,
    /// Whether it was looked at how far an earlier try of this run got.
    is_known: bool,
    /// How far this run is with the target; none before its marker is there.
    stage: Option<Stage>,
    done: Finished,
}

impl<'r> Restore<'r> {
    fn run(&mut self) -> Result<Outcome, Failure> {
        let begun = self.target.begun();
        self.stage = begun.map_err(|e| of_restore(&e))?;
        self.is_known = true;
        if self.stage == Some(Stage::Finished) {
            return self.complete();
        }
        if self.stage != Some(Stage::Writing) {
            self.check_content()?;
        }
        let manifest = self.open()?;
        self.check_stored(&manifest)?;
        self.check_plan(&manifest)?;
        if self.task.effect == Effect::DryRun {
            let changes = self.compare(&manifest, Reading::Cached)?;
            return Ok(Outcome::Compared(words::changes(&changes)));
        }
        let nth = self.begin()?;
        self.fill(&manifest, nth)?;
        let meter = self.control.progress.meter();
        let finish = || self.target.finish(self.done.clone());
        let finished = meter.during(Phase::Sync, finish);
        finished.map_err(|e| of_restore(&e))?;
        Ok(Outcome::Restored(self.report()))
    }

    /// The manifest of what can be read from [`Self::storage`].
    fn open(&self) -> Result<Manifest, Failure> {
        let task = self.task;
        let stored = expected_manifest(self.storage, &task.location, &task.expected)?;
        let opened = sealing::open(self.storage, stored, task.identities_path.as_deref())?;
        if let Some(storage) = opened.storage {
            let _ = self.sealed.set(storage);
        }
        Ok(opened.manifest)
    }

    /// Where the plain objects of the backup are read from.
    fn storage(&self) -> &'r dyn Storage {
        match self.sealed.get() {
            Some(sealed) => sealed,
            None => self.storage,
        }
    }

    /// Ends what an earlier try has written and checked already.
    fn complete(&mut self) -> Result<Outcome, Failure> {
        let claimed = self.target.claim(self.overwrite);
        let completed = claimed.and_then(|_| self.target.complete());
        self.done = completed.map_err(|e| of_restore(&e))?;
        Ok(Outcome::Restored(self.report()))
    }

    /// Claims the target and looks at it a last time: the checks read the whole archive, and
    /// something may have come into it meanwhile.
    fn begin(&mut self) -> Result<Try, Failure> {
        let was_begun = self.stage.is_some();
        let stage = self.target.claim(self.overwrite);
        self.stage = Some(stage.map_err(|e| of_restore(&e))?);
        if self.stage != Some(Stage::Preparing) {
            return Ok(Try::Further);
        }
        if let Err(failure) = self.check_content() {
            if !was_begun {
                self.target.give_back();
                self.stage = None;
            }
            return Err(failure);
        }
        self.target.begin().map_err(|e| of_restore(&e))?;
        self.stage = Some(Stage::Writing);
        Ok(Try::First)
    }

    fn fill(&mut self, manifest: &Manifest, nth: Try) -> Result<(), Failure> {
        let archive = Stretches::new(self.storage(), &manifest.archive);
        let indexes = self.indexes(manifest)?;
        let job = Job {
            codec: manifest.codec,
            target: &self.target,
            overwrite: self.overwrite,
            nth,
            selection: &self.selection,
            survey: &self.survey,
            meter: self.control.progress.meter(),
            stop: self.control.stop,
        };
        let total = match self.task.paths[..] {
            [] => Total {
                bytes: Some(manifest.logical_bytes),
                files: Some(manifest.counts.files),
            },
            _ => Total::default(),
        };
        self.begin_step(Step::Restoring, total);
        unpack(&job, archive, indexes, &mut self.done).map_err(|e| of_restore(&e))?;
        if self.done.losses.need_leave() && !self.task.allow_metadata_loss {
            return Err(metadata_loss(&self.done.losses));
        }
        if self.task.read_back {
            let changes = self.compare(manifest, Reading::Stored)?;
            check_alike(&changes)?;
            self.done.read_back = true;
        }
        Ok(())
    }

    /// Compares index and archive with the manifest: of the archive what is taken, and all of it
    /// where that is everything.
    fn check_stored(&mut self, manifest: &Manifest) -> Result<(), Failure> {
        let index_bytes = manifest.index.bytes.saturating_mul(2);
        let total = match self.task.paths[..] {
            [] => Total::of_bytes(manifest.archive.bytes.saturating_add(index_bytes)),
            _ => Total::default(),
        };
        self.begin_step(Step::Checking, total);
        let (storage, stop) = (self.storage(), self.control.stop);
        for object in [&manifest.index, &manifest.archive] {
            check_size(storage, object)?;
        }
        let index = || get(storage, &manifest.index);
        let fault = |e| of_restore(&e);
        let meter = self.control.progress.meter();
        let digesting = meter.time(Phase::Digest);
        verify_object(index()?, &manifest.index, stop).map_err(fault)?;
        drop(digesting);
        let looking = meter.time(Phase::Index);
        verify_index(index()?, manifest, stop).map_err(fault)?;
        self.check_selection(manifest)?;
        drop(looking);
        let _digesting = meter.time(Phase::Digest);
        let expected = &manifest.archive;
        if self.survey.needs_all() {
            return match verify_object(get(storage, expected)?, expected, stop) {
                Err(RestoreError::Corrupt(corrupt)) => {
                    let archive = get(storage, expected)?;
                    Err(fault(locate_damage(corrupt, archive, index()?, stop)))
                }
                other => other.map_err(fault),
            };
        }
        let archive = Stretches::new(storage, expected);
        verify_members(archive, index()?, expected, &self.survey, stop).map_err(fault)
    }

    fn compare(&self, manifest: &Manifest, reading: Reading) -> Result<Changes, Failure> {
        let comparison = Comparison {
            codec: manifest.codec,
            target: &self.target,
            overwrite: self.overwrite,
            selection: &self.selection,
            survey: &self.survey,
            refused: &self.done.losses,
            reading,
            meter: self.control.progress.meter(),
            stop: self.control.stop,
        };
        self.begin_step(Step::Comparing, Total::of_bytes(manifest.archive.bytes));
        let archive = Stretches::new(self.storage(), &manifest.archive);
        compare(&comparison, archive, self.indexes(manifest)?).map_err(|e| of_restore(&e))
    }

    fn begin_step(&self, step: Step, total: Total) {
        self.control.progress.begin(step, total);
    }

    fn indexes<const N: usize>(&self, manifest: &Manifest) -> Result<[Object; N], Failure> {
        let mut readers = Vec::with_capacity(N);
        for _ in 0..N {
            readers.push(get(self.storage(), &manifest.index)?);
        }
        readers.try_into().map_err(|_| {
            failure(
                FailureReason::Internal,
                "the index was opened a wrong number of times",
            )
        })
    }

    /// Refuses a target that holds what it may not.
    fn check_content(&self) -> Result<(), Failure> {
        let content = self.target.content().map_err(|e| of_restore(&e))?;
        let (message, name) = match content {
            Content::ForeignLeftOver(name) => (
                format!(
                    "the target volume holds {name:?} of another restore, which did not finish; where the Restore of that UID is still there and its status says undoPending, annotate it with tidelock.dev/put-back=true and delete it, and the target is put back; else move back by hand what lies in a folder .tidelock-replaced-…, and remove the rest, or take another volume"
                ),
                name,
            ),
            Content::Foreign(name) if self.overwrite == Overwrite::Never => (
                format!(
                    "the target volume holds {name:?} and perhaps more; restore into an empty volume, or set overwrite to Merge or Replace"
                ),
                name,
            ),
            Content::Nothing | Content::Foreign(_) => return Ok(()),
        };
        let mut failure = failure(FailureReason::TargetNotEmpty, message);
        failure.paths.push(name.as_bytes());
        Err(failure)
    }

    /// Refuses paths that match nothing.
    fn check_selection(&mut self, manifest: &Manifest) -> Result<(), Failure> {
        let survey = self
            .selection
            .survey(self.indexes(manifest)?, self.control.stop);
        self.survey = survey.map_err(|e| of_restore(&e))?;
        let missed = &self.survey.missed;
        if missed.is_empty() {
            return Ok(());
        }
        let mut paths = PathSample::default();
        missed.iter().for_each(|glob| paths.push(glob.as_bytes()));
        let text = format!(
            "nothing in the backup matches {}; `zcat` the index in storage to see what it holds, and correct spec.paths in a new Restore",
            paths.first.join(", ")
        );
        Err(Failure {
            paths,
            ..failure(FailureReason::NothingMatched, text)
        })
    }

    /// Refuses a target that is too small, or where something stands in the way.
    fn check_plan(&self, manifest: &Manifest) -> Result<(), Failure> {
        let indexes = self.indexes(manifest)?;
        let what = (&self.selection, &self.survey);
        let plan = plan(
            &self.target,
            self.overwrite,
            what,
            indexes,
            self.control.stop,
        );
        let plan = plan.map_err(|e| of_restore(&e))?;
        if plan.conflicts.total > 0 {
            let text = format!(
                "{} names are a folder in the target and none in the backup, or the reverse; move them away, or set overwrite to Replace",
                plan.conflicts.total
            );
            return Err(Failure {
                paths: words::paths(&plan.conflicts),
                ..failure(FailureReason::TargetConflict, text)
            });
        }
        if self.stage == Some(Stage::Writing) {
            // What is there is this run's own, and is written over.
            return Ok(());
        }
        self.check_room(&plan).map_err(|e| of_restore(&e))?
    }

    fn check_room(&self, plan: &Plan) -> Result<Result<(), Failure>, RestoreError> {
        let room = self.target.room()?;
        let beside = match self.overwrite {
            Overwrite::Replace => {
                " beside what it holds, which is kept until the restore has succeeded"
            }
            Overwrite::Never | Overwrite::Merge => "",
        };
        let lack = if let Some(free) = room.bytes.filter(|free| plan.bytes > *free) {
            format!("{} bytes{beside}, and there are {free} free", plan.bytes)
        } else if let Some(free) = room.inodes.filter(|free| plan.inodes > *free) {
            format!("{} inodes{beside}, and there are {free} free", plan.inodes)
        } else {
            return Ok(Ok(()));
        };
        let text = format!("the restore needs {lack} in the target; use a larger volume");
        Ok(Err(failure(FailureReason::TargetTooSmall, text)))
    }

    fn report(&self) -> RestoreReport {
        let Finished {
            unpacked,
            losses,
            read_back,
            ..
        } = &self.done;
        RestoreReport {
            logical_bytes: unpacked.logical_bytes,
            files: unpacked.files,
            others: unpacked.others,
            duration_ms: u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX),
            read_back: *read_back,
            losses: words::losses(losses),
        }
    }

    /// A failure with how far the restore got.
    fn told(&self, failure: Failure) -> Failure {
        let touched = match self.stage {
            None => self.is_known.then_some(false),
            // What the target held may be on its way aside; at the least the marker is there, which
            // somebody has to take away.
            Some(Stage::Preparing) => (self.overwrite == Overwrite::Replace).then_some(true),
            Some(Stage::Writing | Stage::Finished) => Some(true),
        };
        let done = (touched == Some(true)).then_some(Done {
            files: self.done.unpacked.files,
            bytes: self.done.unpacked.logical_bytes,
        });
        Failure {
            target_touched: touched,
            done,
            ..failure
        }
    }
}

/// What a target refused, though that is not allowed.
fn metadata_loss(losses: &Losses) -> Failure {
    let kinds = [
        (losses.owners, "owners"),
        (losses.modes, "modes"),
        (losses.times, "times"),
        (losses.xattrs, "extended attributes"),
    ];
    let counts = kinds.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts
        .map(|(count, kind)| format!("{kind}: {count}"))
        .collect();
    let text = format!(
        "the target refused metadata ({}), though all else was written; give the mover the rights it lacks (mover.privilege), take another kind of volume, or set allowMetadataLoss",
        counts.join(", ")
    );
    Failure {
        paths: words::paths(&losses.paths),
        ..failure(FailureReason::MetadataLoss, text)
    }
}

/// Refuses a target that is not what was written to it.
fn check_alike(changes: &Changes) -> Result<(), Failure> {
    let (missing, changed, extra) = (&changes.added, &changes.changed, &changes.removed);
    let worst = [changed, missing, extra]
        .into_iter()
        .find(|change| change.paths.total > 0);
    let Some(worst) = worst else {
        return Ok(());
    };
    let text = format!(
        "the target was read back and is not as the backup: {} names differ, {} are missing, {} are too many; see that nothing else writes to the volume, or take another one",
        changed.paths.total, missing.paths.total, extra.paths.total
    );
    Err(Failure {
        paths: words::paths(&worst.paths),
        ..failure(FailureReason::VerificationFailed, text)
    })
}
