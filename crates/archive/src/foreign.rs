//! Tar streams of other writers, made backups of as `docs/format.md` has them, for tests.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};

use crate::builder::Piece;
use crate::codec::{Codec, Squeezer};
use crate::crafted::{manifest, object_of};
use crate::digest::sha256;
use crate::entry::{END_BYTES, Entry, EntryError, EntryKind, padding};
use crate::index::{IndexEntry, IndexReader};
use crate::manifest::Counts;
use crate::output::{Member, Output};
use crate::tree::set_time;
use crate::{Manifest, Meter, verify_content, verify_index, verify_object};

/// Where streams are cut: nowhere that means anything in them.
const CUT_BYTES: usize = 100_003;

/// The entries of a stream as an index has them, how long it is without what fills its last record,
/// and what its reader refuses.
pub(crate) fn entries_of(tar: &[u8]) -> (Vec<IndexEntry>, u64, Option<EntryError>) {
    let mut entries = Vec::new();
    let mut rest = tar;
    loop {
        let offset = (tar.len() - rest.len()) as u64;
        let entry = match Entry::read(&mut rest, offset) {
            Ok(Some(entry)) => entry,
            Ok(None) => return (entries, offset + END_BYTES, None),
            Err(error) => return (entries, offset, Some(error)),
        };
        let stored = usize::try_from(entry.stored_bytes()).unwrap();
        let (content, behind) = rest.split_at(stored);
        rest = &behind[padding(stored as u64)..];
        let has_link = matches!(entry.kind, EntryKind::Symlink | EntryKind::HardLink);
        entries.push(IndexEntry {
            path: entry.path,
            kind: entry.kind,
            size: entry.size,
            stored: entry.stored,
            sha256: (entry.kind == EntryKind::File).then(|| sha256(content)),
            link: has_link.then_some(entry.link),
            offset,
            length: (tar.len() - rest.len()) as u64 - offset,
            superseded: false,
            torn: false,
        });
    }
}

/// Archive and index of a stream that is taken to its end.
pub(crate) fn seal(codec: Codec, tar: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (entries, length, refused) = entries_of(tar);
    assert!(refused.is_none(), "{refused:?}");
    let (tar, filling) = tar.split_at(usize::try_from(length).unwrap());
    assert!(filling.iter().all(|byte| *byte == 0));
    cut(codec, tar, entries)
}

/// Archive and index of a stream with these entries.
pub(crate) fn cut(codec: Codec, tar: &[u8], entries: Vec<IndexEntry>) -> (Vec<u8>, Vec<u8>) {
    let (mut archive, mut index) = (Vec::new(), Vec::new());
    let mut output = Output::new(&mut archive, &mut index);
    let mut squeezer = Squeezer::for_members(codec).unwrap();
    let mut entries = entries.into_iter().peekable();
    let (meter, mut end) = (Meter::default(), 0);
    for bytes in tar.chunks(CUT_BYTES) {
        end += bytes.len() as u64;
        let mut piece = Piece {
            tar: bytes.to_vec(),
            entries: Vec::new(),
        };
        while let Some(entry) = entries.next_if(|entry| entry.offset + entry.length <= end) {
            piece.entries.push(entry);
        }
        let member = Member::of(piece, &mut squeezer, &meter).unwrap();
        output.write(member, &meter).unwrap();
    }
    output.finish().unwrap();
    (archive, index)
}

/// The manifest of an archive and its index.
fn manifest_of(codec: Codec, archive: &[u8], index: &[u8]) -> Manifest {
    let mut counts = Counts::default();
    let (mut logical_bytes, mut tar_bytes) = (0, 0);
    let mut features = Vec::new();
    let mut entries = IndexReader::new(index);
    while let Some(entry) = entries.next_entry().unwrap() {
        counts.entries += 1;
        logical_bytes += entry.size;
        if entry.stored.is_some() {
            features = vec!["sparse".to_owned()];
        }
    }
    let mut members = IndexReader::new(index);
    while let Some(member) = members.next_member().unwrap() {
        counts.members += 1;
        tar_bytes += member.tar_size;
    }
    Manifest {
        encryption: None,
        codec,
        features,
        archive: object_of(archive),
        index: object_of(index),
        counts,
        logical_bytes,
        tar_bytes,
        ..manifest()
    }
}

/// Checks a backup as before a restore, and its content.
pub(crate) fn verify(
    codec: Codec,
    archive: &[u8],
    index: &[u8],
) -> Result<(), crate::RestoreError> {
    let stop = AtomicBool::new(false);
    let text = manifest_of(codec, archive, index).to_json().unwrap();
    let manifest = Manifest::from_json(text.as_bytes()).unwrap();
    verify_object(archive, &manifest.archive, &stop)?;
    verify_object(index, &manifest.index, &stop)?;
    verify_index(index, &manifest, &stop)?;
    let meter = Meter::default();
    verify_content(codec, archive, [index; 2], &manifest.archive, &meter, &stop).map(drop)
}

/// What a shell prints in a directory, and whether it ended well.
pub(crate) fn run(script: &str, dir: &Path) -> (Vec<u8>, bool) {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(dir);
    let output = shell.env("LC_ALL", "C").output().unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    (output.stdout, output.status.success())
}

