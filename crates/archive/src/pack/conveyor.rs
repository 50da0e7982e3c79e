//! What moves between the threads of a pack, in which order, and how much of it at once.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::meter::Meter;
use crate::profile::Phase;

/// Tasks that wait for a reader at once; each holds up to some 1 MiB of names.
const WAITING_TASKS: usize = 2;

/// Where a piece belongs: behind all pieces of earlier tasks and those before it of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) task: u64,
    pub(super) piece: u64,
    /// It is the last of its task.
    pub(super) last: bool,
}

/// Why nothing moves any more: another thread failed, or all was told to stop.
#[derive(Debug)]
pub(super) struct Halted;

/// Carries tasks to readers, raw pieces to compressors, and finished ones to the output in order.
///
/// # Guarantees
/// - Whoever finishes first, pieces are taken out in the order of their places.
/// - At most as many pieces as there are places exist at once, and the task that is next in order
///   always gets one: so nothing waits for ever, and memory is bounded.
pub(super) struct Conveyor<'m, T, R, F> {
    meter: &'m Meter,
    state: Mutex<State<T, R, F>>,
    changed: Condvar,
}

struct State<T, R, F> {
    tasks: VecDeque<(u64, T)>,
    /// Number of the next task; none once there are no more.
    next_task: Option<u64>,
    total_tasks: u64,
    free: usize,
    /// Memory of pieces that were written.
    spare: Vec<Vec<u8>>,
    raw: BTreeMap<Place, R>,
    finished: BTreeMap<Place, F>,
    /// The first place, of task and piece, that was not taken out.
    head: (u64, u64),
    /// Somebody is writing what was taken out last.
    writing: bool,
    halted: bool,
    /// The first failure.
    failure: Option<io::Error>,
}

