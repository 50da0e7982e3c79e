//! From an archive into a directory.

mod crew;
mod making;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::{Mode, fchmod, mkdirat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use self::crew::{Foreman, with_crew};
use crate::beneath::{DirStack, open_dir_beneath};
use crate::codec::Codec;
use crate::entries::{EntryReader, with_entries};
use crate::entry::{Entry, EntryKind, check_path, is_within, name_of};
use crate::error::{Corrupt, Refused, RestoreError, shown};
use crate::index::IndexEntry;
use crate::loss::{Losses, Lost};
use crate::marker::{Finished, Overwrite};
use crate::meter::Meter;
use crate::needed::Archive;
use crate::place;
use crate::profile::Phase;
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
    /// How the archive is compressed.
    pub codec: Codec,
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
pub fn unpack<I: Read + Send>(
    job: &Job<'_>,
    archive: impl Archive + Send,
    indexes: [I; 3],
    done: &mut Finished,
) -> Result<(), RestoreError> {
    let [members, entries, ahead] = indexes;
    let dirs = DirStack::new(job.target.root()?);
    let linked = make_linked(job.target, &job.survey.links)?;
    with_crew(job.meter, |crew| {
        let needed = &job.survey.needed;
        let control = (job.meter, job.stop);
        let indexes = (members, entries);
        with_entries(job.codec, archive, indexes, needed, control, |stream| {
            let mut unpacker = Unpacker {
                job,
                stream,
                picker: Picker::new(job.selection, ahead),
                started: false,
                root: None,
                dirs,
                linked,
                pending: Vec::new(),
                crew: Foreman::new(crew),
                left: VecDeque::new(),
                left_bytes: 0,
                inherits: Vec::new(),
                done,
            };
            let ended = unpacker.run();
            // What is under way is waited for, so that what was written is known to the file.
            let written = unpacker.collect(Some(unpacker.crew.mark()));
            ended.and(written)
        })
    })
}

/// Directories that were left and wait for the last of their files, at most: each is held open.
const MOST_LEFT: usize = 64;
/// Bytes of their paths.
const MOST_LEFT_BYTES: usize = 1 << 20;

/// A directory that was left, and is finished once its files are written.
struct Left {
    dir: Arc<OwnedFd>,
    path: Vec<u8>,
    pending: Pending,
    /// The mark of its last file.
    mark: u64,
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

struct Unpacker<'u, I: Read> {
    job: &'u Job<'u>,
    stream: EntryReader<'u, I>,
    picker: Picker<'u, I>,
    /// Whether the root's entry came.
    started: bool,
    /// The root; none while it is left as it is.
    root: Option<Pending>,
    dirs: DirStack,
    linked: Option<OwnedFd>,
    /// The open directories below the root.
    pending: Vec<Option<Pending>>,
    crew: Foreman<'u>,
    left: VecDeque<Left>,
    left_bytes: usize,
    /// Whether files made in the root, and in each open directory below, may inherit an ACL.
    inherits: Vec<bool>,
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

impl<I: Read> Unpacker<'_, I> {
    fn run(&mut self) -> Result<(), RestoreError> {
        while let Some((entry, listed, pick)) = self.stream.next_of(&mut self.picker)? {
            step()?;
            self.restore(entry, &listed, pick)?;
        }
        self.finish()
    }

    /// Takes in what the crew has written, and finishes the directories that waited for it; waits
    /// for all files before `mark`, if one is given.
    fn collect(&mut self, mark: Option<u64>) -> Result<(), RestoreError> {
        take_in(&mut self.crew, mark, self.done)?;
        while let Some(left) = self.left.front()
            && self.crew.is_past(left.mark)
            && let Some(left) = self.left.pop_front()
        {
            self.left_bytes -= left.path.len();
            let _timed = self.job.meter.time(Phase::Write);
            left.pending
                .finish(left.dir.as_fd(), &left.path, &mut self.done.losses)
                .map_err(|e| refused(&left.path, e))?;
        }
        Ok(())
    }

