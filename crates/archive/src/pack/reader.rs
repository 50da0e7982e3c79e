//! Reading what the walk found: files that may change meanwhile.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::conveyor::{Conveyor, Halted, Place};
use super::{Notice, entry_of};
use crate::builder::{Builder, EntryEnd, Piece, SMALL_BYTES};
use crate::codec::PieceSize;
use crate::digest::{hex_of, sha256};
use crate::entry::{END_BYTES, Entry, EntryKind};
use crate::meta::{Meta, Time};
use crate::meter::Meter;
use crate::output::Member;
use crate::profile::{Phase, ThreadKind};
use crate::sparse::{Segment, SparseMap};
use crate::xattr::{Handle, XattrReader, Xattrs};

/// How often a file that changes while it is read is read.
const MAX_TRIES: u32 = 3;

/// File systems stamp changes with the time of the last timer tick, at worst 10 ms old (source:
/// CONFIG_HZ=100). A change this soon after another one may not show.
const STAMP_GRAIN: Duration = Duration::from_millis(20);

/// Something for the archive, or to be told, in the order of the walk.
pub(super) enum Item {
    /// All of an entry.
    Plain(Entry),
    /// A regular file, open.
    File(Found),
    /// Something to tell of a path.
    Told(Vec<u8>, Notice),
    /// Nothing follows.
    End,
}

/// A regular file, open and looked at.
pub(super) struct Found {
    pub(super) path: Vec<u8>,
    pub(super) file: File,
    pub(super) meta: Meta,
}

/// What is told of paths, in order.
pub(super) type Notices = Vec<(Vec<u8>, Notice)>;

/// What the threads of one pack share.
pub(super) struct Shared<'s> {
    pub(super) conveyor: Conveyor<'s, Vec<Item>, (Piece, Notices), (Member, Notices)>,
    pub(super) piece_size: PieceSize,
    /// Paths that cannot be read: with one of these, nothing more is written.
    pub(super) unreadable: AtomicU64,
    pub(super) logical_bytes: AtomicU64,
    pub(super) xattrs_left_out: AtomicU64,
    /// A file was archived with its holes.
    pub(super) has_holes: AtomicBool,
    pub(super) meter: &'s Meter,
    pub(super) stop: &'s AtomicBool,
}

impl Shared<'_> {
    /// Whether nothing will be published, so that it is enough to know which files can be opened.
    pub(super) fn is_broken(&self) -> bool {
        self.unreadable.load(Ordering::Relaxed) > 0
    }

    /// Counts and tells a path that cannot be read.
    pub(super) fn unreadable(&self, error: io::Error) -> Notice {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
        Notice::Unreadable(error)
    }
}

/// What a file is, before it is read.
struct Looked {
    meta: Meta,
    xattrs: Xattrs,
    /// The last change is long enough ago that another one would show.
    settled: bool,
}

impl Looked {
    /// Whether nothing changed since, for certain.
    fn held_still(&self, now: &Meta) -> bool {
        self.settled && self.meta.unchanged(now)
    }

    /// Whether it still held one content: also when it was renamed or deleted meanwhile.
    fn kept_content(&self, now: &Meta) -> bool {
        self.settled && now.size == self.meta.size && now.mtime == self.meta.mtime
    }
}

/// Whether a change from now on would show as another time than `changed`.
fn is_settled(changed: Time) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = u64::try_from(changed.seconds).unwrap_or(0);
    let changed = Duration::new(seconds, changed.nanoseconds);
    // A time in the future comes from another clock and says nothing about this moment.
    changed + STAMP_GRAIN < now || changed > now + STAMP_GRAIN
}

/// Why a file is not in the archive.
enum Fault {
    Source(io::Error),
    Halted,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Source(error)
    }
}

impl From<Halted> for Fault {
    fn from(_: Halted) -> Self {
        Self::Halted
    }
}

/// One thread that reads.
pub(super) struct Reader<'r> {
    shared: &'r Shared<'r>,
    builder: Builder,
    place: Place,
    notices: Notices,
    xattrs: XattrReader,
}

impl<'r> Reader<'r> {
    pub(super) fn new(shared: &'r Shared<'r>) -> Self {
        let place = Place {
            task: 0,
            piece: 0,
            last: false,
        };
        Self {
            shared,
            builder: Builder::new(shared.piece_size),
            place,
            notices: Vec::new(),
            xattrs: XattrReader::new(),
        }
    }