fn owned(path: &Path, owner: (u32, u32), mode: u32) {
    lchown(path, Some(owner.0), Some(owner.1)).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

pub(crate) fn sparse(path: &Path, size: u64, data: &[(u64, usize)]) {
    let file = fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (at, length) in data {
        file.write_all_at(&vec![b'x'; *length], *at).unwrap();
    }
    file.sync_all().unwrap();
}

fn node(path: &Path, kind: FileType, device: (u32, u32)) {
    let device = makedev(device.0, device.1);
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// One of everything that a backup keeps.
pub(crate) fn make_everything(root: &Path) {
    let long = root.join("n".repeat(200)).join("m".repeat(200));
    for dir in [&long, &root.join("deep/er/empty"), &root.join("names")] {
        fs::create_dir_all(dir).unwrap();
    }
    for size in [0, 511, 512, 513, 300_000] {
        fs::write(root.join(format!("sized-{size}")), vec![b's'; size]).unwrap();
    }
    let split = root.join("a".repeat(80)).join("b".repeat(80));
    fs::create_dir_all(&split).unwrap();
    fs::write(split.join("file"), b"split").unwrap();
    fs::write(long.join("file"), b"long").unwrap();
    fs::write(root.join("e".repeat(98)), b"fills its field").unwrap();
    let names: [&[u8]; 8] = [
        b"line\nbreak",
        b"\xff\xfenot utf-8",
        b"key=value",
        b"back\\slash",
        b"%25 %3D",
        b"\x01\x1b[31m",
        b" spaces ",
        "größe ☃".as_bytes(),
    ];
    for name in names {
        fs::write(root.join("names").join(OsStr::from_bytes(name)), name).unwrap();
    }
    node(&root.join("fifo"), FileType::Fifo, (0, 0));
    node(&root.join("null"), FileType::CharacterDevice, (1, 3));
    node(&root.join("disk"), FileType::BlockDevice, (240, 70_000));
    sparse(&root.join("deep/sparse"), 7 << 20, &[(3 << 20, 70_000)]);
    sparse(
        &long.join("sparse"),
        (1 << 20) + 77,
        &[(0, 1), (1 << 20, 77)],
    );
    sparse(&root.join("hole"), 1 << 20, &[]);
    make_links(root, &long);
    make_attributes(root);
    make_times(root);
    owned(&root.join("deep/er"), (1000, 100), 0o1777);
    owned(&root.join("deep/er/empty"), (3_000_000, 77), 0o2500);
    owned(root, (55, 66), 0o2751);
    set_time(root, 1_500_000_000, 123_456_789);
}

/// Apparently over 8 GiB, which the number of a header cannot tell.
pub(crate) fn make_huge(root: &Path) {
    let size = (9 << 30) + 77;
    sparse(&root.join("huge"), size, &[(5000, 5000), (size - 3, 3)]);
}

fn make_links(root: &Path, long: &Path) {
    let links: [(&str, &[u8]); 4] = [
        ("dangling", b"../nowhere/at all"),
        ("long link", &[b'x'; 300]),
        ("link of 100", &[b'x'; 100]),
        ("odd link", b"\xff\xfe\n=\\"),
    ];
    for (name, target) in links {
        symlink(OsStr::from_bytes(target), root.join("deep").join(name)).unwrap();
    }
    lchown(root.join("deep/dangling"), Some(12), Some(34)).unwrap();
    for (old, new) in [
        (root.join("sized-513"), root.join("deep/er/again")),
        (root.join("sized-513"), root.join("zz-again")),
        (root.join("deep/dangling"), root.join("zz-link-again")),
        (long.join("file"), root.join("zz-long-again")),
    ] {
        fs::hard_link(old, new).unwrap();
    }
}

/// Owners, modes, attributes and ACLs, of files that are there.
pub(crate) fn make_attributes(root: &Path) {
    let file = root.join("attributes");
    fs::write(&file, b"x").unwrap();
    let set = |path: &Path, name: &str, value: &[u8]| {
        lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    set(&file, "user.plain", b"value");
    set(&file, "user.binary", b"\0\n=\xff");
    set(&file, "user.empty", b"");
    set(&file, "user.a=b%25 größe", b"odd name");
    set(&root.join("deep/er"), "user.dir", b"d");
    owned(&file, (5, 5), 0o4640);
    owned(&root.join("sized-511"), (2_097_151, 2_097_151), 0o6755);
    owned(&root.join("sized-512"), (2_097_152, 4_000_000_000), 0o400);
    // cap_net_bind_service=ep, as the kernel keeps it.
    let mut capability = vec![0; 20];
    capability[..6].copy_from_slice(&[1, 0, 0, 2, 0, 4]);
    set(&root.join("sized-513"), "security.capability", &capability);
    let script = "setfacl -m u:1234567:rw,u:77777:r,g:1234567:r attributes && \
                  setfacl -d -m u:1234567:rwx deep/er";
    assert!(run(script, root).1);
}

fn make_times(root: &Path) {
    for (name, seconds, nanoseconds) in [
        ("old", -2, 500_000_000),
        ("older", -3_000_000_000, 0),
        ("new", 1_600_000_000, 987_654_321),
        ("future", 10_000_000_000, 1),
    ] {
        fs::write(root.join(name), name).unwrap();
        set_time(&root.join(name), seconds, nanoseconds);
    }
}
