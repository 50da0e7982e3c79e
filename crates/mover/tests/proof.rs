//! Nothing counts as a backup that does not read back as it was written, now and later.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use common::storage::{Hooked, stale};
use common::{Place, assert_says, failure_of, list, location, noise};
use tidelock_mover::run;
use tidelock_protocol::{
    BackupReport, BackupTask, ExitCode, ExpectedArchive, FailureReason, FolderReport, Household,
    Location, Outcome, Task, VerificationLevel, VerifyItem, VerifyReport, VerifyTask,
};
use tidelock_storage::{Storage, StorageError};

fn source() -> Place {
    let place = Place::new();
    fs::create_dir(place.source().join("dir")).unwrap();
    fs::write(place.source().join("dir/first"), noise(1, 3 << 19)).unwrap();
    fs::write(place.source().join("dir/second"), noise(2, 3 << 19)).unwrap();
    place
}

fn backup_on(place: &Place, storage: &dyn Storage, task: Task) -> Outcome {
    run(
        &place.request("u-1", task),
        storage,
        &AtomicBool::new(false),
    )
}

/// A backup task of the place, changed.
fn task(place: &Place, change: impl FnOnce(&mut BackupTask)) -> Task {
    let Task::Backup(mut task) = place.backup_task() else {
        panic!("not a backup");
    };
    change(&mut task);
    Task::Backup(task)
}

fn backed_up(outcome: Outcome) -> BackupReport {
    match outcome {
        Outcome::BackedUp(report) => report,
        other => panic!("it ended as {other:?}"),
    }
}

#[test]
fn a_backup_that_reads_back_otherwise_is_no_backup_and_its_next_try_starts_clean() {
    for ending in [".tar.gz", ".index.jsonl.gz", ".manifest.json"] {
        for level in [VerificationLevel::Digest, VerificationLevel::Full] {
            let place = source();
            let storage = Hooked::losing_a_byte_of(&place, ending);
            let task = task(&place, |task| task.verification = level);
            let failure = failure_of(backup_on(&place, &storage, task.clone()));
            let words = ["reads back otherwise", ending, "written again"];
            assert_says(&failure, FailureReason::VerificationFailed, &words);
            assert_eq!(failure.reason.exit_code(), ExitCode::Transient);
            assert_eq!(place.stored_names(), Vec::<String>::new(), "{ending}");
            let backup = backed_up(place.run("u-1", task));
            place.restore(&backup);
            assert_eq!(list(&place.source()), list(&place.target()));
        }
    }
}

#[test]
fn damage_found_by_a_full_check_is_told_with_member_and_path() {
    let place = source();
    let storage = Hooked::losing_a_byte_of(&place, ".tar.gz");
    let failure = failure_of(backup_on(&place, &storage, place.backup_task()));
    let words = ["archive bytes", "tar offset", "dir/second"];
    assert_says(&failure, FailureReason::VerificationFailed, &words);
}

#[test]
fn a_backup_says_how_it_was_proven_and_reads_no_more_than_asked() {
    for (level, reads) in [
        (VerificationLevel::None, 0),
        (VerificationLevel::Digest, 3),
        (VerificationLevel::Full, 3),
    ] {
        let place = source();
        let storage = Hooked::medium(&place, |_, bytes| Ok(bytes));
        let task = task(&place, |task| task.verification = level);
        let report = backed_up(backup_on(&place, &storage, task));
        assert_eq!(report.verification, level);
        assert_eq!(storage.read_back.load(Ordering::SeqCst), reads, "{level:?}");
    }
}

#[test]
fn storage_that_fails_while_it_is_read_back_makes_no_backup_and_no_claim_of_damage() {
    let place = source();
    let storage = Hooked::medium(&place, |key, bytes| {
        if key.ends_with(".tar.gz") {
            return Err(stale(key));
        }
        Ok(bytes)
    });
    let failure = failure_of(backup_on(&place, &storage, place.backup_task()));
    assert_says(&failure, FailureReason::StorageUnavailable, &["stale"]);
    assert_eq!(place.stored_names(), Vec::<String>::new());
}

