use serde::{Deserialize, Serialize};

use crate::{CheckTask, Format, Location, PROTOCOL_VERSION};

/// What the operator asks one mover pod to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// [`PROTOCOL_VERSION`] of the writer.
    pub version: u32,
    /// The object that this pod works for.
    pub run: RunId,
    /// Where the bytes live.
    pub storage: StorageTarget,
    /// How fast it may be written to and read from.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// After how many seconds without a moved byte the mover gives up; none waits for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_timeout_seconds: Option<u64>,
    /// What to do.
    pub task: Task,
}

/// The Kubernetes object behind a run, for logs, temporary names and the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunId {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// UID of the object; tells a re-created object from its predecessor of the same name.
    pub uid: String,
}

/// How fast storage may be written to and read from, over all that goes each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// To it; none sets no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bytes_per_second: Option<u64>,
    /// From it; none sets no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_bytes_per_second: Option<u64>,
}

impl Limits {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Where bytes live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum StorageTarget {
    /// A mounted directory.
    Directory {
        /// Absolute path of the storage root inside the pod.
        path: String,
    },
    /// A bucket of an S3-compatible object store.
    Bucket(BucketTarget),
    /// The task needs no storage.
    None,
}

/// An S3-compatible bucket, or a part of one, and where in the pod the credentials lie. They
/// themselves are never in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BucketTarget {
    /// Its name.
    pub bucket: String,
    /// What every key starts with, without slashes at either end; empty for the whole bucket.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// `http://` or `https://`, host and port; none for AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    pub region: String,
    /// Whether the bucket is named in the path and not in the host.
    #[serde(default)]
    pub path_style: bool,
    /// Absolute path of the folder that the Secret with the credentials is mounted at.
    pub credentials_path: String,
    /// Absolute path of a file with certificates to trust beside those of the system, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_path: Option<String>,
    /// Storage class of new objects; none for the bucket's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// Encryption by the store.
    #[serde(default)]
    pub server_side_encryption: ServerSideEncryption,
    /// Whether it locks objects.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locks: bool,
}

/// How long a store keeps anybody from removing a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectLock {
    /// Who may take the lock off.
    pub mode: LockMode,
    /// For how many days from its end on.
    pub days: u32,
}

/// Who may take a lock off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockMode {
    /// Who has a right of its own to.
    Governance,
    /// Nobody.
    Compliance,
}

/// How a store encrypts new objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ServerSideEncryption {
    /// As the bucket says.
    #[default]
    Unset,
    /// With keys of the store.
    Aes256,
    /// With a key of the store's key management.
    Kms {
        /// The key's id.
        key_id: String,
    },
}

/// The mover's task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Task {
    /// Archive a directory into storage.
    Backup(BackupTask),
    /// Unpack an archive into a directory, or tell what that would change.
    Restore(RestoreTask),
    /// Take back what a restore that ended for good has written.
    Undo(UndoTask),
    /// Remove backups from storage.
    Delete(DeleteTask),
    /// Read stored backups again and compare everything.
    Verify(VerifyTask),
    /// Look at a storage.
    Check(CheckTask),
}

/// Archive `source_path` into storage at `location`.
///
/// A run whose manifest is already there with the same run UID is reported again, not repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupTask {
    /// Absolute path of the source inside the pod.
    pub source_path: String,
    /// Where the archive goes.
    pub location: Location,
    /// Its form.
    #[serde(default)]
    pub format: Format,
    /// Name of the source PVC, for the manifest.
    pub pvc_name: String,
    /// Name of the BackupPolicy, for the manifest; none for a run by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<String>,
    /// Whom it is encrypted to, as `age1…`; none leaves it in clear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// How long it is locked; none leaves it unlocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<ObjectLock>,
    /// How much of what was stored is read back before it counts as a backup.
    #[serde(default)]
    pub verification: VerificationLevel,
    /// What to look after in the volume's folder on the way.
    #[serde(default)]
    pub household: Household,
}

/// How much of a stored backup is read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerificationLevel {
    /// Nothing.
    None,
    /// Archive and index are read, and their sizes and digests compared.
    Digest,
    /// Beyond that, every entry is decoded and compared with the index.
    #[default]
    Full,
}

/// What the cluster knows of the folder of one volume in storage, for sweeping and for a list of
/// what nobody knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Household {
    /// Last parts of the locations of every Backup of this volume that the cluster has; none where
    /// there are too many to list, and then nothing is told to be unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Vec<String>>,
    /// UIDs of the runs that may be writing; temporaries of all others are left-overs. None where
    /// that cannot be told, and then nothing is swept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<Vec<String>>,
}

