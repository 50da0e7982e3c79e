//! Members, checked and decompressed ahead of who reads them.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::codec::Codec;
use crate::index::{IndexMember, IndexReader};
use crate::member::load;
use crate::meter::Meter;
use crate::needed::{Archive, Needed};
use crate::profile::{Phase, ThreadKind};
use crate::threads::{OnEnd, OnPanic, at_most};

/// Threads that decompress, at most.
const MOST_WORKERS: usize = 4;
/// Decompressed bytes that wait for their reader, beside one member.
const AHEAD_BYTES: u64 = 8 << 20;

/// One member and what it holds.
pub(crate) struct Loaded {
    pub(crate) member: IndexMember,
    pub(crate) content: Vec<u8>,
}

/// Gives members in the order of the index.
pub(crate) trait Members: Sync {
    /// The next one; none behind the last. After an error, nothing follows.
    fn next(&self) -> io::Result<Option<Arc<Loaded>>>;
}

/// Calls `work` with the members of an archive, which other threads load meanwhile.
///
/// # Guarantees
/// Those that are `needed` are read from `archive` in order, and each is checked as [`load`] does. Memory is bounded
/// by some members, whatever the archive holds.
pub(crate) fn with_members<A: Archive + Send, I: Read + Send, T>(
    codec: Codec,
    archive: A,
    index: IndexReader<I>,
    needed: &Needed,
    meter: &Meter,
    work: impl FnOnce(&dyn Members) -> T,
) -> T {
    let ahead = Ahead {
        codec,
        source: Mutex::new(Source {
            archive,
            index,
            number: 0,
            ended: false,
        }),
        needed,
        meter,
        state: Mutex::new(State::default()),
        changed: Condvar::new(),
    };
    thread::scope(|scope| {
        for _ in 0..at_most(MOST_WORKERS) {
            scope.spawn(|| {
                let _closing = OnPanic(|| ahead.close());
                ahead.load_all();
            });
        }
        let _closing = OnEnd(|| ahead.close());
        work(&ahead)
    })
}

struct Ahead<'n, A: Archive, I: Read> {
    codec: Codec,
    source: Mutex<Source<A, I>>,
    needed: &'n Needed,
    meter: &'n Meter,
    state: Mutex<State>,
    changed: Condvar,
}

struct Source<A: Archive, I: Read> {
    archive: A,
    index: IndexReader<I>,
    /// Of the member that comes next in the index.
    number: u64,
    ended: bool,
}

#[derive(Default)]
struct State {
    /// How many members were begun, and how many were given out.
    begun: u64,
    given: u64,
    /// Decompressed bytes that were begun and not given out.
    bytes: u64,
    ready: BTreeMap<u64, io::Result<Option<Arc<Loaded>>>>,
    closed: bool,
}

impl<A: Archive, I: Read> Source<A, I> {
    /// The next member that is needed; the archive stands at its start.
    fn next(&mut self, needed: &Needed) -> io::Result<Option<IndexMember>> {
        let mut between = 0_u64;
        while let Some(member) = self.index.next_member()? {
            self.number += 1;
            if needed.has(self.number - 1) {
                if between > 0 {
                    self.archive.pass(between)?;
                }
                return Ok(Some(member));
            }
            between = between.saturating_add(member.size);
        }
        Ok(None)
    }
}

impl<A: Archive, I: Read> Ahead<'_, A, I> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets all threads end.
    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn load_all(&self) {
        let meter = self.meter;
        let _timed = meter.time_thread(ThreadKind::Loaders, Phase::Decompress);
        let mut compressed = Vec::new();
        while let Some((number, fetched)) = self.fetch(&mut compressed) {
            let loaded = fetched.and_then(|member| {
                let Some(member) = member else {
                    return Ok(None);
                };
                let content = load(self.codec, &member, &compressed, meter)?;
                Ok(Some(Arc::new(Loaded { member, content })))
            });
            self.lock().ready.insert(number, loaded);
            self.changed.notify_all();
        }
    }

    /// Reads the next member, once there is room for it, and its number; none when there is nothing
    /// left to do.
    fn fetch(&self, compressed: &mut Vec<u8>) -> Option<(u64, io::Result<Option<IndexMember>>)> {
        let waiting = self.meter.time(Phase::Wait);
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        drop(waiting);
        if source.ended {
            return None;
        }
        let next = || source.next(self.needed);
        let member = self.meter.during(Phase::Index, next);
        let bytes = match &member {
            Ok(Some(member)) => member.tar_size,
            _ => 0,
        };
        let number = self.begin(bytes)?;
        let fetched = member.and_then(|member| {
            if let Some(member) = &member {
                let fetch = || crate::member::fetch(&mut source.archive, member, compressed);
                self.meter.during(Phase::Fetch, fetch)?;
            }
            Ok(member)
        });
        source.ended = !matches!(fetched, Ok(Some(_)));
        Some((number, fetched))
    }

    /// Waits for room for so many bytes; none when nobody wants them.
    fn begin(&self, bytes: u64) -> Option<u64> {
        let _waiting = self.meter.time(Phase::Wait);
        let mut state = self.lock();
        while !state.closed && state.bytes > 0 && state.bytes.saturating_add(bytes) > AHEAD_BYTES {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        state.bytes = state.bytes.saturating_add(bytes);
        state.begun += 1;
        Some(state.begun - 1)
    }
}

impl<A: Archive + Send, I: Read + Send> Members for Ahead<'_, A, I> {
    fn next(&self) -> io::Result<Option<Arc<Loaded>>> {
        let _waiting = self.meter.time(Phase::Wait);
        let mut state = self.lock();
        loop {
            let number = state.given;
            if let Some(loaded) = state.ready.remove(&number) {
                state.given += 1;
                if let Ok(Some(loaded)) = &loaded {
                    state.bytes -= loaded.member.tar_size;
                }
                drop(state);
                self.changed.notify_all();
                return loaded;
            }
            if state.closed {
                return Err(io::Error::other("a thread that decompresses has died"));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
