//! Files with holes: what of a file holds data, as pax GNU.sparse 1.0 has it (source: GNU tar
//! manual, "PAX Format, Versions 0.0, 0.1 and 1.0").

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::entry::{BLOCK_BYTES, padding};

/// File systems tell of holes by their own blocks; data starts and ends at a multiple of this, but
/// for the end of the file.
const ALIGN_BYTES: u64 = 4 << 10;
/// Stretches of data that one file has at most: beyond that, its smallest holes are filled.
const MOST_SEGMENTS: usize = 32 << 10;

/// A stretch of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Segment {
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// Where a file holds data: between that there are holes, which read as zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// In order and apart from each other. Some are of nothing, as a map tells where a file ends.
    data: Vec<Segment>,
    /// Size of the file.
    size: u64,
}

impl SparseMap {
    /// Where an open file of this size holds data; none when it has no holes, or its file system does
    /// not tell of any, or `stop` says so. Moves the file's position.
    pub(crate) fn of(file: impl AsFd, size: u64, stop: &AtomicBool) -> Option<Self> {
        let mut map = Gathered::default();
        let mut at = 0;
        while at < size {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let start = match seek(&file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(_) => return None,
            };
            let end = seek(&file, SeekFrom::Hole(start)).ok()?;
            if start < at || end <= start {
                return None;
            }
            let offset = start - start % ALIGN_BYTES;
            let end = end.checked_next_multiple_of(ALIGN_BYTES)?.min(size);
            if offset < end {
                map.push(offset, end);
            }
            at = end;
        }
        let mut data = map.data;
        if data.last().is_none_or(|last| last.end() < size) {
            data.push(Segment {
                offset: size,
                length: 0,
            });
        }
        let map = Self { data, size };
        (map.hole_bytes() > 0).then_some(map)
    }

    /// The stretches of data, in order.
    pub(crate) fn data(&self) -> &[Segment] {
        &self.data
    }

    /// Size of the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn data_bytes(&self) -> u64 {
        self.data.iter().map(|segment| segment.length).sum()
    }

    /// Bytes of the holes.
    pub(crate) fn hole_bytes(&self) -> u64 {
        self.size.saturating_sub(self.data_bytes())
    }

    /// Bytes of the map and of all data, as the stream has them.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.encode().len() as u64 + self.data_bytes()
    }

    /// The map as it stands before the data: how many stretches, then start and length of each, a
    /// line for each number, filled up to whole blocks. A hole at the end is a stretch of nothing.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = format!("{}\n", self.data.len());
        for segment in &self.data {
            text.push_str(&format!("{}\n{}\n", segment.offset, segment.length));
        }
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len() + padding(bytes.len() as u64), 0);
        bytes
    }
}

/// Stretches of data that are found one after the other, with the smallest holes filled where there
/// are too many.
#[derive(Default)]
struct Gathered {
    data: Vec<Segment>,
    /// Holes up to this size are filled.
    filled: u64,
}

impl Gathered {
    fn push(&mut self, offset: u64, end: u64) {
        match self.data.last_mut() {
            Some(last) if offset <= last.end().saturating_add(self.filled) => {
                last.length = end.max(last.end()) - last.offset;
            }
            _ => self.data.push(Segment {
                offset,
                length: end - offset,
            }),
        }
        // One is left for the end of the file.
        while self.data.len() >= MOST_SEGMENTS {
            self.filled = (2 * self.filled).max(ALIGN_BYTES);
            for segment in std::mem::take(&mut self.data) {
                self.push(segment.offset, segment.end());
            }
        }
    }
}

/// Reads a map from the blocks before the data.
pub(crate) struct MapReader {
    size: u64,
    stored: u64,
    numbers: Vec<u64>,
    /// Digits of the number that goes on in the next block.
    digits: String,
    blocks: u64,
}

impl MapReader {
    /// For a file of this size, of which the stream has `stored` bytes.
    pub(crate) fn new(size: u64, stored: u64) -> Self {
        Self {
            size,
            stored,
            numbers: Vec::new(),
            digits: String::new(),
            blocks: 0,
        }
    }

