//! Members, checked and decompressed ahead of who reads them.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::num::NonZero;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::index::{IndexMember, IndexReader};
use crate::member::load;

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
/// Members are read from `archive` in order, and each is checked as [`load`] does. Memory is bounded
/// by some members, whatever the archive holds.
pub(crate) fn with_members<A: Read + Send, I: Read + Send, T>(
    archive: A,
    index: IndexReader<I>,
    work: impl FnOnce(&dyn Members) -> T,
) -> T {
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let ahead = Ahead {
        source: Mutex::new(Source {
            archive,
            index,
            ended: false,
        }),
        state: Mutex::new(State::default()),
        changed: Condvar::new(),
    };
    thread::scope(|scope| {
        for _ in 0..workers.min(MOST_WORKERS) {
            scope.spawn(|| {
                let _closing = Closing(&ahead, thread::panicking);
                ahead.load_all();
            });
        }
        let _closing = Closing(&ahead, || true);
        work(&ahead)
    })
}

/// Lets all threads end when it goes, if `when` says so.
struct Closing<'c, A: Read, I: Read>(&'c Ahead<A, I>, fn() -> bool);

impl<A: Read, I: Read> Drop for Closing<'_, A, I> {
    fn drop(&mut self) {
        if (self.1)() {
            self.0.lock().closed = true;
            self.0.changed.notify_all();
        }
    }
}

struct Ahead<A: Read, I: Read> {
    source: Mutex<Source<A, I>>,
    state: Mutex<State>,
    changed: Condvar,
}

struct Source<A: Read, I: Read> {
    archive: A,
    index: IndexReader<I>,
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

impl<A: Read, I: Read> Ahead<A, I> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load_all(&self) {
        let mut compressed = Vec::new();
        while let Some((number, fetched)) = self.fetch(&mut compressed) {
            let loaded = fetched.and_then(|member| {
                let Some(member) = member else {
                    return Ok(None);
                };
                let content = load(&member, &compressed)?;
                Ok(Some(Arc::new(Loaded { member, content })))
            });
            self.lock().ready.insert(number, loaded);
            self.changed.notify_all();
        }
    }

    /// Reads the next member, once there is room for it, and its number; none when there is nothing
    /// left to do.
    fn fetch(&self, compressed: &mut Vec<u8>) -> Option<(u64, io::Result<Option<IndexMember>>)> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if source.ended {
            return None;
        }
        let member = source.index.next_member();
        let bytes = match &member {
            Ok(Some(member)) => member.tar_size,
            _ => 0,
        };
        let number = self.begin(bytes)?;
        let fetched = member.and_then(|member| {
            if let Some(member) = &member {
                crate::member::fetch(&mut source.archive, member, compressed)?;
            }
            Ok(member)
        });
        source.ended = !matches!(fetched, Ok(Some(_)));
        Some((number, fetched))
    }

    /// Waits for room for so many bytes; none when nobody wants them.
    fn begin(&self, bytes: u64) -> Option<u64> {
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

impl<A: Read + Send, I: Read + Send> Members for Ahead<A, I> {
    fn next(&self) -> io::Result<Option<Arc<Loaded>>> {
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
