//! One entry of the tar stream: its header as bytes, and back.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::error::Corrupt;
use crate::leading::read_headers;
use crate::meta::Time;
use crate::pax::{PaxRecords, is_id};
use crate::xattr::Xattrs;

/// Tar counts in blocks.
pub(crate) const BLOCK_BYTES: usize = 512;
/// The end of a tar stream: two blocks of zeros.
pub(crate) const END_BYTES: u64 = 2 * BLOCK_BYTES as u64;
/// Longest path; deeper ones cannot be archived.
pub(crate) const MAX_PATH_BYTES: usize = 1 << 20;
/// Longest name of one path component (source: linux/limits.h).
pub(crate) const MAX_NAME_BYTES: usize = 255;
/// Largest number that a header's octal fields for owner and group hold.
const MAX_OCTAL_ID: u32 = 0o7_777_777;
/// Largest number that a header's octal fields for size and time hold.
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;
/// Name of a file with holes in its header; its own stands in the extended one.
const SPARSE_NAME: &[u8] = b"./GNUSparseFile.0/file";
/// Said of a path in another form.
const NO_DOT: &str = "a path that does not start with \"./\", as `tar -C <directory> .` writes it";
/// Bytes of a header's fields for path and link target.
const NAME_FIELD_BYTES: usize = 100;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the root, without a final slash; `.` for the root itself.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// Bytes of content; only files have any.
    pub(crate) size: u64,
    /// Of a file with holes: bytes of its map and its data, which follow instead of all content.
    pub(crate) stored: Option<u64>,
    /// Target of a link.
    pub(crate) link: Vec<u8>,
    /// Major and minor number of a device node.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Xattrs,
}

/// Bytes of zeros that fill the last block of `size` bytes.
pub(crate) fn padding(size: u64) -> usize {
    let block = BLOCK_BYTES as u64;
    // Below one block, so it fits.
    usize::try_from((block - size % block) % block).unwrap_or(0)
}

impl Entry {
    /// Bytes that follow the headers.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored.unwrap_or(self.size)
    }

    /// The header blocks: an extended header where one is needed, then the header itself.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let own_name = stored_name(&self.path, self.kind == EntryKind::Directory);
        let (name, sparse) = match self.stored {
            // A reader that does not know of holes must not take this for the file.
            Some(_) => (SPARSE_NAME.to_vec(), Some((own_name, self.size))),
            None => (own_name, None),
        };
        let link = match self.kind {
            EntryKind::HardLink => stored_name(&self.link, false),
            _ => self.link.clone(),
        };
        let long = |value: &[u8]| (value.len() > NAME_FIELD_BYTES).then(|| value.to_vec());
        let whole_seconds = self.mtime.nanoseconds == 0
            && u64::try_from(self.mtime.seconds).is_ok_and(|s| s <= MAX_OCTAL_SIZE);
        let records = PaxRecords {
            path: long(&name),
            link: long(&link),
            size: (self.stored_bytes() > MAX_OCTAL_SIZE).then(|| self.stored_bytes()),
            sparse,
            uid: (self.uid > MAX_OCTAL_ID).then_some(self.uid),
            gid: (self.gid > MAX_OCTAL_ID).then_some(self.gid),
            mtime: (!whole_seconds).then_some(self.mtime),
            xattrs: self.xattrs.clone(),
            permissions: None,
        }
        .encode();
        let mut out = Vec::new();
        if !records.is_empty() {
            let size = records.len() as u64;
            let mut header = plain_header(b"./PaxHeaders/entry", EntryType::XHeader, size);
            header.set_cksum();
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(&records);
            out.resize(out.len() + padding(size), 0);
        }
        out.extend_from_slice(self.header(&name, &link).as_bytes());
        out
    }

    fn header(&self, name: &[u8], link: &[u8]) -> Header {
        let mut header = plain_header(name, self.kind.tar_type(), self.stored_bytes());
        copy_cut(&mut header.as_old_mut().linkname, link);
        header.set_mode(self.mode);
        header.set_uid(self.uid.into());
        header.set_gid(self.gid.into());
        header.set_mtime(u64::try_from(self.mtime.seconds).unwrap_or(0));
        if let Some(ustar) = header.as_ustar_mut() {
            ustar.set_device_major(self.device.0);
            ustar.set_device_minor(self.device.1);
        }
        header.set_cksum();
        header
    }

    /// Reads the next entry's headers; none at the end of the stream.
    pub(crate) fn read(stream: &mut impl Read, at: u64) -> Result<Option<Self>, EntryError> {
        let headers = read_headers(stream, at)?;
        headers
            .map(|(header, records)| Self::from_parts(&header, records, at))
            .transpose()
    }

    fn from_parts(header: &Header, records: PaxRecords, at: u64) -> Result<Self, EntryError> {
        let told = header.as_old();
        let number = |field: &[u8]| {
            number(field).ok_or_else(|| corrupt(at, "a header with a malformed number"))
        };
        let id = |id: Option<u32>, field: &[u8]| match id {
            Some(id) => Ok(id),
            None => u32::try_from(number(field)?)
                .ok()
                .filter(is_id)
                .ok_or_else(|| corrupt(at, "an impossible owner")),
        };
        let kind = EntryKind::of_header(header, at)?;
        if records.sparse.is_some() && kind != EntryKind::File {
            return Err(corrupt(at, "holes where only files have any"));
        }
        let (name, real_size) = match (records.sparse, records.path) {
            // bsdtar tells a long name twice.
            (Some((name, _)), Some(other)) if name != other => {
                return Err(corrupt(at, "a file with two names"));
            }
            (Some((name, size)), _) => (name, Some(size)),
            (None, Some(name)) => (name, None),
            (None, None) => (header.path_bytes().into_owned(), None),
        };
        let path =
            path_of(&name, kind == EntryKind::Directory).ok_or_else(|| corrupt(at, NO_DOT))?;
        let link = link_of(records.link, header, kind)
            .ok_or_else(|| corrupt(at, "a link target with a NUL byte"))?;
        let stored = match records.size {
            Some(size) => size,
            None => number(&told.size)?
                .try_into()
                .map_err(|_| corrupt(at, "an impossible size"))?,
        };
        let size = real_size.unwrap_or(stored);
        if size != 0 && kind != EntryKind::File {
            return Err(corrupt(at, "content where only files have any"));
        }
        let mtime = match records.mtime {
            Some(mtime) => mtime,
            None => Time {
                seconds: number(&told.mtime)?,
                nanoseconds: 0,
            },
        };
        let mode = number(&told.mode)?;
        let mode = u32::try_from(mode & 0o7777).unwrap_or(0);
        Ok(Self {
            path,
            kind,
            mode: match records.permissions {
                Some(permissions) => mode & 0o7000 | permissions,
                None => mode,
            },
            uid: id(records.uid, &told.uid)?,
            gid: id(records.gid, &told.gid)?,
            mtime,
            size,
            stored: real_size.map(|_| stored),
            link,
            device: device_of(header, kind)
                .ok_or_else(|| corrupt(at, "a device without numbers"))?,
            xattrs: records.xattrs,
        })
    }
}

