//! What moves between the mover and storage, counted where it moves.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidelock_archive::{Meter, Phase};
use tidelock_protocol::{ProgressReport, Step};
use tidelock_storage::{Lock, ObjectInfo, Storage, StorageError, Upload};

use crate::profile::{StepProfile, processor_time};

/// How much has moved, and what storage is being asked right now.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    answers: AtomicU64,
    call: Mutex<Option<Call>>,
    meter: Meter,
    stage: Mutex<Stage>,
    /// Of the steps that have ended, when it is profiling.
    profiles: Mutex<Vec<StepProfile>>,
}

/// What is being done.
#[derive(Debug, Clone, Copy)]
struct Stage {
    step: Step,
    total: Total,
    /// What had moved when it began.
    moved_before: u64,
    since: Instant,
    /// Processor time that this process had taken when it began.
    processor_before: Duration,
}

impl Stage {
    fn begin(step: Step, total: Total, moved_before: u64) -> Self {
        Self {
            step,
            total,
            moved_before,
            since: Instant::now(),
            processor_before: processor_time(),
        }
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::begin(Step::Preparing, Total::default(), 0)
    }
}

/// How much a step comes to, where that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Total {
    pub(crate) bytes: Option<u64>,
    pub(crate) files: Option<u64>,
}

impl Total {
    pub(crate) fn of_bytes(bytes: u64) -> Self {
        Self {
            bytes: Some(bytes),
            files: None,
        }
    }
}

/// Something that storage was asked and has not answered.
#[derive(Debug, Clone)]
struct Call {
    action: &'static str,
    key: Arc<str>,
}

impl Progress {
    /// One that also keeps where the time goes.
    pub fn profiling() -> Self {
        Self {
            meter: Meter::profiling(),
            ..Self::default()
        }
    }

    /// Bytes read from storage and written to it.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Differs from what it was whenever something has moved meanwhile.
    pub(crate) fn beats(&self) -> (u64, u64) {
        (self.bytes(), self.answers.load(Ordering::Relaxed))
    }

    /// What storage has not answered yet, in words.
    pub(crate) fn open_call(&self) -> Option<String> {
        let call = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        let call = call.as_ref()?;
        Some(format!("{} {:?} in storage", call.action, call.key))
    }

    /// Counts the content that is read or written.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Begins to count a step.
    pub(crate) fn begin(&self, step: Step, total: Total) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if self.meter.is_profiling() && stage.step != Step::Preparing {
            let mut ended = self.profiles.lock().unwrap_or_else(PoisonError::into_inner);
            ended.push(self.profile(&stage));
        }
        self.meter.reset();
        *stage = Stage::begin(step, total, self.bytes());
    }

    /// Ends the step that is under way, and gives where the time of all that have ended went; nothing
    /// unless it is [profiling](Self::profiling).
    pub fn take_profiles(&self) -> Vec<StepProfile> {
        if !self.meter.is_profiling() {
            return Vec::new();
        }
        self.begin(Step::Preparing, Total::default());
        let mut ended = self.profiles.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut ended)
    }

    fn profile(&self, stage: &Stage) -> StepProfile {
        StepProfile {
            step: stage.step,
            wall: stage.since.elapsed(),
            processor: processor_time().saturating_sub(stage.processor_before),
            content_bytes: self.meter.bytes(),
            storage_bytes: self.bytes().saturating_sub(stage.moved_before),
            spent: self.meter.spent(),
        }
    }

    /// How far the run with this UID is.
    pub fn report(&self, run_uid: &str) -> ProgressReport {
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match stage.step {
            Step::Saving | Step::Restoring => self.meter.bytes(),
            Step::Preparing | Step::Verifying | Step::Checking | Step::Comparing => {
                self.bytes().saturating_sub(stage.moved_before)
            }
        };
        ProgressReport {
            run_uid: run_uid.to_owned(),
            step: stage.step,
            bytes,
            total_bytes: stage.total.bytes,
            files: self.meter.files(),
            total_files: stage.total.files,
        }
    }

    fn during<T>(&self, action: &'static str, key: &Arc<str>, ask: impl FnOnce() -> T) -> T {
        self.set_call(Some(Call {
            action,
            key: Arc::clone(key),
        }));
        let answer = ask();
        self.set_call(None);
        self.answers.fetch_add(1, Ordering::Relaxed);
        answer
    }

    fn set_call(&self, call: Option<Call>) {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }

    fn moved(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Storage that counts what it moves.
pub struct Watched<'s> {
    inner: &'s dyn Storage,
    progress: Arc<Progress>,
}

