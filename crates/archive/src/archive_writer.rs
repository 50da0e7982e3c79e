//! Archives written by one thread, for tests.

use std::io::{self, Write};

use crate::builder::{Builder, EntryEnd};
use crate::codec::Squeezer;
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
    pub(crate) fn new(archive: A, index: I) -> Self {
        Self {
            builder: Builder::default(),
            squeezer: Squeezer::for_members(),
            output: Output::new(archive, index),
        }
    }

    /// Starts an entry with its headers.
    pub(crate) fn begin(&mut self, entry: &Entry) -> io::Result<()> {
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
        if self.builder.is_full() {
            self.close_member()?;
        }
        Ok(())
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self) -> io::Result<Finished> {
        self.builder.zeros(END_BYTES as usize);
        self.close_member()?;
        self.output.finish()
    }

    fn close_member(&mut self) -> io::Result<()> {
        let (member, _) = Member::of(
            self.builder.take(),
            &mut self.squeezer,
            &mut Vec::new(),
            &Meter::default(),
        )?;
        self.output.write(member, &Meter::default())
    }
}