#[test]
fn a_backup_published_before_is_proven_again_and_written_again_when_it_is_damaged() {
    let place = source();
    let first = place.backup();
    let archive = place.object(".tar.gz");
    let mut bytes = fs::read(&archive).unwrap();
    bytes[1000] ^= 1;
    fs::write(&archive, &bytes).unwrap();
    let second = place.backup();
    assert_eq!(second.digest, first.digest);
    place.restore(&second);
    assert_eq!(list(&place.source()), list(&place.target()));
}

#[test]
fn a_backup_published_before_stays_when_storage_does_not_answer() {
    let place = source();
    place.backup();
    let storage = Hooked::medium(&place, |key, _| Err(stale(key)));
    let before = list(&place.storage());
    let failure = failure_of(backup_on(&place, &storage, place.backup_task()));
    assert_says(&failure, FailureReason::StorageUnavailable, &["stale"]);
    assert_eq!(list(&place.storage()), before);
}

/// Three backups of one volume, by the runs `u-0` to `u-2`.
fn three() -> (Place, Vec<VerifyItem>) {
    let place = source();
    let items = (0..3).map(|n| {
        let uid = format!("u-{n}");
        let place_of = Location::new("shop", "data", &format!("nightly-{n}")).unwrap();
        let task = task(&place, |task| task.location = place_of.clone());
        let report = backed_up(place.run(&uid, task));
        VerifyItem {
            location: place_of,
            expected: ExpectedArchive {
                digest: report.digest,
                stored_bytes: report.stored_bytes,
                backup_uid: uid,
            },
        }
    });
    let items = items.collect();
    (place, items)
}

fn stored(place: &Place, n: usize, ending: &str) -> std::path::PathBuf {
    place
        .storage()
        .join(format!("shop/data/nightly-{n}{ending}"))
}

fn verify_task(items: &[VerifyItem]) -> Task {
    Task::Verify(VerifyTask {
        identities_path: None,
        items: items.to_vec(),
        household: Household::default(),
    })
}

fn verified(outcome: Outcome) -> VerifyReport {
    match outcome {
        Outcome::Verified(report) => report,
        other => panic!("it ended as {other:?}"),
    }
}

#[test]
fn good_bad_and_missing_backups_are_told_apart_with_the_place_of_the_damage() {
    let (place, items) = three();
    let mut bytes = fs::read(stored(&place, 1, ".tar.gz")).unwrap();
    let at = bytes.len() * 3 / 4;
    bytes[at] ^= 1;
    fs::write(stored(&place, 1, ".tar.gz"), bytes).unwrap();
    fs::remove_file(stored(&place, 2, ".manifest.json")).unwrap();
    let report = verified(place.run("v-1", verify_task(&items)));
    assert_eq!(report.verdicts, "gbm");
    let [bad, missing] = &report.faults[..] else {
        panic!("{report:?}");
    };
    assert_eq!((bad.item, missing.item), (1, 2));
    for word in [
        "nightly-1.tar.gz",
        "archive bytes",
        "tar offset",
        "dir/second",
    ] {
        assert!(bad.message.contains(word), "{word} in {bad:?}");
    }
    assert!(missing.message.contains("nightly-2.manifest.json"));
}

#[test]
fn a_backup_that_is_whole_but_not_the_one_the_cluster_knows_is_bad() {
    let (place, mut items) = three();
    items[0].expected.digest = format!("sha256:{}", "0".repeat(64));
    items[1].expected.backup_uid = "u-9".into();
    let report = verified(place.run("v-1", verify_task(&items)));
    assert_eq!(report.verdicts, "bbg");
}