impl<'s> Watched<'s> {
    /// Counts what `inner` moves in `progress`.
    pub fn new(inner: &'s dyn Storage, progress: Arc<Progress>) -> Self {
        Self { inner, progress }
    }

    fn reader(
        &self,
        key: &str,
        open: impl FnOnce() -> Result<Box<dyn Read + Send>, StorageError>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let key: Arc<str> = key.into();
        let inner = self.progress.during("opening", &key, open)?;
        Ok(Box::new(WatchedReader {
            inner,
            key,
            progress: Arc::clone(&self.progress),
        }))
    }
}

impl Storage for Watched<'_> {
    fn put<'a>(&'a self, key: &str, run: &str) -> Result<Box<dyn Upload + 'a>, StorageError> {
        let shared: Arc<str> = key.into();
        let open = || self.inner.put(key, run);
        let inner = self.progress.during("creating", &shared, open)?;
        Ok(Box::new(WatchedUpload {
            inner,
            key: shared,
            progress: Arc::clone(&self.progress),
        }))
    }

    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        self.reader(key, || self.inner.get(key, range))
    }

    fn get_fresh(&self, key: &str) -> Result<Box<dyn Read + Send>, StorageError> {
        self.reader(key, || self.inner.get_fresh(key))
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StorageError> {
        let ask = || self.inner.head(key);
        self.progress.during("looking up", &key.into(), ask)
    }

    fn list(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(&str, ObjectInfo) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut counted = |key: &str, info: ObjectInfo| {
            self.progress.answers.fetch_add(1, Ordering::Relaxed);
            visit(key, info)
        };
        let ask = || self.inner.list(prefix, &mut counted);
        self.progress.during("listing", &prefix.into(), ask)
    }

    fn delete(&self, key: &str) -> Result<bool, StorageError> {
        let ask = || self.inner.delete(key);
        self.progress.during("deleting", &key.into(), ask)
    }

    fn lock(&self, key: &str, lock: &Lock) -> Result<(), StorageError> {
        let ask = || self.inner.lock(key, lock);
        self.progress.during("locking", &key.into(), ask)
    }

    fn sweep(&self, key: &str, run: &str) -> Result<u64, StorageError> {
        let ask = || self.inner.sweep(key, run);
        self.progress.during("sweeping beside", &key.into(), ask)
    }

    fn sweep_dead(
        &self,
        key: &str,
        run: &str,
        min_age: Duration,
        is_alive: &dyn Fn(&str) -> bool,
    ) -> Result<u64, StorageError> {
        let ask = || self.inner.sweep_dead(key, run, min_age, is_alive);
        self.progress.during("sweeping beside", &key.into(), ask)
    }

    fn free_bytes(&self) -> Result<Option<u64>, StorageError> {
        self.inner.free_bytes()
    }
}

struct WatchedReader {
    inner: Box<dyn Read + Send>,
    key: Arc<str>,
    progress: Arc<Progress>,
}

impl Read for WatchedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ask = || self.inner.read(buffer);
        let _timed = self.progress.meter.time(Phase::Fetch);
        let read = self.progress.during("reading", &self.key, ask)?;
        self.progress.moved(read);
        Ok(read)
    }
}

struct WatchedUpload<'a> {
    inner: Box<dyn Upload + 'a>,
    key: Arc<str>,
    progress: Arc<Progress>,
}

impl Write for WatchedUpload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let ask = || self.inner.write(bytes);
        let _timed = self.progress.meter.time(Phase::Store);
        let written = self.progress.during("writing", &self.key, ask)?;
        self.progress.moved(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Upload for WatchedUpload<'_> {
    fn commit(self: Box<Self>) -> Result<ObjectInfo, StorageError> {
        let Self {
            inner,
            key,
            progress,
        } = *self;
        let _timed = progress.meter.time(Phase::Sync);
        progress.during("publishing", &key, || inner.commit())
    }
}
