use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, statx};
use rustix::path::Arg;
use serde::{Deserialize, Serialize};

/// A point in time as file systems keep it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970; negative before.
    pub seconds: i64,
    /// Nanoseconds to add, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// What is at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device node.
    CharDevice,
    /// A block device node.
    BlockDevice,
    /// A socket, which no archive holds.
    Socket,
}

/// What the file system says of one file.
#[derive(Debug, Clone)]
pub struct Meta {
    /// Its type.
    pub kind: FileKind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of content or attributes.
    pub ctime: Time,
    /// Creation, where the file system keeps it.
    pub btime: Time,
    /// Number of names.
    pub nlink: u32,
    /// File system, major and minor.
    pub dev: (u32, u32),
    /// Inode number.
    pub ino: u64,
    /// Device that a device node stands for, major and minor.
    pub rdev: (u32, u32),
    /// The mount it is on.
    pub mount: u64,
}

impl Meta {
    /// Asks for what is at `name` in `dir`, without following a symbolic link.
    pub fn at(dir: impl AsFd, name: impl Arg) -> io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Self::query(dir, name, flags)
    }

    /// Asks for an open file.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        Self::query(fd, c"", AtFlags::EMPTY_PATH)
    }

    fn query(dir: impl AsFd, name: impl Arg, flags: AtFlags) -> io::Result<Self> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
        Ok(Self::from(statx(dir, name, flags, mask)?))
    }

    /// Whether both are the same file, whatever its content.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        self.ino == other.ino && self.dev == other.dev && self.btime == other.btime
    }

    /// Whether `self` and `later` are the same file with the same content.
    pub(crate) fn unchanged(&self, later: &Self) -> bool {
        self.ino == later.ino
            && self.dev == later.dev
            && self.size == later.size
            && self.mtime == later.mtime
            && self.ctime == later.ctime
    }
}

impl From<Statx> for Meta {
    fn from(stat: Statx) -> Self {
        let mode = u32::from(stat.stx_mode);
        Self {
            kind: FileKind::of(FileType::from_raw_mode(mode)),
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            mtime: stat.stx_mtime.into(),
            ctime: stat.stx_ctime.into(),
            btime: stat.stx_btime.into(),
            nlink: stat.stx_nlink,
            dev: (stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
            mount: stat.stx_mnt_id,
        }
    }
}

impl From<StatxTimestamp> for Time {
    fn from(time: StatxTimestamp) -> Self {
        Self {
            seconds: time.tv_sec,
            nanoseconds: time.tv_nsec,
        }
    }
}

impl FileKind {
    fn of(kind: FileType) -> Self {
        match kind {
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Socket => Self::Socket,
            FileType::RegularFile | FileType::Unknown => Self::File,
        }
    }
}
