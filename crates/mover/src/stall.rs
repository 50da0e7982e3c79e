//! Ending a run that gets nowhere.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tidelock_protocol::{Failure, FailureReason, Task};

use crate::failure::failure;
use crate::progress::Progress;

/// A process that used less processor time than this was waiting. Work on the source or the
/// target that moves no bytes of storage, such as removing a million files, uses more.
const WAITING: Duration = Duration::from_millis(10);
/// How often it is looked within one time-out.
const LOOKS: u32 = 8;

/// Watches a run from a thread of its own until it is ended or dropped.
pub struct Watchdog {
    ended: Arc<(Mutex<bool>, Condvar)>,
}

impl Watchdog {
    /// Calls `on_stall` once when, for `timeout`, no byte moved to or from storage, storage
    /// answered nothing and the process used no processor time.
    ///
    /// # Guarantees
    /// `on_stall` is never called after [`Self::end`] has returned, and [`Self::end`] does not
    /// return while it runs: the run is ended by one of the two.
    ///
    /// # Errors
    /// None: where no thread can be started the run goes unwatched, with a warning.
    pub fn start(
        progress: Arc<Progress>,
        task: &Task,
        timeout: Duration,
        on_stall: impl FnOnce(Failure) + Send + 'static,
    ) -> Self {
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = Arc::clone(&ended);
        let elsewhere = elsewhere(task);
        let thread = std::thread::Builder::new()
            .name("stall".to_owned())
            .spawn(move || watch(&shared, &progress, elsewhere, timeout, on_stall));
        if let Err(error) = thread {
            tracing::warn!(%error, "a stall of this run will not be noticed");
        }
        Self { ended }
    }

    /// Ends the watch.
    pub fn end(self) {
        drop(self);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let (ended, changed) = &*self.ended;
        *ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }
}

/// What a run does while it waits for no answer of storage.
fn elsewhere(task: &Task) -> &'static str {
    match task {
        Task::Backup(_) => "reading the source volume",
        Task::Restore(_) | Task::Undo(_) => "writing to the target volume",
        Task::Delete(_) | Task::Verify(_) | Task::Check(_) => "at work on what storage gave",
    }
}

fn watch(
    (ended, changed): &(Mutex<bool>, Condvar),
    progress: &Progress,
    elsewhere: &str,
    timeout: Duration,
    on_stall: impl FnOnce(Failure),
) {
    let clock = Instant::now();
    let mut judge = Judge::new(seen(progress));
    let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
    while !*ended {
        if judge.is_stalled(seen(progress), clock.elapsed(), timeout) {
            return on_stall(stalled(progress, elsewhere, timeout));
        }
        let look = changed.wait_timeout(ended, timeout / LOOKS);
        ended = look.unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn stalled(progress: &Progress, elsewhere: &str, timeout: Duration) -> Failure {
    let step = progress.open_call().unwrap_or_else(|| elsewhere.to_owned());
    failure(
        FailureReason::Stalled,
        format!(
            "nothing moved for {} s while {step}, after {} bytes to and from storage; the run is tried again; check that the volume answers, or raise the stall time-out",
            timeout.as_secs(),
            progress.bytes()
        ),
    )
}

/// A run at one moment.
#[derive(Debug, Clone, Copy)]
struct Seen {
    beats: (u64, u64),
    /// Processor time of the process.
    worked: Duration,
}

fn seen(progress: &Progress) -> Seen {
    let worked = clock_gettime(ClockId::ProcessCPUTime);
    Seen {
        beats: progress.beats(),
        worked: Duration::try_from(worked).unwrap_or_default(),
    }
}

/// Tells a run that waits from one that moves.
struct Judge {
    last: Seen,
    moved_at: Duration,
}

impl Judge {
    fn new(first: Seen) -> Self {
        Self {
            last: first,
            moved_at: Duration::ZERO,
        }
    }

    /// Whether nothing has moved since `timeout` before `now`.
    fn is_stalled(&mut self, seen: Seen, now: Duration, timeout: Duration) -> bool {
        let worked = seen.worked.saturating_sub(self.last.worked) >= WAITING;
        if worked || seen.beats != self.last.beats {
            self.last = seen;
            self.moved_at = now;
        }
        now.saturating_sub(self.moved_at) >= timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(80);

    fn seen(bytes: u64, worked_ms: u64) -> Seen {
        Seen {
            beats: (bytes, 0),
            worked: Duration::from_millis(worked_ms),
        }
    }

    #[test]
    fn a_run_is_stalled_once_nothing_moved_for_the_whole_time_out() {
        let mut judge = Judge::new(seen(0, 0));
        let seconds = Duration::from_secs;
        assert!(!judge.is_stalled(seen(5, 0), seconds(70), TIMEOUT));
        assert!(!judge.is_stalled(seen(5, 3), seconds(149), TIMEOUT));
        assert!(judge.is_stalled(seen(5, 9), seconds(150), TIMEOUT));
    }

    #[test]
    fn a_byte_or_work_begins_the_time_out_anew() {
        let mut judge = Judge::new(seen(0, 0));
        for n in 1..100 {
            let now = Duration::from_secs(n * 70);
            let seen = if n % 2 == 0 {
                seen(n, n / 2 * 10)
            } else {
                seen(n - 1, n.div_ceil(2) * 10)
            };
            assert!(!judge.is_stalled(seen, now, TIMEOUT), "{n}");
        }
    }
}
