//! Comparing an archive with a directory.

mod reading;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, Dir, Mode, OFlags, fadvise, openat, readlinkat};
use sha2::{Digest, Sha256};

use self::reading::{Expanded, read_all};
use crate::beneath::{open_beneath, open_dir_beneath};
use crate::codec::Codec;
use crate::digest::hex_of;
use crate::entries::{EntryReader, with_entries};
use crate::entry::{Entry, EntryKind, name_of};
use crate::error::RestoreError;
use crate::follow::Follow;
use crate::index::IndexEntry;
use crate::loss::{Losses, MetadataKind};
use crate::manifest::Sample;
use crate::marker::Overwrite;
use crate::meta::{FileKind, Meta, Time};
use crate::meter::Meter;
use crate::names::LOST_AND_FOUND;
use crate::needed::Archive;
use crate::select::{Pick, Picker, Selection, Survey};
use crate::sparse::SparseMap;
use crate::target::Target;
use crate::verify::parent_of;
use crate::walk::{Step, Walk};
use crate::xattr::{Handle, XattrReader};

/// Pieces that content is read in.
const PIECE_BYTES: usize = 256 << 10;

/// What differs between an archive and a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// In the archive and not in the target.
    pub added: Change,
    /// In both; content, type, owner, mode, time, link target or attributes differ.
    pub changed: Change,
    /// In the target and not in the archive; never with [`Overwrite::Merge`].
    pub removed: Change,
    /// Names that are alike.
    pub unchanged: u64,
}

/// Names, and the sum of the sizes of their files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Sum of the sizes of the regular files: those of the archive, or those that go.
    pub bytes: u64,
    /// The names.
    pub paths: Sample,
}

impl Change {
    fn push(&mut self, path: &[u8], bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.paths.push(path);
    }
}

/// Where the target's files are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// From memory, where they are there.
    Cached,
    /// From the volume, as far as the file system can be told to.
    Stored,
}

/// What to compare a target with, and how.
pub struct Comparison<'c> {
    /// How the archive is compressed.
    pub codec: Codec,
    /// The target.
    pub target: &'c Target,
    /// Whether what only the target has counts, and folders above what is taken.
    pub overwrite: Overwrite,
    /// What is taken of the archive.
    pub selection: &'c Selection,
    /// What that comes to.
    pub survey: &'c Survey,
    /// Kinds of metadata of which the target has refused some.
    pub refused: &'c Losses,
    /// Where files are read from.
    pub reading: Reading,
    /// Keeps where the time goes.
    pub meter: &'c Meter,
    /// Ends it early.
    pub stop: &'c AtomicBool,
}

/// Compares a checked archive with a target; `indexes` are three readers of the index.
///
/// # Guarantees
/// Nothing is written. Memory is bounded by one member, and for each open directory by eight bytes
/// for each of its names.
///
/// # Assumptions
/// Two names of one directory never share a 64-bit hash; else one that only the target has can be
/// missed.
pub fn compare<I: Read + Send>(
    comparison: &Comparison<'_>,
    archive: impl Archive + Send,
    indexes: [I; 3],
) -> Result<Changes, RestoreError> {
    let [members, entries, ahead] = indexes;
    if comparison.reading == Reading::Stored {
        comparison.target.sync()?;
    }
    let root = comparison.target.root()?;
    let indexes = (members, entries);
    let needed = &comparison.survey.needed;
    let control = (comparison.meter, comparison.stop);
    with_entries(
        comparison.codec,
        archive,
        indexes,
        needed,
        control,
        |stream| {
            let mut comparer = Comparer {
                of: comparison,
                stream,
                picker: Picker::new(comparison.selection, ahead),
                follow: Follow::new(root),
                seen: vec![HashSet::new()],
                hashes: RandomState::new(),
                left_out: HashMap::new(),
                xattrs: XattrReader::new(),
                changes: Changes::default(),
            };
            while let Some((entry, listed, pick)) = comparer.stream.next_of(&mut comparer.picker)? {
                comparer.entry(&entry, &listed, pick)?;
            }
            comparer.finish()
        },
    )
}

