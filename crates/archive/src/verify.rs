//! Checks of stored objects against the manifest, before anything is trusted.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::digest::hex_of;
use crate::entry::{END_BYTES, EntryKind, check_path, padding};
use crate::error::{Corrupt, RestoreError, shown};
use crate::index::{IndexEnd, IndexEntry, IndexMember, IndexReader, Line};
use crate::manifest::{Manifest, ObjectRef};
use crate::member::{check_size, place_of};
use crate::needed::Archive;
use crate::select::Survey;

/// Bytes read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Compares a stored object with its size and digest in the manifest.
pub fn verify_object(
    mut object: impl Read,
    expected: &ObjectRef,
    stop: &AtomicBool,
) -> Result<(), RestoreError> {
    let mut hash = Sha256::new();
    let bytes = hash_up_to(&mut object, u64::MAX, Some(&mut hash), stop)?;
    compare(expected, bytes, &hex_of(hash))
}

/// Adds to what is wrong with a whole archive which member of it is damaged first, where a second
/// reading tells.
///
/// # Assumptions
/// The index was checked before.
pub fn locate_damage(
    corrupt: Corrupt,
    archive: impl Read,
    index: impl Read,
    stop: &AtomicBool,
) -> RestoreError {
    match damaged_member(archive, index, stop) {
        Ok(Some(member)) => {
            let place = format!("{}, {}", corrupt.place, place_of(&member));
            Corrupt::new(place, corrupt.what).into()
        }
        Err(RestoreError::Stopped) => RestoreError::Stopped,
        // It is damaged, whatever became of the second reading.
        Ok(None) | Err(_) => corrupt.into(),
    }
}

/// The first member whose digest is not that of the index.
fn damaged_member(
    mut archive: impl Read,
    index: impl Read,
    stop: &AtomicBool,
) -> Result<Option<IndexMember>, RestoreError> {
    let mut index = IndexReader::new(index);
    while let Some(member) = index.next_member()? {
        let mut own = Sha256::new();
        hash_up_to(&mut archive, member.size, Some(&mut own), stop)?;
        if hex_of(own) != member.sha256 {
            return Ok(Some(member));
        }
    }
    Ok(None)
}

/// Compares the members that hold what `survey` takes with their digests in the index.
///
/// # Assumptions
/// The index was checked before.
pub fn verify_members(
    mut archive: impl Archive,
    index: impl Read,
    expected: &ObjectRef,
    survey: &Survey,
    stop: &AtomicBool,
) -> Result<(), RestoreError> {
    let mut index = IndexReader::new(index);
    let mut between = 0;
    let mut number = 0;
    while let Some(member) = index.next_member()? {
        number += 1;
        if !survey.needed.has(number - 1) {
            between += member.size;
            continue;
        }
        archive.pass(std::mem::take(&mut between))?;
        let mut own = Sha256::new();
        let bytes = hash_up_to(&mut archive, member.size, Some(&mut own), stop)?;
        if bytes != member.size || hex_of(own) != member.sha256 {
            let place = format!("{}, {}", expected.key, place_of(&member));
            return Err(Corrupt::new(place, "its bytes are not those that were written").into());
        }
    }
    Ok(())
}

/// Compares what was read of an object with what the manifest says of it.
pub(crate) fn compare(expected: &ObjectRef, bytes: u64, sha256: &str) -> Result<(), RestoreError> {
    let corrupt = |what| RestoreError::Corrupt(Corrupt::new(expected.key.clone(), what));
    if bytes != expected.bytes {
        let wanted = expected.bytes;
        return Err(corrupt(format!("it has {bytes} bytes instead of {wanted}")));
    }
    if sha256 != expected.sha256 {
        let wanted = &expected.sha256;
        return Err(corrupt(format!(
            "its SHA-256 is {sha256} instead of {wanted}"
        )));
    }
    Ok(())
}

/// Reads at most `limit` bytes, into a digest if one is given; gives how many there were.
pub(crate) fn hash_up_to(
    object: &mut impl Read,
    limit: u64,
    mut hash: Option<&mut Sha256>,
    stop: &AtomicBool,
) -> Result<u64, RestoreError> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    while bytes < limit {
        if stop.load(Ordering::Relaxed) {
            return Err(RestoreError::Stopped);
        }
        let want = usize::try_from(limit - bytes).map_or(PIECE_BYTES, |n| n.min(PIECE_BYTES));
        let read = match object.read(&mut buffer[..want]) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if read == 0 {
            break;
        }
        if let Some(hash) = &mut hash {
            hash.update(&buffer[..read]);
        }
        bytes += read as u64;
    }
    Ok(bytes)
}

/// Checks that the index is whole, in order, free of impossible values, and of this manifest.
///
/// # Guarantees
/// Memory is bounded by one line and two paths, whatever the index holds.
pub fn verify_index(
    index: impl Read,
    manifest: &Manifest,
    stop: &AtomicBool,
) -> Result<(), RestoreError> {
    let mut index = IndexReader::new(index);
    let mut check = IndexCheck::default();
    let mut end = None;
    while let Some(line) = index.next()? {
        if stop.load(Ordering::Relaxed) {
            return Err(RestoreError::Stopped);
        }
        let checked = match line {
            _ if end.is_some() => Err("a line after the last".to_owned()),
            Line::Entry(entry) => check.entry(entry),
            Line::Member(member) => check.member(&member),
            Line::End(told) => {
                end = Some(told);
                check.end(told, manifest)
            }
        };
        if let Err(what) = checked.and_then(|()| check.within(manifest)) {
            return Err(index.fault(&what).into());
        }
    }
    match end {
        Some(_) => Ok(()),
        None => Err(index.fault("the last line is missing").into()),
    }
}

