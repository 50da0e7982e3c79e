//! Sources that resist: unreadable, changing, vanishing, deep, linked all over.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Place, assert_says, failure_of, list, noise, tool};
use tidelock_protocol::FailureReason;

/// Runs the mover without the right to read what its user may not read.
fn unprivileged(mover: Command) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--bounding-set=-dac_override,-dac_read_search",
            "--inh-caps=-all",
            "--",
        ])
        .arg(mover.get_program());
    command
}

fn forbid(path: &Path) {
    fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
}

#[test]
fn an_unreadable_file_fails_the_backup_and_is_named() {
    let place = Place::new();
    for n in 0..15 {
        let file = place.source().join(format!("secret-{n:02}"));
        fs::write(&file, b"x").unwrap();
        forbid(&file);
    }
    fs::create_dir(place.source().join("closed")).unwrap();
    forbid(&place.source().join("closed"));
    fs::write(place.source().join("zz-open"), b"x").unwrap();
    let failure = failure_of(place.run_with("u-1", place.backup_task(), unprivileged));
    let words = ["16 paths", "cannot be read", "Permission denied"];
    assert_says(&failure, FailureReason::SourceUnreadable, &words);
    assert_eq!(failure.paths.total, 16);
    assert_eq!(failure.paths.first[0], "closed");
    assert_eq!(failure.paths.first[1], "secret-00");
    assert_eq!(failure.paths.first.len(), 10);
    assert!(
        place.stored_names().is_empty(),
        "{:?}",
        place.stored_names()
    );
}

#[test]
fn a_missing_source_fails_the_backup() {
    let place = Place::new();
    fs::remove_dir(place.source()).unwrap();
    let failure = place.backup_fails();
    assert_says(
        &failure,
        FailureReason::SourceUnreadable,
        &["source", "No such file"],
    );
}

/// Calls `change` again and again while the mover backs up.
fn backup_while(place: &Place, mut change: impl FnMut() + Send) -> tidelock_protocol::BackupReport {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                change();
            }
        });
        let report = place.backup();
        done.store(true, Ordering::Relaxed);
        report
    })
}

#[test]
fn a_large_file_that_never_holds_still_is_kept_and_told_as_torn() {
    let size = 6 << 20;
    let place = Place::new();
    let path = place.source().join("busy");
    fs::write(&path, noise(1, size)).unwrap();
    fs::write(place.source().join("calm"), b"calm").unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut n = 0_u64;
    let backup = backup_while(&place, || {
        n += 1;
        file.write_all_at(&n.to_le_bytes(), n % 90_000).unwrap();
    });
    assert_eq!(backup.torn.first, ["busy"]);
    assert_eq!(backup.files, 2);
    assert_eq!(backup.logical_bytes, size as u64 + 4);
    place.restore(&backup);
    let restored = fs::metadata(place.target().join("busy")).unwrap();
    assert_eq!(restored.len(), size as u64);
}

#[test]
fn a_small_file_is_whole_or_told_as_torn() {
    let place = Place::new();
    let path = place.source().join("busy");
    fs::write(&path, vec![0; 200_000]).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut n = 0_u8;
    for _ in 0..20 {
        let backup = backup_while(&place, || {
            n = n.wrapping_add(1);
            file.write_all_at(&vec![n; 200_000], 0).unwrap();
        });
        place.restore(&backup);
        let restored = fs::read(place.target().join("busy")).unwrap();
        let told = backup.torn.total == 1;
        assert!(told || held(&restored), "torn and not told");
        fs::remove_file(place.target().join("busy")).unwrap();
        place.delete("u-1");
    }
}

/// Whether a file that is written over from front to back, each time with the next number, can have
/// held this: one number, or the next one up to where a write is halted.
fn held(content: &[u8]) -> bool {
    let newer = content[0];
    let older = content.iter().position(|byte| *byte != newer);
    older.is_none_or(|at| {
        let before = newer.wrapping_sub(1);
        content[at..].iter().all(|byte| *byte == before)
    })
}

#[test]
fn files_that_grow_and_shrink_leave_a_sound_archive() {
    let place = Place::new();
    for name in ["small", "large"] {
        fs::write(place.source().join(name), b"").unwrap();
    }
    let open = |name| {
        let path = place.source().join(name);
        OpenOptions::new().write(true).open(path).unwrap()
    };
    let (small, large) = (open("small"), open("large"));
    let mut n = 0_u64;
    let backup = backup_while(&place, || {
        n += 1;
        small.set_len(n * 7919 % 50_000).unwrap();
        large.set_len((3 << 20) + n * 7919 % (4 << 20)).unwrap();
    });
    assert_eq!(backup.files, 2);
    place.restore(&backup);
    let archive = place.object(".tar.gz");
    let plain = place.path("plain");
    fs::create_dir(&plain).unwrap();
    tool("tar", &["-xpzf", archive.to_str().unwrap()], &plain);
    assert_eq!(list(&plain), list(&place.target()));
}

