//! A backup is there whole or not at all, whenever its run dies, and takes nothing from others.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::storage::Hooked;
use common::{Place, assert_says, failure_of, list, location, noise};
use tidelock_mover::run;
use tidelock_protocol::{BackupReport, FailureReason, Format, Location, Outcome, Task};
use tidelock_storage::{Directory, ObjectInfo, Storage, StorageError, Upload, pass_on};

/// Storage that stops working at the n-th effect, as if the process had died: nothing after it
/// happens, no clean-up either.
struct Dying {
    inner: Directory,
    effects_left: AtomicU64,
    /// The last effect happens, but its answer is lost.
    after: bool,
}

impl Dying {
    fn effect(&self) -> Result<(), StorageError> {
        let left = self.effects_left.load(Ordering::SeqCst);
        if left == 0 {
            let dead = io::Error::other("the process is dead");
            return Err(StorageError::of_os("reach", "storage", dead));
        }
        self.effects_left.store(left - 1, Ordering::SeqCst);
        Ok(())
    }

    fn died(&self) -> bool {
        self.effects_left.load(Ordering::SeqCst) == 0
    }

    /// Does `act` as one effect; at the moment of death it happens or not, as `after` says.
    fn done<T>(&self, act: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
        self.effect()?;
        if !self.died() {
            return act();
        }
        if self.after {
            act()?;
        }
        let dead = io::Error::other("the process is dead");
        Err(StorageError::of_os("reach", "storage", dead))
    }
}

impl Storage for Dying {
    fn put<'a>(&'a self, key: &str, run: &str) -> Result<Box<dyn Upload + 'a>, StorageError> {
        let upload = self.done(|| self.inner.put(key, run))?;
        Ok(Box::new(DyingUpload {
            storage: self,
            inner: Some(upload),
        }))
    }

    pass_on!(inner: get, get_fresh, head, list);

    fn delete(&self, key: &str) -> Result<bool, StorageError> {
        self.done(|| self.inner.delete(key))
    }

    fn sweep(&self, key: &str, run: &str) -> Result<u64, StorageError> {
        self.done(|| self.inner.sweep(key, run))
    }

    fn sweep_dead(
        &self,
        key: &str,
        run: &str,
        min_age: Duration,
        is_alive: &dyn Fn(&str) -> bool,
    ) -> Result<u64, StorageError> {
        self.done(|| self.inner.sweep_dead(key, run, min_age, is_alive))
    }
}

struct DyingUpload<'a> {
    storage: &'a Dying,
    inner: Option<Box<dyn Upload + 'a>>,
}

impl Write for DyingUpload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let inner = self.inner.as_mut().unwrap();
        let mut written = 0;
        self.storage
            .done(|| {
                written = inner.write(bytes).unwrap();
                Ok(())
            })
            .map_err(StorageError::into_io)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for DyingUpload<'_> {
    fn commit(mut self: Box<Self>) -> Result<ObjectInfo, StorageError> {
        let inner = self.inner.take().unwrap();
        let storage = self.storage;
        let mut inner = Some(inner);
        let done = storage.done(|| inner.take().unwrap().commit());
        // The dead do not clean up.
        std::mem::forget(inner);
        done
    }
}

impl Drop for DyingUpload<'_> {
    fn drop(&mut self) {
        if self.storage.died() {
            std::mem::forget(self.inner.take());
        }
    }
}

fn small_source() -> Place {
    let place = Place::new();
    for n in 0..3 {
        fs::write(place.source().join(format!("{n}")), noise(n, 700_000)).unwrap();
    }
    place
}

