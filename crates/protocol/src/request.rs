use serde::{Deserialize, Serialize};

use crate::{Location, PROTOCOL_VERSION};

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

/// Where bytes live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum StorageTarget {
    /// A mounted directory.
    Directory {
        /// Absolute path of the storage root inside the pod.
        path: String,
    },
}

/// The mover's task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Task {
    /// Archive a directory into storage.
    Backup(BackupTask),
    /// Unpack an archive into an empty directory.
    Restore(RestoreTask),
    /// Remove backups from storage.
    Delete(DeleteTask),
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
    /// Name of the source PVC, for the manifest.
    pub pvc_name: String,
    /// Name of the BackupPolicy, for the manifest; none for a run by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<String>,
}

/// Unpack the archive at `location` into `target_path`, which must be empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreTask {
    /// Absolute path of the target inside the pod.
    pub target_path: String,
    /// Where the archive is.
    pub location: Location,
    /// What the Backup's status says of the archive; storage that says otherwise is refused.
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
            task: Task::Backup(BackupTask {
                source_path: "/source".into(),
                location: Location::new("shop", "data", "nightly-1").unwrap(),
                pvc_name: "data".into(),
                policy_name: Some("nightly".into()),
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
