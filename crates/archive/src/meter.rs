//! What a pack or an unpack has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts content as it moves, for whoever looks on from another thread.
#[derive(Debug, Default)]
pub struct Meter {
    bytes: AtomicU64,
    files: AtomicU64,
}

impl Meter {
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
