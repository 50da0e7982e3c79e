use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatvfs, fsync, mkdirat,
    openat2, statat, unlinkat,
};
use rustix::io::Errno;

use crate::fresh::FreshFile;
use crate::keys::{check_run, owner_of, split_key, temporary_of};
use crate::upload::{FileUpload, WriteBehind};
use crate::{ObjectInfo, Storage, StorageError, Upload};

/// No symbolic link inside the store is followed: whoever can write to it could plant one.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
/// Archives hold whatever the volume holds, so others get nothing; the umask narrows it further.
const DIRECTORY_MODE: Mode = Mode::RWXU.union(Mode::RWXG);
const FILE_MODE: Mode = Mode::RUSR
    .union(Mode::WUSR)
    .union(Mode::RGRP)
    .union(Mode::WGRP);
/// Keys have three parts; anything much deeper is not ours to walk.
const MAX_LIST_DEPTH: usize = 16;

/// Storage in a directory of a mounted file system.
///
/// A temporary file stands beside its object as `.tidelock-<run>-<random>`; publication is fsync,
/// rename, fsync of the directory.
#[derive(Debug)]
pub struct Directory {
    root: OwnedFd,
}

impl Directory {
    /// Opens the store at `root`, which must exist.
    pub fn open(root: &Path) -> Result<Self, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|e| StorageError::of_os("open", &root.to_string_lossy(), e))?;
        Ok(Self { root })
    }

    fn open_dir(&self, parts: &[&str]) -> Result<OwnedFd, Errno> {
        let path = if parts.is_empty() {
            ".".to_owned()
        } else {
            parts.join("/")
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), BENEATH)
    }

    fn open_object(&self, key: &str) -> Result<File, StorageError> {
        split_key("read", key)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat2(&self.root, key, flags, Mode::empty(), BENEATH)
            .map(File::from)
            .map_err(|e| StorageError::of_os("read", key, e))
    }

    /// Opens the directory of an object, making what is missing.
    fn ensure_dir(&self, parts: &[&str]) -> Result<OwnedFd, Errno> {
        let mut parent = self.open_dir(&[])?;
        for part in parts {
            match mkdirat(&parent, *part, DIRECTORY_MODE) {
                Ok(()) => fsync(&parent)?,
                Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            parent = openat2(&parent, *part, flags, Mode::empty(), BENEATH)?;
        }
        Ok(parent)
    }

    fn list_dir(
        &self,
        at: &mut Vec<String>,
        prefix: &str,
        visit: &mut dyn FnMut(&str, ObjectInfo) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let here = at.join("/");
        let fault = |e| StorageError::of_os("list", &here, e);
        let parts: Vec<&str> = at.iter().map(String::as_str).collect();
        let dir = match self.open_dir(&parts) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(fault)?,
        };
        for entry in Dir::read_from(&dir).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            let key = if here.is_empty() {
                name.to_owned()
            } else {
                format!("{here}/{name}")
            };
            let stat = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(fault)?,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile if key.starts_with(prefix) => visit(&key, info_of(&stat))?,
                FileType::Directory if at.len() < MAX_LIST_DEPTH && may_hold(&key, prefix) => {
                    at.push(name.to_owned());
                    self.list_dir(at, prefix, visit)?;
                    at.pop();
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Storage for Directory {
    fn free_bytes(&self) -> Result<Option<u64>, StorageError> {
        let stat = fstatvfs(&self.root).map_err(|e| StorageError::of_os("look at", "", e))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    fn put<'a>(&'a self, key: &str, run: &str) -> Result<Box<dyn Upload + 'a>, StorageError> {
        let (parts, name) = split_key("write", key)?;
        check_run(key, run)?;
        let fault = |e| StorageError::of_os("write", key, e);
        let dir = self.ensure_dir(&parts).map_err(fault)?;
        let temporary = temporary_of(run);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat2(&dir, &temporary, flags, FILE_MODE, BENEATH).map_err(fault)?;
        Ok(Box::new(FileUpload {
            key: key.to_owned(),
            dir,
            file: File::from(file),
            temporary,
            name: name.to_owned(),
            pending: true,
            behind: WriteBehind::default(),
        }))
    }

    fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let mut file = self.open_object(key)?;
        let limit = match range {
            Some(range) => {
                file.seek(SeekFrom::Start(range.start))
                    .map_err(|e| StorageError::of_os("read", key, e))?;
                range.end.saturating_sub(range.start)
            }
            None => u64::MAX,
        };
        Ok(Box::new(ObjectReader {
            key: key.to_owned(),
            file: file.take(limit),
        }))
    }

    fn get_fresh(&self, key: &str) -> Result<Box<dyn Read + Send>, StorageError> {
        let file = FreshFile::new(self.open_object(key)?);
        Ok(Box::new(ObjectReader {
            key: key.to_owned(),
            file: file.map_err(|e| StorageError::of_os("read", key, e))?,
        }))
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StorageError> {
        let (parts, name) = split_key("look up", key)?;
        let fault = |e| StorageError::of_os("look up", key, e);
        let dir = self.open_dir(&parts).map_err(fault)?;
        let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fault)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(fault(Errno::NOENT));
        }
        Ok(info_of(&stat))
    }

    fn list(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(&str, ObjectInfo) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.list_dir(&mut Vec::new(), prefix, visit)
    }

    fn delete(&self, key: &str) -> Result<bool, StorageError> {
        let (parts, name) = split_key("delete", key)?;
        let fault = |e| StorageError::of_os("delete", key, e);
        let dir = match self.open_dir(&parts) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(fault)?,
        };
        match unlinkat(&dir, name, AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(fault)?,
        }
        fsync(&dir).map_err(fault)?;
        Ok(true)
    }

    fn sweep(&self, key: &str, run: &str) -> Result<u64, StorageError> {
        let (parts, _) = split_key("sweep", key)?;
        check_run(key, run)?;
        let fault = |e| StorageError::of_os("sweep", key, e);
        match self.open_dir(&parts) {
            Err(Errno::NOENT) => Ok(0),
            Err(e) => Err(fault(e)),
            Ok(dir) => remove_temporaries(&dir, |_, owner| owner == run).map_err(fault),
        }
    }

    fn sweep_dead(
        &self,
        key: &str,
        run: &str,
        min_age: Duration,
        is_alive: &dyn Fn(&str) -> bool,
    ) -> Result<u64, StorageError> {
        let (parts, _) = split_key("sweep", key)?;
        check_run(key, run)?;
        let fault = |e| StorageError::of_os("sweep", key, e);
        let dir = match self.open_dir(&parts) {
            Err(Errno::NOENT) => return Ok(0),
            other => other.map_err(fault)?,
        };
        let now = clock_of(&dir, run).map_err(fault)?;
        remove_temporaries(&dir, |stat, owner| {
            let age = now.saturating_sub(stat.st_mtime);
            u64::try_from(age).is_ok_and(|age| age > min_age.as_secs()) && !is_alive(owner)
        })
        .map_err(fault)
    }
}

