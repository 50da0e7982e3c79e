//! The tar stream of an archive and its index, read in step.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::ahead::with_members;
use crate::codec::Codec;
use crate::digest::hex_of;
use crate::entry::{BLOCK_BYTES, Entry, EntryError, padding};
use crate::error::{Corrupt, RestoreError, is_decoders, shown};
use crate::index::{IndexEntry, IndexReader};
use crate::member::{MemberReader, Piece};
use crate::meter::Meter;
use crate::needed::{Archive, Needed};
use crate::profile::Phase;
use crate::select::{Pick, Picker};
use crate::sparse::{MapReader, Segment, SparseMap};

/// Pieces that content is given in, at most.
const PIECE_BYTES: usize = 256 << 10;

/// Reads the entries of an archive one by one and compares each with the index.
///
/// # Guarantees
/// - [`Self::next`] gives an entry only when the index tells the same of it, and ends well only
///   when stream and index end together.
/// - [`Self::content`] ends well only when the content has the digest of the index.
/// - Damage is told with its place in the archive, the tar offset and the entry's path.
/// - Memory is bounded by one member, one header and two lines of the index.
///
/// # Assumptions
/// The content of each file is taken before the next entry.
pub(crate) struct EntryReader<'s, I: Read> {
    stream: Counted<MemberReader<'s>>,
    index: IndexReader<I>,
    block: [u8; BLOCK_BYTES],
    /// No member is left out, so that all that is between two entries can be read.
    is_all: bool,
    meter: &'s Meter,
    stop: &'s AtomicBool,
}

