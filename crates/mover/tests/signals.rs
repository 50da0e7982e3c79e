//! A mover that is told to stop, or killed, in the middle of its work.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs::{self, File};
use std::process::{Child, Stdio};

use common::{Place, assert_says, failure_of, list};
use rustix::process::{Pid, Signal, kill_process};
use tidelock_protocol::{FailureReason, Outcome, Task};

/// A source that takes minutes to read, and takes no space.
fn slow_source() -> Place {
    let place = Place::new();
    let file = File::create(place.source().join("endless")).unwrap();
    file.set_len(200 << 30).unwrap();
    place
}

/// Starts a backup and waits until it has written something.
fn start(place: &Place, uid: &str, task: Task) -> Child {
    let mut command = place.command(uid, task, |command| command);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let written = || {
        let dir = place.storage().join("shop/data");
        fs::read_dir(dir).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|e| e.metadata().is_ok_and(|meta| meta.len() > 0)))
        })
    };
    while !written() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::yield_now();
    }
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_backup_told_to_stop_reports_it_and_leaves_nothing() {
    let place = slow_source();
    let child = start(&place, "u-1", place.backup_task());
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(42));
    let failure = failure_of(place.outcome("u-1", &output));
    assert_says(&failure, FailureReason::Interrupted, &["told to stop"]);
    assert!(place.stored_names().is_empty());
}

#[test]
fn a_backup_that_was_killed_left_nothing_that_looks_whole_and_its_next_try_is_clean() {
    let place = slow_source();
    let mut child = start(&place, "u-1", place.backup_task());
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    let names = place.stored_names();
    assert!(!names.is_empty());
    assert!(
        names.iter().all(|name| name.starts_with(".tidelock-u-1-")),
        "{names:?}"
    );
    fs::remove_file(place.source().join("endless")).unwrap();
    place.backup();
    assert_eq!(place.stored_names().len(), 4);
}

#[test]
fn a_restore_told_to_stop_is_finished_by_its_next_try() {
    let place = Place::new();
    for n in 0..4000 {
        fs::write(place.source().join(format!("{n}")), b"x").unwrap();
    }
    let backup = place.backup();
    let mut command = place.command("r-1", place.restore_task(&backup), |command| command);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    while fs::read_dir(place.target()).unwrap().count() < 10 {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
    }
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    let failure = failure_of(place.outcome("r-1", &output));
    assert_says(&failure, FailureReason::Interrupted, &["told to stop"]);
    assert_eq!(failure.target_touched, Some(true));
    let other = failure_of(place.run("r-2", place.restore_task(&backup)));
    assert_says(&other, FailureReason::TargetNotEmpty, &["another restore"]);
    let outcome = place.run("r-1", place.restore_task(&backup));
    assert!(matches!(outcome, Outcome::Restored(_)), "{outcome:?}");
    assert_eq!(list(&place.source()), list(&place.target()));
}
