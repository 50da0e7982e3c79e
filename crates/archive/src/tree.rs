//! Generated directory trees for tests, and what they are like.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, Mode, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr, lsetxattr,
    mkfifoat, utimensat,
};

use crate::sparse::SparseMap;

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    File(Vec<u8>),
    Directory,
    Symlink(String),
    HardLink(prop::sample::Index),
    Fifo,
}

/// Something in a tree; names are few, so that two trees have many in common.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    parent: prop::sample::Index,
    name: String,
    kind: Kind,
    mode: u32,
    owner: u32,
    mtime: i64,
    xattr: Option<Vec<u8>>,
}

pub(crate) fn nodes(hard_links: u32) -> impl Strategy<Value = Vec<Node>> {
    let kind = prop_oneof![
        4 => vec(any::<u8>(), 0..1500).prop_map(Kind::File),
        4 => Just(Kind::Directory),
        1 => "[a-e/.]{1,8}".prop_map(Kind::Symlink),
        hard_links => any::<prop::sample::Index>().prop_map(Kind::HardLink),
        1 => Just(Kind::Fifo),
    ];
    let node = (
        any::<prop::sample::Index>(),
        "[a-e]",
        kind,
        0..0o10000_u32,
        0..70_000_u32,
        0..4_000_000_000_i64,
        proptest::option::of(vec(any::<u8>(), 0..30)),
    );
    let node = node.prop_map(|(parent, name, kind, mode, owner, mtime, xattr)| Node {
        parent,
        name,
        kind,
        mode,
        owner,
        mtime,
        xattr,
    });
    vec(node, 0..14)
}

/// Makes the tree in an empty directory.
pub(crate) fn build(root: &Path, nodes: &[Node]) {
    let mut dirs = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Node)> = Vec::new();
    for node in nodes {
        let path = node.parent.get(&dirs).join(&node.name);
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match &node.kind {
            Kind::File(content) => {
                fs::write(&path, content).unwrap();
                files.push(path.clone());
            }
            Kind::Directory => {
                fs::create_dir(&path).unwrap();
                dirs.push(path.clone());
            }
            Kind::Symlink(target) => symlink(target, &path).unwrap(),
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
    set_mtime(root, 1_234_567_890);
}

fn attributes(path: &Path, node: &Node) {
    lchown(path, Some(node.owner), Some(node.owner / 2)).unwrap();
    if !matches!(node.kind, Kind::Symlink(_)) {
        fs::set_permissions(path, PermissionsExt::from_mode(node.mode)).unwrap();
    }
    if let (Some(value), Kind::File(_) | Kind::Directory) = (&node.xattr, &node.kind) {
        lsetxattr(path, "user.test", value, XattrFlags::empty()).unwrap();
    }
    set_mtime(path, node.mtime);
}

pub(crate) fn set_mtime(path: &Path, seconds: i64) {
    set_time(path, seconds, seconds % 1_000_000_000);
}

pub(crate) fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything that a backup keeps of one file, and which names are the same file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    owner: (u32, u32),
    device: u64,
    pub(crate) mtime: (i64, i64),
    /// Of a very large file, size and what stands outside its holes.
    pub(crate) content: Vec<u8>,
    pub(crate) same_as: PathBuf,
    pub(crate) xattrs: BTreeMap<OsString, Vec<u8>>,
}

impl Seen {
    /// The larger number of its user and its group.
    pub(crate) fn largest_owner(&self) -> u32 {
        self.owner.0.max(self.owner.1)
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

/// Everything below `root`, and the root as an empty path.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut paths = vec![PathBuf::new()];
    let mut at = 0;
    while at < paths.len() {
        let path = root.join(&paths[at]);
        if path.symlink_metadata().unwrap().is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                paths.push(paths[at].join(entry.unwrap().file_name()));
            }
        }
        at += 1;
    }
    paths.sort();
    let mut inodes = BTreeMap::new();
    let seen = paths.into_iter().map(|path| {
        let meta = root.join(&path).symlink_metadata().unwrap();
        let first = inodes.entry(meta.ino()).or_insert(path.clone()).clone();
        let seen = look(&root.join(&path), &meta, first);
        (path, seen)
    });
    seen.collect()
}

/// Larger files are not held in memory.
const LARGE_BYTES: u64 = 64 << 20;

fn outside_holes(path: &Path, size: u64) -> Vec<u8> {
    let file = fs::File::open(path).unwrap();
    let mut found = size.to_le_bytes().to_vec();
    let map = SparseMap::of(&file, size, &AtomicBool::new(false)).unwrap();
    for segment in map.data() {
        let mut data = vec![0; usize::try_from(segment.length).unwrap()];
        file.read_exact_at(&mut data, segment.offset).unwrap();
        found.extend_from_slice(&segment.offset.to_le_bytes());
        found.extend(data);
    }
    found
}

fn look(path: &Path, meta: &fs::Metadata, same_as: PathBuf) -> Seen {
    let content = if meta.len() > LARGE_BYTES {
        outside_holes(path, meta.len())
    } else if meta.is_file() {
        fs::read(path).unwrap()
    } else if meta.is_symlink() {
        fs::read_link(path).unwrap().into_os_string().into_vec()
    } else {
        Vec::new()
    };
    let mut names = vec![0; 4096];
    let length = llistxattr(path, &mut names[..]).unwrap_or(0);
    let xattrs = names[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty());
    let xattrs = xattrs.map(|name| {
        let mut value = vec![0; 4096];
        let length = lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        (std::ffi::OsStr::from_bytes(name).to_owned(), value)
    });
    Seen {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        device: meta.rdev(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        content,
        same_as,
        xattrs: xattrs.collect(),
    }
}