/// Calls `work` with the entries of an archive, whose members other threads load meanwhile.
pub(crate) fn with_entries<A: Archive + Send, I: Read + Send, T>(
    codec: Codec,
    archive: A,
    (members, entries): (I, I),
    needed: &Needed,
    (meter, stop): (&Meter, &AtomicBool),
    work: impl FnOnce(EntryReader<'_, I>) -> T,
) -> T {
    let is_all = needed.is_all();
    let index = IndexReader::new(members);
    with_members(codec, archive, index, needed, meter, |members| {
        let _timed = meter.time(Phase::Entries);
        work(EntryReader {
            stream: Counted {
                inner: MemberReader::new(members),
                position: 0,
            },
            index: IndexReader::new(entries),
            block: [0; BLOCK_BYTES],
            is_all,
            meter,
            stop,
        })
    })
}

impl<I: Read> EntryReader<'_, I> {
    /// The next entry, and what the index tells of it; none at the end of both.
    pub(crate) fn next(&mut self) -> Result<Option<(Entry, IndexEntry)>, RestoreError> {
        let next = || self.index.next_entry();
        let listed = self.meter.during(Phase::Index, next)?;
        self.read(listed)
    }

    /// As [`Self::next`], with what `picker` says of it. Where not all members are there, what is
    /// left out is passed over unread, and the end is that of the index.
    pub(crate) fn next_of(
        &mut self,
        picker: &mut Picker<'_, I>,
    ) -> Result<Option<(Entry, IndexEntry, Pick)>, RestoreError> {
        loop {
            let looking = self.meter.time(Phase::Index);
            let listed = self.index.next_entry()?;
            let pick = match &listed {
                Some(listed) => picker.pick(listed)?,
                None => Pick::Left,
            };
            drop(looking);
            if self.is_all || pick != Pick::Left {
                if let Some(listed) = &listed
                    && listed.offset != self.stream.position
                {
                    self.go_to(listed)?;
                }
                let read = self.read(listed)?;
                return Ok(read.map(|(entry, listed)| (entry, listed, pick)));
            }
            if listed.is_none() {
                return Ok(None);
            }
        }
    }

    fn go_to(&mut self, listed: &IndexEntry) -> Result<(), RestoreError> {
        if self.is_all {
            // Where the entry is to be found, its header tells.
            return Ok(());
        }
        let gone = self.stream.inner.go_to(listed.offset);
        gone.map_err(|error| self.unread(error, Some(&listed.path)))?;
        self.stream.position = listed.offset;
        Ok(())
    }

    fn read(
        &mut self,
        listed: Option<IndexEntry>,
    ) -> Result<Option<(Entry, IndexEntry)>, RestoreError> {
        self.check_stop()?;
        let at = self.stream.position;
        let path = listed.as_ref().map(|listed| listed.path.as_slice());
        let entry = match Entry::read(&mut self.stream, at) {
            Ok(entry) => entry,
            Err(EntryError::Corrupt(corrupt)) => return Err(self.damaged(&corrupt.what, at, path)),
            Err(EntryError::Read(error)) => return Err(self.unread(error, path)),
        };
        match (entry, &listed) {
            (None, None) => self.end().map(|()| None),
            (Some(entry), Some(told)) if is_same(&entry, told, at) => {
                Ok(listed.map(|listed| (entry, listed)))
            }
            (Some(_), Some(_)) => {
                Err(self.damaged("the entry is not the one of the index", at, path))
            }
            _ => Err(self.damaged("the tar stream and the index end apart", at, path)),
        }
    }

    /// Gives the content of the file that [`Self::next`] gave to `sink`, as pieces and where they
    /// stand in the file, then compares its digest; gives where its data is when it has holes.
    pub(crate) fn content(
        &mut self,
        listed: &IndexEntry,
        mut sink: impl FnMut(u64, Piece) -> Result<(), RestoreError>,
    ) -> Result<Option<SparseMap>, RestoreError> {
        let path = Some(listed.path.as_slice());
        let mut hash = Sha256::new();
        let map = match listed.stored {
            Some(stored) => Some(self.map(listed, stored, &mut hash)?),
            None => None,
        };
        let whole = [Segment {
            offset: 0,
            length: listed.size,
        }];
        for segment in map.as_ref().map_or(&whole[..], SparseMap::data) {
            let mut at = segment.offset;
            let mut left = segment.length;
            while left > 0 {
                self.check_stop()?;
                let most = usize::try_from(left).map_or(PIECE_BYTES, |n| n.min(PIECE_BYTES));
                let piece = self.piece(most, path)?;
                self.meter.during(Phase::Digest, || hash.update(&*piece));
                let length = piece.len() as u64;
                sink(at, piece)?;
                at += length;
                left -= length;
            }
        }
        self.fill(padding(listed.stored_bytes()), path)?;
        if listed.sha256.as_ref() != Some(&hex_of(hash)) {
            let what = "its content does not have the digest of the index";
            return Err(self.damaged(what, listed.offset, path));
        }
        Ok(map)
    }

    /// Reads where the data of a file with holes is.
    fn map(
        &mut self,
        listed: &IndexEntry,
        stored: u64,
        hash: &mut Sha256,
    ) -> Result<SparseMap, RestoreError> {
        let path = Some(listed.path.as_slice());
        let mut reader = MapReader::new(listed.size, stored);
        loop {
            self.fill(BLOCK_BYTES, path)?;
            let block = &self.block;
            self.meter.during(Phase::Digest, || hash.update(block));
            match reader.block(block) {
                Ok(Some(map)) => return Ok(map),
                Ok(None) => {}
                Err(what) => return Err(self.damaged(what, listed.offset, path)),
            }
        }
    }

    /// Passes over the content of the file that [`Self::next`] gave and gives it; none when it goes
    /// over members, or has holes. Its digest is not compared.
    pub(crate) fn whole(&mut self, listed: &IndexEntry) -> Option<Piece> {
        if listed.stored.is_some() {
            return None;
        }
        let size = usize::try_from(listed.size).ok()?;
        let length = size.checked_add(padding(listed.size))?;
        let padded = self.stream.inner.whole(length)?;
        self.stream.position += length as u64;
        Some(padded.first(size))
    }

    /// The next bytes of the stream, at least one and at most `most`.
    fn piece(&mut self, most: usize, path: Option<&[u8]>) -> Result<Piece, RestoreError> {
        let piece = self.stream.inner.piece(most);
        let piece = piece.and_then(|piece| piece.ok_or(io::ErrorKind::UnexpectedEof.into()));
        let piece = piece.map_err(|error| self.unread(error, path))?;
        self.stream.position += piece.len() as u64;
        Ok(piece)
    }

    /// Reads `length` bytes of the stream, no more than a block.
    fn fill(&mut self, length: usize, path: Option<&[u8]>) -> Result<(), RestoreError> {
        let read = self.stream.read_exact(&mut self.block[..length]);
        read.map_err(|error| self.unread(error, path))
    }

    fn end(&mut self) -> Result<(), RestoreError> {
        let at = self.stream.position;
        match self.stream.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged("data after the end of the tar stream", at, None)),
            Err(error) => Err(self.unread(error, None)),
        }
    }

    /// A stream that could not be read: damage with its place, or what storage says.
    fn unread(&self, error: io::Error, path: Option<&[u8]>) -> RestoreError {
        match Corrupt::in_io(&error) {
            Some(corrupt) => Corrupt::new(with_path(&corrupt.place, path), &*corrupt.what).into(),
            None if is_decoders(error.kind()) => {
                self.damaged("the tar stream ends inside it", self.stream.position, path)
            }
            None => RestoreError::Read(error),
        }
    }

    /// Damage at an offset of the tar stream.
    fn damaged(&self, what: &str, at: u64, path: Option<&[u8]>) -> RestoreError {
        let member = self.stream.inner.place();
        Corrupt::new(with_path(&format!("{member}tar offset {at}"), path), what).into()
    }

    fn check_stop(&self) -> Result<(), RestoreError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(RestoreError::Stopped);
        }
        Ok(())
    }
}

fn with_path(place: &str, path: Option<&[u8]>) -> String {
    match path {
        Some(path) => format!("{place}, \"{}\"", shown(path)),
        None => place.to_owned(),
    }
}

/// Whether the index tells of this entry.
fn is_same(entry: &Entry, listed: &IndexEntry, at: u64) -> bool {
    entry.path == listed.path
        && entry.kind == listed.kind
        && entry.size == listed.size
        && entry.stored == listed.stored
        && entry.link == listed.link.as_deref().unwrap_or_default()
        && listed.offset == at
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    position: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}