    /// Takes the next block; gives the map once it is there.
    ///
    /// # Errors
    /// What is wrong with it, in words. Memory is bounded whatever the blocks hold.
    pub(crate) fn block(&mut self, block: &[u8]) -> Result<Option<SparseMap>, &'static str> {
        self.blocks += 1;
        let mut bytes = block.iter();
        while !self.is_complete()? {
            match bytes.next() {
                None => return Ok(None),
                Some(b'\n') => {
                    let number = self
                        .digits
                        .parse()
                        .map_err(|_| "a map of holes without numbers")?;
                    self.numbers.push(number);
                    self.digits.clear();
                }
                // In one way only, since a comparison writes the map again.
                Some(digit @ b'0'..=b'9') if self.digits.len() < 20 && self.digits != "0" => {
                    self.digits.push(char::from(*digit));
                }
                Some(_) => return Err("a map of holes that holds something else"),
            }
        }
        if bytes.any(|byte| *byte != 0) {
            return Err("a map of holes with something behind it");
        }
        self.map().map(Some)
    }

    fn is_complete(&self) -> Result<bool, &'static str> {
        let Some(count) = self.numbers.first() else {
            return Ok(false);
        };
        // Some writers tell one more, of a hole at the end.
        let count = usize::try_from(*count)
            .ok()
            .filter(|n| *n <= MOST_SEGMENTS + 1);
        let count = count.ok_or("a map of more holes than a writer tells of")?;
        Ok(self.numbers.len() == 1 + 2 * count)
    }

    fn map(&mut self) -> Result<SparseMap, &'static str> {
        let mut data = Vec::with_capacity(self.numbers.len() / 2);
        let mut end = 0_u64;
        let mut is_aligned = true;
        for pair in self.numbers[1..].chunks_exact(2) {
            let segment = Segment {
                offset: pair[0],
                length: pair[1],
            };
            // GNU tar tells where a file ends behind data too, and bsdtar of nothing before a hole.
            if segment.offset < end || !(is_aligned || segment.length == 0) {
                return Err("a map of holes that is out of order");
            }
            end = segment
                .offset
                .checked_add(segment.length)
                .ok_or("a map of holes beyond all sizes")?;
            // Data goes on where the last data ended, whatever stretches of nothing are between.
            is_aligned &= segment.length == 0 || end.is_multiple_of(BLOCK_BYTES as u64);
            data.push(segment);
        }
        let map = SparseMap {
            data,
            size: self.size,
        };
        let blocks = self.blocks * BLOCK_BYTES as u64;
        let data = map
            .data
            .iter()
            .try_fold(blocks, |sum, segment| sum.checked_add(segment.length));
        if end > self.size || data != Some(self.stored) {
            return Err("a map of holes that does not fit the file");
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    static GO: AtomicBool = AtomicBool::new(false);

    fn read(size: u64, stored: u64, bytes: &[u8]) -> Result<Option<SparseMap>, &'static str> {
        let mut reader = MapReader::new(size, stored);
        for block in bytes.chunks(BLOCK_BYTES) {
            if let Some(map) = reader.block(block)? {
                return Ok(Some(map));
            }
        }
        Ok(None)
    }

    fn maps() -> impl Strategy<Value = SparseMap> {
        let parts = prop::collection::vec((1..99_u64, 0..99_u64), 0..60);
        (parts, 0..99_u64, 0..512_u64, any::<bool>()).prop_map(|(parts, hole, cut, has_end)| {
            let mut data = Vec::new();
            let mut end = 0;
            for (hole, length) in parts {
                let offset = end + hole * 512;
                let length = length * 512;
                data.push(Segment { offset, length });
                end = offset + length;
            }
            if hole == 0
                && let Some(last) = data.last_mut()
            {
                let cut = cut.min(last.length);
                last.length -= cut;
                end -= cut;
            }
            let size = end + hole * 777;
            if has_end {
                data.push(Segment {
                    offset: size,
                    length: 0,
                });
            }
            SparseMap { data, size }
        })
    }

    proptest! {
        #[test]
        fn a_map_reads_back_as_written(map in maps()) {
            let bytes = map.encode();
            prop_assert!(bytes.len() % BLOCK_BYTES == 0);
            let back = read(map.size, map.stored_bytes(), &bytes);
            prop_assert_eq!(back, Ok(Some(map)));
        }

        #[test]
        fn no_bytes_make_a_map_that_does_not_fit_its_file(
            map in maps(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), 48..58_u8, Just(10)]), 0..4),
            size in prop_oneof![Just(None), any::<u64>().prop_map(Some)],
        ) {
            let mut bytes = map.encode();
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let size = size.unwrap_or(map.size);
            if let Ok(Some(read)) = read(size, map.stored_bytes(), &bytes) {
                let mut end = 0;
                for segment in read.data() {
                    prop_assert!(segment.offset >= end);
                    end = segment.end();
                }
                prop_assert!(end <= size);
            }
        }
    }

    #[test]
    fn a_map_of_more_than_a_writer_tells_of_is_refused_before_it_is_kept() {
        let mut block = [b'0'; BLOCK_BYTES];
        block[..7].copy_from_slice(b"999999\n");
        assert!(read(1 << 40, 1 << 30, &block).is_err());
        block[..3].copy_from_slice(b"-1\n");
        assert!(read(1 << 40, 1 << 30, &block).is_err());
        assert!(read(1 << 40, 1 << 30, &[b'1'; BLOCK_BYTES]).is_err());
    }

    #[test]
    fn a_number_in_another_form_is_refused() {
        for (text, is_refused) in [
            ("1\n0\n512\n", false),
            ("1\n00\n512\n", true),
            ("1\n0\n0512\n", true),
        ] {
            let mut block = text.as_bytes().to_vec();
            block.resize(BLOCK_BYTES, 0);
            assert_eq!(read(4096, 1024, &block).is_err(), is_refused, "{text}");
        }
    }

    #[test]
    fn a_map_out_of_order_is_refused() {
        let refused = |numbers: &[u64]| {
            let mut text = format!("{}\n", numbers.len() / 2);
            numbers
                .iter()
                .for_each(|n| text.push_str(&format!("{n}\n")));
            let mut block = text.into_bytes();
            block.resize(BLOCK_BYTES, 0);
            let data: u64 = numbers.chunks(2).map(|pair| pair[1]).sum();
            read(4096, 512 + data, &block).is_err()
        };
        assert!(!refused(&[0, 0, 512, 512, 2048, 100, 4096, 0]));
        for numbers in [
            &[512, 512, 0, 512][..],
            &[0, 1024, 512, 512],
            &[0, 100, 512, 512],
            &[0, 100, 512, 0, 1024, 5],
            &[512, 512, 100, 0],
            &[4096, 512],
            &[4097, 0],
        ] {
            assert!(refused(numbers), "{numbers:?}");
        }
    }

    #[test]
    fn too_many_holes_lose_the_smallest_ones() {
        let mut map = Gathered::default();
        let mut at = 0;
        for n in 0..3 * MOST_SEGMENTS as u64 {
            // Every hundredth hole is a large one.
            at += if n % 100 == 0 { 1 << 30 } else { 4096 };
            map.push(at, at + 4096);
            at += 4096;
        }
        assert!(map.data.len() < MOST_SEGMENTS);
        let large = map
            .data
            .windows(2)
            .filter(|two| two[1].offset - two[0].end() >= 1 << 30);
        assert_eq!(large.count() as u64, 3 * MOST_SEGMENTS as u64 / 100);
    }

    #[test]
    fn a_file_without_holes_has_no_map() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 70_000], 0).unwrap();
        assert_eq!(SparseMap::of(&file, 70_000, &GO), None);
        assert_eq!(SparseMap::of(&file, 0, &GO), None);
        assert!(SparseMap::of(File::open("/proc/self/stat").unwrap(), 100, &GO).is_none());
    }

    #[test]
    fn a_map_tells_of_the_hole_at_the_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let end = Segment {
            offset: 1 << 20,
            length: 0,
        };
        let map = SparseMap::of(&file, 1 << 20, &GO).unwrap();
        assert_eq!(map.data(), [end]);
        file.write_all_at(&[1; 70_000], 0).unwrap();
        let map = SparseMap::of(&file, 1 << 20, &GO).unwrap();
        let start = Segment {
            offset: 0,
            length: 73_728,
        };
        assert_eq!(map.data(), [start, end]);
        assert!(map.encode().starts_with(b"2\n0\n73728\n1048576\n0\n\0"));
    }

    #[test]
    fn a_stop_ends_the_search_for_holes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let stop = AtomicBool::new(true);
        assert_eq!(SparseMap::of(&file, 1 << 20, &stop), None);
    }
}