    fn restore(
        &mut self,
        entry: Entry,
        listed: &IndexEntry,
        pick: Pick,
    ) -> Result<(), RestoreError> {
        let path = &entry.path;
        let fault = |what: &str| RestoreError::Corrupt(Corrupt::new(shown(path), what));
        check_path(path).map_err(fault)?;
        if self.job.target.names.is_reserved(path) {
            return Err(fault("has a name that this restore uses"));
        }
        if path == b"." {
            return self.start(entry, pick);
        }
        if pick == Pick::Left {
            return self.left_out(&entry, listed);
        }
        self.leave_until(parent_of(path))?;
        match entry.kind {
            EntryKind::Directory => self.directory(entry, pick),
            _ if listed.superseded => self.stream.content(listed, |_, _| Ok(())).map(drop),
            EntryKind::HardLink => self.hard_link(&entry),
            EntryKind::File if self.partial().is_none() => self.new_file(entry, listed),
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
        self.inherits.push(place::has_default_acl(self.dirs.root()));
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
                EntryKind::File => self.stream.content(listed, |_, _| Ok(())).map(drop),
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

    /// Leaves the innermost directory; it is finished once its files are written.
    fn leave(&mut self) -> Result<(), RestoreError> {
        if let Some(Some(pending)) = self.pending.pop() {
            let path = self.dirs.path().to_vec();
            let dir = self.dirs.shared_top();
            let dir = dir.map_err(|e| refused(&path, ("open".into(), e)))?;
            self.left_bytes += path.len();
            self.left.push_back(Left {
                dir,
                path,
                pending,
                mark: self.crew.mark(),
            });
        }
        self.inherits.pop();
        self.dirs.pop();
        let is_much = self.left.len() > MOST_LEFT || self.left_bytes > MOST_LEFT_BYTES;
        let oldest = self.left.front().filter(|_| is_much);
        self.collect(oldest.map(|left| left.mark))
    }

    fn directory(&mut self, entry: Entry, pick: Pick) -> Result<(), RestoreError> {
        let _timed = self.job.meter.time(Phase::Write);
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
        // A directory that was just made has the default ACL of the one it is in.
        let inherits = if made.existed {
            place::has_default_acl(made.fd.as_fd())
        } else {
            self.inherits.last().is_none_or(|inherits| *inherits)
        };
        self.inherits.push(inherits);
        self.dirs.push(&name, made.fd, &made.meta);
        self.pending.push(pending);
        self.done.unpacked.others += 1;
        Ok(())
    }

    /// Sets what waits until all content is there.
    fn finish(&mut self) -> Result<(), RestoreError> {
        if !self.started {
            let corrupt = Corrupt::new("the archive", "it has no entry for the root");
            return Err(corrupt.into());
        }
        while self.dirs.depth() > 0 {
            self.leave()?;
        }
        self.collect(Some(self.crew.mark()))?;
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

/// Takes in what the crew has written, and waits for all of it before `mark`, if one is given.
fn take_in(
    crew: &mut Foreman<'_>,
    mark: Option<u64>,
    done: &mut Finished,
) -> Result<(), RestoreError> {
    crew.take(mark, |written| {
        done.unpacked.files += written.files;
        done.unpacked.logical_bytes += written.bytes;
        for (path, lost) in &written.lost {
            done.losses.add(path, lost);
        }
    })
}

/// The directory that an entry is made in.
fn top<'d>(dirs: &'d mut DirStack, entry: &Entry) -> Result<BorrowedFd<'d>, RestoreError> {
    dirs.top()
        .map_err(|e| RestoreError::target("open the directory of", &entry.path, e))
}

fn refused(path: &[u8], (step, error): Refused) -> RestoreError {
    RestoreError::target(step, path, error)
}
