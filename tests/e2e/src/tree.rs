//! Trees of files, made in every shape that matters, and compared by other people's tools.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

/// Everything that `find` tells of an entry and a restore has to bring back. Sizes of directories
/// are the file system's own business.
const ENTRY: &str = "%P\\0%y %m %U %G %l %T@\\0";
const FILE: &str = "%P\\0%s %n\\0";
/// Stretches of data of [`long_read`]: some more than the 32,768 that a map of holes has.
const STRETCHES: u64 = 36_000;

/// Fills `root` with one of everything that a volume may hold.
pub fn fill_sample(root: &Path) -> Result<()> {
    write(root, "readme.txt", b"a plain file\n", 0o644)?;
    write(root, "empty", b"", 0o600)?;
    write(root, "bin/tool", b"#!/bin/sh\n", 0o755)?;
    write(root, "bin/setuid", b"x", 0o4755)?;
    write(root, "secret/key", &[7; 4096], 0o400)?;
    write(root, "large.bin", &noise(3_000_000), 0o640)?;
    write(root, "zeros.bin", &vec![0; 2_000_000], 0o640)?;
    write(root, "names/with space", b"1", 0o644)?;
    write(root, "names/new\nline", b"2", 0o644)?;
    write(root, "names/-rf", b"3", 0o644)?;
    write(root, "names/ümläut-日本", b"4", 0o644)?;
    write(root, &format!("names/{}", "n".repeat(255)), b"5", 0o644)?;
    let not_utf8 = root.join("names").join(OsStr::from_bytes(b"\xff\xfe"));
    fs::write(not_utf8, b"6")?;
    fs::create_dir_all(root.join("hollow/inner"))?;
    fs::set_permissions(
        root.join("hollow/inner"),
        fs::Permissions::from_mode(0o1777),
    )?;
    symlink("readme.txt", root.join("link"))?;
    symlink("/nowhere/at/all", root.join("dangling"))?;
    symlink("hollow", root.join("link-to-folder"))?;
    fs::hard_link(root.join("readme.txt"), root.join("hollow/same-file"))?;
    mknodat(
        CWD,
        root.join("pipe"),
        FileType::Fifo,
        Mode::from_bits_truncate(0o640),
        0,
    )?;
    sparse(&root.join("sparse.img"))?;
    lchown(root.join("bin/tool"), Some(1000), Some(2000))?;
    lchown(root.join("link"), Some(1001), Some(2001))?;
    fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o2755))?;
    set_attribute(&root.join("readme.txt"), "user.origin", "a sample")?;
    set_attribute(&root.join("hollow"), "user.kind", "folder")?;
    set_times(&root.join("large.bin"), 1_000_000_000, 123_456_789)?;
    set_times(&root.join("link"), 1_100_000_000, 987_654_321)?;
    set_times(&root.join("hollow"), 1_200_000_000, 1)?;
    set_times(&root.join("empty"), -1_000, 5)
}

/// Fills `root` with `count` small files in folders of a thousand.
pub fn fill_many(root: &Path, count: usize) -> Result<()> {
    for number in 0..count {
        let folder = root.join(format!("d{:04}", number / 1000));
        if number % 1000 == 0 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(
            folder.join(format!("f{number}")),
            format!("content of {number}\n"),
        )?;
    }
    Ok(())
}

