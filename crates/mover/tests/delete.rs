//! What a deletion removes where a run never got to its manifest, and what it leaves alone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::sync::atomic::AtomicBool;

use common::storage::Hooked;
use common::{Place, location, noise};
use rustix::io::Errno;
use tidelock_mover::run;
use tidelock_protocol::{DeleteItem, DeleteReport, DeleteTask, Location, Outcome, Task};
use tidelock_storage::{Storage, StorageError};

const DATA: [&str; 10] = Location::DATA_ENDINGS;

fn source() -> Place {
    let place = Place::new();
    fs::write(place.source().join("file"), noise(1, 100_000)).unwrap();
    place
}

fn temporary(run: &str) -> String {
    format!(".tidelock-{run}-0123456789abcdef")
}

/// A place where the run `u-1` was cancelled just before its manifest.
fn half_written() -> Place {
    let place = source();
    let folder = place.storage().join("shop/data");
    fs::create_dir_all(&folder).unwrap();
    for ending in DATA {
        fs::write(place.object(ending), b"0123456789").unwrap();
    }
    for run in ["u-1", "u-2"] {
        fs::write(folder.join(temporary(run)), b"half").unwrap();
    }
    place
}

fn delete_task(unfinished_only: bool) -> Task {
    Task::Delete(DeleteTask {
        items: vec![DeleteItem {
            location: location(),
            backup_uid: "u-1".into(),
            unfinished_only,
        }],
    })
}

fn delete_on(place: &Place, storage: &dyn Storage) -> DeleteReport {
    let task = delete_task(false);
    match run(
        &place.request("d-1", task),
        storage,
        &AtomicBool::new(false),
    ) {
        Outcome::Deleted(report) => report,
        other => panic!("it ended as {other:?}"),
    }
}

#[test]
fn what_a_cancelled_run_left_goes_and_the_temporaries_of_others_stay() {
    let place = half_written();
    let report = place.delete("u-1");
    assert_eq!(
        (report.deleted, report.freed_bytes),
        (1, 10 * DATA.len() as u64)
    );
    assert_eq!(place.stored_names(), [temporary("u-2")]);
}

#[test]
fn what_was_never_finished_goes_alone_where_that_is_asked_for() {
    let place = half_written();
    place.run("d-1", delete_task(true));
    assert_eq!(place.stored_names(), [temporary("u-2")]);
    let place = source();
    place.backup();
    let before = place.stored_names();
    place.run("d-1", delete_task(true));
    assert_eq!(place.stored_names(), before);
}

#[test]
fn deleting_writes_nothing_so_a_full_store_can_be_emptied() {
    let place = source();
    place.backup();
    let storage = Hooked::before(&place, |_, call, key| match call {
        "put" | "write" | "commit" | "sweep_dead" => {
            Err(StorageError::of_os("write", key, Errno::NOSPC))
        }
        _ => Ok(()),
    });
    let report = delete_on(&place, &storage);
    assert_eq!((report.deleted, report.failed_total), (1, 0));
    assert!(report.freed_bytes > 100_000, "{report:?}");
    assert_eq!(place.stored_names(), Vec::<String>::new());
}

#[test]
fn a_backup_made_again_under_the_same_name_meanwhile_is_left_alone() {
    for at in DATA {
        let other = source();
        other.run("u-3", other.backup_task());
        let place = half_written();
        let finished = [&DATA[..], &[".manifest.json"]].concat();
        let objects: Vec<_> = finished
            .iter()
            .filter(|ending| other.object(ending).exists())
            .map(|ending| {
                (
                    place.object(ending),
                    fs::read(other.object(ending)).unwrap(),
                )
            })
            .collect();
        let made_again = objects.clone();
        let storage = Hooked::before(&place, move |_, call, key| {
            if call == "delete" && key.ends_with(at) {
                for (path, bytes) in &made_again {
                    fs::write(path, bytes).unwrap();
                }
                // The pod that deletes loses the race for this one object; its owner looks
                // again after its manifest and takes that back.
                let lost = StorageError::of_os("delete", key, Errno::NOENT);
                return Err(lost);
            }
            Ok(())
        });
        delete_on(&place, &storage);
        for (path, bytes) in objects {
            assert_eq!(fs::read(&path).unwrap(), bytes, "{}", path.display());
        }
    }
}
