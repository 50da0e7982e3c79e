//! Backups that their store is to lock.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{Place, failure_of};
use jiff::Timestamp;
use tidelock_mover::run;
use tidelock_protocol::{FailureReason, LockMode, ObjectLock, Outcome, Task};
use tidelock_storage::{Directory, ErrorClass, Lock, Storage, StorageError, pass_on};

const DAY: i64 = 86_400;

/// Keeps locks, and refuses the one after so many.
struct Locking {
    inner: Directory,
    locked: Mutex<BTreeMap<String, Timestamp>>,
    before_refusal: AtomicUsize,
    refusal: ErrorClass,
}

impl Locking {
    fn at(place: &Place, before_refusal: usize, refusal: ErrorClass) -> Self {
        Self {
            inner: Directory::open(&place.storage()).unwrap(),
            locked: Mutex::default(),
            before_refusal: AtomicUsize::new(before_refusal),
            refusal,
        }
    }
}

impl Storage for Locking {
    pass_on!(inner: put, get, get_fresh, head, list, delete, sweep, sweep_dead);

    fn lock(&self, key: &str, lock: &Lock) -> Result<(), StorageError> {
        if self.before_refusal.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(StorageError {
                action: "lock",
                key: key.to_owned(),
                class: self.refusal,
                source: io::Error::other("it does not want to"),
            });
        }
        self.locked
            .lock()
            .unwrap()
            .insert(key.to_owned(), lock.until);
        Ok(())
    }
}

fn source() -> Place {
    let place = Place::new();
    fs::write(place.source().join("file"), "content").unwrap();
    place
}

fn locked_task(place: &Place) -> Task {
    let Task::Backup(mut task) = place.backup_task() else {
        panic!("no backup");
    };
    task.lock = Some(ObjectLock {
        mode: LockMode::Compliance,
        days: 30,
    });
    Task::Backup(task)
}

fn back_up(place: &Place, storage: &dyn Storage) -> Outcome {
    let request = place.request("u-1", locked_task(place));
    run(&request, storage, &AtomicBool::new(false))
}

#[test]
fn a_backup_that_is_not_wholly_locked_is_locked_by_the_next_try_and_not_made_again() {
    for before_refusal in 0..5 {
        let place = source();
        let storage = Locking::at(&place, before_refusal, ErrorClass::Unavailable);
        let first = back_up(&place, &storage);
        assert_eq!(
            matches!(first, Outcome::Failed(_)),
            before_refusal < 4,
            "{first:?}"
        );
        let published = fs::metadata(place.archive()).unwrap().modified().unwrap();
        let storage = Locking::at(&place, usize::MAX, ErrorClass::Unavailable);
        let Outcome::BackedUp(report) = back_up(&place, &storage) else {
            panic!("it failed again");
        };
        let until = Timestamp::from_second(report.locked_until.unwrap()).unwrap();
        let in_days = until.as_second() - Timestamp::now().as_second();
        assert!((30 * DAY - 600..=30 * DAY).contains(&in_days), "{in_days}");
        let locked = storage.locked.lock().unwrap();
        assert_eq!(locked.len(), 4, "{locked:?}");
        assert!(locked.values().all(|own| *own == until), "{locked:?}");
        let again = fs::metadata(place.archive()).unwrap().modified().unwrap();
        assert_eq!(published, again);
    }
}

#[test]
fn a_backup_that_may_not_be_locked_fails_and_leaves_nothing() {
    let place = source();
    let storage = Locking::at(&place, 0, ErrorClass::Denied);
    let failure = failure_of(back_up(&place, &storage));
    assert_eq!(failure.reason, FailureReason::StorageDenied, "{failure:?}");
    assert!(failure.message.contains("does not want to"), "{failure:?}");
    assert!(
        place.stored_names().is_empty(),
        "{:?}",
        place.stored_names()
    );
    // So does one on a volume, which locks nothing.
    let failure = failure_of(place.run("u-1", locked_task(&place)));
    assert_eq!(failure.reason, FailureReason::StorageDenied, "{failure:?}");
    assert!(place.stored_names().is_empty());
}