/// Backs up in this process and dies at the `n`-th effect; false when it got to the end.
fn die_at(place: &Place, task: &Task, n: u64, after: bool) -> bool {
    let storage = Dying {
        inner: Directory::open(&place.storage()).unwrap(),
        effects_left: AtomicU64::new(n),
        after,
    };
    let request = place.request("u-1", task.clone());
    let outcome = run(&request, &storage, &AtomicBool::new(false));
    if !storage.died() {
        assert!(!matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    }
    storage.died()
}

fn has_manifest(place: &Place) -> bool {
    place.object(".manifest.json").exists()
}

#[test]
fn a_backup_that_dies_at_any_point_leaves_all_or_nothing_and_the_next_try_ends_well() {
    let mut whole = 0;
    for after in [false, true] {
        for n in 1.. {
            let place = small_source();
            let died = die_at(&place, &place.backup_task(), n, after);
            if has_manifest(&place) {
                whole += 1;
            }
            let backup = place.backup();
            let names = place.stored_names();
            assert_eq!(names.len(), 4, "death at {n}: {names:?}");
            place.restore(&backup);
            assert_eq!(list(&place.source()), list(&place.target()));
            if !died {
                assert!(n > 10, "only {n} effects");
                break;
            }
        }
    }
    assert!(whole >= 3, "the deaths after the manifest were not reached");
}

#[test]
fn a_backup_that_died_before_its_manifest_cannot_be_restored_or_mistaken() {
    for n in 1..100 {
        let place = small_source();
        die_at(&place, &place.backup_task(), n, true);
        if has_manifest(&place) {
            break;
        }
        let other = small_source();
        let backup = other.backup();
        let failure = place.restore_fails(&backup);
        assert_says(&failure, FailureReason::ArchiveNotFound, &["manifest"]);
        assert_eq!(failure.target_touched, Some(false));
    }
}

#[test]
fn a_delete_that_dies_leaves_no_half_of_a_backup_and_is_finished_by_the_next() {
    for after in [false, true] {
        for n in 1.. {
            let place = small_source();
            let backup = place.backup();
            let task = Task::Delete(tidelock_protocol::DeleteTask {
                items: vec![tidelock_protocol::DeleteItem {
                    location: location(),
                    backup_uid: "u-1".into(),
                    unfinished_only: false,
                }],
            });
            let died = die_at(&place, &task, n, after);
            if has_manifest(&place) {
                place.restore(&backup);
            }
            assert_eq!(place.delete("u-1").deleted, 1);
            assert!(place.stored_names().is_empty());
            if !died {
                break;
            }
        }
    }
}

#[test]
fn a_run_that_is_repeated_reports_the_same_backup() {
    let place = small_source();
    let first = place.backup();
    let written = fs::metadata(place.object(".tar.gz"))
        .unwrap()
        .modified()
        .unwrap();
    fs::write(place.source().join("later"), b"x").unwrap();
    let again = place.backup();
    let verification_ms = first.verification_ms;
    assert_eq!(
        BackupReport {
            verification_ms,
            ..again
        },
        first
    );
    let now = fs::metadata(place.object(".tar.gz"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(now, written);
}

#[test]
fn a_backup_of_the_same_run_that_lost_its_archive_is_written_again() {
    let place = small_source();
    let first = place.backup();
    fs::remove_file(place.object(".tar.gz")).unwrap();
    assert_eq!(place.backup().digest, first.digest);
    place.restore(&first);
}

#[test]
fn a_backup_of_another_run_is_left_untouched() {
    let place = small_source();
    let first = place.backup();
    let before = list(&place.storage());
    let failure = failure_of(place.run("u-2", place.backup_task()));
    let words = ["nightly.manifest.json", "another backup", "untouched"];
    assert_says(&failure, FailureReason::ArchiveConflict, &words);
    assert_eq!(list(&place.storage()), before);
    place.restore(&first);
}

#[test]
fn an_archive_without_a_manifest_is_a_left_over_and_replaced() {
    let place = small_source();
    fs::create_dir_all(place.storage().join("shop/data")).unwrap();
    for ending in Location::DATA_ENDINGS {
        fs::write(place.object(ending), b"left over").unwrap();
    }
    let backup = place.backup();
    place.restore(&backup);
    let names = [
        ".index.jsonl.gz",
        ".manifest.json",
        ".tar.gz",
        ".tar.gz.sha256",
    ];
    assert_eq!(
        place.stored_names(),
        names.map(|ending| format!("nightly{ending}"))
    );
}

#[test]
fn a_run_that_is_asked_for_another_format_than_it_published_writes_that() {
    let mut place = small_source();
    place.backup();
    place.format = Format::TarZst;
    let backup = place.backup();
    place.restore(&backup);
    let names = [
        ".index.jsonl.gz",
        ".manifest.json",
        ".tar.zst",
        ".tar.zst.sha256",
    ];
    assert_eq!(
        place.stored_names(),
        names.map(|ending| format!("nightly{ending}"))
    );
    place.delete("u-1");
    assert!(place.stored_names().is_empty());
}

#[test]
fn temporaries_of_other_runs_are_left_alone() {
    let place = small_source();
    let dir = place.storage().join("shop/data");
    fs::create_dir_all(&dir).unwrap();
    let foreign = ".tidelock-u-2-0123456789abcdef";
    let own = ".tidelock-u-1-0123456789abcdef";
    fs::write(dir.join(foreign), b"x").unwrap();
    fs::write(dir.join(own), b"x").unwrap();
    place.backup();
    let names = place.stored_names();
    assert!(names.contains(&foreign.to_owned()), "{names:?}");
    assert!(!names.contains(&own.to_owned()), "{names:?}");
}

#[test]
fn a_stopped_backup_cleans_up_and_says_so() {
    let place = small_source();
    let storage = Directory::open(&place.storage()).unwrap();
    let request = place.request("u-1", place.backup_task());
    let outcome = run(&request, &storage, &AtomicBool::new(true));
    let failure = failure_of(outcome);
    assert_says(&failure, FailureReason::Interrupted, &["stop"]);
    assert!(place.stored_names().is_empty());
}

#[test]
fn deleting_a_backup_of_another_uid_leaves_it_alone() {
    let place = small_source();
    let backup = place.backup();
    let report = place.delete("u-2");
    assert_eq!((report.deleted, report.freed_bytes), (1, 0));
    place.restore(&backup);
}

#[test]
fn deleting_what_is_gone_counts_as_deleted() {
    let place = Place::new();
    let report = place.delete("u-1");
    assert_eq!((report.deleted, report.freed_bytes), (1, 0));
    assert_eq!(report.failed_total, 0);
}

#[test]
fn deleting_frees_what_was_stored_left_overs_too() {
    let place = small_source();
    place.backup();
    let bytes: u64 = place
        .stored_names()
        .iter()
        .map(|name| {
            fs::metadata(place.storage().join("shop/data").join(name))
                .unwrap()
                .len()
        })
        .sum();
    let left_over = place
        .storage()
        .join("shop/data/.tidelock-u-1-0123456789abcdef");
    fs::write(&left_over, b"x").unwrap();
    let report = place.delete("u-1");
    assert_eq!((report.deleted, report.freed_bytes), (1, bytes));
    assert!(place.stored_names().is_empty());
}

#[test]
fn a_backup_that_nobody_can_be_asked_about_is_not_deleted() {
    let place = small_source();
    place.backup();
    fs::write(place.object(".manifest.json"), b"{").unwrap();
    let report = place.delete("u-1");
    assert_eq!((report.deleted, report.failed_total), (0, 1));
    assert!(report.failed[0].message.contains("damaged"), "{report:?}");
    assert_eq!(place.stored_names().len(), 4);
}

/// Storage in which another pod of the same run does something before each commit.
fn shared(place: &Place, deed: impl Fn(&Directory, &str) + Send + Sync + 'static) -> Hooked {
    Hooked::before(place, move |storage, call, key| {
        if call == "commit" {
            deed(storage, key);
        }
        Ok(())
    })
}

#[test]
fn a_backup_that_another_pod_of_its_run_swept_away_is_tried_again() {
    let place = small_source();
    let storage = shared(&place, |storage, key| {
        storage.sweep(key, "u-1").unwrap();
    });
    let request = place.request("u-1", place.backup_task());
    let failure = failure_of(run(&request, &storage, &AtomicBool::new(false)));
    assert_says(
        &failure,
        FailureReason::StorageUnavailable,
        &["another pod"],
    );
    assert!(place.stored_names().is_empty());
}

#[test]
fn a_pod_that_was_away_for_long_replaces_and_removes_nothing_of_its_successors() {
    let successor = small_source();
    successor.backup();
    let finished: Vec<(String, Vec<u8>)> = [
        ".tar.gz",
        ".index.jsonl.gz",
        ".tar.gz.sha256",
        ".manifest.json",
    ]
    .iter()
    .map(|ending| {
        (
            (*ending).to_owned(),
            fs::read(successor.object(ending)).unwrap(),
        )
    })
    .collect();
    let place = small_source();
    let folder = place.object(".tar.gz").parent().unwrap().to_path_buf();
    let objects = finished.clone();
    let storage = shared(&place, move |_, key| {
        // The successor ends while this pod is about to publish its archive.
        if key.ends_with(".tar.gz") {
            for (ending, bytes) in &objects {
                fs::write(folder.join(format!("nightly{ending}")), bytes).unwrap();
            }
        }
    });
    let request = place.request("u-1", place.backup_task());
    let failure = failure_of(run(&request, &storage, &AtomicBool::new(false)));
    assert_says(
        &failure,
        FailureReason::StorageUnavailable,
        &["another pod"],
    );
    for (ending, bytes) in finished {
        assert_eq!(fs::read(place.object(&ending)).unwrap(), bytes, "{ending}");
    }
}
