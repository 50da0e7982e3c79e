//! From an archive into a directory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, mkdirat, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::beneath::{DirStack, open_beneath, open_dir_beneath};
use crate::entries::EntryReader;
use crate::entry::{Entry, EntryKind, check_path, is_within, name_of};
use crate::error::{Corrupt, Refused, RestoreError, shown};
use crate::index::IndexEntry;
use crate::loss::{Losses, Lost};
use crate::marker::{Finished, Overwrite};
use crate::meta::{FileKind, Meta};
use crate::meter::Meter;
use crate::place;
use crate::remove::remove_tree;
use crate::select::{LeftOut, Pick, Picker, Selection, Survey};
use crate::steps::step;
use crate::target::Target;
use crate::verify::parent_of;
use crate::xattr::is_set_last;

/// What an unpack has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unpacked {
    /// Regular files, each name of a hard-linked file counted.
    pub files: u64,
    /// Everything else.
    pub others: u64,
    /// Sum of the sizes of the regular files.
    pub logical_bytes: u64,
}

/// Whether the target holds what an earlier try of the same restore wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    /// It does not.
    First,
    /// It may, and that is written over.
    Further,
}

/// Where a restore writes, and what.
pub struct Job<'j> {
    /// The target, claimed and begun.
    pub target: &'j Target,
    /// What may happen to what it holds.
    pub overwrite: Overwrite,
    /// Which try it is.
    pub nth: Try,
    /// What is taken of the archive.
    pub selection: &'j Selection,
    /// What that comes to.
    pub survey: &'j Survey,
    /// Counts what is written.
    pub meter: &'j Meter,
    /// Ends it early and cleanly.
    pub stop: &'j AtomicBool,
}

/// Unpacks a checked archive into a claimed target; tells in `done` how far it got.
///
/// `indexes` are three readers of the index.
///
/// # Guarantees
/// - Whatever the archive holds, nothing outside the target is written: every file is made by a
///   plain name in a directory that this unpack made or opened without following a link.
/// - It ends well only when every entry that is taken was written and every file has its digest.
///   What the target refused of owners, modes, times and attributes is counted.
/// - With [`Overwrite::Merge`] a file takes the place of another in one step, complete; no
///   directory takes the place of a file, nor the reverse.
/// - Memory is bounded by one member, one header and the depth of the tree.
pub fn unpack<I: Read>(
    job: &Job<'_>,
    archive: impl Read,
    indexes: [I; 3],
    done: &mut Finished,
) -> Result<(), RestoreError> {
    let [members, entries, ahead] = indexes;
    let mut unpacker = Unpacker {
        job,
        stream: EntryReader::new(archive, members, entries, job.stop),
        picker: Picker::new(job.selection, ahead),
        started: false,
        root: None,
        dirs: DirStack::new(job.target.root()?),
        linked: make_linked(job.target, &job.survey.links)?,
        pending: Vec::new(),
        done,
    };
    while let Some((entry, listed)) = unpacker.stream.next()? {
        step()?;
        unpacker.restore(entry, &listed)?;
    }
    unpacker.finish()
}

/// The folder for files that are left out but linked to; none when there are none.
fn make_linked(target: &Target, links: &LeftOut) -> Result<Option<OwnedFd>, RestoreError> {
    if links.is_empty() {
        return Ok(None);
    }
    let name = &target.names.linked;
    let fault = |e: io::Error| RestoreError::target("create", name.as_bytes(), e);
    match mkdirat(&target.root, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(fault(e.into())),
    }
    let fd = open_dir_beneath(target.root.as_fd(), name.as_bytes()).map_err(fault)?;
    Ok(Some(fd))
}

struct Unpacker<'u, R: Read, I: Read> {
    job: &'u Job<'u>,
    stream: EntryReader<'u, R, I>,
    picker: Picker<'u, I>,
    /// Whether the root's entry came.
    started: bool,
    /// The root; none while it is left as it is.
    root: Option<Pending>,
    dirs: DirStack,
    linked: Option<OwnedFd>,
    /// The open directories below the root.
    pending: Vec<Option<Pending>>,
    done: &'u mut Finished,
}