/// Why something in the target could not be compared.
enum Unread {
    Stopped,
    Refused(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

struct Comparer<'c, I: Read> {
    of: &'c Comparison<'c>,
    stream: EntryReader<'c, I>,
    picker: Picker<'c, I>,
    follow: Follow,
    /// Hashes of the names that the archive has in the root and in each directory below.
    seen: Vec<HashSet<u64>>,
    hashes: RandomState,
    /// What files are like that are left out but linked to.
    left_out: HashMap<String, [u8; 32]>,
    xattrs: XattrReader,
    changes: Changes,
}

impl<I: Read> Comparer<'_, I> {
    fn entry(
        &mut self,
        entry: &Entry,
        listed: &IndexEntry,
        pick: Pick,
    ) -> Result<(), RestoreError> {
        if pick == Pick::Left || listed.superseded {
            return self.left_out(entry, listed);
        }
        let map = match entry.kind {
            EntryKind::File => self.stream.content(listed, |_, _| Ok(()))?,
            _ => None,
        };
        while self.follow.is_past(&entry.path) {
            self.leave()?;
        }
        let fault = |e| RestoreError::target("compare", &entry.path, e);
        let found = self.follow.look(&entry.path).map_err(fault)?;
        if let Some(seen) = self.seen.last_mut()
            && self.follow.path() == parent_of(&entry.path)
        {
            seen.insert(self.hashes.hash_one(name_of(&entry.path)));
        }
        match &found {
            None => self.changes.added.push(&entry.path, entry.size),
            Some(meta) => self.found(entry, (listed, map.as_ref()), pick, meta)?,
        }
        if entry.kind == EntryKind::Directory && entry.path != b"." {
            self.go_in(entry, found_is_dir(found.as_ref()))?;
        }
        Ok(())
    }

    /// Passes over an entry; keeps what it is like where a link to it is taken.
    fn left_out(&mut self, entry: &Entry, listed: &IndexEntry) -> Result<(), RestoreError> {
        let mut whole = Expanded::default();
        let name = self.of.survey.links.name_of(&entry.path);
        let name = name.filter(|_| !listed.superseded);
        if entry.kind == EntryKind::File {
            let stop = self.of.stop;
            self.stream.content(listed, |at, piece| match name {
                Some(_) => whole.piece(at, &piece, stop),
                None => Ok(()),
            })?;
        }
        if let Some(name) = name {
            let digest = match entry.kind {
                EntryKind::File => Some(whole.finish(entry.size, self.of.stop)?),
                _ => None,
            };
            let like = self.likeness(entry.clone(), digest.as_deref());
            self.left_out.insert(name, like);
        }
        Ok(())
    }

    fn go_in(&mut self, entry: &Entry, is_there: bool) -> Result<(), RestoreError> {
        if is_there {
            let entered = self.follow.enter(&entry.path);
            entered.map_err(|e| RestoreError::target("open", &entry.path, e))?;
            self.seen.push(HashSet::new());
        } else {
            self.follow.skip(&entry.path);
        }
        Ok(())
    }

    fn found(
        &mut self,
        entry: &Entry,
        listed: (&IndexEntry, Option<&SparseMap>),
        pick: Pick,
        meta: &Meta,
    ) -> Result<(), RestoreError> {
        let alike = if entry.kind == EntryKind::HardLink {
            self.is_linked(entry, meta)
        } else if pick == Pick::Above && self.of.overwrite == Overwrite::Merge {
            Ok(meta.kind == FileKind::Directory)
        } else {
            self.is_alike(entry, listed, meta)
        };
        let alike = alike.map_err(|unread| match unread {
            Unread::Stopped => RestoreError::Stopped,
            Unread::Refused(e) => RestoreError::target("compare", &entry.path, e),
        })?;
        if alike {
            self.changes.unchanged += 1;
        } else {
            self.changes.changed.push(&entry.path, entry.size);
            if meta.kind == FileKind::Directory && entry.kind != EntryKind::Directory {
                self.count_below(&entry.path)?;
            }
        }
        Ok(())
    }

