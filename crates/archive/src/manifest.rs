//! The manifest: what makes three objects a backup.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::digest::sha256;
use crate::error::{Corrupt, shown};

/// Version of the format that this build writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Readers take no more of a manifest than this.
pub const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Files are archived with their holes.
pub(crate) const SPARSE: &str = "sparse";
/// Archive and index are encrypted.
pub const ENCRYPTED: &str = "age";
/// Features that this build can read.
const KNOWN_FEATURES: [&str; 2] = [SPARSE, ENCRYPTED];
/// The last field of every manifest: a digest of all bytes before its line.
const SEAL_FIELD: &str = "  \"manifestSha256\": \"";
const SEAL_END: &str = "\"\n}\n";

/// What a backup consists of, where it comes from and what it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// How the members are compressed.
    pub codec: Codec,
    /// What a reader must know beyond the format's version.
    pub features: Vec<String>,
    /// The archive.
    pub archive: ObjectRef,
    /// The index.
    pub index: ObjectRef,
    /// Counts of the content.
    pub counts: Counts,
    /// Sum of the sizes of the regular files.
    pub logical_bytes: u64,
    /// Length of the tar stream.
    pub tar_bytes: u64,
    /// Where the data comes from.
    pub source: Source,
    /// When the first byte was read.
    pub started_at: Timestamp,
    /// When the last byte was written.
    pub finished_at: Timestamp,
    /// Milliseconds between the two.
    pub duration_ms: u64,
    /// What wrote it.
    pub tool: String,
    /// Files that changed while they were read, in every try.
    pub torn: Sample,
    /// What an archive cannot hold: sockets, mounts of other file systems.
    pub skipped: Sample,
    /// How archive and index are encrypted; none where they are in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Until when the store lets nobody remove any of its objects; none where they are not locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Timestamp>,
}

/// How archive and index are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// Whom to, as age writes it: each of them can open it alone.
    pub recipients: Vec<String>,
    /// The manifest of the plain objects, in age's format, in Base64.
    pub manifest: String,
}

/// An object of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Its key in storage.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// Its digest, 64 lower-case hex digits.
    pub sha256: String,
}

/// Counts of the content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Entries of the tar stream, superseded ones too.
    pub entries: u64,
    /// Members of the archive.
    pub members: u64,
    /// Regular files, each name of a hard-linked file counted.
    pub files: u64,
    /// Everything else in the archive.
    pub others: u64,
    /// Names that were listed, and gone when they were to be read.
    pub vanished: u64,
    /// Extended attributes that an archive does not keep.
    pub xattrs_left_out: u64,
    /// Names of hard-linked files that were archived as files of their own, for lack of memory.
    pub hard_links_split: u64,
}

/// Where the data of a backup comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Namespace of the volume claim.
    pub namespace: String,
    /// Name of the volume claim.
    pub pvc: String,
    /// Name of the backup.
    pub backup: String,
    /// UID of the backup.
    pub uid: String,
    /// The policy that asked for it; none when a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// The first few of many paths, printable, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// How many in all.
    pub total: u64,
    /// The first ones.
    pub first: Vec<String>,
}

impl Sample {
    /// How many paths a sample holds.
    pub const MAX_FIRST: usize = 10;

    /// Counts a path and keeps it while there is room.
    pub(crate) fn push(&mut self, path: &[u8]) {
        self.total += 1;
        if self.first.len() < Self::MAX_FIRST {
            self.first.push(shown(path));
        }
    }
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not what was written.
    #[error("the manifest is damaged: {0}")]
    Corrupt(String),
    /// It asks for something that this build does not know.
    #[error("the backup has {0}, which this version of the mover does not know; use a newer one")]
    Unsupported(String),
}

impl From<ManifestError> for Corrupt {
    fn from(error: ManifestError) -> Self {
        Self::new("manifest", error.to_string())
    }
}

impl Manifest {
    /// The manifest as it is stored: indented JSON, sealed with a digest of itself.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string_pretty(self)?;
        let body = json.strip_suffix("\n}").unwrap_or(&json);
        let body = format!("{body},\n");
        let seal = sha256(body.as_bytes());
        Ok(format!("{body}{SEAL_FIELD}{seal}{SEAL_END}"))
    }

    /// Reads a stored manifest.
    ///
    /// # Guarantees
    /// Any changed, missing or added byte is found. A manifest of another version is reported as
    /// such, not as damaged, whatever else it holds.
    pub fn from_json(text: &[u8]) -> Result<Self, ManifestError> {
        let corrupt = |what: &str| ManifestError::Corrupt(what.to_owned());
        let text = std::str::from_utf8(text).map_err(|_| corrupt("it is not text"))?;
        let sealed = text.strip_suffix(SEAL_END).and_then(|rest| {
            let (body, seal) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
            Some((body.strip_suffix(SEAL_FIELD)?, seal))
        });
        let (body, seal) = sealed.ok_or_else(|| corrupt("it ends without its own digest"))?;
        if sha256(body.as_bytes()) != seal {
            return Err(corrupt("its digest of itself does not match"));
        }
        // The words quote the manifest.
        let malformed =
            |e: serde_json::Error| ManifestError::Corrupt(shown(e.to_string().as_bytes()));
        Format::deserialize(&mut serde_json::Deserializer::from_str(text))
            .map_err(malformed)?
            .check()?;
        serde_json::from_str(text).map_err(malformed)
    }
}

/// The part of a manifest that every version has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Format {
    format_version: u32,
    #[serde(default)]
    codec: String,
    #[serde(default)]
    features: Vec<String>,
}

impl Format {
    fn check(&self) -> Result<(), ManifestError> {
        if self.format_version != FORMAT_VERSION {
            let version = self.format_version;
            return Err(ManifestError::Unsupported(format!(
                "format version {version}"
            )));
        }
        let codec = &self.codec;
        if serde_json::from_value::<Codec>(codec.as_str().into()).is_err() {
            return Err(ManifestError::Unsupported(format!("the codec {codec:?}")));
        }
        let known = |feature: &String| KNOWN_FEATURES.contains(&feature.as_str());
        match self.features.iter().find(|feature| !known(feature)) {
            Some(unknown) => Err(ManifestError::Unsupported(format!(
                "the feature {unknown:?}"
            ))),
            None => Ok(()),
        }
    }
}