/// Bytes that do not compress, the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes a file and the folders above it.
pub fn write(root: &Path, path: &str, content: &[u8], mode: u32) -> Result<()> {
    let path = root.join(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// A file of this many GiB that takes a mover some seconds to read, and some 150 MB of space: it has
/// more holes than a map in an archive tells of, all of one size, and so they are read.
pub fn long_read(root: &Path, gib: u64) -> Result<()> {
    let size = gib << 30;
    let file = File::create(root.join("hole.img"))?;
    file.set_len(size)?;
    let block = [0; 4096];
    let blocks = size / block.len() as u64;
    let apart = (blocks / STRETCHES) * block.len() as u64;
    for at in (0..size).step_by(usize::try_from(apart)?) {
        file.write_all_at(&block, at)?;
    }
    Ok(())
}

/// Sets a file's time of modification.
pub fn set_times(path: &Path, seconds: i64, nanoseconds: i64) -> Result<()> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .with_context(|| format!("cannot set the time of {}", path.display()))
}

fn set_attribute(path: &Path, name: &str, value: &str) -> Result<()> {
    let path = path.to_string_lossy();
    crate::cluster::run("setfattr", &["-n", name, "-v", value, &path])?;
    Ok(())
}

fn sparse(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    file.seek(SeekFrom::Start(8_000_000))?;
    file.write_all(b"the end")?;
    Ok(())
}

/// Compares two trees in bytes (`diff`), in type, mode, owner, link target, time, size and number
/// of links (`find`), and in extended attributes and access lists (`getfattr`).
///
/// # Errors
/// Names what differs, as the tool says it.
pub fn compare(left: &Path, right: &Path) -> Result<()> {
    let diff = Command::new("diff")
        .args(["--recursive", "--no-dereference"])
        .args([left, right])
        .output()
        .context("cannot start diff")?;
    let said = String::from_utf8_lossy(&diff.stdout);
    // It has no words for two pipes but that they are pipes.
    let differences: Vec<&str> = said.lines().filter(|line| !both_pipes(line)).collect();
    if !differences.is_empty() || !diff.stderr.is_empty() {
        let errors = String::from_utf8_lossy(&diff.stderr);
        bail!("diff finds: {}\n{errors}", differences.join("\n"));
    }
    let everything: [&[&str]; 2] = [
        &["-mindepth", "1", "-printf", ENTRY],
        &["-type", "f", "-printf", FILE],
    ];
    for tests in everything {
        same("find", &entries(left, tests)?, &entries(right, tests)?)?;
    }
    same("getfattr", &attributes(left)?, &attributes(right)?)
}

fn both_pipes(line: &str) -> bool {
    line.ends_with("is a fifo") && line.matches("is a fifo").count() == 2
}

fn entries(root: &Path, tests: &[&str]) -> Result<Vec<String>> {
    let output = tool(Command::new("find").arg(root).args(tests))?;
    let mut fields = output.split(|byte| *byte == 0);
    let mut entries = Vec::new();
    while let (Some(path), Some(facts)) = (fields.next(), fields.next()) {
        entries.push(format!("{}: {}", path.escape_ascii(), facts.escape_ascii()));
    }
    entries.sort();
    Ok(entries)
}

fn attributes(root: &Path) -> Result<Vec<String>> {
    let output = tool(
        Command::new("getfattr")
            .args([
                "--recursive",
                "--no-dereference",
                "--physical",
                "--dump",
                "--match=-",
                ".",
            ])
            .current_dir(root),
    )?;
    let text = String::from_utf8_lossy(&output).into_owned();
    let mut blocks: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
    blocks.sort();
    Ok(blocks)
}

fn tool(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

fn same(tool: &str, left: &[String], right: &[String]) -> Result<()> {
    let only = |here: &[String], there: &[String]| -> Vec<String> {
        let missing = here.iter().filter(|line| !there.contains(line));
        missing.take(10).cloned().collect()
    };
    let (lost, gained) = (only(left, right), only(right, left));
    if !lost.is_empty() || !gained.is_empty() || left.len() != right.len() {
        bail!("{tool} finds on the left {lost:#?} and on the right {gained:#?}");
    }
    Ok(())
}

/// What the S3 server keeps for itself beside a bucket's objects: uploads that are not finished.
const UNFINISHED: &str = ".sgwtmp";

/// The files below the root of a storage volume or a bucket whose names end in `ending`, sorted, relative
/// to it.
pub fn stored(storage: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![storage.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_name() == UNFINISHED {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path.strip_prefix(storage)?.to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Files of the uploads to a bucket that have begun and are not finished; none in a storage volume.
pub fn unfinished(storage: &Path) -> Result<Vec<PathBuf>> {
    let folder = storage.join(UNFINISHED);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    stored(&folder, "")
}

/// The archives of any format in a storage volume, relative to its root.
pub fn archives(storage: &Path) -> Result<Vec<PathBuf>> {
    Ok([stored(storage, ".tar.gz")?, stored(storage, ".tar.zst")?].concat())
}

/// The archive at `location` below `storage`, checked and unpacked by `sha256sum` and `tar` alone.
pub fn unpack_by_hand(storage: &Path, location: &str, into: &Path) -> Result<()> {
    let archive = storage.join(location);
    let folder = archive.parent().context("an archive lies in a folder")?;
    let name = archive
        .file_name()
        .context("an archive has a name")?
        .to_string_lossy();
    let check = format!("cd '{}' && sha256sum -c '{name}.sha256'", folder.display());
    crate::cluster::run("sh", &["-ec", &check])?;
    fs::create_dir_all(into)?;
    let (archive, into) = (archive.to_string_lossy(), into.to_string_lossy());
    crate::cluster::run(
        "tar",
        &[
            "--xattrs",
            "--xattrs-include=*",
            "-xpf",
            &archive,
            "-C",
            &into,
        ],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair of equal trees, copied by `cp -a`; `spoil` is done to the copy.
    fn difference(name: &str, spoil: impl FnOnce(&Path)) -> Result<()> {
        let folder = std::env::temp_dir().join(format!("tidelock-{name}-{}", std::process::id()));
        let (left, right) = (folder.join("left"), folder.join("right"));
        fs::create_dir_all(&left)?;
        fill_sample(&left)?;
        tool(Command::new("cp").arg("-a").args([&left, &right]))?;
        spoil(&right);
        let compared = compare(&left, &right);
        fs::remove_dir_all(&folder)?;
        compared
    }

    #[test]
    fn a_faithful_copy_compares_equal() {
        difference("equal", |_| ()).unwrap();
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        type Spoil = fn(&Path);
        let spoils: [(&str, Spoil); 9] = [
            ("bytes", |root| {
                fs::write(root.join("readme.txt"), "A plain file\n").unwrap()
            }),
            ("missing", |root| {
                fs::remove_file(root.join("empty")).unwrap()
            }),
            ("more", |root| fs::write(root.join("more"), "").unwrap()),
            ("mode", |root| {
                fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o601)).unwrap();
            }),
            ("owner", |root| {
                lchown(root.join("link"), Some(7), None).unwrap()
            }),
            ("time", |root| {
                set_times(&root.join("large.bin"), 1_000_000_000, 123_456_780).unwrap()
            }),
            ("link", |root| {
                fs::remove_file(root.join("hollow/same-file")).unwrap();
                fs::copy(root.join("readme.txt"), root.join("hollow/same-file")).unwrap();
            }),
            ("xattr", |root| {
                set_attribute(&root.join("hollow"), "user.kind", "file").unwrap()
            }),
            ("pipe", |root| fs::remove_file(root.join("pipe")).unwrap()),
        ];
        for (name, spoil) in spoils {
            assert!(difference(name, spoil).is_err(), "{name} went unnoticed");
        }
    }
}
