//! The tar stream as a row of independent members.

use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::ahead::{Loaded, Members};
use crate::codec::Codec;
use crate::digest::sha256;
use crate::error::Corrupt;
use crate::index::IndexMember;
use crate::meter::Meter;
use crate::profile::Phase;

/// Readers take members of up to this much, so that memory stays bounded.
pub(crate) const MAX_MEMBER_BYTES: u64 = 8 << 20;
/// What a member may take beyond its content: header, trailer, headers of what is stored.
pub(crate) const MAX_MEMBER_OVERHEAD_BYTES: u64 = 64 << 10;

/// Reads the compressed bytes of `member`, which come next in `archive`.
pub(crate) fn fetch(
    archive: &mut impl Read,
    member: &IndexMember,
    compressed: &mut Vec<u8>,
) -> io::Result<()> {
    check_size(member).map_err(Corrupt::into_io)?;
    compressed.clear();
    archive.take(member.size).read_to_end(compressed)?;
    if compressed.len() as u64 == member.size {
        return Ok(());
    }
    Err(Corrupt::new(place_of(member), "the archive ends inside it").into_io())
}

/// What `member` holds, whose bytes in the archive are `compressed`.
///
/// # Guarantees
/// It is compared with its digest before it is decompressed, and gives exactly the bytes that the
/// index promises, so no archive can make it hold more than one member.
pub(crate) fn load(
    codec: Codec,
    member: &IndexMember,
    compressed: &[u8],
    meter: &Meter,
) -> io::Result<Vec<u8>> {
    let fault = |what: &str| Corrupt::new(place_of(member), what).into_io();
    if meter.during(Phase::Digest, || sha256(compressed)) != member.sha256 {
        return Err(fault("its bytes are not those that were written"));
    }
    // Its size is bounded by what was checked when it was read.
    let size = usize::try_from(member.tar_size).unwrap_or(0);
    codec.expand(compressed, size).map_err(|what| fault(&what))
}

/// Bytes of the tar stream that stand in one member, which stays in memory as long as they do.
#[derive(Clone)]
pub(crate) struct Piece {
    loaded: Arc<Loaded>,
    range: Range<usize>,
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.loaded.content[self.range.clone()]
    }
}

impl Piece {
    pub(crate) fn new(loaded: Arc<Loaded>, range: Range<usize>) -> Self {
        Self { loaded, range }
    }

    /// The first `length` of them, or all when there are no more.
    pub(crate) fn first(self, length: usize) -> Self {
        let end = self.range.end.min(self.range.start.saturating_add(length));
        let range = self.range.start..end;
        Self { range, ..self }
    }

    /// Where their member stands, for a message.
    pub(crate) fn place(&self) -> String {
        place_of(&self.loaded.member)
    }

    pub(crate) fn is_of_one_member_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.loaded, &other.loaded)
    }
}

/// Reads the tar stream of an archive, member by member as its index has them.
pub(crate) struct MemberReader<'m> {
    members: &'m dyn Members,
    loaded: Option<Arc<Loaded>>,
    read: usize,
}

impl<'m> MemberReader<'m> {
    pub(crate) fn new(members: &'m dyn Members) -> Self {
        Self {
            members,
            loaded: None,
            read: 0,
        }
    }

    /// Where the member that is being read stands, with a comma behind; empty before the first.
    pub(crate) fn place(&self) -> String {
        let place = self.loaded.as_ref().map(|loaded| place_of(&loaded.member));
        place.map_or_else(String::new, |place| format!("{place}, "))
    }

    /// Passes over `length` bytes and gives them, when all of them are in the member that is being
    /// read.
    pub(crate) fn whole(&mut self, length: usize) -> Option<Piece> {
        let loaded = self.loaded.as_ref()?;
        if loaded.content.len() - self.read < length {
            return None;
        }
        Some(self.pass(loaded.clone(), length))
    }

    /// Passes over at least one byte and at most `most`, and gives them; none at the end.
    pub(crate) fn piece(&mut self, most: usize) -> io::Result<Option<Piece>> {
        while self.read == self.content().len() {
            let Some(loaded) = self.members.next()? else {
                return Ok(None);
            };
            self.loaded = Some(loaded);
            self.read = 0;
        }
        let length = most.min(self.content().len() - self.read);
        let loaded = self.loaded.clone();
        Ok(loaded.map(|loaded| self.pass(loaded, length)))
    }

    fn pass(&mut self, loaded: Arc<Loaded>, length: usize) -> Piece {
        let start = self.read;
        self.read += length;
        Piece::new(loaded, start..self.read)
    }

    /// Goes on at an offset of the tar stream that is not before where it stands.
    pub(crate) fn go_to(&mut self, tar_offset: u64) -> io::Result<()> {
        loop {
            if let Some(loaded) = &self.loaded {
                let inside = tar_offset.checked_sub(loaded.member.tar_offset);
                let inside = inside.and_then(|inside| usize::try_from(inside).ok());
                if let Some(inside) = inside.filter(|at| *at < loaded.content.len()) {
                    self.read = inside;
                    return Ok(());
                }
            }
            let next = self
                .members
                .next()?
                .filter(|next| next.member.tar_offset <= tar_offset);
            let Some(next) = next else {
                let place = format!("tar offset {tar_offset}");
                return Err(Corrupt::new(place, "no member of the index holds it").into_io());
            };
            self.loaded = Some(next);
            self.read = 0;
        }
    }

    fn content(&self) -> &[u8] {
        self.loaded.as_ref().map_or(&[], |loaded| &loaded.content)
    }
}

impl Read for MemberReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.piece(buffer.len())? else {
            return Ok(0);
        };
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
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
