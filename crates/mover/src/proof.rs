//! Reading a stored backup back.

use std::sync::atomic::AtomicBool;

use tidelock_archive::{Manifest, ObjectRef, Phase, verify_content, verify_index, verify_object};
use tidelock_protocol::{Failure, FailureReason, VerificationLevel};
use tidelock_storage::Storage;

use crate::Control;
use crate::failure::{USE_ANOTHER, failure, of_restore};
use crate::stored::{check_size, get, get_fresh};

/// Compares what is stored with the manifest, past the page cache.
///
/// # Errors
/// Damage as `ArchiveCorrupt`, told with object, member, offset and path; what is not there as
/// `ArchiveNotFound`.
pub(crate) fn prove(
    storage: &dyn Storage,
    manifest: &Manifest,
    level: VerificationLevel,
    control: &Control<'_>,
) -> Result<(), Failure> {
    let (archive, index) = (&manifest.archive, &manifest.index);
    let (meter, stop) = (control.progress.meter(), control.stop);
    if level == VerificationLevel::None {
        return Ok(());
    }
    for object in [index, archive] {
        check_size(storage, object)?;
    }
    let digest = |object| meter.during(Phase::Digest, || digest(storage, object, stop));
    digest(index)?;
    if level == VerificationLevel::Digest {
        return digest(archive);
    }
    let lines = || get(storage, index);
    let listed = lines()?;
    meter
        .during(Phase::Index, || verify_index(listed, manifest, stop))
        .map_err(|e| of_restore(&e))?;
    let content = get_fresh(storage, archive)?;
    let indexes = [lines()?, lines()?];
    verify_content(manifest.codec, content, indexes, archive, meter, stop)
        .map_err(|e| of_restore(&e))?;
    Ok(())
}

/// How many bytes of storage [`prove`] reads.
pub(crate) fn cost(manifest: &Manifest, level: VerificationLevel) -> u64 {
    let (archive, index) = (manifest.archive.bytes, manifest.index.bytes);
    match level {
        VerificationLevel::None => 0,
        VerificationLevel::Digest => archive.saturating_add(index),
        VerificationLevel::Full => archive.saturating_add(index.saturating_mul(4)),
    }
}

fn digest(storage: &dyn Storage, object: &ObjectRef, stop: &AtomicBool) -> Result<(), Failure> {
    verify_object(get_fresh(storage, object)?, object, stop).map_err(|e| of_restore(&e))
}

/// What a failed proof means for the backup that was just written: storage does not hold what it
/// took. Other failures stay what they are.
pub(crate) fn not_proven(found: Failure) -> Failure {
    if found.reason != FailureReason::ArchiveCorrupt {
        return found;
    }
    let advice = format!("; {USE_ANOTHER}");
    let what = found
        .message
        .strip_suffix(&advice)
        .unwrap_or(&found.message);
    failure(
        FailureReason::VerificationFailed,
        format!(
            "what was written to storage reads back otherwise: {what}; it does not count as a backup and is written again; check the storage if this stays"
        ),
    )
}
