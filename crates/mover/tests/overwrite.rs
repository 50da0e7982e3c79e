//! Restores into volumes that hold something: merged, replaced, tried out, taken back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use common::storage::Hooked;
use common::{Place, assert_says, failure_of, list, with_mounts};
use tidelock_mover::run;
use tidelock_protocol::{
    BackupReport, Changes, Done, Effect, FailureReason, Outcome, Overwrite, RestoreReport,
    RestoreTask, TargetState, Task,
};

/// A backup of a small tree, and a target that has some of it and more.
fn begun() -> (Place, BackupReport) {
    let place = Place::new();
    let source = place.source();
    fs::create_dir_all(source.join("app/conf")).unwrap();
    fs::write(source.join("app/conf/main.conf"), b"good").unwrap();
    fs::write(source.join("app/data"), b"twelve bytes").unwrap();
    symlink("data", source.join("app/link")).unwrap();
    let backup = place.backup();
    let target = place.target();
    fs::create_dir_all(target.join("app/conf")).unwrap();
    fs::write(target.join("app/conf/main.conf"), b"broken!").unwrap();
    fs::write(target.join("app/conf/own.conf"), b"own").unwrap();
    fs::create_dir_all(target.join("logs/old")).unwrap();
    fs::write(target.join("logs/old/log"), b"line").unwrap();
    fs::set_permissions(&target, PermissionsExt::from_mode(0o2770)).unwrap();
    chown(&target, Some(12), Some(34)).unwrap();
    (place, backup)
}

fn restored(outcome: Outcome) -> RestoreReport {
    match outcome {
        Outcome::Restored(report) => report,
        other => panic!("the restore ended as {other:?}"),
    }
}

fn compared(outcome: Outcome) -> Changes {
    match outcome {
        Outcome::Compared(changes) => changes,
        other => panic!("the dry run ended as {other:?}"),
    }
}

fn read_only(path: &Path) -> String {
    let path = path.display();
    format!("mount --bind {path} {path} && mount -o remount,ro,bind {path}")
}

#[test]
fn a_replace_makes_the_target_equal_and_leaves_nothing_of_its_own() {
    let (place, backup) = begun();
    let mut task = place.overwrite_task(&backup, Overwrite::Replace);
    task.read_back = true;
    let report = restored(place.run("r-1", Task::Restore(task)));
    assert!(report.read_back);
    assert_eq!(list(&place.source()), list(&place.target()));
    assert_eq!(
        place.undo(Overwrite::Replace).target,
        TargetState::Untouched
    );
    assert_eq!(list(&place.source()), list(&place.target()));
}

#[test]
fn a_merge_adds_and_replaces_by_name() {
    let (place, backup) = begun();
    let mut task = place.overwrite_task(&backup, Overwrite::Merge);
    task.read_back = true;
    restored(place.run("r-1", Task::Restore(task)));
    let (found, source) = (list(&place.target()), list(&place.source()));
    for (path, wanted) in &source {
        assert_eq!(found.get(path), Some(wanted), "{path:?}");
    }
    assert_eq!(
        fs::read(place.target().join("logs/old/log")).unwrap(),
        b"line"
    );
    assert_eq!(
        fs::read(place.target().join("app/conf/own.conf")).unwrap(),
        b"own"
    );
    assert_eq!(found.len(), source.len() + 4);
}

#[test]
fn a_dry_run_tells_what_would_change_on_a_target_that_cannot_be_written() {
    let (place, backup) = begun();
    let before = list(&place.target());
    let dry = |overwrite| {
        let mut task = place.overwrite_task(&backup, overwrite);
        task.effect = Effect::DryRun;
        let setup = with_mounts(read_only(&place.target()));
        compared(place.run_with("r-1", Task::Restore(task), setup))
    };
    let merge = dry(Overwrite::Merge);
    assert_eq!(merge.added.paths.first, ["app/data", "app/link"]);
    assert_eq!(merge.added.bytes, 12);
    assert!(
        merge
            .changed
            .paths
            .first
            .contains(&"app/conf/main.conf".to_owned())
    );
    assert_eq!(merge.removed.paths.total, 0);
    let replace = dry(Overwrite::Replace);
    let gone = ["app/conf/own.conf", "logs", "logs/old", "logs/old/log"];
    assert_eq!(replace.removed.paths.total, 4);
    assert!(
        gone.iter()
            .all(|path| replace.removed.paths.first.contains(&(*path).to_owned()))
    );
    assert_eq!(replace.removed.bytes, 7);
    assert_eq!(list(&place.target()), before);
}

