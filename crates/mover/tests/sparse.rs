//! Files with holes stay files with holes, and their holes cost nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use common::{Place, list, noise, tool};
use tidelock_protocol::{Effect, Outcome, Overwrite, RestoreReport, Task};

/// Makes a file of this size with noise at these places.
fn sparse(path: &Path, size: u64, data: &[(u64, usize)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (at, length) in data {
        file.write_all_at(&noise(*at, *length), *at).unwrap();
    }
    file.sync_all().unwrap();
}

const FILES: [&str; 4] = ["base", "tail", "starts", "empty"];

/// A database's file, one that ends with data, one that starts with it, and one without any; gives
/// what they hold of the disk.
fn make_sparse(root: &Path) -> u64 {
    sparse(
        &root.join("base"),
        1 << 28,
        &[(0, 8192), (90 << 20, 3 << 20), ((1 << 28) - 70_000, 5)],
    );
    sparse(
        &root.join("tail"),
        (2 << 20) + 77,
        &[(1 << 20, (1 << 20) + 77)],
    );
    sparse(&root.join("starts"), 3 << 20, &[(0, 1)]);
    sparse(&root.join("empty"), 5 << 20, &[]);
    allocated(root)
}

fn allocated(root: &Path) -> u64 {
    let blocks = FILES.map(|name| fs::metadata(root.join(name)).unwrap().blocks());
    blocks.iter().sum::<u64>() * 512
}

fn restored(outcome: Outcome) -> RestoreReport {
    match outcome {
        Outcome::Restored(report) => report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn holes_come_back_as_holes_and_take_no_room_in_the_archive() {
    let place = Place::new();
    let held = make_sparse(&place.source());
    assert!(held < 6 << 20, "the file system here has no holes");
    let backup = place.backup();
    assert!(backup.stored_bytes < 5 << 20, "{}", backup.stored_bytes);
    let sizes = (1 << 28) + (2 << 20) + 77 + (8 << 20);
    assert_eq!(backup.logical_bytes, sizes);
    let restore = place.restore(&backup);
    assert_eq!(restore.logical_bytes, sizes);
    assert!(list(&place.source()) == list(&place.target()));
    assert!(allocated(&place.target()) <= held, "holes were filled");
    let nothing = fs::metadata(place.target().join("empty")).unwrap();
    assert_eq!(nothing.blocks(), 0);
}

#[test]
fn other_tools_read_files_with_holes() {
    let place = Place::new();
    make_sparse(&place.source());
    // Not all tools keep holes, and zeros are no use to anybody here.
    sparse(&place.source().join("base"), 40 << 20, &[(9 << 20, 70_000)]);
    place.backup();
    let archive = place.object(".tar.gz");
    let archive = archive.to_str().unwrap();
    let unpack = "import sys, tarfile\n\
                  t = tarfile.open(sys.argv[1])\n\
                  t.extractall('.')\n";
    let readers: [(&str, &[&str]); 3] = [
        ("tar", &["-xpzf", archive]),
        ("bsdtar", &["-xpzf", archive]),
        ("python3", &["-c", unpack, archive]),
    ];
    for (tool_name, arguments) in readers {
        let plain = place.path(tool_name);
        fs::create_dir(&plain).unwrap();
        tool(tool_name, arguments, &plain);
        for name in FILES {
            let told = format!("{tool_name} reads {name}");
            let (ours, theirs) = (place.source().join(name), plain.join(name));
            assert!(
                fs::read(ours).unwrap() == fs::read(theirs).unwrap(),
                "{told}"
            );
        }
        if tool_name == "tar" {
            let held = allocated(&plain);
            assert!(held < 6 << 20, "{tool_name} fills holes: {held}");
        }
    }
}

#[test]
fn the_index_tells_the_digest_of_what_the_archive_has_of_it() {
    let place = Place::new();
    sparse(&place.source().join("f"), 3 << 20, &[(1 << 20, 4096)]);
    place.backup();
    let dir = place.storage().join("shop/data");
    let take = "zcat nightly.index.jsonl.gz | jq -r 'select(.entry.path == \"f\") | .entry | \
                \"\\(.sha256) \\(.stored) \\(.size)\"'";
    let told = String::from_utf8(tool("sh", &["-c", take], &dir).stdout).unwrap();
    let map = format!("2\n{}\n4096\n{}\n0\n", 1 << 20, 3 << 20);
    let mut stored = map.into_bytes();
    stored.resize(512, 0);
    stored.extend(noise(1 << 20, 4096));
    fs::write(place.path("stored"), &stored).unwrap();
    let digest = tool("sha256sum", &["stored"], place.dir.path()).stdout;
    let digest = String::from_utf8(digest).unwrap();
    assert_eq!(told, format!("{} 4608 {}\n", &digest[..64], 3 << 20));
}

#[test]
fn a_comparison_reads_around_holes() {
    let place = Place::new();
    make_sparse(&place.source());
    let backup = place.backup();
    place.restore(&backup);
    let dry = |place: &Place| {
        let mut task = place.overwrite_task(&backup, Overwrite::Replace);
        task.effect = Effect::DryRun;
        match place.run("r-2", Task::Restore(task)) {
            Outcome::Compared(changes) => changes,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(dry(&place).changed.paths.total, 0);
    let target = File::options()
        .write(true)
        .open(place.target().join("base"));
    let target = target.unwrap();
    let mtime = fs::metadata(place.target().join("base")).unwrap();
    let mtime = mtime.modified().unwrap();
    // A block of zeros where the archive has a hole is no change.
    target.write_all_at(&[0; 4096], 5 << 20).unwrap();
    target.set_modified(mtime).unwrap();
    assert_eq!(dry(&place).changed.paths.total, 0);
    target.write_all_at(&[1], 6 << 20).unwrap();
    target.set_modified(mtime).unwrap();
    assert_eq!(dry(&place).changed.paths.first, ["base"]);
}

#[test]
fn a_target_needs_room_for_the_data_alone() {
    let place = Place::new();
    sparse(&place.source().join("thin"), 1 << 43, &[(1 << 42, 4096)]);
    let backup = place.backup();
    place.restore(&backup);
    let thin = fs::metadata(place.target().join("thin")).unwrap();
    assert_eq!(thin.len(), 1 << 43);
    assert!(thin.blocks() < 100);
}

#[test]
fn a_link_to_a_file_with_holes_that_is_left_out_becomes_it() {
    let place = Place::new();
    fs::create_dir(place.source().join("a")).unwrap();
    fs::create_dir(place.source().join("b")).unwrap();
    sparse(&place.source().join("a/file"), 9 << 20, &[(2 << 20, 50)]);
    fs::hard_link(place.source().join("a/file"), place.source().join("b/link")).unwrap();
    let backup = place.backup();
    let mut task = place.overwrite_task(&backup, Overwrite::Merge);
    task.paths = vec!["b".into()];
    task.read_back = true;
    restored(place.run("r-1", Task::Restore(task)));
    let link = place.target().join("b/link");
    assert!(fs::read(&link).unwrap() == fs::read(place.source().join("a/file")).unwrap());
    assert!(fs::metadata(&link).unwrap().blocks() < 100);
}