#[test]
fn storage_that_does_not_answer_makes_no_backup_bad() {
    let (place, items) = three();
    let storage = Hooked::medium(&place, |key, bytes| {
        if key.contains("nightly-1") {
            return Err(stale(key));
        }
        Ok(bytes)
    });
    let request = place.request("v-1", verify_task(&items));
    let report = verified(run(&request, &storage, &AtomicBool::new(false)));
    assert_eq!(report.verdicts, "gng");
    assert!(report.faults[0].message.contains("stale"), "{report:?}");
    let request = place.request("v-1", verify_task(&items[1..2]));
    let failure = failure_of(run(&request, &storage, &AtomicBool::new(false)));
    assert_says(&failure, FailureReason::StorageUnavailable, &["stale"]);
}

#[test]
fn an_object_that_its_medium_never_gives_is_damage_told_with_its_place() {
    let (place, items) = three();
    for ending in [".tar.gz", ".index.jsonl.gz", ".manifest.json"] {
        let key = format!("shop/data/nightly-1{ending}");
        let bad = key.clone();
        let storage = Hooked::with_bad_sectors(&place, move |read| (read == bad).then_some(100));
        let request = place.request("v-1", verify_task(&items));
        let report = verified(run(&request, &storage, &AtomicBool::new(false)));
        assert_eq!(report.verdicts, "gbg", "{ending}");
        let message = &report.faults[0].message;
        for word in [&*key, "Input/output error", "at byte 100"] {
            assert!(message.contains(word), "{word} in {message}");
        }
    }
}

#[test]
fn an_object_that_its_medium_gives_at_a_second_try_is_as_good_as_any() {
    let (place, items) = three();
    let tries = AtomicU64::new(0);
    let storage = Hooked::with_bad_sectors(&place, move |key| {
        let is_it = key.ends_with("nightly-1.tar.gz");
        (is_it && tries.fetch_add(1, Ordering::SeqCst) == 0).then_some(100)
    });
    let request = place.request("v-1", verify_task(&items));
    let report = verified(run(&request, &storage, &AtomicBool::new(false)));
    assert_eq!(report.verdicts, "ggg");
    assert!(report.faults.is_empty(), "{report:?}");
}

#[test]
fn a_medium_that_gives_nothing_makes_no_backup_bad() {
    let (place, items) = three();
    // What the host remembers of a manifest is no word of the medium.
    let storage = Hooked::medium(&place, |key, bytes| match key.contains("nightly-1") {
        true => Err(StorageError::of_os(
            "read",
            key,
            std::io::Error::from_raw_os_error(5),
        )),
        false => Ok(bytes),
    });
    let request = place.request("v-1", verify_task(&items));
    let report = verified(run(&request, &storage, &AtomicBool::new(false)));
    assert_eq!(report.verdicts, "gng", "{report:?}");
}

#[test]
fn a_check_that_is_told_to_stop_reports_what_it_has() {
    let (place, items) = three();
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let signal = std::sync::Arc::clone(&stop);
    let storage = Hooked::medium(&place, move |key, bytes| {
        if key.ends_with("nightly-1.index.jsonl.gz") {
            signal.store(true, Ordering::SeqCst);
        }
        Ok(bytes)
    });
    let report = verified(run(
        &place.request("v-1", verify_task(&items)),
        &storage,
        &stop,
    ));
    assert_eq!(report.verdicts, "gnn");
    assert!(report.faults.is_empty(), "{report:?}");
}

#[test]
fn a_report_of_many_bad_backups_still_fits() {
    let (place, items) = three();
    let mut many = Vec::new();
    for _ in 0..300 {
        let mut item = items[0].clone();
        item.expected.digest = format!("sha256:{}", "0".repeat(64));
        many.push(item);
    }
    let report = verified(place.run("v-1", verify_task(&many)));
    assert_eq!(report.verdicts, "b".repeat(300));
    assert!(!report.faults.is_empty());
}

