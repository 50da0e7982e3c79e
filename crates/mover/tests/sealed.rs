//! Encrypted backups: who can open them, and what they tell those who cannot.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use common::{Place, list, location, noise};
use tidelock_mover::run;
use tidelock_protocol::{
    BackupReport, ExpectedArchive, Failure, FailureReason, Format, Outcome, Task,
    VerificationLevel, VerifyItem, VerifyReport, VerifyTask,
};
use tidelock_storage::Directory;

/// Keys as `age-keygen` makes them, each in a folder of its own.
struct Keys {
    dir: tempfile::TempDir,
}

impl Keys {
    fn new(names: &[&str]) -> Self {
        let keys = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for name in names {
            fs::create_dir(keys.folder(name)).unwrap();
            let mut tool = Command::new("age-keygen");
            let made = tool
                .arg("-o")
                .arg(keys.folder(name).join("identity"))
                .output();
            assert!(made.unwrap().status.success());
        }
        keys
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn recipient(&self, name: &str) -> String {
        let mut tool = Command::new("age-keygen");
        let told = tool
            .arg("-y")
            .arg(self.folder(name).join("identity"))
            .output();
        String::from_utf8(told.unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    }
}

/// Some of everything, and enough for several members.
fn fill(root: &Path) {
    fs::create_dir(root.join("folder")).unwrap();
    for n in 0..40 {
        let name = root.join(format!("folder/file-{n}"));
        fs::write(name, noise(n + 1, 200_000)).unwrap();
    }
    fs::write(root.join("empty"), b"").unwrap();
    std::os::unix::fs::symlink("empty", root.join("link")).unwrap();
}

fn carry_out(place: &Place, uid: &str, task: Task) -> Outcome {
    let storage = Directory::open(&place.storage()).unwrap();
    run(&place.request(uid, task), &storage, &AtomicBool::new(false))
}

fn back_up(place: &Place, keys: &Keys, names: &[&str]) -> BackupReport {
    let Task::Backup(mut task) = place.backup_task() else {
        panic!("no backup");
    };
    task.recipients = names.iter().map(|name| keys.recipient(name)).collect();
    match carry_out(place, "u-1", Task::Backup(task)) {
        Outcome::BackedUp(report) => report,
        other => panic!("{other:?}"),
    }
}

fn restore(
    place: &Place,
    backup: &BackupReport,
    identities: Option<PathBuf>,
    paths: &[&str],
) -> Result<(), Failure> {
    let Task::Restore(mut task) = place.restore_task(backup) else {
        panic!("no restore");
    };
    task.identities_path = identities.map(|path| path.to_str().unwrap().to_owned());
    task.paths = paths.iter().map(|path| (*path).to_owned()).collect();
    task.read_back = paths.is_empty();
    match carry_out(place, "r-1", Task::Restore(task)) {
        Outcome::Restored(_) => Ok(()),
        Outcome::Failed(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn verify(
    place: &Place,
    backup: &BackupReport,
    identities: Option<PathBuf>,
) -> Result<VerifyReport, Failure> {
    let task = Task::Verify(VerifyTask {
        items: vec![VerifyItem {
            location: location(),
            expected: ExpectedArchive {
                digest: backup.digest.clone(),
                stored_bytes: backup.stored_bytes,
                backup_uid: "u-1".into(),
            },
        }],
        identities_path: identities.map(|path| path.to_str().unwrap().to_owned()),
        household: Default::default(),
    });
    match carry_out(place, "v-1", task) {
        Outcome::Verified(report) => Ok(report),
        Outcome::Failed(failure) => Err(failure),
        other => panic!("{other:?}"),
    }
}

fn empty_target(place: &Place) {
    fs::remove_dir_all(place.target()).unwrap();
    fs::create_dir(place.target()).unwrap();
}

#[test]
fn a_backup_to_several_is_proved_without_a_key_and_restored_with_any_of_theirs() {
    let keys = Keys::new(&["own", "offline"]);
    for format in Format::ALL {
        let place = Place::of(format);
        fill(&place.source());
        let backup = back_up(&place, &keys, &["own", "offline"]);
        assert!(backup.encrypted);
        assert_eq!(backup.verification, VerificationLevel::Full);
        let stored = fs::read(place.object(".manifest.json")).unwrap();
        let stored = tidelock_archive::Manifest::from_json(&stored).unwrap();
        assert_eq!(stored.features.last().map(String::as_str), Some("age"));
        let names = place.stored_names();
        let ending = format.ending();
        assert_eq!(
            names,
            [
                "nightly.index.jsonl.gz.age".to_owned(),
                "nightly.manifest.json".to_owned(),
                format!("nightly{ending}.age"),
                format!("nightly{ending}.age.sha256"),
            ]
        );
        for name in ["own", "offline"] {
            empty_target(&place);
            restore(&place, &backup, Some(keys.folder(name)), &[]).unwrap();
            assert_eq!(list(&place.source()), list(&place.target()), "{name}");
        }
    }
}

#[test]
fn age_sha256sum_and_tar_are_enough_to_get_it_back() {
    let (keys, place) = (Keys::new(&["own"]), Place::new());
    fs::write(place.source().join("file"), noise(1, 3_000_000)).unwrap();
    back_up(&place, &keys, &["own"]);
    let script = format!(
        "set -euo pipefail; cd {}; sha256sum -c nightly.tar.gz.age.sha256; age -d -i {} nightly.tar.gz.age | tar -xpzf - -C {}",
        place.storage().join("shop/data").display(),
        keys.folder("own").join("identity").display(),
        place.target().display(),
    );
    let done = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(list(&place.source()), list(&place.target()));
}

#[test]
fn one_file_comes_back_alone() {
    let (keys, place) = (Keys::new(&["own"]), Place::new());
    fs::write(place.source().join("large"), noise(1, 5_000_000)).unwrap();
    fs::write(place.source().join("small"), b"this one").unwrap();
    let backup = back_up(&place, &keys, &["own"]);
    restore(&place, &backup, Some(keys.folder("own")), &["small"]).unwrap();
    assert_eq!(fs::read(place.target().join("small")).unwrap(), b"this one");
    assert!(!place.target().join("large").exists());
}

#[test]
fn nothing_that_is_stored_tells_a_name_or_a_content() {
    let (keys, place) = (Keys::new(&["own"]), Place::new());
    let secret = "payroll-2026-tremendously-secret";
    fs::write(
        place.source().join(secret),
        format!("{secret} in plain words"),
    )
    .unwrap();
    let socket = place.source().join(format!("{secret}.sock"));
    let _socket = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let backup = back_up(&place, &keys, &["own"]);
    assert_eq!(backup.skipped.total, 1);
    for name in place.stored_names() {
        let bytes = fs::read(place.storage().join("shop/data").join(&name)).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(
            !text.contains("payroll") && !text.contains("tremendously"),
            "{name}"
        );
    }
}

#[test]
fn without_the_right_key_nothing_is_written_and_that_is_told() {
    let (keys, place) = (Keys::new(&["own", "stranger"]), Place::new());
    fs::write(place.source().join("file"), b"content").unwrap();
    let backup = back_up(&place, &keys, &["own"]);
    let recipient = keys.recipient("own");
    for (identities, words) in [
        (None, "there is no key to open it with"),
        (Some(keys.folder("stranger")), "open for age1"),
        (Some(keys.folder("gone")), "cannot read"),
    ] {
        let told = identities.is_none() || words.starts_with("open");
        let failure = restore(&place, &backup, identities, &[]).unwrap_err();
        assert_eq!(failure.reason, FailureReason::KeyMissing);
        assert!(failure.message.contains(words), "{}", failure.message);
        assert!(
            !told || failure.message.contains(&recipient),
            "{}",
            failure.message
        );
        assert_eq!(failure.target_touched, Some(false));
    }
    assert!(fs::read_dir(place.target()).unwrap().next().is_none());
    // A key that does not open it makes no backup a bad one.
    let failure = verify(&place, &backup, Some(keys.folder("stranger"))).unwrap_err();
    assert_eq!(failure.reason, FailureReason::KeyMissing);
}

#[test]
fn it_is_read_again_with_a_key_or_without_and_damage_is_found_either_way() {
    let (keys, place) = (Keys::new(&["own"]), Place::new());
    fs::write(place.source().join("file"), noise(1, 500_000)).unwrap();
    let backup = back_up(&place, &keys, &["own"]);
    for identities in [None, Some(keys.folder("own"))] {
        assert_eq!(verify(&place, &backup, identities).unwrap().verdicts, "g");
    }
    for object in [".tar.gz.age", ".index.jsonl.gz.age"] {
        let file = place.object(object);
        let good = fs::read(&file).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&file, bad).unwrap();
        for identities in [None, Some(keys.folder("own"))] {
            let report = verify(&place, &backup, identities).unwrap();
            assert_eq!(report.verdicts, "b", "{object}");
        }
        let failure = restore(&place, &backup, Some(keys.folder("own")), &[]).unwrap_err();
        assert_eq!(failure.reason, FailureReason::ArchiveCorrupt, "{object}");
        assert!(fs::read_dir(place.target()).unwrap().next().is_none());
        fs::write(&file, good).unwrap();
    }
}

#[test]
fn the_encrypted_part_of_another_manifest_is_not_taken() {
    let keys = Keys::new(&["own"]);
    let manifest = |uid: &str| {
        let place = Place::new();
        fs::write(place.source().join("file"), noise(1, 1000)).unwrap();
        let Task::Backup(mut task) = place.backup_task() else {
            panic!("no backup");
        };
        task.recipients = vec![keys.recipient("own")];
        let done = carry_out(&place, uid, Task::Backup(task));
        let Outcome::BackedUp(report) = done else {
            panic!("{done:?}");
        };
        (place, report)
    };
    let ((place, backup), (other, _)) = (manifest("u-1"), manifest("u-2"));
    let parse = |place: &Place| {
        let bytes = fs::read(place.object(".manifest.json")).unwrap();
        tidelock_archive::Manifest::from_json(&bytes).unwrap()
    };
    let mut forged = parse(&place);
    forged.encryption = parse(&other).encryption;
    fs::write(place.object(".manifest.json"), forged.to_json().unwrap()).unwrap();
    let failure = restore(&place, &backup, Some(keys.folder("own")), &[]).unwrap_err();
    assert_eq!(failure.reason, FailureReason::ArchiveCorrupt);
    assert!(
        failure.message.contains("is of another backup"),
        "{failure:?}"
    );
}

#[test]
fn a_retry_that_finds_its_backup_says_how_much_it_could_compare() {
    let (keys, place) = (Keys::new(&["own"]), Place::new());
    fs::write(place.source().join("file"), b"content").unwrap();
    let first = back_up(&place, &keys, &["own"]);
    let again = back_up(&place, &keys, &["own"]);
    assert_eq!(again.digest, first.digest);
    assert_eq!(again.verification, VerificationLevel::Digest);
}

#[test]
fn a_recipient_that_is_none_fails_the_backup_before_anything_is_written() {
    let place = Place::new();
    let Task::Backup(mut task) = place.backup_task() else {
        panic!("no backup");
    };
    task.recipients = vec!["age1nonsense".into()];
    let Outcome::Failed(failure) = carry_out(&place, "u-1", Task::Backup(task)) else {
        panic!("it was taken");
    };
    assert_eq!(failure.reason, FailureReason::InvalidRequest);
    assert!(failure.message.contains("age1nonsense"), "{failure:?}");
    assert!(place.stored_names().is_empty());
}
