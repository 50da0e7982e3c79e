//! Storage that is written to and read from no faster than it may be.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tidelock_protocol::Limits;
use tidelock_storage::{ObjectInfo, Storage, StorageError, Upload, pass_on};

/// At most so much is moved at once, so that what is moved is spread evenly.
const MOST_AT_ONCE: usize = 64 << 10;

/// Storage behind limits, each over everything that goes its way.
pub(crate) struct Limited<'s> {
    inner: &'s dyn Storage,
    up: Option<Arc<Pace>>,
    down: Option<Arc<Pace>>,
}

impl<'s> Limited<'s> {
    pub(crate) fn new(inner: &'s dyn Storage, limits: &Limits) -> Self {
        let pace = |rate: Option<u64>| rate.map(|rate| Arc::new(Pace::new(rate)));
        Self {
            inner,
            up: pace(limits.upload_bytes_per_second),
            down: pace(limits.download_bytes_per_second),
        }
    }

    fn reader(&self, inner: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        match &self.down {
            Some(pace) => Box::new(Paced {
                inner,
                pace: Arc::clone(pace),
            }),
            None => inner,
        }
    }
}

/// A rate that several threads keep together.
struct Pace {
    bytes_per_second: u64,
    /// When what was let through is through at that rate.
    free: Mutex<Instant>,
}

impl Pace {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free: Mutex::new(Instant::now()),
        }
    }

    /// Waits until `bytes` may go.
    fn wait(&self, bytes: usize) {
        let now = Instant::now();
        let (pause, free) = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = turn(*free, now, bytes, self.bytes_per_second);
            *free = turn.1;
            turn
        };
        debug_assert!(free >= now);
        sleep(pause);
    }
}

/// How long `bytes` have to wait at `now`, and when they are through. What was not used is not saved
/// up.
fn turn(free: Instant, now: Instant, bytes: usize, rate: u64) -> (Duration, Instant) {
    let begins = free.max(now);
    let nanos = (bytes as u128 * 1_000_000_000) / u128::from(rate);
    let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    let ends = begins.checked_add(takes).unwrap_or(begins);
    (begins.saturating_duration_since(now), ends)
}

struct Paced<T> {
    inner: T,
    pace: Arc<Pace>,
}

impl<T: Read> Read for Paced<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(MOST_AT_ONCE);
        let read = self.inner.read(&mut buffer[..most])?;
        self.pace.wait(read);
        Ok(read)
    }
}

impl Write for Paced<Box<dyn Upload + '_>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = bytes.len().min(MOST_AT_ONCE);
        self.pace.wait(most);
        self.inner.write(&bytes[..most])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Upload for Paced<Box<dyn Upload + '_>> {
    fn commit(self: Box<Self>) -> Result<ObjectInfo, StorageError> {
        self.inner.commit()
    }
}

impl Storage for Limited<'_> {
    fn put<'a>(&'a self, key: &str, run: &str) -> Result<Box<dyn Upload + 'a>, StorageError> {
        let inner = self.inner.put(key, run)?;
        Ok(match &self.up {
            Some(pace) => Box::new(Paced {
                inner,
                pace: Arc::clone(pace),
            }),
            None => inner,
        })
    }

    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        Ok(self.reader(self.inner.get(key, range)?))
    }

    fn get_fresh(&self, key: &str) -> Result<Box<dyn Read + Send>, StorageError> {
        Ok(self.reader(self.inner.get_fresh(key)?))
    }

    pass_on!(inner: head, list, delete, lock, sweep, sweep_dead, free_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_keeps_to_the_rate_however_it_comes() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        // Three threads at once, each with a tenth of a second.
        let mut free = start;
        let mut waits = Vec::new();
        for _ in 0..3 {
            let (wait, next) = turn(free, start, 100, 1000);
            free = next;
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [0, 100, 200]);
        assert_eq!(free, start + Duration::from_millis(300));
        // A pause is not made up for.
        let (wait, next) = turn(free, start + 5 * second, 1000, 1000);
        assert_eq!((wait, next), (Duration::ZERO, start + 6 * second));
    }

    #[test]
    fn no_rate_and_no_size_ends_the_world() {
        let now = Instant::now();
        let (wait, _) = turn(now, now, usize::MAX, 1);
        assert_eq!(wait, Duration::ZERO);
        assert_eq!(Pace::new(0).bytes_per_second, 1);
    }

    #[test]
    fn a_limited_reader_gives_all_and_takes_its_time() {
        let started = Instant::now();
        let pace = Arc::new(Pace::new(1_000_000));
        let mut reader = Paced {
            inner: io::repeat(7).take(300_000),
            pace,
        };
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 300_000);
        // The last piece waits for none behind it.
        assert!(started.elapsed() >= Duration::from_millis(230));
    }
}