    fn is_alike(
        &mut self,
        entry: &Entry,
        (listed, map): (&IndexEntry, Option<&SparseMap>),
        meta: &Meta,
    ) -> Result<bool, Unread> {
        if kind_of(meta.kind) != Some(entry.kind) {
            return Ok(false);
        }
        let at_root = entry.path == b".";
        let name = if at_root { b"." } else { name_of(&entry.path) };
        let found = entry_at(self.follow.dir()?, name, meta, &mut self.xattrs)?;
        let refused = self.of.refused;
        if plain(entry.clone(), refused) != plain(found, refused) {
            return Ok(false);
        }
        if entry.kind != EntryKind::File {
            return Ok(true);
        }
        let digest = self.digest_at(name, map)?;
        Ok(digest.is_some() && digest == listed.sha256)
    }

    /// Whether the name of a hard link is one of the right file.
    fn is_linked(&mut self, entry: &Entry, meta: &Meta) -> Result<bool, Unread> {
        let left_out = self.of.survey.links.name_of(&entry.link);
        if let Some(like) = left_out.and_then(|name| self.left_out.get(&name).copied()) {
            let name = name_of(&entry.path);
            let found = entry_at(self.follow.dir()?, name, meta, &mut self.xattrs)?;
            let digest = match meta.kind {
                FileKind::File => self.digest_at(name, None)?,
                _ => None,
            };
            return Ok(self.likeness(found, digest.as_deref()) == like);
        }
        let flags = OFlags::PATH;
        match open_beneath(self.follow.root(), &entry.link, flags, Mode::empty()) {
            Ok(target) => Ok(Meta::of(&target)?.same_file(meta)),
            Err(_) => Ok(false),
        }
    }

    /// A digest of everything that is compared of an entry.
    fn likeness(&self, entry: Entry, content: Option<&str>) -> [u8; 32] {
        let plain = plain(entry, self.of.refused);
        Sha256::digest(format!("{plain:?} {content:?}")).into()
    }

