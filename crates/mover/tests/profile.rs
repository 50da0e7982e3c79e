//! Where the time of real runs goes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::{Place, location, log_of, noise};
use tidelock_archive::{Phase, Spent, ThreadKind};
use tidelock_mover::{Progress, StepProfile, run_request};
use tidelock_protocol::{
    BackupReport, ExpectedArchive, Household, Outcome, Step, Task, VerifyItem, VerifyTask,
};

fn source() -> Place {
    let place = Place::new();
    for n in 0..200_u64 {
        let dir = place.source().join(format!("dir-{}", n % 10));
        fs::create_dir_all(&dir).unwrap();
        let text = format!("line {n} of some text\n").repeat(400);
        fs::write(dir.join(format!("small-{n}")), text).unwrap();
    }
    fs::write(place.source().join("large"), noise(1, 3 << 20)).unwrap();
    place
}

fn profiled(place: &Place, uid: &str, task: Task) -> (Outcome, Vec<StepProfile>) {
    let progress = Arc::new(Progress::profiling());
    let request = place.request(uid, task);
    let outcome = run_request(&request, &AtomicBool::new(false), &progress);
    (outcome, progress.take_profiles())
}

fn backed_up(place: &Place) -> (BackupReport, Vec<StepProfile>) {
    match profiled(place, "u-1", place.backup_task()) {
        (Outcome::BackedUp(report), steps) => (report, steps),
        (other, _) => panic!("the backup ended as {other:?}"),
    }
}

/// Checks that every thread is accounted for once, and gives the step.
fn step(steps: &[StepProfile], step: Step) -> &StepProfile {
    let found = steps.iter().find(|found| found.step == step).unwrap();
    for Spent {
        kind,
        threads,
        phases,
    } in &found.spent
    {
        let sum: Duration = phases.iter().map(|(_, time)| *time).sum();
        let lives = found.wall * u32::try_from(*threads).unwrap();
        assert!(sum <= lives, "{kind:?}: {sum:?} of {lives:?} in\n{found}");
    }
    let limit = found.limit().unwrap();
    assert!(limit.time <= found.wall, "{limit:?} in\n{found}");
    found
}

fn assert_occur(step: &StepProfile, expected: &[(ThreadKind, &[Phase])]) {
    for (kind, phases) in expected {
        let spent = step.spent.iter().find(|spent| spent.kind == *kind);
        let spent = spent.unwrap_or_else(|| panic!("no {kind:?} in\n{step}"));
        for phase in *phases {
            let found = spent.phases.iter().any(|(found, _)| found == phase);
            assert!(found, "no {phase:?} of {kind:?} in\n{step}");
        }
    }
}

const READS_BACK: &[(ThreadKind, &[Phase])] = &[
    (
        ThreadKind::Main,
        &[Phase::Digest, Phase::Index, Phase::Fetch, Phase::Entries],
    ),
    (
        ThreadKind::Loaders,
        &[Phase::Digest, Phase::Decompress, Phase::Fetch],
    ),
];

#[test]
fn a_backup_tells_where_the_time_of_saving_and_reading_back_went() {
    let (report, steps) = backed_up(&source());
    let saving = step(&steps, Step::Saving);
    assert_occur(
        saving,
        &[
            (ThreadKind::Main, &[Phase::Walk, Phase::Sync]),
            (
                ThreadKind::Readers,
                &[Phase::Read, Phase::Digest, Phase::Wait],
            ),
            (
                ThreadKind::Compressors,
                &[Phase::Compress, Phase::Digest, Phase::Index, Phase::Store],
            ),
        ],
    );
    assert_eq!(saving.content_bytes, report.logical_bytes);
    assert!(saving.storage_bytes >= report.stored_bytes);
    assert_occur(step(&steps, Step::Verifying), READS_BACK);
}

#[test]
fn a_restore_tells_where_the_time_of_checking_and_writing_went() {
    let place = source();
    let (backup, _) = backed_up(&place);
    let (outcome, steps) = profiled(&place, "r-1", place.restore_task(&backup));
    assert!(matches!(outcome, Outcome::Restored(_)), "{outcome:?}");
    let checking = [Phase::Digest, Phase::Index, Phase::Fetch];
    let checking = [(ThreadKind::Main, &checking[..])];
    assert_occur(step(&steps, Step::Checking), &checking);
    let restoring = step(&steps, Step::Restoring);
    assert_occur(
        restoring,
        &[
            (
                ThreadKind::Main,
                &[Phase::Entries, Phase::Index, Phase::Write, Phase::Sync],
            ),
            (
                ThreadKind::Loaders,
                &[Phase::Digest, Phase::Decompress, Phase::Fetch],
            ),
            (
                ThreadKind::Writers,
                &[Phase::Digest, Phase::Write, Phase::Wait],
            ),
        ],
    );
    assert_eq!(restoring.content_bytes, backup.logical_bytes);
}

#[test]
fn a_verification_tells_where_its_time_went() {
    let place = source();
    let (backup, _) = backed_up(&place);
    let task = Task::Verify(VerifyTask {
        identities_path: None,
        items: vec![VerifyItem {
            location: location(),
            expected: ExpectedArchive {
                digest: backup.digest,
                stored_bytes: backup.stored_bytes,
                backup_uid: "u-1".into(),
            },
        }],
        household: Household::default(),
    });
    let (outcome, steps) = profiled(&place, "v-1", task);
    assert!(matches!(outcome, Outcome::Verified(_)), "{outcome:?}");
    assert_occur(step(&steps, Step::Verifying), READS_BACK);
}

#[test]
fn the_mover_logs_it_when_it_is_told_to_and_only_then() {
    let place = source();
    let told = |place: &Place, uid: &str, flag: &[&str]| {
        let mut mover = place.command(uid, place.backup_task(), |command| command);
        let output = mover.args(flag).output().unwrap();
        place.outcome(uid, &output);
        log_of(&output)
    };
    assert!(!told(&place, "u-1", &[]).contains("profile"));
    fs::remove_dir_all(place.storage().join("shop")).unwrap();
    let log = told(&place, "u-1", &["--profile"]);
    // How many readers live at once is up to the scheduler: there is little to read.
    for line in [
        "profile: saving: ",
        "profile: saving, readers (",
        "): read ",
        "profile: saving, limit: ",
        "profile: verifying, limit: ",
    ] {
        assert!(log.contains(line), "no {line:?} in {log}");
    }
}
