//! A run that waits for what does not come is noticed, and says where it waits.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::storage::Hooked;
use common::{Place, assert_says, noise};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tidelock_mover::{Progress, Watchdog, Watched, run};
use tidelock_protocol::{ExitCode, Failure, FailureReason, Outcome};

const TIMEOUT: Duration = Duration::from_millis(50);

/// Backs up to storage that stops answering at the first `call` to a key with this ending, and is
/// watched from there on until the stall is noticed; gives what was said then, and how the run
/// went on.
fn stuck_at(call: &'static str, ending: &'static str) -> (Failure, Outcome) {
    let place = Place::new();
    fs::write(place.source().join("file"), noise(1, 3 << 20)).unwrap();
    let fifo = place.path("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from(0o600), 0).unwrap();
    let progress = Arc::new(Progress::default());
    let request = place.request("u-1", place.backup_task());
    let (tell, told) = mpsc::channel();
    let stuck = AtomicBool::new(false);
    let (watched, task) = (Arc::clone(&progress), request.task.clone());
    let storage = Hooked::before(&place, move |_, name, key| {
        if name == call && key.ends_with(ending) && !stuck.swap(true, Ordering::SeqCst) {
            let (tell, gate) = (tell.clone(), fifo.clone());
            let on_stall = move |failure| {
                tell.send(failure).unwrap();
                drop(File::options().write(true).open(&gate).unwrap());
            };
            let watchdog = Watchdog::start(Arc::clone(&watched), &task, TIMEOUT, on_stall);
            let mut answer = File::open(&fifo).unwrap();
            answer.read_to_end(&mut Vec::new()).unwrap();
            watchdog.end();
        }
        Ok(())
    });
    let storage = Watched::new(&storage, progress);
    let outcome = run(&request, &storage, &AtomicBool::new(false));
    (told.try_recv().unwrap(), outcome)
}

#[test]
fn a_run_whose_storage_does_not_answer_says_in_which_step_and_after_how_many_bytes() {
    for (call, ending, step) in [
        (
            "write",
            ".tar.gz",
            "while writing \"shop/data/nightly.tar.gz\"",
        ),
        ("commit", ".index.jsonl.gz", "while publishing"),
        ("get_fresh", ".tar.gz", "while opening"),
        ("list", "", "while listing"),
    ] {
        let (failure, outcome) = stuck_at(call, ending);
        let words = ["nothing moved", step, "bytes to and from storage"];
        assert_says(&failure, FailureReason::Stalled, &words);
        assert_eq!(failure.reason.exit_code(), ExitCode::Transient);
        assert!(matches!(outcome, Outcome::BackedUp(_)), "{outcome:?}");
    }
}

#[test]
fn bytes_that_moved_before_are_told() {
    let (failure, _) = stuck_at("commit", ".tar.gz");
    let bytes = failure.message.split(" bytes to").next().unwrap();
    let bytes: u64 = bytes.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(bytes > 3 << 20, "{failure:?}");
}

#[test]
fn a_run_that_has_ended_is_not_called_stalled() {
    let place = Place::new();
    let (tell, told) = mpsc::channel();
    let task = place.backup_task();
    let on_stall = move |failure: Failure| tell.send(failure).unwrap();
    let long = Duration::from_secs(3600);
    Watchdog::start(Arc::default(), &task, long, on_stall).end();
    // The sender goes with the watching thread.
    assert_eq!(told.recv(), Err(mpsc::RecvError));
}
