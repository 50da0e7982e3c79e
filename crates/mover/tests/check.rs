//! What a look at a storage finds, and what it leaves there.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::sync::atomic::AtomicBool;

use common::Place;
use common::storage::Hooked;
use tidelock_archive::Manifest;
use tidelock_mover::run;
use tidelock_protocol::{
    CheckReport, CheckTask, Failure, FailureReason, KnownBackups, Location, Outcome, Task,
};
use tidelock_storage::{Directory, Storage, StorageError};

fn check_on(place: &Place, storage: &dyn Storage, task: CheckTask) -> Result<CheckReport, Failure> {
    let request = place.request("c-1", Task::Check(task));
    match run(&request, storage, &AtomicBool::new(false)) {
        Outcome::Checked(report) => Ok(report),
        Outcome::Failed(failure) => Err(failure),
        other => panic!("it ended as {other:?}"),
    }
}

fn check(place: &Place, task: CheckTask) -> CheckReport {
    check_on(place, &Directory::open(&place.storage()).unwrap(), task).unwrap()
}

fn task(known: &[Location]) -> CheckTask {
    CheckTask {
        namespace: "shop".into(),
        writes: true,
        recipients: Vec::new(),
        known: KnownBackups::of(known),
        describe: true,
    }
}

fn at(name: &str) -> Location {
    Location::new("shop", "data", name).unwrap()
}

/// A place with a backup of each name.
fn backed_up(names: &[String]) -> Place {
    let place = Place::new();
    fs::write(place.source().join("file"), b"content").unwrap();
    for name in names {
        let Task::Backup(mut task) = place.backup_task() else {
            panic!("no backup");
        };
        task.location = at(name);
        let mut request = place.request(&format!("u-{name}"), Task::Backup(task));
        request.run.name.clone_from(name);
        let storage = Directory::open(&place.storage()).unwrap();
        let done = run(&request, &storage, &AtomicBool::new(false));
        assert!(matches!(done, Outcome::BackedUp(_)), "{done:?}");
    }
    place
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("nightly-{n:02}")).collect()
}

#[test]
fn what_stands_there_is_counted_and_what_nobody_knows_is_described() {
    let place = backed_up(&numbered(3));
    // Of another namespace, of no backup, and with a manifest that says nothing.
    let other = place.storage().join("other/data");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("theirs.manifest.json"), b"{}").unwrap();
    let own = place.storage().join("shop/data");
    fs::write(own.join("notes.txt"), b"0123456789").unwrap();
    fs::write(own.join("odd.manifest.json"), b"{}").unwrap();

    let report = check(&place, task(&[at("nightly-01")]));
    assert_eq!((report.backups, report.unknown.total), (4, 3));
    assert_eq!(report.unreadable.first, ["data/odd"]);
    let names: Vec<_> = report
        .described
        .iter()
        .map(|b| b.location.as_str())
        .collect();
    assert_eq!(names, ["shop/data/nightly-00", "shop/data/nightly-02"]);
    let first = &report.described[0];
    let archive = fs::read(place.storage().join("shop/data/nightly-00.tar.gz")).unwrap();
    assert_eq!(first.stored_bytes, archive.len() as u64);
    assert_eq!((first.uid.as_str(), first.files), ("u-nightly-00", 1));
    assert_eq!((&first.pvc, &first.backup), (&None, &None));
    assert!(report.stored_bytes > archive.len() as u64 * 3 && report.free_bytes > Some(0));
    assert!(!report.more);
}

#[test]
fn more_than_a_report_holds_is_described_by_the_next_looks_whatever_stands_between() {
    let place = backed_up(&numbered(15));
    for n in 0..70 {
        let odd = format!("shop/data/aaa-{n:02}.manifest.json");
        fs::write(place.storage().join(odd), b"{}").unwrap();
    }
    let first = check(&place, task(&[]));
    assert_eq!((first.described.len(), first.more), (12, true));
    assert_eq!(first.unreadable.total, 70);
    let known: Vec<_> = first.described.iter().map(|b| b.location.clone()).collect();
    let second = check(&place, task(&known));
    assert_eq!((second.described.len(), second.more), (3, false));
    assert_eq!(second.described[2].location, at("nightly-14"));
}

#[test]
fn a_backup_whose_archive_is_not_whole_is_not_described() {
    let place = backed_up(&numbered(2));
    let archive = |name: &str| place.storage().join(format!("shop/data/{name}.tar.gz"));
    fs::remove_file(archive("nightly-00")).unwrap();
    fs::write(archive("nightly-01"), b"short").unwrap();
    let report = check(&place, task(&[]));
    assert!(report.described.is_empty(), "{:?}", report.described);
    assert_eq!(report.unreadable.total, 2);
}

