//! Opening below a directory, whatever the path holds, at any depth.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::meta::Meta;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
/// Longest path given to the kernel at once; it takes 4,096 bytes with the final NUL.
const MAX_HOP_BYTES: usize = 4000;
/// Directories kept open at once; deeper trees reopen theirs. Well below the usual limit of 1,024.
const OPEN_DIRECTORIES: usize = 256;

/// Opens `path` below `dir` without following a link or leaving `dir`.
///
/// Paths longer than the kernel takes are walked in hops.
pub(crate) fn open_beneath(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let mut hop_from: Option<OwnedFd> = None;
    let mut rest = path;
    loop {
        let from = hop_from.as_ref().map_or(dir, AsFd::as_fd);
        if rest.len() <= MAX_HOP_BYTES {
            return Ok(openat2(
                from,
                rest,
                flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
                mode,
                BENEATH,
            )?);
        }
        let cut = rest[..MAX_HOP_BYTES]
            .iter()
            .rposition(|b| *b == b'/')
            .ok_or(rustix::io::Errno::NAMETOOLONG)?;
        let hop_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let next = openat2(from, &rest[..cut], hop_flags, Mode::empty(), BENEATH)?;
        hop_from = Some(next);
        rest = &rest[cut + 1..];
    }
}

/// Opens a directory below `dir` for reading.
pub(crate) fn open_dir_beneath(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    open_beneath(dir, path, flags, Mode::empty())
}

/// The directories from a root down to where a walk or a restore stands.
///
/// # Guarantees
/// At most [`OPEN_DIRECTORIES`] and the root are open at once, at any depth; one that was closed
/// is opened again by its path, and refused when another directory has taken its place.
pub(crate) struct DirStack {
    root: Arc<OwnedFd>,
    levels: Vec<Level>,
    path: Vec<u8>,
}

struct Level {
    fd: Option<Arc<OwnedFd>>,
    /// Length of the path of this level.
    path_len: usize,
    identity: ((u32, u32), u64),
}

impl DirStack {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self {
            root: Arc::new(root),
            levels: Vec::new(),
            path: Vec::new(),
        }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// How many directories below the root it stands.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// The path of the directory it stands in, empty at the root.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Steps down into `name`, which is open as `fd`.
    pub(crate) fn push(&mut self, name: &[u8], fd: OwnedFd, meta: &Meta) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.levels.push(Level {
            fd: Some(Arc::new(fd)),
            path_len: self.path.len(),
            identity: (meta.dev, meta.ino),
        });
        if let Some(far) = self.levels.len().checked_sub(OPEN_DIRECTORIES + 1) {
            self.levels[far].fd = None;
        }
    }

    /// Steps up.
    pub(crate) fn pop(&mut self) {
        self.levels.pop();
        let len = self.levels.last().map_or(0, |level| level.path_len);
        self.path.truncate(len);
    }

    /// The directory it stands in.
    pub(crate) fn top(&mut self) -> io::Result<BorrowedFd<'_>> {
        Ok(self.open_top()?.as_fd())
    }

    /// The directory it stands in, for whoever needs it for longer.
    pub(crate) fn shared_top(&mut self) -> io::Result<Arc<OwnedFd>> {
        self.open_top().map(Arc::clone)
    }

    fn open_top(&mut self) -> io::Result<&Arc<OwnedFd>> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(&self.root);
        };
        let fd = match level.fd.take() {
            Some(fd) => fd,
            None => {
                let fd = open_dir_beneath(self.root.as_fd(), &self.path)?;
                let meta = Meta::of(&fd)?;
                if (meta.dev, meta.ino) != level.identity {
                    return Err(io::Error::other(
                        "the directory was replaced by another one meanwhile",
                    ));
                }
                Arc::new(fd)
            }
        };
        Ok(level.fd.insert(fd))
    }
}
