//! Where the time of a pack or an unpack goes, by kind of thread and by what it does.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Listing folders, looking names up, opening files.
    Walk,
    /// Reading the source.
    Read,
    /// Digesting content, members and objects.
    Digest,
    /// Compressing members.
    Compress,
    /// Decompressing members.
    Decompress,
    /// Writing or reading lines of the index.
    Index,
    /// Writing to storage.
    Store,
    /// Reading from storage.
    Fetch,
    /// Reading the entries of the tar stream.
    Entries,
    /// Making files, folders and links.
    Write,
    /// Making durable what was written.
    Sync,
    /// Waiting for other threads.
    Wait,
}

impl Phase {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 12] = [
        Self::Walk,
        Self::Read,
        Self::Digest,
        Self::Compress,
        Self::Decompress,
        Self::Index,
        Self::Store,
        Self::Fetch,
        Self::Entries,
        Self::Write,
        Self::Sync,
        Self::Wait,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Walk => "walk",
            Self::Read => "read",
            Self::Digest => "digest",
            Self::Compress => "compress",
            Self::Decompress => "decompress",
            Self::Index => "index",
            Self::Store => "store",
            Self::Fetch => "fetch",
            Self::Entries => "entries",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Wait => "wait",
        }
    }

    /// Whether one thread at a time does it, whatever their number.
    pub fn is_serial(self) -> bool {
        matches!(self, Self::Index | Self::Store | Self::Fetch)
    }
}

/// Who does it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ThreadKind {
    /// The one thread that walks, or reads the tar stream.
    #[default]
    Main,
    /// Those that read the source.
    Readers,
    /// Those that compress, and write what is next.
    Compressors,
    /// Those that fetch members and decompress them ahead.
    Loaders,
    /// Those that write files.
    Writers,
}

impl ThreadKind {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 5] = [
        Self::Main,
        Self::Readers,
        Self::Compressors,
        Self::Loaders,
        Self::Writers,
    ];

    /// What they are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main thread",
            Self::Readers => "readers",
            Self::Compressors => "compressors",
            Self::Loaders => "loaders",
            Self::Writers => "writers",
        }
    }
}

/// What the threads of one kind spent their time with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// Which kind.
    pub kind: ThreadKind,
    /// How many of them ran at once.
    pub threads: u64,
    /// The sum over all of them, by phase; none for phases that did not occur.
    pub phases: Vec<(Phase, Duration)>,
}

/// Sums up the time that threads spend in each phase.
///
/// # Guarantees
/// - Within one thread, time counts for the innermost guard alone: the phases of a kind add up to no
///   more than its threads' lives.
/// - Off, which is the default, a guard costs one look at a flag.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    on: bool,
    kinds: [Kind; ThreadKind::ALL.len()],
}

#[derive(Debug, Default)]
struct Kind {
    nanos: [AtomicU64; Phase::ALL.len()],
    /// Threads that run, and the most that ever did.
    running: AtomicU64,
    most: AtomicU64,
}

impl Profile {
    pub(crate) fn on() -> Self {
        Self {
            on: true,
            ..Self::default()
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Counts the time until the guard goes, but for that of guards inside it.
    pub(crate) fn time(&self, phase: Phase) -> Timed<'_> {
        if !self.on {
            return Timed::default();
        }
        let (kind, of_outer) = THREAD.get();
        self.begin(kind, phase, (kind, of_outer), false)
    }

    /// As [`Self::time`], for the whole life of a thread of this kind.
    pub(crate) fn time_thread(&self, kind: ThreadKind, phase: Phase) -> Timed<'_> {
        if !self.on {
            return Timed::default();
        }
        let counters = &self.kinds[kind as usize];
        let running = counters.running.fetch_add(1, Ordering::Relaxed) + 1;
        counters.most.fetch_max(running, Ordering::Relaxed);
        self.begin(kind, phase, THREAD.get(), true)
    }

