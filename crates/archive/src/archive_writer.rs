//! Archives written by one thread, for tests.

use std::io::{self, Write};

use crate::builder::{Builder, EntryEnd};
use crate::codec::{Codec, Squeezer};
use crate::entry::{END_BYTES, Entry};
use crate::meter::Meter;
use crate::output::{Finished, Member, Output};

/// Writes entries to an archive and what is where to its index.
pub(crate) struct ArchiveWriter<A: Write, I: Write> {
    builder: Builder,
    squeezer: Squeezer,
    output: Output<A, I>,
}

impl<A: Write, I: Write> ArchiveWriter<A, I> {
    pub(crate) fn new(codec: Codec, archive: A, index: I) -> Self {
        Self {
            builder: Builder::new(codec.piece_size()),
            squeezer: Squeezer::for_members(codec).unwrap(),
            output: Output::new(archive, index),
        }
    }

    /// Starts an entry with its headers.
    pub(crate) fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        if !self.builder.has_room_for(entry) {
            self.close_member()?;
        }
        self.builder.begin(entry);
        Ok(())
    }

    /// Appends content of the current entry.
    pub(crate) fn content(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.builder.room().min(bytes.len()));
            self.builder.append(now);
            bytes = later;
            if self.builder.room() == 0 {
                self.close_member()?;
            }
        }
        Ok(())
    }

    /// Ends the current entry.
    pub(crate) fn end(&mut self, entry: Entry, end: EntryEnd) -> io::Result<()> {
        self.builder.end(entry, end);
        Ok(())
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self) -> io::Result<Finished> {
        self.builder.zeros(END_BYTES as usize);
        self.close_member()?;
        self.output.finish()
    }

    fn close_member(&mut self) -> io::Result<()> {
        let meter = Meter::default();
        let member = Member::of(self.builder.take(), &mut self.squeezer, &meter)?;
        self.output.write(member, &meter).map(drop)
    }
}
