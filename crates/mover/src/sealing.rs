//! Backups that are encrypted: what is told of them in clear, and what opens the rest.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tidelock_archive::{ENCRYPTED, Encryption, Manifest, ObjectRef, Sample};
use tidelock_protocol::{Failure, FailureReason, VerificationLevel};
use tidelock_seal::{Identities, InvalidKey, Recipients, Sealed, Stored, sealed};
use tidelock_storage::Storage;

use crate::Control;
use crate::failure::{chain, corrupt, failure};
use crate::proof;

/// What a backup is written with that is encrypted.
pub(crate) struct Sealing<'s> {
    /// Where its archive and index go.
    pub(crate) storage: Sealed<'s>,
    recipients: Recipients,
    names: Vec<String>,
}

impl<'s> Sealing<'s> {
    /// Encrypts to `recipients`, and to one more that this run alone can open for: so it can read back
    /// what it wrote, without the key of anybody.
    ///
    /// # Errors
    /// `InvalidRequest`, with the recipient that is none.
    pub(crate) fn begin(
        storage: &'s dyn Storage,
        recipients: &[String],
    ) -> Result<Option<Self>, Failure> {
        if recipients.is_empty() {
            return Ok(None);
        }
        let recipients = Recipients::parse(recipients).map_err(|error| of_key(&error))?;
        let names = recipients.names();
        let (recipients, identities) = recipients.with_one_for_now();
        Ok(Some(Self {
            storage: Sealed::new(storage, recipients.clone(), identities),
            recipients,
            names,
        }))
    }

    /// The manifest that is stored: it tells sizes and digests of what lies in storage, and all that
    /// could tell of the content is encrypted in it.
    pub(crate) fn cover(&self, plain: &Manifest) -> Result<Manifest, Failure> {
        let stored = |object: &ObjectRef| {
            let stored = self.storage.written(&object.key);
            stored.map(|stored| ObjectRef {
                key: sealed(&object.key),
                bytes: stored.bytes,
                sha256: stored.sha256,
            })
        };
        let (Some(archive), Some(index)) = (stored(&plain.archive), stored(&plain.index)) else {
            let text = "what was written is not known";
            return Err(failure(FailureReason::Internal, text));
        };
        let json = plain.to_json().map_err(|e| internal(&e))?;
        let covered = self.recipients.seal(json.as_bytes());
        let covered = covered.map_err(|e| internal(&e))?;
        let count = |sample: &Sample| Sample {
            total: sample.total,
            first: Vec::new(),
        };
        let mut features = plain.features.clone();
        features.push(ENCRYPTED.to_owned());
        Ok(Manifest {
            features,
            archive,
            index,
            torn: count(&plain.torn),
            skipped: count(&plain.skipped),
            encryption: Some(Encryption {
                recipients: self.names.clone(),
                manifest: STANDARD.encode(covered),
            }),
            ..plain.clone()
        })
    }
}

fn internal(error: &dyn std::error::Error) -> Failure {
    let text = format!("cannot write the manifest: {}", chain(error));
    failure(FailureReason::Internal, text)
}

fn of_key(error: &InvalidKey) -> Failure {
    let (reason, advice) = match error {
        InvalidKey::Recipient(_) | InvalidKey::NoRecipient => (
            FailureReason::InvalidRequest,
            "correct encryption.recipients of the storage",
        ),
        InvalidKey::Identity { .. } | InvalidKey::NoIdentity(_) | InvalidKey::Unreadable { .. } => {
            (
                FailureReason::KeyMissing,
                "correct the Secret that encryption.identitySecretRef of the storage names",
            )
        }
    };
    failure(reason, format!("{error}; {advice}"))
}

/// A backup as it can be read: in clear, or through what decrypts it.
pub(crate) struct Readable<'s> {
    /// What decrypts, where that is needed.
    pub(crate) storage: Option<Sealed<'s>>,
    /// Of the plain objects.
    pub(crate) manifest: Manifest,
}

