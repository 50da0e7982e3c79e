//! What goes in comes out: by the mover, and by the tools that everybody has.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Place, list, noise, tar_flag, tool, xattrs};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev, mknodat, setxattr,
    utimensat,
};
use tidelock_protocol::Format;

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
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

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn node(path: &Path, kind: FileType, device: (u32, u32)) {
    let device = makedev(device.0, device.1);
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// One of everything that a volume can hold, apart from sockets.
fn make_everything(root: &Path) {
    fs::create_dir_all(root.join("deep/er/empty")).unwrap();
    fs::write(root.join("empty file"), b"").unwrap();
    for (n, size) in [511, 512, 513, 1 << 20, (1 << 20) + 1, 3 << 20]
        .into_iter()
        .enumerate()
    {
        fs::write(root.join(format!("sized-{n}")), noise(n as u64, size)).unwrap();
    }
    fs::write(root.join("zeros"), vec![0; 5 << 20]).unwrap();
    let sparse = fs::File::create(root.join("deep/sparse")).unwrap();
    sparse.set_len(7 << 20).unwrap();
    sparse.write_all_at(&noise(9, 70_000), 3 << 20).unwrap();
    fs::write(root.join("deep/script"), b"#!/bin/sh\n").unwrap();
    chown(root.join("deep/script"), Some(1000), Some(4_000_000_000)).unwrap();
    set_mode(&root.join("deep/script"), 0o6755);
    set_mode(&root.join("deep/er"), 0o1777);
    chown(root.join("deep/er/empty"), Some(3_000_000), Some(77)).unwrap();
    set_mode(&root.join("deep/er/empty"), 0o2500);
    symlink("../nowhere/at all", root.join("deep/dangling")).unwrap();
    let target: PathBuf = OsStr::from_bytes(&[b'x'; 300]).into();
    symlink(target, root.join("deep/long link")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\xfe"), root.join("deep/odd link")).unwrap();
    lchown(root.join("deep/dangling"), Some(12), Some(34)).unwrap();
    set_mtime(&root.join("deep/dangling"), 1_000_000_000, 7);
    fs::hard_link(root.join("sized-0"), root.join("deep/again")).unwrap();
    fs::hard_link(root.join("sized-0"), root.join("zz-again")).unwrap();
    fs::hard_link(root.join("deep/dangling"), root.join("zz-link-again")).unwrap();
    node(&root.join("deep/fifo"), FileType::Fifo, (0, 0));
    node(&root.join("deep/null"), FileType::CharacterDevice, (1, 3));
    node(
        &root.join("deep/block"),
        FileType::BlockDevice,
        (240, 70_000),
    );
    fs::write(root.join("old"), b"before the epoch").unwrap();
    set_mtime(&root.join("old"), -2, 500_000_000);
    fs::write(root.join("future"), b"").unwrap();
    set_mtime(&root.join("future"), 10_000_000_000, 1);
    make_names(root);
    make_xattrs(root);
    set_mode(root, 0o2751);
    chown(root, Some(55), Some(66)).unwrap();
    set_mtime(root, 1_500_000_000, 123_456_789);
}

fn make_names(root: &Path) {
    let long = "n".repeat(255);
    let names: [&[u8]; 10] = [
        b"line\nbreak",
        b"\xff\xfenot utf-8",
        b" leading and trailing ",
        b"back\\slash",
        b"-starts-with-dash",
        "größe ☃".as_bytes(),
        b"quote\"'`$",
        b"\x01\x1b[31m",
        b"...",
        long.as_bytes(),
    ];
    let dir = root.join("names");
    fs::create_dir(&dir).unwrap();
    for name in names {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let nested = dir.join(&long[..254]).join(&long[..200]);
    fs::create_dir_all(&nested).unwrap();
    fs::write(nested.join("file"), b"x").unwrap();
    fs::hard_link(nested.join("file"), dir.join("~linked")).unwrap();
}

fn make_xattrs(root: &Path) {
    let file = root.join("attributes");
    fs::write(&file, b"x").unwrap();
    let set = |name: &str, value: &[u8]| {
        setxattr(&file, name, value, XattrFlags::empty()).unwrap();
    };
    set("user.plain", b"value");
    set("user.binary", b"\0\n=\xff");
    set("user.empty", b"");
    chown(&file, Some(5), Some(5)).unwrap();
    set_mode(&file, 0o400);
    set("security.capability", &CAP_NET_BIND);
    tool("setfacl", &["-m", "u:1234:rw,g:99:r", "attributes"], root);
    let dir = root.join("deep/er");
    setxattr(&dir, "user.dir", b"d", XattrFlags::empty()).unwrap();
    tool("setfacl", &["-d", "-m", "u:1234:rwx", "deep/er"], root);
}

/// cap_net_bind_service=ep, as the kernel keeps it.
const CAP_NET_BIND: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (list(left), list(right));
    let paths = |l: &std::collections::BTreeMap<PathBuf, _>| l.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&left), paths(&right));
    for (path, listed) in &left {
        assert!(
            right[path] == *listed,
            "{} differs: {}",
            path.display(),
            short(listed, &right[path])
        );
    }
}

