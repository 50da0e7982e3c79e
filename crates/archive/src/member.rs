//! The tar stream as a row of independent gzip members.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::digest::{Hashing, sha256};
use crate::error::Corrupt;
use crate::index::{IndexMember, IndexReader, IndexWriter};

/// A member is closed at the end of an entry once it holds this much of the tar stream.
const TARGET_BYTES: usize = 1 << 20;
/// A member is closed inside an entry when it holds this much.
const LARGEST_WRITTEN_BYTES: usize = 2 << 20;
/// Readers take members of up to this much, so that memory stays bounded.
pub(crate) const MAX_MEMBER_BYTES: u64 = 8 << 20;
/// What a gzip member may take beyond its content: header, trailer, stored-block headers.
pub(crate) const MAX_MEMBER_OVERHEAD_BYTES: u64 = 64 << 10;

/// Cuts a tar stream into gzip members and notes each in the index.
pub(crate) struct MemberWriter<W: Write> {
    out: Hashing<W>,
    /// Tar bytes of the member that is being filled.
    pending: Vec<u8>,
    /// Where `pending` starts in the tar stream.
    tar_offset: u64,
    compressed: Vec<u8>,
}

impl<W: Write> MemberWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out: Hashing::new(out),
            pending: Vec::with_capacity(LARGEST_WRITTEN_BYTES),
            tar_offset: 0,
            compressed: Vec::new(),
        }
    }

    /// Where the tar stream stands.
    pub(crate) fn position(&self) -> u64 {
        self.tar_offset + self.pending.len() as u64
    }

    /// Appends to the tar stream.
    pub(crate) fn write<I: Write>(
        &mut self,
        mut bytes: &[u8],
        index: &mut IndexWriter<I>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = LARGEST_WRITTEN_BYTES - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == LARGEST_WRITTEN_BYTES {
                self.close_member(index)?;
            }
        }
        Ok(())
    }

    /// Tells that an entry ends here: a good place for a member to end.
    pub(crate) fn entry_end<I: Write>(&mut self, index: &mut IndexWriter<I>) -> io::Result<()> {
        if self.pending.len() >= TARGET_BYTES {
            self.close_member(index)?;
        }
        Ok(())
    }

    /// Closes the last member; gives size and digest of the archive.
    pub(crate) fn finish<I: Write>(
        mut self,
        index: &mut IndexWriter<I>,
    ) -> io::Result<(u64, String)> {
        if !self.pending.is_empty() {
            self.close_member(index)?;
        }
        self.out.flush()?;
        Ok(self.out.finish())
    }

    fn close_member<I: Write>(&mut self, index: &mut IndexWriter<I>) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.compressed);
        buffer.clear();
        let mut gzip = GzEncoder::new(buffer, Compression::default());
        gzip.write_all(&self.pending)?;
        self.compressed = gzip.finish()?;
        let member = IndexMember {
            offset: self.out.bytes(),
            size: self.compressed.len() as u64,
            tar_offset: self.tar_offset,
            tar_size: self.pending.len() as u64,
            sha256: sha256(&self.compressed),
        };
        self.out.write_all(&self.compressed)?;
        self.tar_offset += member.tar_size;
        self.pending.clear();
        index.member(member)
    }
}

/// Reads the tar stream of an archive, member by member as its index has them.
///
/// # Guarantees
/// Every member is compared with its digest before it is decompressed, and gives exactly the
/// bytes that the index promises, so no archive can make it hold more than one member.
pub(crate) struct MemberReader<A: Read, I: Read> {
    archive: A,
    index: IndexReader<I>,
    compressed: Vec<u8>,
    content: Vec<u8>,
    read: usize,
    /// The member that was loaded last.
    member: Option<IndexMember>,
}

impl<A: Read, I: Read> MemberReader<A, I> {
    pub(crate) fn new(archive: A, index: IndexReader<I>) -> Self {
        Self {
            archive,
            index,
            compressed: Vec::new(),
            content: Vec::new(),
            read: 0,
            member: None,
        }
    }

    /// Where the member that is being read stands, with a comma behind; empty before the first.
    pub(crate) fn place(&self) -> String {
        let place = self.member.as_ref().map(place_of);
        place.map_or_else(String::new, |place| format!("{place}, "))
    }

    fn load(&mut self, member: &IndexMember) -> io::Result<()> {
        check_size(member).map_err(Corrupt::into_io)?;
        let fault = |what: &str| Corrupt::new(place_of(member), what).into_io();
        self.compressed.clear();
        (&mut self.archive)
            .take(member.size)
            .read_to_end(&mut self.compressed)?;
        if self.compressed.len() as u64 != member.size {
            return Err(fault("the archive ends inside it"));
        }
        if sha256(&self.compressed) != member.sha256 {
            return Err(fault("its bytes are not those that were written"));
        }
        self.content.clear();
        self.read = 0;
        let mut gzip = GzDecoder::new(&self.compressed[..]);
        (&mut gzip)
            .take(member.tar_size + 1)
            .read_to_end(&mut self.content)
            .map_err(|e| fault(&format!("it does not decompress: {e}")))?;
        if self.content.len() as u64 != member.tar_size || !gzip.into_inner().is_empty() {
            return Err(fault("it holds more or less than the index says"));
        }
        Ok(())
    }
}

impl<A: Read, I: Read> Read for MemberReader<A, I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.content.len() {
            let Some(member) = self.index.next_member()? else {
                return Ok(0);
            };
            self.load(&member)?;
            self.member = Some(member);
        }
        let length = buffer.len().min(self.content.len() - self.read);
        buffer[..length].copy_from_slice(&self.content[self.read..self.read + length]);
        self.read += length;
        Ok(length)
    }
}

/// Where a member stands, for a message.
pub(crate) fn place_of(member: &IndexMember) -> String {
    format!(
        "archive bytes {}..{} (tar offset {})",
        member.offset,
        member.offset.saturating_add(member.size),
        member.tar_offset
    )
}

/// Refuses members larger than any writer makes them.
pub(crate) fn check_size(member: &IndexMember) -> Result<(), Corrupt> {
    if member.tar_size > MAX_MEMBER_BYTES
        || member.size > MAX_MEMBER_BYTES + MAX_MEMBER_OVERHEAD_BYTES
    {
        return Err(Corrupt::new(
            place_of(member),
            format!("a member of over {MAX_MEMBER_BYTES} bytes"),
        ));
    }
    Ok(())
}
