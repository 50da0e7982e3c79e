//! Which members of an archive hold what a restore takes.

use std::collections::VecDeque;
use std::io::{self, Read};

use crate::index::{IndexEntry, IndexMember};

/// The stored archive, as a restore reads it.
pub trait Archive: Read {
    /// Passes over the next `bytes`, best without reading them.
    fn pass(&mut self, bytes: u64) -> io::Result<()>;
}

impl Archive for &[u8] {
    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        *self = self.get(bytes..).unwrap_or_default();
        Ok(())
    }
}

/// An archive that is read from its start to its end.
pub(crate) struct Whole<R>(pub(crate) R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Archive for Whole<R> {
    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        io::copy(&mut (&mut self.0).take(bytes), &mut io::sink()).map(drop)
    }
}

/// The members that are needed, by their number: all of them, unless some are marked.
#[derive(Debug, Default)]
pub(crate) struct Needed(Option<Vec<u64>>);

impl Needed {
    pub(crate) fn is_all(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn has(&self, member: u64) -> bool {
        let Some(marks) = &self.0 else {
            return true;
        };
        let place = usize::try_from(member / 64).ok();
        let word = place.and_then(|place| marks.get(place));
        word.is_some_and(|word| word >> (member % 64) & 1 == 1)
    }

    fn mark(&mut self, member: u64) {
        let (Some(marks), Ok(place)) = (&mut self.0, usize::try_from(member / 64)) else {
            return;
        };
        if marks.len() <= place {
            marks.resize(place + 1, 0);
        }
        marks[place] |= 1 << (member % 64);
    }
}

/// Finds the members that are needed, in one pass over the lines of an index.
///
/// # Guarantees
/// Memory is bounded by some bytes for each member of one file.
///
/// # Assumptions
/// The index was checked. Where its lines come in another order than a writer gives them, members
/// may be marked that are not needed.
#[derive(Default)]
pub(crate) struct Marker {
    needed: Needed,
    members: u64,
    /// Where the entries so far, and those of them that are taken, end in the tar stream.
    entries_end: u64,
    taken_end: u64,
    /// Members that end inside the entry that comes next: number and end.
    undecided: VecDeque<(u64, u64)>,
}

impl Marker {
    pub(crate) fn new() -> Self {
        Self {
            needed: Needed(Some(Vec::new())),
            ..Self::default()
        }
    }

    pub(crate) fn entry(&mut self, entry: &IndexEntry, taken: bool) {
        let end = entry.offset.saturating_add(entry.length);
        while let Some((member, member_end)) = self.undecided.front().copied() {
            if taken && member_end > entry.offset {
                self.needed.mark(member);
            }
            if member_end > end {
                break;
            }
            self.undecided.pop_front();
        }
        self.entries_end = end;
        if taken {
            self.taken_end = end;
        }
    }

    pub(crate) fn member(&mut self, member: &IndexMember) {
        let number = self.members;
        self.members += 1;
        let end = member.tar_offset.saturating_add(member.tar_size);
        if self.taken_end > member.tar_offset {
            self.needed.mark(number);
        }
        if self.entries_end < end {
            self.undecided.push_back((number, end));
        }
    }

    pub(crate) fn finish(self) -> Needed {
        self.needed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::EntryKind;

    fn entry(offset: u64, length: u64) -> IndexEntry {
        IndexEntry {
            path: b"f".to_vec(),
            kind: EntryKind::File,
            size: 0,
            stored: None,
            sha256: None,
            link: None,
            offset,
            length,
            superseded: false,
            torn: false,
        }
    }

    fn member(tar_offset: u64, tar_size: u64) -> IndexMember {
        IndexMember {
            offset: 0,
            size: 0,
            tar_offset,
            tar_size,
            sha256: String::new(),
        }
    }

    proptest! {
        /// Entries and members of any length, in the order in which a writer tells them.
        #[test]
        fn exactly_the_members_that_hold_something_of_it_are_needed(
            entries in prop::collection::vec((1..9_u64, any::<bool>()), 1..40),
            sizes in prop::collection::vec(1..9_u64, 40),
        ) {
            let total: u64 = entries.iter().map(|(length, _)| length).sum();
            let mut members = Vec::new();
            let mut at = 0;
            for size in sizes.iter().cycle() {
                if at >= total {
                    break;
                }
                members.push((at, *size));
                at += size;
            }
            let mut marker = Marker::new();
            let mut told = members.iter().peekable();
            let mut offset = 0;
            for (length, taken) in &entries {
                while let Some((start, size)) = told.next_if(|(start, size)| start + size < offset + length) {
                    marker.member(&member(*start, *size));
                }
                marker.entry(&entry(offset, *length), *taken);
                offset += length;
            }
            for (start, size) in told {
                marker.member(&member(*start, *size));
            }
            let needed = marker.finish();
            for (number, (start, size)) in members.iter().enumerate() {
                let mut offset = 0;
                let mut holds = false;
                for (length, taken) in &entries {
                    holds |= *taken && offset < start + size && *start < offset + length;
                    offset += length;
                }
                prop_assert_eq!(needed.has(number as u64), holds, "member {}", number);
            }
        }
    }
}