fn short(left: &common::Listed, right: &common::Listed) -> String {
    let cut = |l: &common::Listed| format!("{l:?}").chars().take(400).collect::<String>();
    format!("{} and {}", cut(left), cut(right))
}

#[test]
fn a_restored_tree_equals_its_source() {
    for format in Format::ALL {
        let place = Place::of(format);
        make_everything(&place.source());
        let backup = place.backup();
        let restore = place.restore(&backup);
        assert_same(&place.source(), &place.target());
        assert_eq!(restore.files, backup.files);
        assert_eq!(restore.others, backup.others);
        assert_eq!(restore.logical_bytes, backup.logical_bytes);
    }
}

#[test]
fn an_empty_volume_comes_back_empty() {
    for format in Format::ALL {
        let place = Place::of(format);
        set_mode(&place.source(), 0o710);
        let backup = place.backup();
        assert_eq!((backup.files, backup.others), (0, 1));
        place.restore(&backup);
        assert_same(&place.source(), &place.target());
    }
}

#[test]
fn the_same_tree_gives_the_same_archive() {
    for format in Format::ALL {
        let place = Place::of(format);
        make_everything(&place.source());
        let first = place.backup();
        place.delete("u-1");
        assert_eq!(place.backup().digest, first.digest);
    }
}

#[test]
fn gnu_tar_alone_restores_an_archive() {
    for format in Format::ALL {
        let place = Place::of(format);
        make_everything(&place.source());
        place.backup();
        let archive = place.archive();
        let archive = archive.to_str().unwrap();
        tool(
            "tar",
            &[
                "--xattrs",
                "--xattrs-include=*",
                tar_flag(format),
                "-xpf",
                archive,
            ],
            &place.target(),
        );
        assert_same(&place.source(), &place.target());
    }
}

#[test]
fn bsdtar_alone_restores_an_archive() {
    for format in Format::ALL {
        let place = Place::of(format);
        make_everything(&place.source());
        // Known limits of bsdtar 3.6, with its own archives too: a fraction of a second before 1970
        // is off by one second, ACLs have a form of their own, the root keeps the time of extraction.
        fs::remove_file(place.source().join("old")).unwrap();
        fs::remove_file(place.source().join("attributes")).unwrap();
        tool("setfacl", &["-b", "deep/er"], &place.source());
        place.backup();
        let archive = place.archive();
        tool(
            "bsdtar",
            &["--numeric-owner", "-xpf", archive.to_str().unwrap()],
            &place.target(),
        );
        for root in [place.source(), place.target()] {
            set_mtime(&root, 1_500_000_000, 0);
        }
        assert_same(&place.source(), &place.target());
    }
}

