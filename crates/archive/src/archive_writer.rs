//! Archive and index, written side by side.

use std::io::{self, Write};

use crate::entry::{END_BYTES, Entry, EntryKind, padding};
use crate::index::{IndexEnd, IndexEntry, IndexWriter};
use crate::member::MemberWriter;

/// Zeros to pad with.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes entries to an archive and what is where to its index.
pub(crate) struct ArchiveWriter<A: Write, I: Write> {
    members: MemberWriter<A>,
    index: IndexWriter<I>,
    /// Where the current entry starts in the tar stream.
    start: u64,
}

/// What the index tells of an entry once its content is written.
#[derive(Default)]
pub(crate) struct EntryEnd {
    pub(crate) sha256: Option<String>,
    pub(crate) superseded: bool,
    pub(crate) torn: bool,
}

/// Sizes and digests of a finished archive and its index.
pub(crate) struct Finished {
    pub(crate) archive: (u64, String),
    pub(crate) index: (u64, String),
    pub(crate) end: IndexEnd,
}

impl<A: Write, I: Write> ArchiveWriter<A, I> {
    pub(crate) fn new(archive: A, index: I) -> Self {
        Self {
            members: MemberWriter::new(archive),
            index: IndexWriter::new(index),
            start: 0,
        }
    }

    /// Starts an entry with its headers.
    pub(crate) fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        self.start = self.members.position();
        self.members.write(&entry.encode(), &mut self.index)
    }

    /// Appends content of the current entry.
    pub(crate) fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.members.write(bytes, &mut self.index)
    }

    /// Appends zeros to the content of the current entry.
    pub(crate) fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let now = usize::try_from(count).map_or(ZEROS.len(), |n| n.min(ZEROS.len()));
            self.content(&ZEROS[..now])?;
            count -= now as u64;
        }
        Ok(())
    }

    /// Ends the current entry.
    pub(crate) fn end(&mut self, entry: Entry, end: EntryEnd) -> io::Result<()> {
        self.content(&ZEROS[..padding(entry.size)])?;
        let has_link = matches!(entry.kind, EntryKind::Symlink | EntryKind::HardLink);
        self.index.entry(IndexEntry {
            path: entry.path,
            kind: entry.kind,
            size: entry.size,
            sha256: end.sha256,
            link: has_link.then_some(entry.link),
            offset: self.start,
            length: self.members.position() - self.start,
            superseded: end.superseded,
            torn: end.torn,
        })?;
        self.members.entry_end(&mut self.index)
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self) -> io::Result<Finished> {
        self.zeros(END_BYTES)?;
        let archive = self.members.finish(&mut self.index)?;
        let (end, bytes, sha256) = self.index.finish()?;
        Ok(Finished {
            archive,
            index: (bytes, sha256),
            end,
        })
    }
}