/// Reads an object and names it when that fails.
struct ObjectReader<R> {
    key: String,
    file: R,
}

impl<R: Read> Read for ObjectReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).map_err(|e| {
            if e.kind() == io::ErrorKind::Interrupted {
                e
            } else {
                StorageError::of_os("read", &self.key, e).into_io()
            }
        })
    }
}

pub(crate) fn info_of(stat: &Stat) -> ObjectInfo {
    ObjectInfo {
        bytes: stat.st_size.unsigned_abs(),
        version: format!(
            "{}-{}.{:09}-{}",
            stat.st_ino, stat.st_mtime, stat.st_mtime_nsec, stat.st_size
        ),
    }
}

/// Removes the temporary files of which `is_left` says so, told their state and their run.
fn remove_temporaries(dir: &OwnedFd, is_left: impl Fn(&Stat, &str) -> bool) -> Result<u64, Errno> {
    let mut removed = 0;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(run) = name.to_str().ok().and_then(owner_of) else {
            continue;
        };
        let gone = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if !is_left(&stat, run) => continue,
            Ok(_) => unlinkat(dir, name, AtFlags::empty()),
            Err(e) => Err(e),
        };
        match gone {
            Ok(()) => removed += 1,
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(removed)
}

/// Seconds on the clock that stamps the files of a directory: that of the file server, which the
/// pod's may be far from.
fn clock_of(dir: &OwnedFd, run: &str) -> Result<i64, Errno> {
    let name = temporary_of(run);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat2(dir, &name, flags, FILE_MODE, BENEATH)?;
    let stat = fstat(&file);
    unlinkat(dir, &name, AtFlags::empty())?;
    Ok(stat?.st_mtime)
}

/// Whether keys below the directory `dir` can start with `prefix`.
fn may_hold(dir: &str, prefix: &str) -> bool {
    let dir = format!("{dir}/");
    dir.starts_with(prefix) || prefix.starts_with(&dir)
}
