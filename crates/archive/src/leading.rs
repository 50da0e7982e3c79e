//! The headers before an entry's own, and what they tell of it.

use std::io::Read;

use tar::{EntryType, Header};

use crate::entry::{EntryError, MAX_PATH_BYTES, corrupt, number, padding, read_header};
use crate::pax::PaxRecords;
use crate::xattr::MAX_XATTR_BYTES;

/// Longest extended header: path, link target, extended attributes and their keys.
const MAX_PAX_BYTES: usize = 2 * MAX_PATH_BYTES + 2 * MAX_XATTR_BYTES;
/// Longest of the others: a path and a NUL.
const MAX_NAME_BYTES: usize = MAX_PATH_BYTES + 1;

/// What stands before an entry's own header, each at most once: so memory is bounded whatever the
/// stream holds.
#[derive(Default)]
struct Leading {
    records: Option<PaxRecords>,
    /// A path and a link target of over 100 bytes, as GNU tar's own format has them.
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    has_global: bool,
}

/// Reads an entry's own header, and what those before it tell; none at the end of the stream.
pub(crate) fn read_headers(
    stream: &mut impl Read,
    at: u64,
) -> Result<Option<(Header, PaxRecords)>, EntryError> {
    let Some(mut header) = read_header(stream, at)? else {
        return Ok(None);
    };
    let mut leading = Leading::default();
    while leading.take(&header, stream, at)? {
        header = read_header(stream, at)?
            .ok_or_else(|| corrupt(at, "an extended header without its entry"))?;
    }
    let mut records = leading.records.unwrap_or_default();
    if (leading.path.is_some() && records.path.is_some())
        || (leading.link.is_some() && records.link.is_some())
    {
        return Err(corrupt(at, "a name in two forms"));
    }
    records.path = records.path.or(leading.path);
    records.link = records.link.or(leading.link);
    Ok(Some((header, records)))
}

impl Leading {
    /// Takes a header, and what follows it, where it stands before an entry's own; false when it is
    /// that one.
    fn take(
        &mut self,
        header: &Header,
        stream: &mut impl Read,
        at: u64,
    ) -> Result<bool, EntryError> {
        let kind = header.entry_type();
        let is_there = match kind {
            EntryType::XHeader => self.records.is_some(),
            EntryType::XGlobalHeader => self.has_global,
            EntryType::GNULongName => self.path.is_some(),
            EntryType::GNULongLink => self.link.is_some(),
            _ => return Ok(false),
        };
        if is_there {
            return Err(corrupt(at, "two extended headers of one kind"));
        }
        let content = content(header, stream, at)?;
        let records =
            |content: &[u8]| PaxRecords::decode(content).map_err(|what| corrupt(at, &what));
        let name = |content: &[u8]| content.strip_suffix(b"\0").unwrap_or(content).to_vec();
        match kind {
            EntryType::XHeader => self.records = Some(records(&content)?),
            EntryType::GNULongName => self.path = Some(name(&content)),
            EntryType::GNULongLink => self.link = Some(name(&content)),
            // It changes all entries behind it, which can be read without it here.
            _ if records(&content)? != PaxRecords::default() => {
                let what = "a global extended header with more than a comment; an archive must be \
                            written without it";
                return Err(corrupt(at, what));
            }
            _ => self.has_global = true,
        }
        Ok(true)
    }
}

/// What follows an extended header.
fn content(header: &Header, stream: &mut impl Read, at: u64) -> Result<Vec<u8>, EntryError> {
    let most = match header.entry_type() {
        EntryType::XHeader => MAX_PAX_BYTES,
        _ => MAX_NAME_BYTES,
    };
    let length = number(&header.as_old().size)
        .and_then(|size| usize::try_from(size).ok())
        .filter(|length| *length <= most)
        .ok_or_else(|| corrupt(at, "an extended header of impossible size"))?;
    let mut content = vec![0; length + padding(length as u64)];
    stream.read_exact(&mut content)?;
    content.truncate(length);
    Ok(content)
}
