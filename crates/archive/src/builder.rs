//! The tar stream of a run of entries, cut into what becomes a member each.

use std::fs::File;
use std::io::{self, Read};
use std::mem;

use crate::codec::PieceSize;
use crate::entry::{Entry, EntryKind, padding};
use crate::index::IndexEntry;

/// Files up to this size are read whole, and written once they held still.
pub(crate) const SMALL_BYTES: u64 = 512 << 10;
/// What headers take beyond path, link target and attributes, and padding behind the content.
const MOST_HEADER_BYTES: usize = 3 << 10;
/// The same for one attribute.
const MOST_XATTR_BYTES: usize = 64;

/// What the index tells of an entry once its content is there.
#[derive(Default)]
pub(crate) struct EntryEnd {
    pub(crate) sha256: Option<String>,
    pub(crate) superseded: bool,
    pub(crate) torn: bool,
}

/// A stretch of the tar stream, and the entries that end in it.
#[derive(Default)]
pub(crate) struct Piece {
    pub(crate) tar: Vec<u8>,
    /// Their offsets count from where the run of entries starts.
    pub(crate) entries: Vec<IndexEntry>,
}

/// Writes the entries of one run one after the other.
pub(crate) struct Builder {
    size: PieceSize,
    piece: Piece,
    /// Where the piece starts in the run.
    offset: u64,
    /// Where the current entry starts in the run.
    start: u64,
}

impl Builder {
    pub(crate) fn new(size: PieceSize) -> Self {
        Self {
            size,
            piece: Piece::default(),
            offset: 0,
            start: 0,
        }
    }

    /// Begins a run, with the memory of `buffer`.
    pub(crate) fn begin_run(&mut self, buffer: Vec<u8>) {
        *self = Self::new(self.size);
        self.refill(buffer);
    }

    /// Gives the piece its memory after [`Self::take`].
    pub(crate) fn refill(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        buffer.reserve(self.size.largest_bytes + MOST_HEADER_BYTES);
        self.piece.tar = buffer;
    }

    /// Takes what there is so far; the run goes on behind it.
    pub(crate) fn take(&mut self) -> Piece {
        self.offset += self.piece.tar.len() as u64;
        mem::take(&mut self.piece)
    }

    /// Whether an entry may begin in this piece: its headers fit, and its content too when that is
    /// read whole. In a piece of its own any may.
    pub(crate) fn has_room_for(&self, entry: &Entry) -> bool {
        let xattrs = entry.xattrs.iter();
        // A byte of a name may be written as three.
        let xattrs = xattrs.map(|(name, value)| 3 * name.len() + value.len() + MOST_XATTR_BYTES);
        let content = match entry.size {
            size @ 0..=SMALL_BYTES => usize::try_from(size).unwrap_or(0),
            _ => 0,
        };
        let names = entry.path.len() + entry.link.len();
        let needed = MOST_HEADER_BYTES + names + xattrs.sum::<usize>() + content;
        self.piece.tar.is_empty() || needed <= self.room()
    }

    /// How many more bytes the piece holds inside an entry.
    pub(crate) fn room(&self) -> usize {
        self.size.largest_bytes.saturating_sub(self.piece.tar.len())
    }

    fn position(&self) -> u64 {
        self.offset + self.piece.tar.len() as u64
    }

    /// Starts an entry with its headers.
    pub(crate) fn begin(&mut self, entry: &Entry) {
        self.start = self.position();
        self.piece.tar.extend_from_slice(&entry.encode());
    }

    /// Takes back the current entry, which has begun in this piece.
    pub(crate) fn undo(&mut self) {
        let start = usize::try_from(self.start - self.offset);
        self.piece.tar.truncate(start.unwrap_or_default());
    }

    /// Writes the headers of the current entry, which has begun in this piece, once more.
    pub(crate) fn correct(&mut self, entry: &Entry) {
        let start = usize::try_from(self.start - self.offset).unwrap_or_default();
        let content = usize::try_from(entry.stored_bytes()).unwrap_or_default();
        let end = self.piece.tar.len().saturating_sub(content).max(start);
        self.piece.tar.splice(start..end, entry.encode());
    }

    /// Appends to the content of the current entry.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.piece.tar.extend_from_slice(bytes);
    }

    /// Appends what `file` gives, at most `limit` bytes; gives what came. Fewer than `enough` mean
    /// that the file has ended.
    pub(crate) fn read(
        &mut self,
        mut file: &File,
        enough: usize,
        limit: usize,
    ) -> io::Result<&[u8]> {
        let before = self.piece.tar.len();
        self.piece.tar.resize(before + limit, 0);
        let mut end = before;
        while end < before + enough {
            match file.read(&mut self.piece.tar[end..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(0) => break,
                Ok(read) => end += read,
            }
        }
        self.piece.tar.truncate(end);
        Ok(&self.piece.tar[before..])
    }

    /// Appends zeros to the content of the current entry; gives them.
    pub(crate) fn zeros(&mut self, count: usize) -> &[u8] {
        let before = self.piece.tar.len();
        self.piece.tar.resize(before + count, 0);
        &self.piece.tar[before..]
    }

    /// Ends the current entry.
    pub(crate) fn end(&mut self, entry: Entry, end: EntryEnd) {
        self.zeros(padding(entry.stored_bytes()));
        let has_link = matches!(entry.kind, EntryKind::Symlink | EntryKind::HardLink);
        self.piece.entries.push(IndexEntry {
            path: entry.path,
            kind: entry.kind,
            size: entry.size,
            stored: entry.stored,
            sha256: end.sha256,
            link: has_link.then_some(entry.link),
            offset: self.start,
            length: self.position() - self.start,
            superseded: end.superseded,
            torn: end.torn,
        });
    }
}
