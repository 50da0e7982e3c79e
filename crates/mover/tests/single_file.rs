//! A restore of some paths reads what holds them, and trusts nothing that it did not check.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{Place, assert_says, failure_of, list};
use tidelock_mover::{Progress, run_request};
use tidelock_protocol::{
    BackupReport, FailureReason, Format, Outcome, Overwrite, ProgressReport, RestoreTask, Task,
};

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A backup of 24 files of over 2 MB each, with small ones beside them.
fn backed_up(format: Format) -> (Place, BackupReport) {
    let place = Place::of(format);
    for n in 0..24 {
        let dir = place.source().join(format!("dir-{}", n / 8));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("large-{n:02}")), noise(n, 2_200_000)).unwrap();
        fs::write(dir.join(format!("small-{n:02}")), format!("small {n}")).unwrap();
    }
    let backup = place.backup();
    (place, backup)
}

fn task(place: &Place, backup: &BackupReport, paths: &[&str]) -> RestoreTask {
    let mut task = place.overwrite_task(backup, Overwrite::Never);
    task.paths = paths.iter().map(|path| (*path).to_owned()).collect();
    task
}

/// Runs a restore in this process; gives how many bytes of storage its last step read.
fn restored(place: &Place, task: RestoreTask) -> ProgressReport {
    let progress = Arc::new(Progress::default());
    let request = place.request("r-1", Task::Restore(task));
    let outcome = run_request(&request, &AtomicBool::new(false), &progress);
    assert!(matches!(outcome, Outcome::Restored(_)), "{outcome:?}");
    progress.report("r-1")
}

#[test]
fn some_paths_come_back_as_they_were_and_nothing_else() {
    for format in Format::ALL {
        for paths in [
            &["dir-1/large-12"][..],
            &["dir-0/small-00", "dir-2/large-23"],
            &["dir-1/small-*"],
            &["dir-2"],
            &["**/large-0?"],
        ] {
            let (place, backup) = backed_up(format);
            restored(&place, task(&place, &backup, paths));
            let (source, target) = (list(&place.source()), list(&place.target()));
            let taken = target
                .iter()
                .filter(|(path, _)| path.as_path() != Path::new("."));
            assert!(taken.clone().count() > paths.len(), "{target:?}");
            for (path, seen) in taken {
                assert_eq!(source.get(path), Some(seen), "{path:?}");
            }
        }
    }
}

#[test]
fn damage_elsewhere_holds_no_restore_of_a_path_up_and_damage_in_it_is_found_before_a_write() {
    for format in Format::ALL {
        let (place, backup) = backed_up(format);
        let archive = place.archive();
        let mut bytes = fs::read(&archive).unwrap();
        let at = bytes.len() - 1_000_000;
        bytes[at] ^= 1;
        fs::write(&archive, &bytes).unwrap();
        let request = |paths: &[&str]| Task::Restore(task(&place, &backup, paths));
        for paths in [&["dir-2/large-23"][..], &["dir-2"], &["**"], &[]] {
            let failure = failure_of(place.run("r-1", request(paths)));
            let words = ["archive bytes", &format!("nightly{}", format.ending())];
            assert_says(&failure, FailureReason::ArchiveCorrupt, &words);
            assert_eq!(failure.target_touched, Some(false));
            assert!(list(&place.target()).len() <= 1);
        }
        let outcome = place.run("r-1", request(&["dir-0/large-01"]));
        assert!(matches!(outcome, Outcome::Restored(_)), "{outcome:?}");
    }
}

#[test]
fn one_file_is_read_without_the_rest_of_the_archive() {
    for format in Format::ALL {
        let (place, backup) = backed_up(format);
        let archive = place.archive();
        let size = fs::metadata(&archive).unwrap().len();
        // What is not asked for, and holds no folder of what is, need not even be there.
        let hole = size / 4..size / 2;
        let file = fs::OpenOptions::new().write(true).open(&archive).unwrap();
        let zeros = vec![0; usize::try_from(hole.end - hole.start).unwrap()];
        std::os::unix::fs::FileExt::write_all_at(&file, &zeros, hole.start).unwrap();
        let progress = restored(&place, task(&place, &backup, &["dir-2/large-23"]));
        assert_eq!(progress.files, 1);
        assert_eq!(
            fs::read(place.target().join("dir-2/large-23")).unwrap(),
            noise(23, 2_200_000)
        );
    }
}