/// A number in a header: octal digits, or, as GNU tar has what they cannot hold, the bytes of a
/// number with a sign behind a set bit.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        let digits = field.split(|b| *b == 0).next()?.trim_ascii();
        // A sign would be read as well.
        let digits = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| !digits.starts_with('+'))?;
        let value = u64::from_str_radix(digits, 8).ok()?;
        return i64::try_from(value).ok();
    }
    let sign = if first & 0x40 == 0 { 0 } else { -1_i128 };
    // Fields have 12 bytes at most, so it fits.
    let value = rest
        .iter()
        .fold(sign << 6 | i128::from(first & 0x3f), |value, byte| {
            value << 8 | i128::from(*byte)
        });
    i64::try_from(value).ok()
}

/// The target of a link, empty where none is told; none when it is impossible.
fn link_of(told: Option<Vec<u8>>, header: &Header, kind: EntryKind) -> Option<Vec<u8>> {
    let told = told.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
    let link = match kind {
        EntryKind::HardLink => told.and_then(|link| path_of(&link, false)),
        _ => told,
    };
    let link = link.unwrap_or_default();
    (!link.contains(&0)).then_some(link)
}

/// Major and minor number of a device node, zeros of anything else.
fn device_of(header: &Header, kind: EntryKind) -> Option<(u32, u32)> {
    if !matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
        return Some((0, 0));
    }
    let major = header.device_major().ok()??;
    Some((major, header.device_minor().ok()??))
}

/// Why an entry could not be read.
#[derive(Debug)]
pub(crate) enum EntryError {
    /// The stream ended or failed.
    Read(io::Error),
    /// The header means nothing.
    Corrupt(Corrupt),
}

impl From<io::Error> for EntryError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

pub(crate) fn corrupt(at: u64, what: &str) -> EntryError {
    EntryError::Corrupt(Corrupt::new(format!("tar offset {at}"), what))
}