impl<'m, T, R, F> Conveyor<'m, T, R, F> {
    /// For at most `places` pieces at once; at least two.
    pub(super) fn new(places: usize, meter: &'m Meter) -> Self {
        Self {
            meter,
            state: Mutex::new(State {
                tasks: VecDeque::new(),
                next_task: Some(0),
                total_tasks: 0,
                free: places.max(2),
                spare: Vec::new(),
                raw: BTreeMap::new(),
                finished: BTreeMap::new(),
                head: (0, 0),
                writing: false,
                halted: false,
                failure: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T, R, F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` gives something, or all is halted.
    fn wait<V>(
        &self,
        mut ready: impl FnMut(&mut State<T, R, F>) -> Option<V>,
    ) -> Result<V, Halted> {
        let _waiting = self.meter.time(Phase::Wait);
        let mut state = self.lock();
        loop {
            if state.halted {
                return Err(Halted);
            }
            if let Some(value) = ready(&mut state) {
                drop(state);
                self.changed.notify_all();
                return Ok(value);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Appends a task; waits while enough of them wait.
    pub(super) fn give(&self, task: T) -> Result<(), Halted> {
        let mut task = Some(task);
        self.wait(|state| {
            if state.tasks.len() >= WAITING_TASKS {
                return None;
            }
            let number = state.next_task?;
            state.tasks.push_back((number, task.take()?));
            state.next_task = Some(number + 1);
            state.total_tasks = number + 1;
            Some(())
        })
    }

    /// Says that no task follows.
    pub(super) fn close(&self) {
        self.lock().next_task = None;
        self.changed.notify_all();
    }

    /// The next task and its number; none when there are no more.
    pub(super) fn task(&self) -> Result<Option<(u64, T)>, Halted> {
        self.wait(|state| match state.tasks.pop_front() {
            Some(task) => Some(Some(task)),
            None => state.next_task.is_none().then_some(None),
        })
    }

    /// Room for one piece of `task`, and memory for it that may be empty.
    pub(super) fn place(&self, task: u64) -> Result<Vec<u8>, Halted> {
        self.wait(|state| {
            // The last one is kept for the task that all others wait for.
            let is_there = state.free > 1 || (state.free == 1 && task == state.head.0);
            is_there.then(|| {
                state.free -= 1;
                state.spare.pop().unwrap_or_default()
            })
        })
    }

    /// Hands a piece, which has a place, to the compressors.
    pub(super) fn push(&self, place: Place, piece: R) {
        self.lock().raw.insert(place, piece);
        self.changed.notify_all();
    }

    /// The next piece to compress, the one first in order; none when all are done.
    pub(super) fn raw(&self) -> Result<Option<(Place, R)>, Halted> {
        self.wait(|state| match state.raw.pop_first() {
            Some(piece) => Some(Some(piece)),
            None => state.is_done().then_some(None),
        })
    }

    /// Takes a compressed piece, and writes with `write`, which gives its memory back, all whose
    /// turn it is.
    pub(super) fn finished(
        &self,
        place: Place,
        piece: F,
        mut write: impl FnMut(Place, F) -> io::Result<Vec<u8>>,
    ) -> Result<(), Halted> {
        let mut state = self.lock();
        state.finished.insert(place, piece);
        while let Some((place, piece)) = state.take_next() {
            state.writing = true;
            drop(state);
            let written = write(place, piece);
            state = self.lock();
            state.writing = false;
            state.free += 1;
            state.head = match place.last {
                true => (place.task + 1, 0),
                false => (place.task, place.piece + 1),
            };
            match written {
                Ok(memory) => state.spare.push(memory),
                Err(error) => {
                    state.halted = true;
                    state.failure.get_or_insert(error);
                }
            }
            self.changed.notify_all();
        }
        if state.halted { Err(Halted) } else { Ok(()) }
    }

    /// Stops everything.
    pub(super) fn halt(&self) {
        self.lock().halted = true;
        self.changed.notify_all();
    }

    /// Stops everything, because of `failure`.
    pub(super) fn fail(&self, failure: io::Error) {
        self.lock().failure.get_or_insert(failure);
        self.halt();
    }

    /// How it ended: the first failure, or whether all was written.
    pub(super) fn end(self) -> io::Result<bool> {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match state.failure {
            Some(failure) => Err(failure),
            None => Ok(!state.halted && state.is_done()),
        }
    }
}

impl<T, R, F> State<T, R, F> {
    /// What is to be written next, when it is there and nobody writes. After a failure, nothing is:
    /// what follows would stand behind a gap.
    fn take_next(&mut self) -> Option<(Place, F)> {
        let (place, _) = self.finished.first_key_value()?;
        let is_next = (place.task, place.piece) == self.head;
        (is_next && !self.writing && !self.halted)
            .then(|| self.finished.pop_first())
            .flatten()
    }

    fn is_done(&self) -> bool {
        self.next_task.is_none() && self.head.0 == self.total_tasks
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    type Test<'m> = Conveyor<'m, Vec<u64>, u64, u64>;

    /// Sends tasks of so many pieces each over a conveyor; gives what came out.
    fn carry(
        tasks: &[Vec<u64>],
        places: usize,
        fail_at: Option<u64>,
    ) -> (Vec<u64>, io::Result<bool>) {
        let meter = Meter::default();
        let conveyor = Test::new(places, &meter);
        let out = Mutex::new(Vec::new());
        let read = || {
            while let Some((task, pieces)) = conveyor.task()? {
                for (at, piece) in pieces.iter().enumerate() {
                    conveyor.place(task)?;
                    if piece % 3 == 0 {
                        thread::yield_now();
                    }
                    let place = Place {
                        task,
                        piece: at as u64,
                        last: at + 1 == pieces.len(),
                    };
                    conveyor.push(place, *piece);
                }
            }
            Ok::<(), Halted>(())
        };
        let compress = || {
            while let Some((place, piece)) = conveyor.raw()? {
                if piece % 2 == 0 {
                    thread::yield_now();
                }
                conveyor.finished(place, piece, |_, piece| {
                    if fail_at == Some(piece) {
                        return Err(io::Error::other("full"));
                    }
                    out.lock().unwrap().push(piece);
                    Ok(Vec::new())
                })?;
            }
            Ok::<(), Halted>(())
        };
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(read);
                scope.spawn(compress);
            }
            for task in tasks {
                if conveyor.give(task.clone()).is_err() {
                    break;
                }
            }
            conveyor.close();
        });
        (out.into_inner().unwrap(), conveyor.end())
    }

    proptest! {
        #[test]
        fn whoever_is_first_the_order_stays_and_nobody_waits_for_ever(
            tasks in prop::collection::vec(prop::collection::vec(any::<u64>(), 1..9), 0..40),
            places in 2..6_usize,
        ) {
            let (out, ended) = carry(&tasks, places, None);
            prop_assert_eq!(out, tasks.concat());
            prop_assert!(ended.unwrap());
        }
    }

    #[test]
    fn a_failed_write_ends_everything_and_is_told() {
        let tasks: Vec<Vec<u64>> = (0..30).map(|n| vec![3 * n, 3 * n + 1, 3 * n + 2]).collect();
        let (out, ended) = carry(&tasks, 3, Some(40));
        assert_eq!(out, (0..40).collect::<Vec<_>>());
        assert_eq!(ended.unwrap_err().to_string(), "full");
    }

    #[test]
    fn what_was_halted_is_not_whole() {
        let meter = Meter::default();
        let conveyor = Test::new(2, &meter);
        conveyor.give(vec![1]).unwrap();
        conveyor.halt();
        assert!(conveyor.give(vec![2]).is_err());
        assert!(conveyor.task().is_err() && conveyor.place(0).is_err() && conveyor.raw().is_err());
        assert!(!conveyor.end().unwrap());
    }
}