#[test]
fn a_backup_of_a_later_version_or_of_endless_names_spoils_no_look() {
    let place = backed_up(&numbered(3));
    let manifest = |name: &str| {
        place
            .storage()
            .join(format!("shop/data/{name}.manifest.json"))
    };
    let change = |name: &str, change: fn(&mut Manifest)| {
        let mut changed = Manifest::from_json(&fs::read(manifest(name)).unwrap()).unwrap();
        change(&mut changed);
        fs::write(manifest(name), changed.to_json().unwrap()).unwrap();
    };
    change("nightly-00", |manifest| manifest.format_version = 99);
    change("nightly-01", |manifest| {
        manifest.source.uid = "u".repeat(5000)
    });
    let report = check(&place, task(&[]));
    assert_eq!(
        report.unreadable.first,
        ["data/nightly-00", "data/nightly-01"]
    );
    assert_eq!(report.described[0].location, at("nightly-02"));
}

#[test]
fn where_it_is_not_known_what_the_cluster_has_nothing_is_called_unknown() {
    let place = backed_up(&numbered(1));
    let blind = CheckTask {
        known: None,
        ..task(&[])
    };
    let report = check(&place, blind);
    assert_eq!((report.backups, report.unknown.total), (1, 0));
    assert!(report.blind && !check(&place, task(&[])).blind);
    assert!(report.described.is_empty());
}

/// Names of the probes that lie in the folder of the namespace.
fn probes(place: &Place) -> Vec<String> {
    let Ok(entries) = fs::read_dir(place.storage().join("shop")) else {
        return Vec::new();
    };
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut probes: Vec<String> = names.filter(|name| name.contains("probe")).collect();
    probes.sort();
    probes
}

#[test]
fn a_look_leaves_nothing_and_removes_what_an_earlier_one_left() {
    let place = Place::new();
    let folder = place.storage().join("shop");
    fs::create_dir(&folder).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let old = format!("tidelock-check-{}-c-0.probe", now - 4000);
    let own = format!("tidelock-check-{now}-c-1.probe");
    let of_another = format!("tidelock-check-{}-c-2.probe", now - 100);
    for name in [&old, &own, &of_another] {
        fs::write(folder.join(name), b"left").unwrap();
    }
    check(&place, task(&[]));
    assert_eq!(probes(&place), [of_another]);
}

#[test]
fn where_nothing_is_to_be_written_nothing_is() {
    let place = backed_up(&numbered(1));
    let storage = Hooked::before(&place, |_, call, key| match call {
        "put" | "delete" | "sweep" => panic!("{call} {key}"),
        _ => Ok(()),
    });
    let reading = CheckTask {
        writes: false,
        ..task(&[])
    };
    let report = check_on(&place, &storage, reading).unwrap();
    assert_eq!(report.described.len(), 1);
}

#[test]
fn each_thing_that_cannot_be_done_fails_the_look_in_the_words_of_the_store() {
    let place = Place::new();
    for refused in ["put", "commit", "get_fresh", "list", "delete"] {
        let storage = Hooked::before(&place, move |_, call, key| {
            let is_probe = key.ends_with(".probe");
            if call == refused && is_probe {
                let denied = std::io::Error::from_raw_os_error(13);
                return Err(StorageError::of_os(refused, key, denied));
            }
            Ok(())
        });
        let failure = check_on(&place, &storage, task(&[])).unwrap_err();
        assert_eq!(failure.reason, FailureReason::StorageDenied, "{refused}");
        assert!(failure.message.contains(refused), "{}", failure.message);
    }
}

#[test]
fn a_store_that_gives_back_something_else_is_no_store() {
    let place = Place::new();
    let storage = Hooked::losing_a_byte_of(&place, ".probe");
    let failure = check_on(&place, &storage, task(&[])).unwrap_err();
    assert_eq!(failure.reason, FailureReason::ArchiveCorrupt);
    assert!(
        failure.message.contains("reads back other than"),
        "{failure:?}"
    );
    assert!(probes(&place).is_empty());
}

#[test]
fn a_recipient_that_is_none_is_told_before_the_first_backup() {
    let place = Place::new();
    let storage = Directory::open(&place.storage()).unwrap();
    let wrong = format!("age1{}", "q".repeat(58));
    let to_nobody = CheckTask {
        recipients: vec![wrong.clone()],
        ..task(&[])
    };
    let failure = check_on(&place, &storage, to_nobody).unwrap_err();
    assert_eq!(failure.reason, FailureReason::InvalidRequest);
    assert!(failure.message.contains(&wrong), "{}", failure.message);
}

#[test]
fn a_namespace_that_would_lead_elsewhere_is_refused() {
    let place = Place::new();
    for namespace in ["..", "a/b", "", ".x"] {
        let astray = CheckTask {
            namespace: namespace.into(),
            ..task(&[])
        };
        let storage = Directory::open(&place.storage()).unwrap();
        let failure = check_on(&place, &storage, astray).unwrap_err();
        assert_eq!(failure.reason, FailureReason::InvalidRequest, "{namespace}");
    }
}