/// Unpack the archive at `location` into `target_path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreTask {
    /// Absolute path of the target inside the pod.
    pub target_path: String,
    /// Where the archive is.
    pub location: Location,
    /// What the Backup's status says of the archive; storage that says otherwise is refused.
    pub expected: ExpectedArchive,
    /// Absolute path of the folder that a Secret with identities of age is mounted at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities_path: Option<String>,
    /// What may happen to what the target holds.
    #[serde(default)]
    pub overwrite: Overwrite,
    /// Whether anything is written.
    #[serde(default)]
    pub effect: Effect,
    /// Globs over paths in the archive; empty takes everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Whether the target is read back and compared once it is written.
    #[serde(default)]
    pub read_back: bool,
    /// Whether owners, modes, times and attributes that the target refuses are passed over; they
    /// are counted either way.
    #[serde(default)]
    pub allow_metadata_loss: bool,
}

/// What may happen to what the target of a restore holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overwrite {
    /// The target must be empty.
    #[default]
    Never,
    /// Names in the archive are added or replaced, all others stay.
    Merge,
    /// The target becomes equal to the backup; what it held is kept until that is done.
    Replace,
}

/// Whether a restore writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// It restores.
    #[default]
    Write,
    /// It tells what it would add, change and remove, and writes nothing.
    DryRun,
}

/// Take back what the restore of the request's run UID has written into `target_path`.
///
/// A target without that restore's marker is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UndoTask {
    /// Absolute path of the target inside the pod.
    pub target_path: String,
    /// What the restore was allowed to do.
    pub overwrite: Overwrite,
}

/// Read stored backups again, in this order, and compare everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyTask {
    /// The backups to read.
    pub items: Vec<VerifyItem>,
    /// Absolute path of the folder that a Secret with identities of age is mounted at. Without it,
    /// encrypted backups are compared by the digests of what lies in storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities_path: Option<String>,
    /// What to look after in the volume's folder on the way.
    #[serde(default)]
    pub household: Household,
}

/// One backup to read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyItem {
    /// Where it is.
    pub location: Location,
    /// What the Backup's status says of it.
    pub expected: ExpectedArchive,
}

/// What the cluster knows of an archive, independent of what storage claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedArchive {
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// Size of the archive in bytes.
    pub stored_bytes: u64,
    /// UID of the Backup that made it.
    pub backup_uid: String,
}

/// Remove backups from storage; what is already gone counts as removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteTask {
    /// The backups to remove.
    pub items: Vec<DeleteItem>,
}

/// One backup to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteItem {
    /// Where it is.
    pub location: Location,
    /// UID of its Backup; an archive whose manifest names another UID is left alone.
    pub backup_uid: String,
    /// Whether only what was never finished goes: an archive with a manifest is left alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished_only: bool,
}

/// A request that cannot be carried out as it stands.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// Not JSON of the expected shape.
    #[error("the request is not valid JSON for this mover: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by another version.
    #[error(
        "the request has version {0}, this mover knows version {PROTOCOL_VERSION}; run the mover of the operator's own image"
    )]
    UnknownVersion(u32),
}

impl Request {
    /// Reads a request, refusing versions and fields that this build does not know.
    pub fn from_json(text: &str) -> Result<Self, InvalidRequest> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(text)?;
        if version != PROTOCOL_VERSION {
            return Err(InvalidRequest::UnknownVersion(version));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The request as JSON.
    ///
    /// # Errors
    /// None in practice: every field is a string or a number.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            version: PROTOCOL_VERSION,
            run: RunId {
                namespace: "shop".into(),
                name: "nightly-1".into(),
                uid: "u-1".into(),
            },
            storage: StorageTarget::Directory {
                path: "/storage".into(),
            },
            limits: Limits::default(),
            stall_timeout_seconds: Some(1800),
            task: Task::Backup(BackupTask {
                source_path: "/source".into(),
                location: Location::new("shop", "data", "nightly-1").unwrap(),
                format: Format::TarGz,
                pvc_name: "data".into(),
                policy_name: Some("nightly".into()),
                recipients: Vec::new(),
                lock: None,
                verification: VerificationLevel::Full,
                household: Household {
                    known: Some(vec!["nightly-0".into()]),
                    active: Some(vec!["u-1".into()]),
                },
            }),
        }
    }

    #[test]
    fn a_request_keeps_its_wire_form() {
        insta::assert_json_snapshot!(request());
    }

    #[test]
    fn a_request_reads_back_as_written() {
        let json = request().to_json().unwrap();
        assert_eq!(Request::from_json(&json).unwrap(), request());
    }

    #[test]
    fn an_unknown_version_is_named_before_its_fields_are_judged() {
        let error = Request::from_json(r#"{"version": 9, "novelty": true}"#).unwrap_err();
        assert!(error.to_string().contains("version 9"), "{error}");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let mut value = serde_json::to_value(request()).unwrap();
        value["task"]["backup"]["overwrite"] = true.into();
        assert!(Request::from_json(&value.to_string()).is_err());
    }
}