#[test]
fn a_folder_in_the_way_of_a_file_is_found_before_the_first_write() {
    let (place, backup) = begun();
    fs::create_dir(place.target().join("app/data")).unwrap();
    fs::remove_dir_all(place.target().join("app/conf")).unwrap();
    fs::write(place.target().join("app/conf"), b"x").unwrap();
    let before = list(&place.target());
    let task = place.overwrite_task(&backup, Overwrite::Merge);
    let failure = failure_of(place.run("r-1", Task::Restore(task)));
    assert_says(
        &failure,
        FailureReason::TargetConflict,
        &["2 names", "Replace"],
    );
    assert_eq!(failure.paths.first, ["app/conf", "app/data"]);
    assert_eq!(failure.target_touched, Some(false));
    assert_eq!(list(&place.target()), before);
}

#[test]
fn paths_that_match_nothing_are_named_before_the_first_write() {
    let (place, backup) = begun();
    let before = list(&place.target());
    let fails = |overwrite, paths: &[&str]| {
        let mut task = place.overwrite_task(&backup, overwrite);
        task.paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let failure = failure_of(place.run("r-1", Task::Restore(task)));
        assert_eq!(failure.target_touched, Some(false));
        assert_eq!(list(&place.target()), before);
        failure
    };
    let failure = fails(Overwrite::Merge, &["app/**/*.conf", "etc", "*.txt"]);
    assert_says(&failure, FailureReason::NothingMatched, &["etc, *.txt"]);
    assert_eq!(failure.paths.first, ["etc", "*.txt"]);
    let failure = fails(Overwrite::Merge, &["../etc"]);
    assert_says(
        &failure,
        FailureReason::InvalidPath,
        &["../etc", "spec.paths"],
    );
    let failure = fails(Overwrite::Replace, &["app"]);
    assert_says(
        &failure,
        FailureReason::InvalidRequest,
        &["paths", "Replace"],
    );
}

#[test]
fn a_glob_restores_what_it_picks_with_the_folders_above() {
    let (place, backup) = begun();
    fs::remove_dir_all(place.target()).unwrap();
    fs::create_dir(place.target()).unwrap();
    let mut task = place.overwrite_task(&backup, Overwrite::Never);
    task.paths = vec!["**/*.conf".to_owned()];
    task.read_back = true;
    let report = restored(place.run("r-1", Task::Restore(task)));
    assert_eq!((report.files, report.logical_bytes), (1, 4));
    let (found, source) = (list(&place.target()), list(&place.source()));
    let expected = [".", "app", "app/conf", "app/conf/main.conf"];
    assert_eq!(found.len(), expected.len());
    for path in expected.map(|path| Path::new(".").join(path)) {
        assert_eq!(found.get(&path), source.get(&path), "{path:?}");
    }
}

/// The mover without capabilities, as an ordinary user.
fn as_nobody(mover: Command) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=4242", "--regid=4242", "--clear-groups", "--"])
        .arg(mover.get_program());
    command
}

