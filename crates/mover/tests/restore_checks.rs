//! What is wrong is found before the first write, and said.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::{Place, assert_says, failure_of, list, noise, with_mounts};
use proptest::prelude::*;
use tidelock_protocol::{BackupReport, Done, Failure, FailureReason, Task};

fn backed_up() -> (Place, BackupReport) {
    let place = Place::new();
    fs::create_dir(place.source().join("dir")).unwrap();
    fs::write(place.source().join("dir/file"), noise(3, 3 << 19)).unwrap();
    fs::write(place.source().join("dir/other"), noise(4, 3 << 19)).unwrap();
    symlink("file", place.source().join("dir/link")).unwrap();
    let backup = place.backup();
    (place, backup)
}

/// Restores and checks that it is refused with nothing written.
fn refused(place: &Place, backup: &BackupReport) -> Failure {
    let failure = place.restore_fails(backup);
    assert_eq!(failure.target_touched, Some(false), "{failure:?}");
    assert_eq!(list(&place.target()).len(), 1, "the target was touched");
    failure
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_byte_in_the_archive_is_refused_and_its_member_named() {
    let (place, backup) = backed_up();
    let archive = place.object(".tar.gz");
    let sound = fs::read(&archive).unwrap();
    for at in [0, 4, 9, 1000, sound.len() / 2, sound.len() - 1] {
        flip(&archive, at, 3);
        let failure = refused(&place, &backup);
        let words = ["nightly.tar.gz", "SHA-256", "archive bytes"];
        assert_says(&failure, FailureReason::ArchiveCorrupt, &words);
        fs::write(&archive, &sound).unwrap();
    }
    place.restore(&backup);
}

#[test]
fn a_cut_or_extended_object_is_refused() {
    for ending in [".tar.gz", ".index.jsonl.gz", ".manifest.json"] {
        let (place, backup) = backed_up();
        let object = place.object(ending);
        let sound = fs::read(&object).unwrap();
        let longer = [&sound[..], b"\0"].concat();
        for bytes in [&sound[..sound.len() - 1], &sound[..10], b"", &longer] {
            fs::write(&object, bytes).unwrap();
            let failure = refused(&place, &backup);
            assert_says(&failure, FailureReason::ArchiveCorrupt, &[ending]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_flipped_bit_of_any_object_is_refused(
        ending in prop_oneof![Just(".tar.gz"), Just(".index.jsonl.gz"), Just(".manifest.json")],
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        thread_local! {
            static BACKED_UP: (Place, BackupReport) = backed_up();
        }
        BACKED_UP.with(|(place, backup)| {
            let object = place.object(ending);
            let sound = fs::read(&object).unwrap();
            flip(&object, at.index(sound.len()), bit);
            let failure = refused(place, backup);
            fs::write(&object, &sound).unwrap();
            let words = [&ending[1..]];
            assert_says(&failure, FailureReason::ArchiveCorrupt, &words);
        });
    }
}

#[test]
fn a_missing_object_is_reported_as_missing() {
    for ending in [".tar.gz", ".index.jsonl.gz", ".manifest.json"] {
        let (place, backup) = backed_up();
        fs::remove_file(place.object(ending)).unwrap();
        let failure = refused(&place, &backup);
        assert_says(&failure, FailureReason::ArchiveNotFound, &[ending]);
    }
}

#[test]
fn a_backup_that_is_not_the_one_the_cluster_knows_is_refused() {
    let (place, backup) = backed_up();
    let mut other = backup.clone();
    other.digest = format!("sha256:{}", "0".repeat(64));
    let words = ["digest", "the cluster says", &other.digest];
    assert_says(
        &refused(&place, &other),
        FailureReason::ArchiveCorrupt,
        &words,
    );
    let mut other = backup.clone();
    other.stored_bytes += 1;
    assert_says(
        &refused(&place, &other),
        FailureReason::ArchiveCorrupt,
        &["size"],
    );
    let Task::Restore(mut task) = place.restore_task(&backup) else {
        panic!("not a restore");
    };
    task.expected.backup_uid = "u-2".into();
    let failure = failure_of(place.run("r-1", Task::Restore(task)));
    assert_says(
        &failure,
        FailureReason::ArchiveCorrupt,
        &["UID", "u-1", "u-2"],
    );
}

#[test]
fn objects_swapped_between_backups_are_refused() {
    let (place, backup) = backed_up();
    let (other, other_backup) = backed_up();
    fs::write(other.source().join("more"), b"x").unwrap();
    other.delete("u-1");
    assert_ne!(other.backup().digest, other_backup.digest);
    fs::copy(
        other.object(".index.jsonl.gz"),
        place.object(".index.jsonl.gz"),
    )
    .unwrap();
    let failure = refused(&place, &backup);
    assert_says(&failure, FailureReason::ArchiveCorrupt, &["index.jsonl.gz"]);
}

/// Changes the manifest's text and seals it again, as a newer writer would have.
fn reseal(place: &Place, from: &str, to: &str) {
    let path = place.object(".manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    let text = text.replace(from, to);
    let body = &text[..text.find("  \"manifestSha256\"").unwrap()];
    fs::write(place.path("body"), body).unwrap();
    let sum = Command::new("sha256sum")
        .arg(place.path("body"))
        .output()
        .unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let sealed = format!("{body}  \"manifestSha256\": \"{}\"\n}}\n", &sum[..64]);
    fs::write(path, sealed).unwrap();
}

#[test]
fn an_unknown_version_codec_or_feature_is_refused_by_name() {
    for (from, to, name) in [
        (
            "\"formatVersion\": 1",
            "\"formatVersion\": 7",
            "format version 7",
        ),
        ("\"codec\": \"gzip\"", "\"codec\": \"lzma\"", "lzma"),
        ("\"features\": []", "\"features\": [\"sealed\"]", "sealed"),
    ] {
        let (place, backup) = backed_up();
        reseal(&place, from, to);
        let failure = refused(&place, &backup);
        let words = ["nightly.manifest.json", name, "newer"];
        assert_says(&failure, FailureReason::UnsupportedFormat, &words);
    }
}

#[test]
fn a_field_that_a_newer_writer_adds_is_passed_over() {
    let (place, backup) = backed_up();
    reseal(&place, "\"codec\"", "\"novelty\": 3,\n  \"codec\"");
    place.restore(&backup);
}

#[test]
fn a_manifest_that_names_objects_of_others_is_refused() {
    let (place, backup) = backed_up();
    reseal(
        &place,
        "shop/data/nightly.tar.gz",
        "bank/data/nightly.tar.gz",
    );
    let failure = refused(&place, &backup);
    assert_says(&failure, FailureReason::ArchiveCorrupt, &["another backup"]);
}

#[test]
fn a_manifest_whose_codec_is_not_that_of_its_archive_is_refused() {
    let codec = ("\"codec\": \"gzip\"", "\"codec\": \"zstd\"");
    let (place, backup) = backed_up();
    reseal(&place, codec.0, codec.1);
    let failure = refused(&place, &backup);
    assert_says(&failure, FailureReason::ArchiveCorrupt, &["another backup"]);
    reseal(
        &place,
        "shop/data/nightly.tar.gz",
        "shop/data/nightly.tar.zst",
    );
    fs::rename(place.archive(), place.object(".tar.zst")).unwrap();
    let said = failure_of(place.run("r-1", place.restore_task(&backup)));
    let words = [
        "archive bytes 0..",
        "it does not decompress: it is no zstd frame",
    ];
    assert_says(&said, FailureReason::ArchiveCorrupt, &words);
}

#[test]
fn counts_that_do_not_fit_the_archive_are_refused() {
    for field in ["entries", "members", "logicalBytes", "tarBytes"] {
        let (place, backup) = backed_up();
        let path = place.object(".manifest.json");
        let text = fs::read_to_string(path).unwrap();
        let start = text.find(&format!("\"{field}\": ")).unwrap();
        let line = text[start..].lines().next().unwrap().trim_end_matches(',');
        reseal(&place, line, &format!("{line}0"));
        let failure = refused(&place, &backup);
        assert_says(&failure, FailureReason::ArchiveCorrupt, &["index line"]);
    }
}

#[test]
fn a_target_that_holds_anything_is_refused_untouched() {
    let (place, backup) = backed_up();
    fs::write(place.target().join("precious"), b"x").unwrap();
    let before = list(&place.target());
    let failure = place.restore_fails(&backup);
    let words = ["precious", "target volume", "empty volume"];
    assert_says(&failure, FailureReason::TargetNotEmpty, &words);
    assert_eq!(failure.target_touched, Some(false));
    assert_eq!(list(&place.target()), before);
}

#[test]
fn the_left_over_of_another_restore_is_refused() {
    let (place, backup) = backed_up();
    fs::write(place.target().join(".tidelock-restore-r-0"), b"").unwrap();
    let failure = place.restore_fails(&backup);
    let words = [
        "another restore",
        "did not finish",
        "undoPending",
        "by hand",
    ];
    assert_says(&failure, FailureReason::TargetNotEmpty, &words);
}

#[test]
fn a_restore_that_was_killed_is_finished_by_its_next_try() {
    let (place, backup) = backed_up();
    let target = place.target();
    place.begin_restore();
    fs::create_dir(target.join("dir")).unwrap();
    fs::write(target.join("dir/file"), b"half").unwrap();
    fs::set_permissions(target.join("dir/file"), PermissionsExt::from_mode(0o400)).unwrap();
    symlink("/etc/passwd", target.join("dir/link")).unwrap();
    place.restore(&backup);
    assert_eq!(list(&place.source()), list(&target));
}

#[test]
fn a_further_try_that_cannot_tell_how_far_the_first_one_got_does_not_say_that_nothing_was_written()
{
    let (place, backup) = backed_up();
    let marker = place.begin_restore();
    let whole = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(place.restore_fails(&backup).target_touched, None);
    // One that found the marker of a first try that had not come to write leaves it there.
    fs::write(&marker, whole.replace("Writing", "Preparing")).unwrap();
    flip(&place.object(".tar.gz"), 100, 0);
    assert_eq!(place.restore_fails(&backup).target_touched, None);
    assert!(marker.exists());
}

#[test]
fn a_restore_over_a_planted_link_writes_nothing_outside() {
    let (place, backup) = backed_up();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    place.begin_restore();
    symlink(&outside, place.target().join("dir")).unwrap();
    let failure = place.restore_fails(&backup);
    assert_says(&failure, FailureReason::TargetUnwritable, &["dir"]);
    assert_eq!(list(&outside).len(), 1);
}

#[test]
fn a_target_that_refuses_an_owner_fails_the_restore_at_its_end() {
    let place = Place::new();
    let file = place.source().join("file");
    fs::write(&file, b"x").unwrap();
    std::os::unix::fs::chown(&file, Some(4242), Some(4242)).unwrap();
    let backup = place.backup();
    let without_chown = |mover: Command| {
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set=-chown", "--inh-caps=-all", "--"])
            .arg(mover.get_program());
        command
    };
    let outcome = place.run_with("r-1", place.restore_task(&backup), without_chown);
    let failure = failure_of(outcome);
    let words = ["owners: 1", "allowMetadataLoss"];
    assert_says(&failure, FailureReason::MetadataLoss, &words);
    assert_eq!(failure.target_touched, Some(true));
    assert_eq!(failure.paths.first, ["file"]);
    assert_eq!(failure.done, Some(Done { files: 1, bytes: 1 }));
    assert_eq!(fs::read(place.target().join("file")).unwrap(), b"x");
}

fn many_small_files() -> (Place, BackupReport) {
    let place = Place::new();
    for n in 0..400 {
        fs::write(place.source().join(format!("file-{n}")), b"x").unwrap();
    }
    let backup = place.backup();
    (place, backup)
}

#[test]
fn a_full_target_and_a_full_storage_say_so() {
    let (place, backup) = backed_up();
    let target = place.target();
    let mount = format!("mount -t tmpfs -o size=1m none {}", target.display());
    let task = place.restore_task(&backup);
    let failure = failure_of(place.run_with("r-1", task, with_mounts(mount)));
    let words = ["3145728 bytes", "1048576 free", "larger volume"];
    assert_says(&failure, FailureReason::TargetTooSmall, &words);
    assert_eq!(failure.target_touched, Some(false));
    // One that fills up only when it is written to: each small file takes a page.
    let (many, backup) = many_small_files();
    let mount = format!("mount -t tmpfs -o size=1m none {}", many.target().display());
    let task = many.restore_task(&backup);
    let failure = failure_of(many.run_with("r-1", task, with_mounts(mount)));
    assert_says(&failure, FailureReason::TargetFull, &["No space"]);
    assert_eq!(failure.target_touched, Some(true));
    assert!(
        failure.done.is_some_and(|done| done.files > 100),
        "{failure:?}"
    );
    let mount = format!(
        "mount -t tmpfs -o nr_inodes=99 none {}",
        many.target().display()
    );
    let task = many.restore_task(&backup);
    let failure = failure_of(many.run_with("r-1", task, with_mounts(mount)));
    let words = ["400 inodes", "9", "free"];
    assert_says(&failure, FailureReason::TargetTooSmall, &words);
    let storage = place.storage();
    let mount = format!("mount -t tmpfs -o size=1m none {}", storage.display());
    let failure = failure_of(place.run_with("u-1", place.backup_task(), with_mounts(mount)));
    assert_says(
        &failure,
        FailureReason::StorageFull,
        &["nightly", "No space"],
    );
}

#[test]
fn a_read_only_storage_is_denied_and_a_read_only_target_unwritable() {
    let (place, backup) = backed_up();
    let read_only = |path: &Path| {
        let path = path.display();
        format!("mount --bind {path} {path} && mount -o remount,ro,bind {path}")
    };
    let task = place.restore_task(&backup);
    let setup = with_mounts(read_only(&place.target()));
    let failure = failure_of(place.run_with("r-1", task, setup));
    assert_says(&failure, FailureReason::TargetUnwritable, &["Read-only"]);
    assert_eq!(failure.target_touched, Some(false));
    place.delete("u-1");
    let setup = with_mounts(read_only(&place.storage()));
    let failure = failure_of(place.run_with("u-1", place.backup_task(), setup));
    assert_says(&failure, FailureReason::StorageDenied, &["Read-only"]);
}

#[test]
fn a_malformed_request_is_answered_with_a_report() {
    let place = Place::new();
    let report = place.path("report.json");
    for (request, word) in [
        ("{", "not valid JSON"),
        ("{\"version\": 9, \"run\": {\"uid\": \"u-9\"}}", "version 9"),
    ] {
        let status = Command::new(env!("CARGO_BIN_EXE_tidelock-mover"))
            .env(tidelock_protocol::REQUEST_ENV, request)
            .arg("--report-file")
            .arg(&report)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(40));
        let text = fs::read_to_string(&report).unwrap();
        assert!(
            text.contains("InvalidRequest") && text.contains(word),
            "{text}"
        );
    }
}

#[test]
fn two_pods_of_one_restore_never_write_at_once() {
    use rustix::fs::{FlockOperation, flock};

    let (place, backup) = backed_up();
    let marker = place.begin_restore();
    let other = fs::File::open(&marker).unwrap();
    flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
    let failure = place.restore_fails(&backup);
    assert_says(
        &failure,
        FailureReason::StorageUnavailable,
        &["another pod"],
    );
    assert!(!place.target().join("dir").exists());
    drop(other);
    place.restore(&backup);
    assert!(!marker.exists());
}