/// What the lines of an index came to so far.
#[derive(Default)]
struct IndexCheck {
    totals: IndexEnd,
    /// Where the next entry must start.
    tar_offset: u64,
    logical_bytes: u64,
    /// The innermost directory that is open at this point of the stream; none before the root.
    open_dir: Option<Vec<u8>>,
    /// Path of the entry before; empty before the first.
    last_path: Vec<u8>,
    /// The entry before is superseded, so that the next one must repeat its path.
    superseded: bool,
}

impl IndexCheck {
    fn entry(&mut self, entry: IndexEntry) -> Result<(), String> {
        let named = |what: &str| format!("{:?} {what}", shown(&entry.path));
        check_path(&entry.path).map_err(named)?;
        if entry.offset != self.tar_offset {
            return Err(named("does not start where the entry before it ends"));
        }
        let stored = entry.stored_bytes();
        let content = stored.saturating_add(padding(stored) as u64);
        if entry.length <= content || !(entry.length - content).is_multiple_of(512) {
            return Err(named("has an impossible length"));
        }
        let is_file = entry.kind == EntryKind::File;
        if entry.sha256.is_some() != is_file
            || ((entry.size, entry.stored) != (0, None) && !is_file)
        {
            return Err(named("has content or a digest that does not fit its type"));
        }
        match (self.superseded, self.last_path == entry.path) {
            (true, false) => return Err(named("follows a superseded entry of another path")),
            (false, true) => return Err(named("repeats an entry that is not superseded")),
            _ => {}
        }
        self.superseded = entry.superseded;
        self.last_path.clone_from(&entry.path);
        self.place(&entry).map_err(named)?;
        self.tar_offset = self.tar_offset.saturating_add(entry.length);
        self.totals.entries += 1;
        if !entry.superseded {
            self.logical_bytes = self.logical_bytes.saturating_add(entry.size);
        }
        Ok(())
    }

    /// Checks that the entry's directory is open, as depth-first order has it.
    fn place(&mut self, entry: &IndexEntry) -> Result<(), &'static str> {
        let Some(open) = &mut self.open_dir else {
            self.open_dir = Some(Vec::new());
            let is_root = entry.path == b"." && entry.kind == EntryKind::Directory;
            return is_root.then_some(()).ok_or("comes before the root");
        };
        if entry.path == b"." {
            return Err("repeats the root");
        }
        let parent = parent_of(&entry.path);
        let inside = parent.is_empty()
            || *open == parent
            || (open.starts_with(parent) && open[parent.len()] == b'/');
        if !inside {
            return Err("does not follow its directory");
        }
        open.truncate(parent.len());
        if entry.kind == EntryKind::Directory {
            open.clear();
            open.extend_from_slice(&entry.path);
        }
        Ok(())
    }

    fn member(&mut self, member: &IndexMember) -> Result<(), String> {
        check_size(member).map_err(|corrupt| corrupt.to_string())?;
        if member.offset != self.totals.archive_bytes || member.tar_offset != self.totals.tar_bytes
        {
            return Err("a member that does not start where the one before it ends".to_owned());
        }
        self.totals.members += 1;
        self.totals.archive_bytes += member.size;
        self.totals.tar_bytes += member.tar_size;
        Ok(())
    }

    /// Stops as soon as there is more than the manifest promises.
    fn within(&self, manifest: &Manifest) -> Result<(), String> {
        if self.totals.entries > manifest.counts.entries
            || self.totals.members > manifest.counts.members
        {
            return Err("more entries or members than the manifest counts".to_owned());
        }
        if self.totals.tar_bytes > manifest.tar_bytes
            || self.tar_offset > manifest.tar_bytes
            || self.totals.archive_bytes > manifest.archive.bytes
            || self.logical_bytes > manifest.logical_bytes
        {
            return Err("more bytes than the manifest counts".to_owned());
        }
        Ok(())
    }

    fn end(&self, told: IndexEnd, manifest: &Manifest) -> Result<(), String> {
        let of_manifest = IndexEnd {
            entries: manifest.counts.entries,
            members: manifest.counts.members,
            tar_bytes: manifest.tar_bytes,
            archive_bytes: manifest.archive.bytes,
        };
        let complete = self.totals == told
            && told == of_manifest
            && self.logical_bytes == manifest.logical_bytes
            && self.tar_offset.saturating_add(END_BYTES) == told.tar_bytes
            && !self.superseded;
        complete
            .then_some(())
            .ok_or_else(|| "totals that do not fit the lines or the manifest".to_owned())
    }
}

/// Path of the directory that holds `path`; empty for the root.
pub(crate) fn parent_of(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    &path[..end]
}