/// A place whose storage and target the user 4242 may use, with files of others in the backup.
fn of_many_owners() -> (Place, BackupReport) {
    let place = Place::new();
    let source = place.source();
    fs::write(source.join("root's"), b"x").unwrap();
    fs::write(source.join("own"), b"x").unwrap();
    fs::write(source.join("tool"), b"x").unwrap();
    chown(source.join("own"), Some(4242), Some(4242)).unwrap();
    chown(&source, Some(4242), Some(4242)).unwrap();
    fs::set_permissions(source.join("tool"), PermissionsExt::from_mode(0o4755)).unwrap();
    let backup = place.backup();
    common::tool(
        "chown",
        &["-R", "4242:4242", "target", "storage"],
        place.dir.path(),
    );
    fs::set_permissions(place.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    (place, backup)
}

#[test]
fn owners_that_an_ordinary_user_may_not_set_are_counted_and_fail_the_restore() {
    let (place, backup) = of_many_owners();
    let task = place.overwrite_task(&backup, Overwrite::Never);
    let failure = failure_of(place.run_with("r-1", Task::Restore(task), as_nobody));
    assert_says(
        &failure,
        FailureReason::MetadataLoss,
        &["owners: 2, modes: 1"],
    );
    assert_eq!(failure.paths.first, ["root's", "tool"]);
    assert_eq!(failure.done, Some(Done { files: 3, bytes: 3 }));
    assert_eq!(place.undo(Overwrite::Never).target, TargetState::Emptied);
    assert_eq!(fs::read_dir(place.target()).unwrap().count(), 0);
}

#[test]
fn metadata_that_may_be_lost_is_told_and_the_rest_is_compared() {
    let (place, backup) = of_many_owners();
    let mut task = place.overwrite_task(&backup, Overwrite::Never);
    task.allow_metadata_loss = true;
    task.read_back = true;
    let report = restored(place.run_with("r-1", Task::Restore(task), as_nobody));
    assert_eq!((report.losses.owners, report.losses.modes), (2, 1));
    assert_eq!(report.losses.paths.first, ["root's", "tool"]);
    // What ran with its owner's rights must not run with another's.
    let mode = fs::metadata(place.target().join("tool"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn attributes_that_a_file_system_cannot_hold_are_counted() {
    let place = Place::new();
    fs::write(place.source().join("file"), b"x").unwrap();
    common::tool(
        "setfattr",
        &["-n", "user.a", "-v", "1", "file"],
        &place.source(),
    );
    let backup = place.backup();
    let ramfs = format!("mount -t ramfs none {}", place.target().display());
    let task = place.overwrite_task(&backup, Overwrite::Never);
    let failure = failure_of(place.run_with("r-1", Task::Restore(task), with_mounts(ramfs)));
    let words = ["extended attributes: 1"];
    assert_says(&failure, FailureReason::MetadataLoss, &words);
}

#[test]
fn a_replace_that_failed_is_put_back() {
    let (place, _) = begun();
    place.delete("u-1");
    chown(place.source().join("app/data"), Some(4343), Some(4343)).unwrap();
    let backup = place.backup();
    let before = list(&place.target());
    let without_chown = |mover: Command| {
        let mut command = Command::new("setpriv");
        let drop = ["--bounding-set=-chown", "--inh-caps=-all", "--"];
        command.args(drop).arg(mover.get_program());
        command
    };
    let task = Task::Restore(place.overwrite_task(&backup, Overwrite::Replace));
    let failure = failure_of(place.run_with("r-1", task, without_chown));
    assert_eq!(failure.reason, FailureReason::MetadataLoss, "{failure:?}");
    assert_ne!(list(&place.target()), before);
    let undone = place.undo(Overwrite::Replace);
    assert_eq!((undone.target, undone.put_back), (TargetState::PutBack, 2));
    assert_eq!(list(&place.target()), before);
    assert_eq!(
        place.undo(Overwrite::Replace).target,
        TargetState::Untouched
    );
}

/// Runs a restore while somebody writes to a file of the target between two steps.
fn meddled(place: &Place, task: RestoreTask, file: &str, nth: u32) -> Outcome {
    let (file, left) = (place.target().join(file), AtomicU32::new(nth));
    let storage = Hooked::before(place, move |_, call, key| {
        let is_read = call == "get" && key.ends_with(".tar.gz");
        if is_read && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            fs::write(&file, b"meddled with").unwrap();
        }
        Ok(())
    });
    let request = place.request("r-1", Task::Restore(task));
    run(&request, &storage, &AtomicBool::new(false))
}

#[test]
fn a_target_that_reads_back_otherwise_fails_the_restore() {
    let (place, backup) = begun();
    let mut task = place.overwrite_task(&backup, Overwrite::Replace);
    task.read_back = true;
    // Checked, unpacked, read back.
    let failure = failure_of(meddled(&place, task.clone(), "app/data", 3));
    let words = ["read back", "1 names differ"];
    assert_says(&failure, FailureReason::VerificationFailed, &words);
    assert_eq!(failure.paths.first, ["app/data"]);
    let failure = failure_of(meddled(&place, task.clone(), "extra", 3));
    assert_says(
        &failure,
        FailureReason::VerificationFailed,
        &["1 are too many"],
    );
    fs::remove_file(place.target().join("extra")).unwrap();
    restored(place.run("r-1", Task::Restore(task)));
    assert_eq!(list(&place.source()), list(&place.target()));
}

#[test]
fn what_comes_into_an_empty_target_during_the_checks_is_found_and_kept() {
    let (place, backup) = begun();
    fs::remove_dir_all(place.target()).unwrap();
    fs::create_dir(place.target()).unwrap();
    let task = place.overwrite_task(&backup, Overwrite::Never);
    let failure = failure_of(meddled(&place, task, "late", 1));
    assert_says(&failure, FailureReason::TargetNotEmpty, &["late"]);
    assert_eq!(failure.target_touched, Some(false));
    assert_eq!(place.undo(Overwrite::Never).target, TargetState::Untouched);
    assert_eq!(
        fs::read(place.target().join("late")).unwrap(),
        b"meddled with"
    );
    assert_eq!(fs::read_dir(place.target()).unwrap().count(), 1);
}