/// A directory that is being filled: what is set when it is left, and what was refused so far.
///
/// A path for each level would take memory with the square of the depth, and an archive may give
/// each directory megabytes of attributes, so neither path nor `user.*` attributes are kept.
struct Pending {
    entry: Entry,
    lost: Lost,
}

impl Pending {
    fn new(mut entry: Entry, lost: Lost) -> Self {
        entry.path = Vec::new();
        entry.xattrs.retain(|(name, _)| is_set_last(name));
        entry.xattrs.shrink_to_fit();
        Self { entry, lost }
    }

    fn finish(
        mut self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        losses: &mut Losses,
    ) -> Result<(), Refused> {
        place::finish_dir(dir, &self.entry, &mut self.lost)?;
        losses.add(path, &self.lost);
        Ok(())
    }
}

impl<R: Read, I: Read> Unpacker<'_, R, I> {
    fn restore(&mut self, entry: Entry, listed: &IndexEntry) -> Result<(), RestoreError> {
        let path = &entry.path;
        let fault = |what: &str| RestoreError::Corrupt(Corrupt::new(shown(path), what));
        check_path(path).map_err(fault)?;
        if self.job.target.names.is_reserved(path) {
            return Err(fault("has a name that this restore uses"));
        }
        let pick = self.picker.pick(listed)?;
        if path == b"." {
            return self.start(entry, pick);
        }
        if pick == Pick::Left {
            return self.left_out(&entry, listed);
        }
        self.leave_until(parent_of(path))?;
        match entry.kind {
            EntryKind::Directory => self.directory(entry, pick),
            _ if listed.superseded => self.stream.content(listed, |_| Ok(())),
            EntryKind::HardLink => self.hard_link(&entry),
            _ => self.replacing(&entry, listed),
        }
    }

    /// Takes the root's entry.
    fn start(&mut self, entry: Entry, pick: Pick) -> Result<(), RestoreError> {
        if std::mem::replace(&mut self.started, true) || entry.kind != EntryKind::Directory {
            let corrupt = Corrupt::new(".", "the root comes twice, or is no directory");
            return Err(corrupt.into());
        }
        self.done.unpacked.others += 1;
        if !self.is_left_alone(pick) {
            let mut lost = Lost::default();
            place::start_dir(self.dirs.root(), &entry, true, &mut lost)
                .map_err(|e| refused(b".", e))?;
            self.done.root_mtime = Some(entry.mtime);
            self.root = Some(Pending::new(entry, lost));
        }
        Ok(())
    }

    /// Whether a directory that is in the target already stays as it is.
    fn is_left_alone(&self, pick: Pick) -> bool {
        self.job.overwrite == Overwrite::Merge && pick == Pick::Above
    }

    /// Whether what is found at a name is removed.
    fn takes_over(&self) -> bool {
        self.job.nth == Try::Further || self.job.overwrite == Overwrite::Merge
    }

    /// Passes over an entry, or keeps it for the links to it.
    fn left_out(&mut self, entry: &Entry, listed: &IndexEntry) -> Result<(), RestoreError> {
        let name = match entry.kind {
            EntryKind::Directory | EntryKind::HardLink => None,
            _ => self.job.survey.links.name_of(&entry.path),
        };
        let (Some(name), Some(linked), false) = (name, &self.linked, listed.superseded) else {
            return match entry.kind {
                EntryKind::File => self.stream.content(listed, |_| Ok(())),
                _ => Ok(()),
            };
        };
        let dir = linked
            .try_clone()
            .map_err(|e| RestoreError::target("open", &entry.path, e))?;
        self.make(dir.as_fd(), name.as_bytes(), entry, listed)
            .map(|_| ())
    }

    /// Leaves directories until it stands in `parent`.
    fn leave_until(&mut self, parent: &[u8]) -> Result<(), RestoreError> {
        while !is_within(parent, self.dirs.path()) {
            self.leave()?;
        }
        if self.dirs.path() != parent {
            return Err(RestoreError::Corrupt(Corrupt::new(
                shown(parent),
                "entries of a directory that does not come before them",
            )));
        }
        Ok(())
    }

    /// Leaves the innermost directory, whose content is complete.
    fn leave(&mut self) -> Result<(), RestoreError> {
        if let Some(Some(pending)) = self.pending.pop() {
            let path = self.dirs.path().to_vec();
            let finished = match self.dirs.top() {
                Ok(dir) => pending.finish(dir, &path, &mut self.done.losses),
                Err(e) => Err(("open".into(), e)),
            };
            finished.map_err(|e| refused(&path, e))?;
        }
        self.dirs.pop();
        Ok(())
    }

    fn directory(&mut self, entry: Entry, pick: Pick) -> Result<(), RestoreError> {
        let fault = |e| refused(&entry.path, e);
        // The file system makes lost+found itself, so an archive's finds it there.
        let replace = self.takes_over() || entry.path == b"lost+found";
        let dir = top(&mut self.dirs, &entry)?;
        let made = place::make_dir(dir, name_of(&entry.path), replace).map_err(fault)?;
        let name = name_of(&entry.path).to_vec();
        let mut pending = None;
        if !(made.existed && self.is_left_alone(pick)) {
            let mut lost = Lost::default();
            let fd = made.fd.as_fd();
            if made.existed && self.job.overwrite != Overwrite::Merge {
                // An earlier try may have given it a mode that forbids what is still to be made.
                let _ = fchmod(fd, Mode::RWXU);
            }
            place::start_dir(fd, &entry, made.existed, &mut lost).map_err(fault)?;
            pending = Some(Pending::new(entry, lost));
        }
        self.dirs.push(&name, made.fd, &made.meta);
        self.pending.push(pending);
        self.done.unpacked.others += 1;
        Ok(())
    }

    /// Makes an entry that is no directory and no hard link at its place, in one step where the
    /// target may hold something there.
    fn replacing(&mut self, entry: &Entry, listed: &IndexEntry) -> Result<(), RestoreError> {
        let dir = top(&mut self.dirs, entry)?;
        let dir = dir
            .try_clone_to_owned()
            .map_err(|e| refused(&entry.path, ("open".into(), e)))?;
        let partial = self.partial();
        let name = partial.as_deref().unwrap_or(name_of(&entry.path));
        let file = self.make(dir.as_fd(), name, entry, listed)?;
        if partial.is_some() {
            if let Some(file) = file
                && Meta::at(dir.as_fd(), name_of(&entry.path)).is_ok()
            {
                // Or a power failure could leave neither the old content nor the new.
                file.sync_data()
                    .map_err(|e| RestoreError::target("sync", &entry.path, e))?;
            }
            self.take_place(dir.as_fd(), entry)?;
        }
        match entry.kind {
            EntryKind::File => {
                self.done.unpacked.files += 1;
                self.job.meter.file_done();
            }
            _ => self.done.unpacked.others += 1,
        }
        Ok(())
    }

    /// The name that an entry is made under before it takes its place; none when its place is
    /// free.
    fn partial(&self) -> Option<Vec<u8>> {
        let partial = self.job.target.names.partial.as_bytes();
        (self.job.overwrite == Overwrite::Merge).then(|| partial.to_vec())
    }

    /// Moves the complete entry from its partial name to its own.
    fn take_place(&self, dir: BorrowedFd<'_>, entry: &Entry) -> Result<(), RestoreError> {
        step()?;
        let partial = &self.job.target.names.partial;
        renameat(dir, partial, dir, name_of(&entry.path))
            .map_err(|e| RestoreError::target("replace", &entry.path, e))
    }

    /// Makes a file, symbolic link, FIFO or device; gives the file when it is one.
    fn make(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        listed: &IndexEntry,
    ) -> Result<Option<File>, RestoreError> {
        let fault = |e| refused(&entry.path, e);
        let replace = self.takes_over();
        let mut lost = Lost::default();
        let mut made = None;
        match entry.kind {
            EntryKind::File => {
                let mut file = place::create_file(dir, name, replace).map_err(fault)?;
                step()?;
                let meter = self.job.meter;
                self.stream.content(listed, |piece| {
                    meter.moved(piece.len());
                    file.write_all(piece)
                        .map_err(|e| RestoreError::target("write", &entry.path, e))
                })?;
                place::finish_file(&file, entry, &mut lost).map_err(fault)?;
                self.done.unpacked.logical_bytes += entry.size;
                made = Some(file);
            }
            EntryKind::Symlink => {
                place::make_symlink(dir, name, entry, replace, &mut lost).map_err(fault)?;
            }
            _ => place::make_special(dir, name, entry, replace, &mut lost).map_err(fault)?,
        }
        self.done.losses.add(&entry.path, &lost);
        Ok(made)
    }

    fn hard_link(&mut self, entry: &Entry) -> Result<(), RestoreError> {
        let fault = |what: &str| RestoreError::Corrupt(Corrupt::new(shown(&entry.path), what));
        check_path(&entry.link).map_err(|what| fault(&format!("links to a path that {what}")))?;
        if self.job.target.names.is_reserved(&entry.link) || entry.link == b"." {
            return Err(fault("links to what is no part of the archive"));
        }
        let missing = |_| fault("links to a file that was not restored");
        let left_out = self.job.survey.links.name_of(&entry.link);
        let (target_dir, target) = match (&self.linked, &left_out) {
            (Some(linked), Some(name)) => (linked.try_clone().map_err(missing)?, name.as_bytes()),
            _ => (
                self.open_parent(&entry.link).map_err(missing)?,
                name_of(&entry.link),
            ),
        };
        let partial = self.partial();
        let name = partial.as_deref().unwrap_or(name_of(&entry.path));
        let replace = self.takes_over();
        let dir = top(&mut self.dirs, entry)?;
        let made = place::make_hard_link(target_dir.as_fd(), target, dir, name, replace);
        match made {
            Ok(FileKind::File) => {
                self.done.unpacked.files += 1;
                self.job.meter.file_done();
            }
            Ok(_) => self.done.unpacked.others += 1,
            Err((_, e)) if Errno::from_io_error(&e) == Some(Errno::NOENT) => {
                return Err(fault("links to a file that was not restored"));
            }
            Err(e) => return Err(refused(&entry.path, e)),
        }
        if partial.is_some() {
            let dir = dir
                .try_clone_to_owned()
                .map_err(|e| refused(&entry.path, ("open".into(), e)))?;
            self.take_place(dir.as_fd(), entry)?;
            // Renaming one name of a file to another of its names does nothing.
            let _ = unlinkat(dir.as_fd(), name, AtFlags::empty());
        }
        Ok(())
    }

    /// Opens the directory of a path from the root, following no link.
    fn open_parent(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let parent = match parent_of(path) {
            b"" => b".",
            parent => parent,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        open_beneath(self.dirs.root(), parent, flags, Mode::empty())
    }

    /// Sets what waits until all content is there.
    fn finish(mut self) -> Result<(), RestoreError> {
        if !self.started {
            let corrupt = Corrupt::new("the archive", "it has no entry for the root");
            return Err(corrupt.into());
        }
        while self.dirs.depth() > 0 {
            self.leave()?;
        }
        if self.linked.take().is_some() {
            let target = self.job.target;
            remove_tree(target.root.as_fd(), target.names.linked.as_bytes())?;
        }
        if let Some(root) = self.root.take() {
            root.finish(self.dirs.root(), b".", &mut self.done.losses)
                .map_err(|e| refused(b".", e))?;
        }
        Ok(())
    }
}

/// The directory that an entry is made in.
fn top<'d>(dirs: &'d mut DirStack, entry: &Entry) -> Result<BorrowedFd<'d>, RestoreError> {
    dirs.top()
        .map_err(|e| RestoreError::target("open the directory of", &entry.path, e))
}

fn refused(path: &[u8], (step, error): Refused) -> RestoreError {
    RestoreError::target(step, path, error)
}
