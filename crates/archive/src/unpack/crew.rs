//! Threads that write files, while another one reads the archive.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::digest::sha256;
use crate::entry::{Entry, name_of};
use crate::error::{Corrupt, RestoreError, shown};
use crate::loss::Lost;
use crate::member::Piece;
use crate::meter::Meter;
use crate::place;
use crate::profile::{Phase, ThreadKind};
use crate::steps::step;
use crate::threads::{OnEnd, OnPanic, at_most};

/// Threads that write, at most.
const MOST_WRITERS: usize = 4;
/// A batch is handed out once it holds so many files, or so many bytes.
const BATCH_FILES: usize = 32;
const BATCH_BYTES: usize = 256 << 10;
/// Batches that wait at once.
const WAITING_BATCHES: usize = 4;

/// A file to be made in a directory that nothing of its name is in.
pub(super) struct NewFile {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) entry: Entry,
    pub(super) sha256: Option<String>,
    /// Where in the tar stream its entry starts.
    pub(super) tar_offset: u64,
    pub(super) content: Piece,
    /// What an earlier try left at its name is removed.
    pub(super) replace: bool,
    /// Files made in the directory may inherit an ACL.
    pub(super) inherits: bool,
}

impl NewFile {
    fn write(&self, meter: &Meter) -> Result<Lost, RestoreError> {
        let content = &*self.content;
        let digest = meter.during(Phase::Digest, || sha256(content));
        if self.sha256.as_ref() != Some(&digest) {
            let place = format!(
                "{}, tar offset {}, \"{}\"",
                self.content.place(),
                self.tar_offset,
                shown(&self.entry.path)
            );
            let what = "its content does not have the digest of the index";
            return Err(Corrupt::new(place, what).into());
        }
        let path = &self.entry.path;
        let fault = |(action, error)| RestoreError::target(action, path, error);
        let (dir, name) = (self.dir.as_fd(), name_of(path));
        let mut file: File =
            place::create_file(dir, name, self.entry.mode, self.replace).map_err(fault)?;
        step()?;
        file.write_all(content)
            .map_err(|e| RestoreError::target("write", path, e))?;
        let mut lost = Lost::default();
        place::finish_file(&file, &self.entry, self.inherits, &mut lost).map_err(fault)?;
        meter.moved(content.len());
        meter.file_done();
        Ok(lost)
    }
}

/// A piece of the content of a file that is there already.
pub(super) struct Part {
    pub(super) file: Arc<File>,
    /// Of the file, for messages.
    pub(super) path: Arc<[u8]>,
    /// Where in the file it starts.
    pub(super) at: u64,
    pub(super) content: Piece,
}

impl Part {
    pub(super) fn write(&self, meter: &Meter) -> Result<(), RestoreError> {
        self.file
            .write_all_at(&self.content, self.at)
            .map_err(|e| RestoreError::target("write", &self.path, e))?;
        meter.moved(self.content.len());
        Ok(())
    }
}

/// What the crew can be given.
pub(super) enum Work {
    File(NewFile),
    Part(Part),
}

impl Work {
    fn content(&self) -> &Piece {
        match self {
            Self::File(file) => &file.content,
            Self::Part(part) => &part.content,
        }
    }

    /// Bytes that it keeps in memory.
    fn bytes(&self) -> usize {
        let attributes = match self {
            Self::File(file) => &file.entry.xattrs[..],
            Self::Part(_) => &[],
        };
        let attributes = attributes
            .iter()
            .map(|(name, value)| name.len() + value.len());
        self.content().len() + attributes.sum::<usize>()
    }
}

/// What was written, in the order in which it was handed out.
#[derive(Default)]
pub(super) struct Written {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// What the target refused, by path.
    pub(super) lost: Vec<(Vec<u8>, Lost)>,
    failure: Option<RestoreError>,
}

/// Hands work to writers in batches.
///
/// # Guarantees
/// What is in flight is bounded. Without writers, all is written where it is handed out.
pub(super) struct Crew<'c> {
    meter: &'c Meter,
    writers: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(u64, Vec<Work>)>,
    /// What was written and not yet taken.
    written: BTreeMap<u64, Written>,
    closed: bool,
}

