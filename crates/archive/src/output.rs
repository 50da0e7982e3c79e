//! Archive and index, written side by side, member by member.

use std::io::{self, Write};

use crate::builder::Piece;
use crate::codec::Squeezer;
use crate::digest::{Hashing, sha256};
use crate::index::{IndexEnd, IndexEntry, IndexMember, IndexWriter};
use crate::meter::Meter;
use crate::profile::Phase;

/// A piece, ready to be written.
pub(crate) struct Member {
    bytes: Vec<u8>,
    sha256: String,
    tar_bytes: u64,
    entries: Vec<IndexEntry>,
}

impl Member {
    /// Compresses a piece, in its memory.
    pub(crate) fn of(piece: Piece, squeezer: &mut Squeezer, meter: &Meter) -> io::Result<Self> {
        let mut bytes = piece.tar;
        let tar_bytes = bytes.len() as u64;
        if tar_bytes > 0 {
            squeezer.squeeze(&mut bytes)?;
        }
        Ok(Self {
            sha256: meter.during(Phase::Digest, || sha256(&bytes)),
            bytes,
            tar_bytes,
            entries: piece.entries,
        })
    }
}

/// Sizes and digests of a finished archive and its index.
pub(crate) struct Finished {
    pub(crate) archive: (u64, String),
    pub(crate) index: (u64, String),
    pub(crate) end: IndexEnd,
}

/// Writes members in the order of the tar stream.
pub(crate) struct Output<A: Write, I: Write> {
    archive: Hashing<A>,
    index: IndexWriter<I>,
    /// Where the tar stream stands.
    tar_offset: u64,
    /// Where the run of entries that is being written starts in the tar stream.
    run_start: u64,
}

impl<A: Write, I: Write> Output<A, I> {
    pub(crate) fn new(archive: A, index: I) -> Self {
        Self {
            archive: Hashing::new(archive),
            index: IndexWriter::new(index),
            tar_offset: 0,
            run_start: 0,
        }
    }

    /// Starts a run of entries behind what is there.
    pub(crate) fn begin_run(&mut self) {
        self.run_start = self.tar_offset;
    }

    /// Appends a member, and gives its memory back; one of nothing is none.
    pub(crate) fn write(&mut self, member: Member, meter: &Meter) -> io::Result<Vec<u8>> {
        for mut entry in member.entries {
            entry.offset += self.run_start;
            self.index.entry(entry)?;
        }
        if member.bytes.is_empty() {
            return Ok(member.bytes);
        }
        let line = IndexMember {
            offset: self.archive.bytes(),
            size: member.bytes.len() as u64,
            tar_offset: self.tar_offset,
            tar_size: member.tar_bytes,
            sha256: member.sha256,
        };
        // The archive is digested as it is written.
        meter.during(Phase::Digest, || self.archive.write_all(&member.bytes))?;
        self.tar_offset += member.tar_bytes;
        self.index.member(line)?;
        Ok(member.bytes)
    }

    /// Ends both.
    pub(crate) fn finish(mut self) -> io::Result<Finished> {
        self.archive.flush()?;
        let (end, bytes, sha256) = self.index.finish()?;
        Ok(Finished {
            archive: self.archive.finish(),
            index: (bytes, sha256),
            end,
        })
    }
}
