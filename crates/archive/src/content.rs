//! What an archive holds, compared with its index without writing anything.

use std::io::Read;
use std::sync::atomic::AtomicBool;

use crate::codec::Codec;
use crate::digest::Hashing;
use crate::entries::{EntryReader, with_entries};
use crate::entry::{EntryKind, check_path};
use crate::error::{Corrupt, RestoreError, shown};
use crate::index;
use crate::manifest::ObjectRef;
use crate::meter::Meter;
use crate::needed::{Needed, Whole};
use crate::verify::{compare, hash_up_to};

/// What a finished check of the content looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifiedContent {
    /// Entries of the tar stream, superseded ones too.
    pub entries: u64,
    /// Files whose content was compared, each once however many names it has.
    pub files: u64,
    /// Sum of the sizes of these files.
    pub logical_bytes: u64,
}

/// Decodes the whole archive and compares it with the index and with its size and digest in the
/// manifest, in one pass.
///
/// The two readers of `indexes` give the same index.
///
/// # Guarantees
/// - It ends well only when every byte of the archive belongs to a member, every member to the
///   tar stream, every entry to the index and back, and every file has its digest.
/// - Damage is told with its place: the object, the member, the offset, the path.
/// - Memory is bounded as that of a restore.
///
/// # Assumptions
/// The index was checked before.
pub fn verify_content<I: Read + Send>(
    codec: Codec,
    archive: impl Read + Send,
    indexes: [I; 2],
    expected: &ObjectRef,
    meter: &Meter,
    stop: &AtomicBool,
) -> Result<VerifiedContent, RestoreError> {
    let mut archive = Hashing::new(archive);
    let [members, entries] = indexes;
    let verified = with_entries(
        codec,
        Whole(&mut archive),
        (members, entries),
        &Needed::default(),
        (meter, stop),
        |stream| verify_entries(stream, expected),
    )?;
    hash_up_to(&mut archive, u64::MAX, None, stop)?;
    let (bytes, sha256) = archive.finish();
    compare(expected, bytes, &sha256)?;
    Ok(verified)
}

fn verify_entries<I: Read>(
    mut stream: EntryReader<'_, I>,
    expected: &ObjectRef,
) -> Result<VerifiedContent, RestoreError> {
    let mut verified = VerifiedContent::default();
    while let Some((entry, listed)) = stream.next().map_err(|e| within(expected, e))? {
        let fault = |path: &[u8], what: &str| {
            let place = format!("tar offset {}, \"{}\"", listed.offset, shown(path));
            within(expected, Corrupt::new(place, what).into())
        };
        check_path(&entry.path).map_err(|what| fault(&entry.path, what))?;
        verified.entries += 1;
        match entry.kind {
            EntryKind::File => stream
                .content(&listed, |_, _| Ok(()))
                .map(drop)
                .map_err(|e| within(expected, e))?,
            EntryKind::HardLink => check_path(&entry.link)
                .map_err(|what| fault(&entry.path, &format!("links to a path that {what}")))?,
            _ => {}
        }
        if entry.kind == EntryKind::File && !listed.superseded {
            verified.files += 1;
            verified.logical_bytes += entry.size;
        }
    }
    Ok(verified)
}

/// Damage, with the archive it is in; faults of the index name that.
fn within(object: &ObjectRef, error: RestoreError) -> RestoreError {
    match error {
        RestoreError::Corrupt(corrupt) if !corrupt.place.starts_with(index::PLACE) => {
            Corrupt::new(format!("{}, {}", object.key, corrupt.place), corrupt.what).into()
        }
        other => other,
    }
}
