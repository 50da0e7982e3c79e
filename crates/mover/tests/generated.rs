//! Trees that nobody thought of come back as they were.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use common::{Place, list, noise, tar_flag, tool};
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, mkfifoat, utimensat,
};
use tidelock_mover::run;
use tidelock_protocol::{Format, Outcome};
use tidelock_storage::Directory;

#[derive(Debug, Clone)]
enum Kind {
    File { seed: u64, size: usize },
    Sparse { size: u64, data: Vec<(u64, usize)> },
    Directory,
    Symlink(Vec<u8>),
    HardLink(prop::sample::Index),
    Fifo,
}

#[derive(Debug, Clone)]
struct Node {
    /// Which directory made before it goes into.
    parent: prop::sample::Index,
    name: Vec<u8>,
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    xattr: Option<(String, Vec<u8>)>,
}

/// Sizes around the borders of blocks, of members, and of what is read whole.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0),
        1..2000_usize,
        Just(512),
        (1 << 20) - 3..(1 << 20) + 3_usize,
        (1 << 20) - 1600..(1 << 20) - 400_usize,
        (3 << 19) - 1100..(3 << 19) + 3_usize,
        (5 << 20) - 1100..(5 << 20) + 3_usize,
    ]
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => (any::<u64>(), sizes()).prop_map(|(seed, size)| Kind::File { seed, size }),
        1 => (600_000..3_000_000_u64, vec((0..3_000_000_u64, 1..9000_usize), 0..5))
            .prop_map(|(size, data)| Kind::Sparse { size, data }),
        4 => Just(Kind::Directory),
        1 => vec(1_u8.., 1..200).prop_map(Kind::Symlink),
        2 => any::<prop::sample::Index>().prop_map(Kind::HardLink),
        1 => Just(Kind::Fifo),
    ]
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("not in a name", |b| *b != 0 && *b != b'/');
    prop_oneof![
        3 => "[a-z]{1,8}".prop_map(String::into_bytes),
        1 => vec(byte, 1..=255),
    ]
    .prop_filter("no name", |name| name != b"." && name != b"..")
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let node = (
        any::<prop::sample::Index>(),
        names(),
        kinds(),
        0..0o10000_u32,
        (0..u32::MAX - 1, 0..u32::MAX - 1),
        (-3_000_000_000..6_000_000_000_i64, 0..1_000_000_000_i64),
        proptest::option::of(("user\\.[ -~]{1,40}", vec(any::<u8>(), 0..300))),
    )
        .prop_map(|(parent, name, kind, mode, owner, mtime, xattr)| Node {
            parent,
            name,
            kind,
            mode,
            owner,
            mtime,
            xattr,
        });
    vec(node, 0..25)
}

fn build(root: &Path, nodes: &[Node]) {
    let mut dirs = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Node)> = Vec::new();
    for node in nodes {
        let path = node.parent.get(&dirs).join(OsStr::from_bytes(&node.name));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match &node.kind {
            Kind::File { seed, size } => {
                fs::write(&path, noise(*seed, *size)).unwrap();
                files.push(path.clone());
            }
            Kind::Sparse { size, data } => {
                let file = fs::File::create(&path).unwrap();
                for (at, length) in data {
                    file.write_all_at(&noise(*at, *length), *at).unwrap();
                }
                file.set_len(*size).unwrap();
                files.push(path.clone());
            }
            Kind::Directory => {
                fs::create_dir(&path).unwrap();
                dirs.push(path.clone());
            }
            Kind::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            Kind::HardLink(_) if files.is_empty() => continue,
            Kind::HardLink(of) => {
                fs::hard_link(of.get(&files), &path).unwrap();
                continue;
            }
            Kind::Fifo => mkfifoat(CWD, &path, Mode::RUSR).unwrap(),
        }
        made.push((path, node));
    }
    for (path, node) in made.iter().rev() {
        attributes(path, node);
    }
}

fn attributes(path: &Path, node: &Node) {
    lchown(path, Some(node.owner.0), Some(node.owner.1)).unwrap();
    if !matches!(node.kind, Kind::Symlink(_)) {
        fs::set_permissions(path, PermissionsExt::from_mode(node.mode)).unwrap();
    }
    if let (Some((name, value)), Kind::File { .. } | Kind::Sparse { .. } | Kind::Directory) =
        (&node.xattr, &node.kind)
    {
        lsetxattr(path, name.as_str(), value, XattrFlags::empty()).unwrap();
    }
    let time = Timespec {
        tv_sec: node.mtime.0,
        tv_nsec: node.mtime.1,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_comes_back_by_the_mover_and_by_tar(
        format in prop::sample::select(&Format::ALL[..]),
        nodes in nodes(),
    ) {
        let place = Place::of(format);
        build(&place.source(), &nodes);
        let storage = Directory::open(&place.storage()).unwrap();
        let go = AtomicBool::new(false);
        let request = place.request("u-1", place.backup_task());
        let Outcome::BackedUp(backup) = run(&request, &storage, &go) else {
            panic!("no backup");
        };
        let request = place.request("r-1", place.restore_task(&backup));
        let outcome = run(&request, &storage, &go);
        prop_assert!(matches!(outcome, Outcome::Restored(_)), "{outcome:?}");
        prop_assert!(list(&place.source()) == list(&place.target()));
        let plain = place.path("plain");
        fs::create_dir(&plain).unwrap();
        let archive = place.archive();
        let arguments = ["--xattrs", "--numeric-owner", tar_flag(format), "-xpf", archive.to_str().unwrap()];
        tool("tar", &arguments, &plain);
        prop_assert!(list(&place.source()) == list(&plain), "tar differs");
    }
}