/// One checked header block; none for the two blocks of zeros that end the stream.
pub(crate) fn read_header(stream: &mut impl Read, at: u64) -> Result<Option<Header>, EntryError> {
    let mut header = Header::new_ustar();
    stream.read_exact(header.as_mut_bytes())?;
    if header.as_bytes().iter().all(|b| *b == 0) {
        stream.read_exact(header.as_mut_bytes())?;
        return if header.as_bytes().iter().all(|b| *b == 0) {
            Ok(None)
        } else {
            Err(corrupt(at, "a lone block of zeros"))
        };
    }
    let told = header.cksum().ok();
    let mut copy = header.clone();
    copy.set_cksum();
    if told.is_none() || told != copy.cksum().ok() {
        return Err(corrupt(at, "a header with a wrong checksum"));
    }
    Ok(Some(header))
}

fn plain_header(name: &[u8], kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    copy_cut(&mut header.as_old_mut().name, name);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// A path as the stream has it: `./a/b`, with a slash behind directories, as `tar -c .` has it.
fn stored_name(path: &[u8], is_directory: bool) -> Vec<u8> {
    let mut name = b"./".to_vec();
    if path != b"." {
        name.extend_from_slice(path);
        if is_directory {
            name.push(b'/');
        }
    }
    name
}

/// The path that a stored name stands for; none when it has another form.
fn path_of(name: &[u8], is_directory: bool) -> Option<Vec<u8>> {
    let path = name.strip_prefix(b"./")?;
    if path.is_empty() {
        return Some(b".".to_vec());
    }
    let path = if is_directory {
        path.strip_suffix(b"/").unwrap_or(path)
    } else {
        path
    };
    Some(path.to_vec())
}

/// Fills a field with as much of `value` as it holds.
fn copy_cut(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

impl EntryKind {
    fn tar_type(self) -> EntryType {
        match self {
            Self::File => EntryType::Regular,
            Self::HardLink => EntryType::Link,
            Self::Symlink => EntryType::Symlink,
            Self::CharDevice => EntryType::Char,
            Self::BlockDevice => EntryType::Block,
            Self::Directory => EntryType::Directory,
            Self::Fifo => EntryType::Fifo,
        }
    }

    fn of_header(header: &Header, at: u64) -> Result<Self, EntryError> {
        Ok(match header.entry_type() {
            // A directory, from before there was a type for them.
            EntryType::Regular
                if header.as_old().linkflag == [0] && header.path_bytes().ends_with(b"/") =>
            {
                Self::Directory
            }
            EntryType::Regular => Self::File,
            EntryType::Link => Self::HardLink,
            EntryType::Symlink => Self::Symlink,
            EntryType::Char => Self::CharDevice,
            EntryType::Block => Self::BlockDevice,
            EntryType::Directory => Self::Directory,
            EntryType::Fifo => Self::Fifo,
            other => return Err(corrupt(at, &unknown_type(other.as_byte()))),
        })
    }
}

/// What a type is that is not taken, and how an archive is written without it.
fn unknown_type(byte: u8) -> String {
    let what = match byte {
        b'D' => "a directory of an incremental dump; archives must be complete",
        b'M' => "the rest of a file from another volume; archives must have one volume",
        b'S' => "a file with holes in GNU tar's old form; write it with --format=posix",
        b'V' => "a volume label; write it without --label",
        _ => {
            return format!(
                "an entry of the unknown type {:?}",
                byte.escape_ascii().to_string()
            );
        }
    };
    format!("an entry of the type {:?}: {what}", char::from(byte))
}

/// Checks that a path names something below the root, in one way only.
pub(crate) fn check_path(path: &[u8]) -> Result<(), &'static str> {
    if path == b"." {
        return Ok(());
    }
    if path.len() > MAX_PATH_BYTES {
        return Err("is too long");
    }
    if path.contains(&0) {
        return Err("holds a NUL byte");
    }
    for name in path.split(|b| *b == b'/') {
        match name {
            b"" => return Err("is absolute, or has an empty part"),
            b"." | b".." => return Err("has a part \".\" or \"..\""),
            long if long.len() > MAX_NAME_BYTES => return Err("has a part of over 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// The last part of a path.
pub(crate) fn name_of(path: &[u8]) -> &[u8] {
    let start = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    &path[start..]
}

/// Whether `path` is `dir` or below it; the root is empty.
pub(crate) fn is_within(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty()
        || path
            .strip_prefix(dir)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn a_number_in_octal_is_digits_alone() {
        for field in [&b"0000017\0"[..], b"     17 ", b"17\0junk"] {
            assert_eq!(number(field), Some(0o17), "{}", field.escape_ascii());
        }
        for field in [&b"+000017\0"[..], b"-000017\0", b"0o17\0", b"18\0", b"\0"] {
            assert_eq!(number(field), None, "{}", field.escape_ascii());
        }
    }
}