#[test]
fn the_digest_file_is_what_sha256sum_reads() {
    for format in Format::ALL {
        let place = Place::of(format);
        fs::write(place.source().join("file"), b"content").unwrap();
        let backup = place.backup();
        let dir = place.storage().join("shop/data");
        let name = format!("nightly{}", format.ending());
        let digest_file = format!("{name}.sha256");
        let checked = tool("sha256sum", &["-c", &digest_file], &dir);
        assert_eq!(checked.stdout, format!("{name}: OK\n").into_bytes());
        let digest = tool("sha256sum", &[&name], &dir).stdout;
        let digest = String::from_utf8(digest).unwrap();
        assert_eq!(format!("sha256:{}", &digest[..64]), backup.digest);
        flip(&place.archive(), 30);
        let failed = Command::new("sha256sum")
            .args(["-c", &digest_file])
            .current_dir(&dir)
            .output()
            .unwrap();
        assert!(!failed.status.success());
    }
}

#[test]
fn zstd_alone_tests_and_reads_an_archive_of_several_frames() {
    let place = Place::of(Format::TarZst);
    make_everything(&place.source());
    fs::write(place.source().join("large"), noise(7, 12 << 20)).unwrap();
    place.backup();
    let archive = place.archive();
    let archive = archive.to_str().unwrap();
    tool("zstd", &["-t", archive], place.dir.path());
    let command = format!("zstd -dc {archive} | tar -x --xattrs --xattrs-include=\"*\" -p");
    tool("sh", &["-c", &command], &place.target());
    assert_same(&place.source(), &place.target());
    let manifest = fs::read_to_string(place.object(".manifest.json")).unwrap();
    assert!(manifest.contains("\"codec\": \"zstd\""), "{manifest}");
    // Each frame tells its size, and together they are the stream.
    let listed = tool("zstd", &["-lv", archive], place.dir.path()).stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert!(listed.contains("Check: XXH64"), "{listed}");
    assert!(listed.contains("Decompressed Size:"), "{listed}");
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_manifest_is_checked_by_hand_as_documented() {
    let place = Place::new();
    place.backup();
    let dir = place.storage().join("shop/data");
    let command = "test \"$(head -n -2 nightly.manifest.json | sha256sum | cut -c1-64)\" = \
                   \"$(tail -n 2 nightly.manifest.json | grep -o '[0-9a-f]\\{64\\}')\"";
    tool("sh", &["-c", command], &dir);
}

/// The lines of the index in a folder, as `zcat` gives them.
fn index_lines(dir: &Path) -> Vec<serde_json::Value> {
    let lines = tool("zcat", &["nightly.index.jsonl.gz"], dir).stdout;
    String::from_utf8(lines)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_index_is_lines_of_json_behind_zcat() {
    let place = Place::new();
    fs::write(place.source().join("file"), b"content").unwrap();
    fs::write(place.source().join(OsStr::from_bytes(b"\xff")), b"odd").unwrap();
    place.backup();
    let lines = index_lines(&place.storage().join("shop/data"));
    let entry = |key: &str, path: &str| {
        let mut entries = lines.iter().filter_map(|line| line.get("entry"));
        entries.find(|entry| entry[key] == path).unwrap().clone()
    };
    let digest = tool("sha256sum", &["file"], &place.source()).stdout;
    let digest = String::from_utf8(digest).unwrap();
    assert_eq!(entry("path", "file")["sha256"], digest[..64]);
    assert_eq!(entry("path", "file")["size"], 7);
    assert_eq!(entry("path", ".")["type"], "directory");
    assert_eq!(entry("pathBase64", "/w==")["size"], 3);
    assert!(lines.last().unwrap().get("end").is_some());
}

#[test]
fn one_file_is_read_by_its_place_in_the_index_alone() {
    for format in Format::ALL {
        let place = Place::of(format);
        for n in 0..15 {
            fs::write(place.source().join(format!("{n}")), noise(n, 900_000)).unwrap();
        }
        place.backup();
        let dir = place.storage().join("shop/data");
        let lines = index_lines(&dir);
        let number = |value: &serde_json::Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let entries = lines.iter().filter_map(|line| line.get("entry"));
        let entry = entries.clone().find(|entry| entry["path"] == "3").unwrap();
        let start = number(&entry["offset"]);
        let end = start + number(&entry["length"]);
        let archive = fs::read(place.archive()).unwrap();
        let (mut pieces, mut first) = (Vec::new(), None);
        for member in lines.iter().filter_map(|line| line.get("member")) {
            let tar_offset = number(&member["tarOffset"]);
            if tar_offset < end && tar_offset + number(&member["tarSize"]) > start {
                first.get_or_insert(tar_offset);
                let offset = number(&member["offset"]);
                pieces.extend_from_slice(&archive[offset..offset + number(&member["size"])]);
            }
        }
        assert!(pieces.len() < archive.len() / 2, "most members were needed");
        fs::write(place.path("pieces"), pieces).unwrap();
        let command = format!(
            "{} pieces | tail -c +{} | head -c {} | tar -xO",
            match format {
                Format::TarGz => "gzip -dc <",
                Format::TarZst => "zstd -dc",
            },
            start - first.unwrap() + 1,
            end - start
        );
        let content = tool("sh", &["-c", &command], place.dir.path()).stdout;
        assert!(content == noise(3, 900_000));
    }
}

#[test]
fn sockets_are_left_out_and_told() {
    let place = Place::new();
    let socket = place.source().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let backup = place.backup();
    assert_eq!(backup.skipped.total, 1);
    assert_eq!(backup.skipped.first, ["socket"]);
    place.restore(&backup);
    assert!(!place.target().join("socket").exists());
}

#[test]
fn an_empty_lost_and_found_is_left_out_and_a_full_one_kept() {
    let place = Place::new();
    fs::create_dir(place.source().join("lost+found")).unwrap();
    fs::create_dir(place.target().join("lost+found")).unwrap();
    let backup = place.backup();
    assert_eq!(backup.others, 1);
    place.restore(&backup);
    place.delete("u-1");
    fs::write(place.source().join("lost+found/#12"), b"found").unwrap();
    let backup = place.backup();
    assert_eq!((backup.files, backup.others), (1, 2));
    place.restore(&backup);
    assert_eq!(
        fs::read(place.target().join("lost+found/#12")).unwrap(),
        b"found"
    );
}

#[test]
fn attributes_of_the_system_are_left_out_not_lost_silently() {
    let place = Place::new();
    let file = place.source().join("file");
    fs::write(&file, b"x").unwrap();
    setxattr(&file, "trusted.system", b"x", XattrFlags::empty()).unwrap();
    let backup = place.backup();
    let manifest = fs::read_to_string(place.object(".manifest.json")).unwrap();
    assert!(manifest.contains("\"xattrsLeftOut\": 1"), "{manifest}");
    place.restore(&backup);
    assert!(xattrs(&place.target().join("file")).is_empty());
}

#[test]
fn the_rights_of_the_pod_suffice() {
    let limited_to = |rights: &'static str| {
        move |mover: Command| {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--bounding-set=-all,{rights}"))
                .args(["--inh-caps=-all", "--no-new-privs", "--"])
                .arg(mover.get_program());
            command
        }
    };
    let place = Place::new();
    make_everything(&place.source());
    for secret in ["old", "deep/script"] {
        set_mode(&place.source().join(secret), 0o000);
        chown(place.source().join(secret), Some(77), Some(77)).unwrap();
    }
    let outcome = place.run_with("u-1", place.backup_task(), limited_to("+dac_override"));
    let tidelock_protocol::Outcome::BackedUp(backup) = outcome else {
        panic!("{outcome:?}");
    };
    let rights = "+dac_override,+chown,+fowner,+fsetid,+setfcap,+mknod";
    let outcome = place.run_with("r-1", place.restore_task(&backup), limited_to(rights));
    assert!(
        matches!(outcome, tidelock_protocol::Outcome::Restored(_)),
        "{outcome:?}"
    );
    assert_same(&place.source(), &place.target());
}
