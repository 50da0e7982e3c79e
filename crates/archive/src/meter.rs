//! What a pack or an unpack has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::profile::{Phase, Profile, Spent, ThreadKind, Timed};

/// Counts content as it moves, for whoever looks on from another thread.
#[derive(Debug, Default)]
pub struct Meter {
    bytes: AtomicU64,
    files: AtomicU64,
    profile: Profile,
}

impl Meter {
    /// One that also keeps where the time goes.
    pub fn profiling() -> Self {
        Self {
            profile: Profile::on(),
            ..Self::default()
        }
    }

    /// Whether it keeps where the time goes.
    pub fn is_profiling(&self) -> bool {
        self.profile.is_on()
    }

    /// Counts the time of this thread for `phase` until the guard goes, but for that of guards inside
    /// it; does nothing unless it is [profiling](Self::profiling).
    pub fn time(&self, phase: Phase) -> Timed<'_> {
        self.profile.time(phase)
    }

    /// Counts the time of `work` for `phase`, as [`Self::time`] does.
    pub fn during<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let _timed = self.time(phase);
        work()
    }

    /// As [`Self::time`], for the whole life of a thread of this kind.
    pub(crate) fn time_thread(&self, kind: ThreadKind, phase: Phase) -> Timed<'_> {
        self.profile.time_thread(kind, phase)
    }

    /// Where the time went so far.
    pub fn spent(&self) -> Vec<Spent> {
        self.profile.spent()
    }

    /// Bytes of regular files so far; those that are read twice count twice.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Regular files so far.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.files.store(0, Ordering::Relaxed);
        self.profile.reset();
    }

    pub(crate) fn moved(&self, bytes: usize) {
        self.passed(bytes as u64);
    }

    /// Counts holes like the content they stand for.
    pub(crate) fn passed(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn file_done(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }
}