/// Calls `work` with a crew that ends with it.
pub(super) fn with_crew<T>(meter: &Meter, work: impl FnOnce(&Crew<'_>) -> T) -> T {
    let crew = Crew {
        meter,
        writers: if crate::steps::is_armed() {
            0
        } else {
            at_most(MOST_WRITERS)
        },
        state: Mutex::default(),
        changed: Condvar::new(),
    };
    thread::scope(|scope| {
        for _ in 0..crew.writers {
            scope.spawn(|| {
                let _closing = OnPanic(|| crew.close());
                let _timed = meter.time_thread(ThreadKind::Writers, Phase::Write);
                while let Some((number, batch)) = crew.batch() {
                    let written = write_all(&batch, meter);
                    crew.lock().written.insert(number, written);
                    crew.changed.notify_all();
                }
            });
        }
        let _closing = OnEnd(|| crew.close());
        work(&crew)
    })
}

fn write_all(batch: &[Work], meter: &Meter) -> Written {
    let mut written = Written::default();
    written.failure = batch
        .iter()
        .try_for_each(|work| write(work, meter, &mut written))
        .err();
    written
}

fn write(work: &Work, meter: &Meter, written: &mut Written) -> Result<(), RestoreError> {
    match work {
        Work::File(file) => {
            let lost = file.write(meter)?;
            written.files += 1;
            written.bytes += file.content.len() as u64;
            if !lost.is_empty() {
                written.lost.push((file.entry.path.clone(), lost));
            }
            Ok(())
        }
        Work::Part(part) => part.write(meter),
    }
}

impl Crew<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets all writers end.
    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let _waiting = self.meter.time(Phase::Wait);
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn batch(&self) -> Option<(u64, Vec<Work>)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(batch) = state.waiting.pop_front() {
                self.changed.notify_all();
                return Some(batch);
            }
            state = self.wait(state);
        }
    }
}

/// The side of a [`Crew`] that hands out.
pub(super) struct Foreman<'f> {
    crew: &'f Crew<'f>,
    batch: Vec<Work>,
    batch_bytes: usize,
    /// Batches handed out, and those whose results were taken.
    given: u64,
    taken: u64,
}

impl<'f> Foreman<'f> {
    pub(super) fn new(crew: &'f Crew<'f>) -> Self {
        Self {
            crew,
            batch: Vec::new(),
            batch_bytes: 0,
            given: 0,
            taken: 0,
        }
    }

    /// Hands work out, now or with what follows.
    pub(super) fn add(&mut self, work: Work) {
        // Each batch holds on to one member, so that small files between large ones do not hold many.
        if let Some(last) = self.batch.last()
            && !last.content().is_of_one_member_with(work.content())
        {
            self.hand_out();
        }
        self.batch_bytes += work.bytes();
        self.batch.push(work);
        let is_full = self.batch.len() >= BATCH_FILES || self.batch_bytes >= BATCH_BYTES;
        if is_full || self.crew.writers == 0 {
            self.hand_out();
        }
    }

    /// A mark behind all work so far, for [`Self::is_past`].
    pub(super) fn mark(&self) -> u64 {
        self.given + u64::from(!self.batch.is_empty())
    }

    /// Whether the results of all work before the mark were taken.
    pub(super) fn is_past(&self, mark: u64) -> bool {
        self.taken >= mark
    }

    /// Hands out what was added.
    fn hand_out(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let number = self.given;
        self.given += 1;
        if self.crew.writers == 0 {
            let written = write_all(&batch, self.crew.meter);
            self.crew.lock().written.insert(number, written);
            return;
        }
        let mut state = self.crew.lock();
        while state.waiting.len() >= WAITING_BATCHES && !state.closed {
            state = self.crew.wait(state);
        }
        state.waiting.push_back((number, batch));
        drop(state);
        self.crew.changed.notify_all();
    }

    /// Takes the results that are there; waits for all of them before `mark`, if one is given.
    ///
    /// # Errors
    /// The first failure in the order of the work; `into` has what was written before it.
    pub(super) fn take(
        &mut self,
        mark: Option<u64>,
        mut into: impl FnMut(Written),
    ) -> Result<(), RestoreError> {
        if mark.is_some_and(|mark| mark > self.given) {
            self.hand_out();
        }
        loop {
            let mut state = self.crew.lock();
            let mut next = state.written.remove(&self.taken);
            while next.is_none() && mark.is_some_and(|mark| self.taken < mark) {
                if state.closed {
                    return Err(RestoreError::Stopped);
                }
                state = self.crew.wait(state);
                next = state.written.remove(&self.taken);
            }
            drop(state);
            let Some(mut written) = next else {
                return Ok(());
            };
            self.taken += 1;
            let failure = written.failure.take();
            into(written);
            if let Some(failure) = failure {
                return Err(failure);
            }
        }
    }
}

#[cfg(test)]
mod tests;