/// Opens the backup that `stored`, as it lies in storage, describes.
///
/// # Errors
/// `KeyMissing` where nothing given opens it, with whom it is encrypted to; damage as
/// `ArchiveCorrupt`.
pub(crate) fn open<'s>(
    storage: &'s dyn Storage,
    stored: Manifest,
    identities: Option<&str>,
) -> Result<Readable<'s>, Failure> {
    let Some(encryption) = &stored.encryption else {
        return Ok(Readable {
            storage: None,
            manifest: stored,
        });
    };
    let recipients = encryption.recipients.join(", ");
    let Some(folder) = identities else {
        let text = format!(
            "the backup is encrypted to {recipients}, and there is no key to open it with; name a Secret with an identity in encryption.identitySecretRef of the storage"
        );
        return Err(failure(FailureReason::KeyMissing, text));
    };
    let identities = Identities::of_folder(Path::new(folder)).map_err(|e| of_key(&e))?;
    let damaged = |what: String| corrupt(&format!("the manifest's encrypted part {what}"));
    let covered = STANDARD.decode(&encryption.manifest);
    let covered = covered.map_err(|error| damaged(format!("is no Base64 ({error})")))?;
    let opened = identities.open(&covered);
    let opened = opened.map_err(|error| damaged(format!("cannot be decrypted ({error})")))?;
    let Some(json) = opened else {
        let text = format!(
            "the backup is encrypted to {recipients}, and the identities given open for {} only; add the identity of one of the former to the Secret that encryption.identitySecretRef of the storage names",
            identities.recipients().join(", ")
        );
        return Err(failure(FailureReason::KeyMissing, text));
    };
    let manifest = Manifest::from_json(&json).map_err(|error| damaged(chain(&error)))?;
    check(&stored, &manifest).map_err(|what| damaged(what.to_owned()))?;
    let mut opened = Sealed::new(storage, Recipients::default(), identities);
    for (plain, stored) in [
        (&manifest.archive, &stored.archive),
        (&manifest.index, &stored.index),
    ] {
        let stored = Stored {
            bytes: stored.bytes,
            sha256: stored.sha256.clone(),
        };
        opened.expect(&plain.key, stored);
    }
    Ok(Readable {
        storage: Some(opened),
        manifest,
    })
}

/// Whether the encrypted part of a manifest is the one of this backup.
fn check(stored: &Manifest, plain: &Manifest) -> Result<(), &'static str> {
    let same_keys = stored.archive.key == sealed(&plain.archive.key)
        && stored.index.key == sealed(&plain.index.key);
    if !same_keys || plain.encryption.is_some() {
        return Err("names objects of another backup");
    }
    if stored.source != plain.source || stored.codec != plain.codec {
        return Err("is of another backup");
    }
    Ok(())
}

/// As much of `level` as can be done to an encrypted backup without a key.
pub(crate) fn without_key(level: VerificationLevel) -> VerificationLevel {
    match level {
        VerificationLevel::Full => VerificationLevel::Digest,
        other => other,
    }
}

/// Compares what is stored with the manifest as far as it can be: an encrypted backup that nothing
/// given opens, by the digests of what lies in storage.
///
/// # Errors
/// As [`proof::prove`]; `KeyMissing` where the identities given do not open it.
pub(crate) fn prove(
    storage: &dyn Storage,
    stored: Manifest,
    level: VerificationLevel,
    identities: Option<&str>,
    control: &Control<'_>,
) -> Result<VerificationLevel, Failure> {
    let is_locked = stored.encryption.is_some() && identities.is_none();
    if is_locked || level != VerificationLevel::Full {
        let level = if is_locked { without_key(level) } else { level };
        proof::prove(storage, &stored, level, control)?;
        return Ok(level);
    }
    let readable = open(storage, stored, identities)?;
    let opened = readable.storage.as_ref();
    let storage = opened.map_or(storage, |sealed| sealed as &dyn Storage);
    proof::prove(storage, &readable.manifest, level, control)?;
    Ok(level)
}