#[test]
fn files_that_come_and_go_do_not_fail_the_backup() {
    let place = Place::new();
    let dir = place.source().join("dir");
    fs::create_dir(&dir).unwrap();
    for n in 0..3000 {
        fs::write(dir.join(format!("{n:05}")), b"x").unwrap();
    }
    let mut n = 0;
    let backup = backup_while(&place, || {
        let name = format!("{:05}", 3000 - n % 3000);
        let _ = fs::remove_file(dir.join(&name));
        let _ = fs::create_dir(dir.join(&name));
        let _ = fs::remove_dir(dir.join(&name));
        n += 1;
    });
    place.restore(&backup);
}

#[test]
fn a_tree_deeper_than_any_path_comes_back() {
    let place = Place::new();
    let depth = 3000;
    deep(&place.source(), depth);
    let backup = place.backup();
    assert_eq!((backup.files, backup.others), (1, depth + 1));
    place.restore(&backup);
    // No path of these trees can be given to the kernel, so a tool that walks has to compare.
    let listing = |root: &Path| {
        let format = ["-printf", "%d %f %y %m %U %G %s %T@\\n"];
        tool("find", &[&["."][..], &format].concat(), root).stdout
    };
    assert!(listing(&place.source()) == listing(&place.target()));
}

/// A chain of `depth` directories with a file at its end.
fn deep(root: &Path, depth: u64) {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    let name = "d".repeat(20);
    for _ in 0..depth {
        mkdirat(&dir, name.as_str(), Mode::RWXU).unwrap();
        dir = openat(&dir, name.as_str(), flags, Mode::empty()).unwrap();
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = openat(&dir, "file", flags, Mode::RUSR).unwrap();
    File::from(file).write_all(b"bottom").unwrap();
}

#[test]
fn hard_links_across_the_tree_stay_one_file() {
    let place = Place::new();
    for dir in ["a", "b/c", "d"] {
        fs::create_dir_all(place.source().join(dir)).unwrap();
    }
    for n in 0..200 {
        let first = place.source().join(format!("a/{n}"));
        fs::write(&first, noise(n, 1000)).unwrap();
        fs::hard_link(&first, place.source().join(format!("b/c/{}", n * 7))).unwrap();
        fs::hard_link(&first, place.source().join(format!("d/{n}"))).unwrap();
    }
    let backup = place.backup();
    assert_eq!((backup.files, backup.logical_bytes), (600, 200_000));
    let restored = place.restore(&backup);
    assert_eq!((restored.files, restored.logical_bytes), (600, 200_000));
    assert_eq!(list(&place.source()), list(&place.target()));
}

#[test]
fn a_mount_inside_the_volume_is_left_out_and_told() {
    let place = Place::new();
    let inside = place.source().join("mounted");
    fs::create_dir(&inside).unwrap();
    let command = format!(
        "mount -t tmpfs none {0} && touch {0}/invisible && exec \"$0\" \"$@\"",
        inside.to_str().unwrap()
    );
    // A mount namespace of its own: the mount ends with the mover.
    let in_namespace = |mover: Command| {
        let mut outer = Command::new("unshare");
        outer
            .args(["--mount", "--", "sh", "-c", &command])
            .arg(mover.get_program());
        outer
    };
    let outcome = place.run_with("u-1", place.backup_task(), in_namespace);
    let tidelock_protocol::Outcome::BackedUp(backup) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(backup.skipped.first, ["mounted"]);
    assert_eq!((backup.files, backup.others), (0, 2));
}

#[test]
fn a_deep_tree_needs_few_open_files() {
    let place = Place::new();
    deep(&place.source(), 1000);
    let limited = |mover: Command| {
        let mut outer = Command::new("sh");
        outer
            .args(["-c", "ulimit -n 300 && exec \"$0\" \"$@\""])
            .arg(mover.get_program());
        outer
    };
    let outcome = place.run_with("u-1", place.backup_task(), limited);
    let tidelock_protocol::Outcome::BackedUp(backup) = outcome else {
        panic!("{outcome:?}");
    };
    let outcome = place.run_with("r-1", place.restore_task(&backup), limited);
    assert!(
        matches!(outcome, tidelock_protocol::Outcome::Restored(_)),
        "{outcome:?}"
    );
}