    /// Reads until there is nothing more to read.
    pub(super) fn run(&mut self) -> Result<(), Halted> {
        let meter = self.shared.meter;
        let _timed = meter.time_thread(ThreadKind::Readers, Phase::Read);
        while let Some((task, items)) = self.shared.conveyor.task()? {
            self.place.task = task;
            self.place.piece = 0;
            self.builder.begin_run(self.shared.conveyor.place(task)?);
            for item in items {
                self.item(item)?;
            }
            self.hand_over(true);
        }
        Ok(())
    }

    /// Hands the piece over and goes on with another.
    fn cut(&mut self) -> Result<(), Halted> {
        self.hand_over(false);
        self.place.piece += 1;
        let memory = self.shared.conveyor.place(self.place.task)?;
        self.builder.refill(memory);
        Ok(())
    }

    /// Starts an entry with its headers, in this piece or the next.
    fn begin(&mut self, entry: &Entry) -> Result<(), Halted> {
        if !self.builder.has_room_for(entry) {
            self.cut()?;
        }
        self.builder.begin(entry);
        Ok(())
    }

    fn hand_over(&mut self, last: bool) {
        let raw = (self.builder.take(), std::mem::take(&mut self.notices));
        let place = Place { last, ..self.place };
        self.shared.conveyor.push(place, raw);
    }

    fn item(&mut self, item: Item) -> Result<(), Halted> {
        if self.shared.stop.load(Ordering::Relaxed) {
            return Err(Halted);
        }
        match item {
            Item::Told(path, notice) => self.notices.push((path, notice)),
            _ if self.shared.is_broken() => {}
            Item::Plain(entry) => {
                self.begin(&entry)?;
                self.builder.end(entry, EntryEnd::default());
            }
            Item::File(found) => {
                let path = found.path.clone();
                match self.file(found) {
                    Ok(()) => self.shared.meter.file_done(),
                    Err(Fault::Halted) => return Err(Halted),
                    Err(Fault::Source(error)) => {
                        let notice = self.shared.unreadable(error);
                        self.notices.push((path, notice));
                    }
                }
            }
            Item::End => {
                self.builder.zeros(usize::try_from(END_BYTES).unwrap_or(0));
            }
        }
        Ok(())
    }

    /// A regular file, read until it holds still or the tries are spent.
    fn file(&mut self, mut found: Found) -> Result<(), Fault> {
        for nth in 1..=MAX_TRIES {
            if nth > 1 {
                found.meta = Meta::of(&found.file)?;
            }
            let looked = self.look(&mut found)?;
            let is_last = nth == MAX_TRIES;
            let done = if looked.meta.size <= SMALL_BYTES {
                self.small_file(&mut found, looked, is_last)?
            } else {
                self.large_file(&mut found, looked, is_last)?
            };
            if done {
                break;
            }
        }
        Ok(())
    }

    fn look(&mut self, found: &mut Found) -> io::Result<Looked> {
        let mut settled = is_settled(found.meta.ctime);
        if !settled {
            std::thread::sleep(STAMP_GRAIN);
            found.meta = Meta::of(&found.file)?;
            settled = is_settled(found.meta.ctime);
        }
        let read = self.xattrs.read(&Handle::Open(found.file.as_fd()))?;
        if read.left_out > 0 {
            let all = &self.shared.xattrs_left_out;
            all.fetch_add(read.left_out, Ordering::Relaxed);
            let notice = Notice::XattrsLeftOut(read.left_out);
            self.notices.push((found.path.clone(), notice));
        }
        found.file.seek(SeekFrom::Start(0))?;
        Ok(Looked {
            meta: found.meta.clone(),
            xattrs: read.kept,
            settled,
        })
    }

    /// Reads a small file whole, and keeps it once it held still; false to try again.
    fn small_file(
        &mut self,
        found: &mut Found,
        mut looked: Looked,
        is_last: bool,
    ) -> Result<bool, Fault> {
        let xattrs = std::mem::take(&mut looked.xattrs);
        let mut entry = entry_of(found.path.clone(), EntryKind::File, &looked.meta, xattrs);
        self.begin(&entry)?;
        let size = usize::try_from(looked.meta.size).unwrap_or(0);
        let content = self.builder.read(&found.file, size, size + 1)?;
        let meter = self.shared.meter;
        meter.moved(content.len());
        let (size, digest) = (
            content.len() as u64,
            meter.during(Phase::Digest, || sha256(content)),
        );
        let after = Meta::of(&found.file)?;
        let whole = size == looked.meta.size;
        let done = is_last || (whole && looked.held_still(&after));
        if !done {
            self.builder.undo();
            return Ok(false);
        }
        let torn = !(whole && looked.kept_content(&after));
        if torn {
            self.notices.push((found.path.clone(), Notice::Torn));
        }
        if !whole {
            entry.size = size;
            self.builder.correct(&entry);
        }
        let bytes = &self.shared.logical_bytes;
        bytes.fetch_add(size, Ordering::Relaxed);
        let end = EntryEnd {
            sha256: Some(digest),
            superseded: false,
            torn,
        };
        self.builder.end(entry, end);
        Ok(true)
    }

