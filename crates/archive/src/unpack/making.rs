//! Making what is no directory: files, links, FIFOs and devices.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, renameat, unlinkat};
use rustix::io::Errno;

use super::crew::{NewFile, Part, Work};
use super::{Unpacker, refused, take_in, top};
use crate::beneath::open_beneath;
use crate::entry::{Entry, EntryKind, check_path, name_of};
use crate::error::{Corrupt, RestoreError, shown};
use crate::index::IndexEntry;
use crate::loss::Lost;
use crate::marker::Overwrite;
use crate::meta::{FileKind, Meta};
use crate::place;
use crate::profile::Phase;
use crate::steps::step;
use crate::verify::parent_of;

/// A file of less is written by who reads it, without a wait for the crew at its end.
const LEAST_FOR_THE_CREW: u64 = 512 << 10;

impl<I: Read> Unpacker<'_, I> {
    /// Makes a file where nothing is in its place: the crew does, when its content is in one member.
    pub(super) fn new_file(
        &mut self,
        entry: Entry,
        listed: &IndexEntry,
    ) -> Result<(), RestoreError> {
        let Some(content) = self.stream.whole(listed) else {
            return self.replacing(&entry, listed);
        };
        let dir = self.dirs.shared_top();
        let dir = dir.map_err(|e| RestoreError::target("open the directory of", &entry.path, e))?;
        self.crew.add(Work::File(NewFile {
            dir,
            entry,
            sha256: listed.sha256.clone(),
            tar_offset: listed.offset,
            content,
            replace: self.takes_over(),
            inherits: self.inherits.last().is_none_or(|inherits| *inherits),
        }));
        self.collect(None)
    }

    /// Makes an entry that is no directory and no hard link at its place, in one step where the
    /// target may hold something there.
    pub(super) fn replacing(
        &mut self,
        entry: &Entry,
        listed: &IndexEntry,
    ) -> Result<(), RestoreError> {
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
    pub(super) fn partial(&self) -> Option<Vec<u8>> {
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
    pub(super) fn make(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        listed: &IndexEntry,
    ) -> Result<Option<Arc<File>>, RestoreError> {
        let fault = |e| refused(&entry.path, e);
        let _timed = self.job.meter.time(Phase::Write);
        let replace = self.takes_over();
        let inherits = self.inherits.last().is_none_or(|inherits| *inherits);
        let mut lost = Lost::default();
        let mut made = None;
        match entry.kind {
            EntryKind::File => {
                let file = place::create_file(dir, name, entry.mode, replace).map_err(fault)?;
                step()?;
                let file = Arc::new(file);
                self.fill(&file, entry, listed)?;
                place::finish_file(&file, entry, inherits, &mut lost).map_err(fault)?;
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

    /// Writes the content of a file; the crew does, where that is worth a wait for it.
    fn fill(
        &mut self,
        file: &Arc<File>,
        entry: &Entry,
        listed: &IndexEntry,
    ) -> Result<(), RestoreError> {
        let path: Arc<[u8]> = entry.path.as_slice().into();
        let is_small = listed.stored_bytes() < LEAST_FOR_THE_CREW;
        let meter = self.job.meter;
        let (crew, done) = (&mut self.crew, &mut *self.done);
        let map = self.stream.content(listed, |at, content| {
            let part = Part {
                file: Arc::clone(file),
                path: Arc::clone(&path),
                at,
                content,
            };
            if is_small {
                return part.write(meter);
            }
            crew.add(Work::Part(part));
            take_in(crew, None, done)
        })?;
        if !is_small {
            self.collect(Some(self.crew.mark()))?;
        }
        if let Some(map) = map {
            file.set_len(entry.size)
                .map_err(|e| RestoreError::target("write", &entry.path, e))?;
            meter.passed(map.hole_bytes());
        }
        Ok(())
    }

    pub(super) fn hard_link(&mut self, entry: &Entry) -> Result<(), RestoreError> {
        // The file it is a name of may still be under way.
        self.collect(Some(self.crew.mark()))?;
        let _timed = self.job.meter.time(Phase::Write);
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
}