    fn begin(
        &self,
        kind: ThreadKind,
        phase: Phase,
        outer: (ThreadKind, Duration),
        is_thread: bool,
    ) -> Timed<'_> {
        THREAD.set((kind, Duration::ZERO));
        Timed {
            open: Some(Open {
                kind: &self.kinds[kind as usize],
                phase,
                outer,
                is_thread,
                since: Instant::now(),
            }),
            of_this_thread: PhantomData,
        }
    }

    /// What was spent so far, by the kinds that did anything.
    pub(crate) fn spent(&self) -> Vec<Spent> {
        let told = ThreadKind::ALL.map(|kind| self.kinds[kind as usize].spent(kind));
        told.into_iter()
            .filter(|spent| !spent.phases.is_empty())
            .collect()
    }

    /// Begins anew.
    pub(crate) fn reset(&self) {
        for kind in &self.kinds {
            for nanos in &kind.nanos {
                nanos.store(0, Ordering::Relaxed);
            }
            let running = kind.running.load(Ordering::Relaxed);
            kind.most.store(running, Ordering::Relaxed);
        }
    }
}

impl Kind {
    fn spent(&self, kind: ThreadKind) -> Spent {
        let nanos = |phase: Phase| self.nanos[phase as usize].load(Ordering::Relaxed);
        Spent {
            kind,
            // Nobody counts the main thread.
            threads: self.most.load(Ordering::Relaxed).max(1),
            phases: Phase::ALL
                .into_iter()
                .filter(|phase| nanos(*phase) > 0)
                .map(|phase| (phase, Duration::from_nanos(nanos(phase))))
                .collect(),
        }
    }
}

thread_local! {
    /// The kind of this thread, and what guards took that have gone inside the innermost one.
    static THREAD: Cell<(ThreadKind, Duration)> = const { Cell::new((ThreadKind::Main, Duration::ZERO)) };
}

/// Counts time for a phase until it goes.
#[derive(Default)]
#[must_use = "time is counted until this goes"]
pub struct Timed<'p> {
    open: Option<Open<'p>>,
    of_this_thread: PhantomData<*const ()>,
}

struct Open<'p> {
    kind: &'p Kind,
    phase: Phase,
    /// What stood in [`THREAD`] before.
    outer: (ThreadKind, Duration),
    is_thread: bool,
    since: Instant,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let Some(open) = &self.open else {
            return;
        };
        let elapsed = open.since.elapsed();
        let (kind, before) = open.outer;
        let (_, inside) = THREAD.replace((kind, before + elapsed));
        let nanos = elapsed.saturating_sub(inside).as_nanos();
        open.kind.nanos[open.phase as usize]
            .fetch_add(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
        if open.is_thread {
            open.kind.running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const NAP: Duration = Duration::from_millis(20);

    fn of(spent: &Spent, phase: Phase) -> Duration {
        let found = spent.phases.iter().find(|(found, _)| *found == phase);
        found.map_or(Duration::ZERO, |(_, time)| *time)
    }

    #[test]
    fn time_counts_for_the_innermost_guard_alone() {
        let profile = Profile::on();
        let start = Instant::now();
        {
            let _outer = profile.time(Phase::Read);
            {
                let _inner = profile.time(Phase::Digest);
                let _innermost = profile.time(Phase::Wait);
                thread::sleep(NAP);
            }
            thread::sleep(NAP);
        }
        let wall = start.elapsed();
        let [spent] = &profile.spent()[..] else {
            panic!("one kind of thread");
        };
        assert_eq!((spent.kind, spent.threads), (ThreadKind::Main, 1));
        assert!(of(spent, Phase::Wait) >= NAP && of(spent, Phase::Read) >= NAP);
        // What counted twice would make the sum larger than all there was.
        assert!(spent.phases.iter().map(|(_, time)| *time).sum::<Duration>() <= wall);
    }

    #[test]
    fn threads_are_told_by_kind_and_counted() {
        let profile = Profile::on();
        let ready = std::sync::Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let _thread = profile.time_thread(ThreadKind::Writers, Phase::Write);
                    ready.wait();
                    let _waiting = profile.time(Phase::Wait);
                    thread::sleep(NAP);
                });
            }
        });
        let [spent] = &profile.spent()[..] else {
            panic!("one kind of thread");
        };
        assert_eq!((spent.kind, spent.threads), (ThreadKind::Writers, 3));
        assert!(of(spent, Phase::Wait) >= 3 * NAP);
        profile.reset();
        assert!(profile.spent().is_empty());
    }

    #[test]
    fn off_it_counts_nothing() {
        let profile = Profile::default();
        drop(profile.time(Phase::Read));
        drop(profile.time_thread(ThreadKind::Readers, Phase::Read));
        assert!(profile.spent().is_empty());
    }
}
