//! One entry of the tar stream: its header as bytes, and back.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::error::Corrupt;
use crate::meta::Time;
use crate::pax::PaxRecords;
use crate::xattr::{MAX_XATTR_BYTES, Xattrs};

/// Tar counts in blocks.
pub(crate) const BLOCK_BYTES: usize = 512;
/// The end of a tar stream: two blocks of zeros.
pub(crate) const END_BYTES: u64 = 2 * BLOCK_BYTES as u64;
/// Longest path; deeper ones cannot be archived.
pub(crate) const MAX_PATH_BYTES: usize = 1 << 20;
/// Longest name of one path component (source: linux/limits.h).
pub(crate) const MAX_NAME_BYTES: usize = 255;
/// Longest extended header: path, link target, extended attributes and their keys.
const MAX_PAX_BYTES: u64 = (2 * MAX_PATH_BYTES + 2 * MAX_XATTR_BYTES) as u64;
/// Largest number that a header's octal fields for owner and group hold.
const MAX_OCTAL_ID: u32 = 0o7_777_777;
/// Largest number that a header's octal fields for size and time hold.
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;
/// Name of a file with holes in its header; its own stands in the extended one.
const SPARSE_NAME: &[u8] = b"./GNUSparseFile.0/file";
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
        let Some(header) = read_header(stream, at)? else {
            return Ok(None);
        };
        if header.entry_type() != EntryType::XHeader {
            return Self::from_parts(&header, PaxRecords::default(), at).map(Some);
        }
        let size = header
            .entry_size()
            .ok()
            .filter(|size| *size <= MAX_PAX_BYTES);
        let size = size.ok_or_else(|| corrupt(at, "an extended header of impossible size"))?;
        let mut records = vec![0; usize::try_from(size).unwrap_or(0) + padding(size)];
        stream.read_exact(&mut records)?;
        records.truncate(usize::try_from(size).unwrap_or(0));
        let records = PaxRecords::decode(&records).map_err(|what| corrupt(at, &what))?;
        let header = read_header(stream, at)?
            .ok_or_else(|| corrupt(at, "an extended header without its entry"))?;
        Self::from_parts(&header, records, at).map(Some)
    }

    fn from_parts(header: &Header, records: PaxRecords, at: u64) -> Result<Self, EntryError> {
        let fault = |_| corrupt(at, "a header with a malformed number");
        let kind = EntryKind::of(header.entry_type()).ok_or_else(|| {
            let kind = header.entry_type().as_byte().escape_ascii().to_string();
            corrupt(at, &format!("an entry of the unknown type {kind:?}"))
        })?;
        let id = |n: u64| u32::try_from(n).map_err(|_| corrupt(at, "an impossible owner"));
        if records.sparse.is_some() && kind != EntryKind::File {
            return Err(corrupt(at, "holes where only files have any"));
        }
        let (name, real_size) = match (records.sparse, records.path) {
            (Some((name, size)), None) => (name, Some(size)),
            (Some(_), Some(_)) => return Err(corrupt(at, "a file with two names")),
            (None, Some(name)) => (name, None),
            (None, None) => (header.path_bytes().into_owned(), None),
        };
        let path = path_of(&name, kind == EntryKind::Directory)
            .ok_or_else(|| corrupt(at, "a path that does not start with \"./\""))?;
        let mut link = records
            .link
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        if kind == EntryKind::HardLink {
            link = link.and_then(|link| path_of(&link, false));
        }
        let stored = match records.size {
            Some(size) => size,
            None => header.entry_size().map_err(fault)?,
        };
        let size = real_size.unwrap_or(stored);
        if size != 0 && kind != EntryKind::File {
            return Err(corrupt(at, "content where only files have any"));
        }
        if link.as_ref().is_some_and(|link| link.contains(&0)) {
            return Err(corrupt(at, "a link target with a NUL byte"));
        }
        let mtime = match records.mtime {
            Some(mtime) => mtime,
            None => Time {
                seconds: i64::try_from(header.mtime().map_err(fault)?)
                    .map_err(|_| corrupt(at, "an impossible time"))?,
                nanoseconds: 0,
            },
        };
        let is_device = matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice);
        let device = if is_device {
            let major = header.device_major().map_err(fault)?.unwrap_or(0);
            (major, header.device_minor().map_err(fault)?.unwrap_or(0))
        } else {
            (0, 0)
        };
        Ok(Self {
            path,
            kind,
            mode: header.mode().map_err(fault)? & 0o7777,
            uid: match records.uid {
                Some(uid) => uid,
                None => id(header.uid().map_err(fault)?)?,
            },
            gid: match records.gid {
                Some(gid) => gid,
                None => id(header.gid().map_err(fault)?)?,
            },
            mtime,
            size,
            stored: real_size.map(|_| stored),
            link: link.unwrap_or_default(),
            device,
            xattrs: records.xattrs,
        })
    }
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

fn corrupt(at: u64, what: &str) -> EntryError {
    EntryError::Corrupt(Corrupt::new(format!("tar offset {at}"), what))
}

/// One checked header block; none for the two blocks of zeros that end the stream.
fn read_header(stream: &mut impl Read, at: u64) -> Result<Option<Header>, EntryError> {
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

    fn of(kind: EntryType) -> Option<Self> {
        Some(match kind {
            EntryType::Regular => Self::File,
            EntryType::Link => Self::HardLink,
            EntryType::Symlink => Self::Symlink,
            EntryType::Char => Self::CharDevice,
            EntryType::Block => Self::BlockDevice,
            EntryType::Directory => Self::Directory,
            EntryType::Fifo => Self::Fifo,
            _ => return None,
        })
    }
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