fn folder_of(outcome: Outcome) -> FolderReport {
    match outcome {
        Outcome::BackedUp(report) => report.folder.unwrap(),
        Outcome::Verified(report) => report.folder.unwrap(),
        other => panic!("it ended as {other:?}"),
    }
}

#[test]
fn a_folder_is_swept_of_dead_runs_only_and_unknown_backups_are_told_and_kept() {
    let (place, items) = three();
    let folder = place.storage().join("shop/data");
    for (run, age) in [("dead", 7200), ("busy", 7200), ("young", 60)] {
        let path = folder.join(format!(".tidelock-{run}-0123456789abcdef"));
        fs::write(&path, b"half").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age);
        file.set_modified(then).unwrap();
    }
    let household = Household {
        known: Some(vec!["nightly-0".into(), "nightly-2".into()]),
        active: Some(vec!["busy".into()]),
    };
    let backup = task(&place, |task| task.household = household.clone());
    let report = folder_of(place.run("u-1", backup));
    assert_eq!((report.swept, report.archives), (1, 4));
    assert_eq!(
        (report.unknown.total, &*report.unknown.first),
        (1, &["nightly-1".to_owned()][..])
    );
    let names = place.stored_names();
    assert!(!names.iter().any(|name| name.contains("dead")), "{names:?}");
    for kept in ["busy", "young"] {
        assert!(names.iter().any(|name| name.contains(kept)), "{names:?}");
    }
    assert!(stored(&place, 1, ".tar.gz").exists());
    let check = Task::Verify(VerifyTask {
        identities_path: None,
        items: items[..1].to_vec(),
        household,
    });
    let report = folder_of(place.run("v-1", check));
    assert_eq!(
        (report.unknown.total, report.archives),
        (2, 4),
        "{report:?}"
    );
}

#[test]
fn archives_that_were_never_finished_are_told_once_each_but_for_those_of_runs_that_are_known() {
    let (place, _) = three();
    let folder = place.storage().join("shop/data");
    let parts = [".tar.gz", ".index.jsonl.gz", ".tar.gz.sha256"];
    let zstd = [".tar.zst", ".index.jsonl.gz", ".tar.zst.sha256"];
    for (name, there) in [
        ("dead", &parts[..]),
        ("deleted", &parts[..1]),
        ("odd", &parts[1..]),
        ("other", &zstd[..]),
        ("rest", &zstd[2..]),
        ("running", &parts[..]),
        ("nightly-2", &[]),
    ] {
        for part in there {
            fs::write(folder.join(format!("{name}{part}")), b"half").unwrap();
        }
    }
    fs::write(folder.join("note.txt"), b"of a person").unwrap();
    let known = ["nightly-0", "nightly-1", "nightly-2", "running"];
    let household = Household {
        known: Some(known.map(str::to_owned).to_vec()),
        active: None,
    };
    let backup = task(&place, |task| task.household = household);
    let report = folder_of(place.run("u-1", backup));
    let mut told = report.unknown.first.clone();
    told.sort();
    assert_eq!(told, ["dead", "deleted", "odd", "other", "rest"]);
    assert_eq!((report.unknown.total, report.archives), (5, 4));
}

#[test]
fn a_folder_nobody_knows_the_runs_of_is_not_swept() {
    let place = source();
    let folder = place.storage().join("shop/data");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(".tidelock-dead-0123456789abcdef");
    fs::write(&path, b"half").unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let report = folder_of(place.run("u-1", place.backup_task()));
    assert_eq!((report.swept, report.archives), (0, 1));
    assert!(report.unknown.is_empty());
    assert!(path.exists());
}

#[test]
fn a_folder_that_cannot_be_listed_keeps_no_backup_from_its_work() {
    let place = source();
    let storage = Hooked::before(&place, |_, call, key| match call {
        "list" => Err(stale(key)),
        _ => Ok(()),
    });
    let report = backed_up(backup_on(&place, &storage, place.backup_task()));
    assert_eq!(report.folder, None);
    assert_eq!(report.location, location());
}