    /// Streams a large file; false when it changed meanwhile and is to be written once more behind
    /// itself.
    fn large_file(
        &mut self,
        found: &mut Found,
        mut looked: Looked,
        is_last: bool,
    ) -> Result<bool, Fault> {
        let xattrs = std::mem::take(&mut looked.xattrs);
        let mut entry = entry_of(found.path.clone(), EntryKind::File, &looked.meta, xattrs);
        let map = SparseMap::of(&found.file, entry.size, self.shared.stop);
        entry.stored = map.as_ref().map(SparseMap::stored_bytes);
        self.begin(&entry)?;
        let (digest, whole) = self.stream(&mut found.file, entry.size, map.as_ref())?;
        let after = Meta::of(&found.file)?;
        let done = is_last || (whole && looked.held_still(&after));
        let end = EntryEnd {
            sha256: Some(digest),
            superseded: !done,
            torn: done && !(whole && looked.kept_content(&after)),
        };
        if end.torn {
            self.notices.push((found.path.clone(), Notice::Torn));
        }
        if done {
            let bytes = &self.shared.logical_bytes;
            bytes.fetch_add(entry.size, Ordering::Relaxed);
        }
        if let Some(map) = map {
            self.shared.has_holes.store(true, Ordering::Relaxed);
            self.shared.meter.passed(map.hole_bytes());
        }
        self.builder.end(entry, end);
        Ok(done)
    }

    /// Copies exactly `size` bytes, or the map and the data of a file with holes, zeros for what is
    /// missing; tells their digest and whether the file ended where it should.
    fn stream(
        &mut self,
        file: &mut File,
        size: u64,
        map: Option<&SparseMap>,
    ) -> Result<(String, bool), Fault> {
        let mut hash = Sha256::new();
        let mut whole = true;
        let all = [Segment {
            offset: 0,
            length: size,
        }];
        if let Some(map) = map {
            self.append(&map.encode(), &mut hash)?;
        }
        for segment in map.map_or(&all[..], SparseMap::data) {
            file.seek(SeekFrom::Start(segment.offset))?;
            whole &= self.copy(file, segment.length, &mut hash)?;
        }
        file.seek(SeekFrom::Start(size))?;
        whole = whole && file.read(&mut [0])? == 0;
        Ok((hex_of(hash), whole))
    }

    /// Appends bytes that are no content.
    fn append(&mut self, mut bytes: &[u8], hash: &mut Sha256) -> Result<(), Fault> {
        self.shared
            .meter
            .during(Phase::Digest, || hash.update(bytes));
        while !bytes.is_empty() {
            let room = self.room()?;
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.builder.append(now);
            bytes = rest;
        }
        Ok(())
    }

    /// Copies exactly `length` bytes, zeros for what is missing; tells whether all was there.
    fn copy(&mut self, file: &File, length: u64, hash: &mut Sha256) -> Result<bool, Fault> {
        let mut left = length;
        let mut ended = false;
        while left > 0 {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(Fault::Halted);
            }
            let room = self.room()?;
            let now = usize::try_from(left).map_or(room, |left| left.min(room));
            let content = if ended {
                self.builder.zeros(now)
            } else {
                self.builder.read(file, now, now)?
            };
            self.shared
                .meter
                .during(Phase::Digest, || hash.update(content));
            ended |= content.len() < now;
            left -= content.len() as u64;
            if !ended {
                self.shared.meter.moved(content.len());
            }
        }
        Ok(!ended)
    }

    /// How much more the piece takes, after a cut where it is full.
    fn room(&mut self) -> Result<usize, Halted> {
        if self.builder.room() == 0 {
            self.cut()?;
        }
        Ok(self.builder.room())
    }
}