    /// The digest of a file's content; with a map, that of the map and the data, and none where
    /// there is more than the map has.
    fn digest_at(
        &mut self,
        name: &[u8],
        map: Option<&SparseMap>,
    ) -> Result<Option<String>, Unread> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = open_beneath(self.follow.dir()?, name, flags, Mode::empty())?;
        if self.of.reading == Reading::Stored {
            fadvise(&fd, 0, None, Advice::DontNeed).map_err(io::Error::from)?;
        }
        let mut file = File::from(fd);
        let mut hash = Sha256::new();
        if let Some(map) = map {
            hash.update(map.encode());
        }
        let is_like = read_all(&mut file, map, self.of.stop, |bytes| hash.update(bytes))?;
        Ok(is_like.then(|| hex_of(hash)))
    }

    /// Leaves a directory: what it holds beyond the archive would go.
    fn leave(&mut self) -> Result<(), RestoreError> {
        self.count_others()?;
        self.seen.pop();
        self.follow.leave();
        Ok(())
    }

    fn count_others(&mut self) -> Result<(), RestoreError> {
        if self.of.overwrite == Overwrite::Merge {
            return Ok(());
        }
        let path = self.follow.path().to_vec();
        let fault = |e: io::Error| RestoreError::target("list", &path, e);
        let names =
            Dir::read_from(self.follow.dir().map_err(fault)?).map_err(|e| fault(e.into()))?;
        for found in names {
            let found = found.map_err(|e| fault(e.into()))?;
            let name = found.file_name().to_bytes();
            let is_seen = self
                .seen
                .last()
                .is_some_and(|seen| seen.contains(&self.hashes.hash_one(name)));
            let is_apart =
                path.is_empty() && (name == LOST_AND_FOUND || self.of.target.names.is_own(name));
            if !is_seen && !is_apart && name != b"." && name != b".." {
                self.count_other(name)?;
            }
        }
        Ok(())
    }

    /// Counts a name in the directory it stands in that only the target has.
    fn count_other(&mut self, name: &[u8]) -> Result<(), RestoreError> {
        let path = match self.follow.path() {
            b"" => name.to_vec(),
            dir => [dir, b"/", name].concat(),
        };
        let fault = |e| RestoreError::target("look at", &path, e);
        let meta = Meta::at(self.follow.dir().map_err(fault)?, name).map_err(fault)?;
        self.changes.removed.push(&path, bytes_of(&meta));
        if meta.kind == FileKind::Directory {
            self.count_below(&path)?;
        }
        Ok(())
    }

    /// Counts everything below a directory in the one it stands in.
    fn count_below(&mut self, path: &[u8]) -> Result<(), RestoreError> {
        if self.of.overwrite == Overwrite::Merge {
            return Ok(());
        }
        let fault = |e| RestoreError::target("list", path, e);
        let dir = self.follow.dir().map_err(fault)?;
        let mut walk = Walk::new(open_dir_beneath(dir, name_of(path)).map_err(fault)?);
        while let Some(step) = walk.next() {
            if self.of.stop.load(Ordering::Relaxed) {
                return Err(RestoreError::Stopped);
            }
            let bytes = match step {
                Step::Unreadable(error) => return Err(fault(error)),
                Step::Vanished => continue,
                Step::Found(_) if walk.path().is_empty() => continue,
                Step::Found(meta) => bytes_of(&meta),
                Step::OtherMount(_) | Step::LostAndFound => 0,
            };
            let below = [path, b"/", walk.path()].concat();
            self.changes.removed.push(&below, bytes);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Changes, RestoreError> {
        while self.follow.depth() > 0 {
            self.leave()?;
        }
        self.count_others()?;
        Ok(self.changes)
    }
}

fn found_is_dir(found: Option<&Meta>) -> bool {
    found.is_some_and(|meta| meta.kind == FileKind::Directory)
}

fn bytes_of(meta: &Meta) -> u64 {
    match meta.kind {
        FileKind::File => meta.size,
        _ => 0,
    }
}

fn kind_of(kind: FileKind) -> Option<EntryKind> {
    match kind {
        FileKind::File => Some(EntryKind::File),
        FileKind::Directory => Some(EntryKind::Directory),
        FileKind::Symlink => Some(EntryKind::Symlink),
        FileKind::Fifo => Some(EntryKind::Fifo),
        FileKind::CharDevice => Some(EntryKind::CharDevice),
        FileKind::BlockDevice => Some(EntryKind::BlockDevice),
        FileKind::Socket => None,
    }
}

/// What the target has at a name, in the form of an archive's entry.
fn entry_at(
    dir: BorrowedFd<'_>,
    name: &[u8],
    meta: &Meta,
    xattrs: &mut XattrReader,
) -> io::Result<Entry> {
    let kind = kind_of(meta.kind);
    let is_device = matches!(kind, Some(EntryKind::CharDevice | EntryKind::BlockDevice));
    let mut entry = Entry {
        path: Vec::new(),
        kind: kind.unwrap_or(EntryKind::File),
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime: meta.mtime,
        size: bytes_of(meta),
        stored: None,
        link: Vec::new(),
        device: if is_device { meta.rdev } else { (0, 0) },
        xattrs: Vec::new(),
    };
    if meta.kind == FileKind::Symlink {
        entry.link = readlinkat(dir, name, Vec::new())?.into_bytes();
    } else {
        // A path descriptor opens neither a FIFO nor a device.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd: OwnedFd = openat(dir, name, flags, Mode::empty())?;
        entry.xattrs = xattrs.read(&Handle::Path(fd.as_fd()))?.kept;
    }
    Ok(entry)
}

/// An entry without its path, and without what is not compared.
fn plain(mut entry: Entry, refused: &Losses) -> Entry {
    entry.path.clear();
    entry.stored = None;
    if refused.has(MetadataKind::Owner) {
        (entry.uid, entry.gid) = (0, 0);
    }
    if refused.has(MetadataKind::Mode) || entry.kind == EntryKind::Symlink {
        entry.mode = 0;
    }
    if refused.has(MetadataKind::Time) {
        entry.mtime = Time::default();
    }
    if refused.has(MetadataKind::Xattr) || entry.kind == EntryKind::Symlink {
        entry.xattrs.clear();
    }
    entry.xattrs.sort();
    entry
}
