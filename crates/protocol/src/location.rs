use serde::{Deserialize, Serialize};

/// The form of an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// A tar stream in gzip members.
    #[default]
    TarGz,
    /// A tar stream in zstd frames.
    TarZst,
}

impl Format {
    /// Every form.
    pub const ALL: [Self; 2] = [Self::TarGz, Self::TarZst];

    /// Ends the key of such an archive.
    pub fn ending(self) -> &'static str {
        match self {
            Self::TarGz => ".tar.gz",
            Self::TarZst => ".tar.zst",
        }
    }
}

/// Where one backup lives in storage: `<namespace>/<pvc>/<backup>`, without an ending.
///
/// # Guarantees
/// Each of the three parts holds only `a-z`, `0-9`, `-` and `.`, starts and ends with a letter or
/// digit, and is at most [`Location::MAX_PART_BYTES`] long, so a key made from it can neither
/// climb out of the storage root nor exceed a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location(String);

/// A location that is not `<namespace>/<pvc>/<backup>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "location {0:?} is not <namespace>/<pvc>/<backup> with parts of at most 200 lower-case letters, digits, '-' and '.'"
)]
pub struct InvalidLocation(pub String);

impl Location {
    /// Longest part; a file name holds 255 bytes and temporary names need room for their suffix.
    pub const MAX_PART_BYTES: usize = 200;

    /// Checks and takes the three parts.
    pub fn new(namespace: &str, pvc: &str, backup: &str) -> Result<Self, InvalidLocation> {
        format!("{namespace}/{pvc}/{backup}").try_into()
    }

    /// `<namespace>/<pvc>/<backup>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Ends the key of every manifest.
    pub const MANIFEST_ENDING: &'static str = ".manifest.json";
    /// End the keys of all else that a backup of any format has, in the order in which it is
    /// published.
    pub const DATA_ENDINGS: [&'static str; 10] = [
        ".tar.gz",
        ".tar.zst",
        ".tar.gz.age",
        ".tar.zst.age",
        ".index.jsonl.gz",
        ".index.jsonl.gz.age",
        ".tar.gz.sha256",
        ".tar.zst.sha256",
        ".tar.gz.age.sha256",
        ".tar.zst.age.sha256",
    ];
    /// Ends the key of an archive or an index that is encrypted.
    pub const ENCRYPTED_ENDING: &'static str = ".age";

    /// Key of an archive of this format.
    pub fn archive_key(&self, format: Format) -> String {
        format!("{}{}", self.0, format.ending())
    }

    /// Key of an archive of this format as it is stored, encrypted or not.
    pub fn stored_archive_key(&self, format: Format, encrypted: bool) -> String {
        stored(self.archive_key(format), encrypted)
    }

    /// Key of the index as it is stored, encrypted or not.
    pub fn stored_index_key(&self, encrypted: bool) -> String {
        stored(self.index_key(), encrypted)
    }

    /// Key of the index: where each file stands in the archive.
    pub fn index_key(&self) -> String {
        format!("{}.index.jsonl.gz", self.0)
    }

    /// Key of the archive's digest in the form that `sha256sum -c` reads.
    pub fn digest_key(&self, format: Format, encrypted: bool) -> String {
        format!("{}.sha256", self.stored_archive_key(format, encrypted))
    }

    /// Keys of all objects but the manifest that a backup of any format has here, in the order in
    /// which they are published.
    pub fn data_keys(&self) -> [String; Self::DATA_ENDINGS.len()] {
        Self::DATA_ENDINGS.map(|ending| format!("{}{ending}", self.0))
    }

    /// Key of the manifest: written last, so what has one is complete.
    pub fn manifest_key(&self) -> String {
        format!("{}{}", self.0, Self::MANIFEST_ENDING)
    }
}

fn stored(mut key: String, encrypted: bool) -> String {
    if encrypted {
        key.push_str(Location::ENCRYPTED_ENDING);
    }
    key
}

impl TryFrom<String> for Location {
    type Error = InvalidLocation;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() == 3 && parts.iter().all(|part| is_valid_part(part)) {
            Ok(Self(text))
        } else {
            Err(InvalidLocation(text))
        }
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.0
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_valid_part(part: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.len() <= Location::MAX_PART_BYTES
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes
            .iter()
            .all(|b| alphanumeric(b) || *b == b'-' || *b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_names_three_parts_and_their_keys() {
        let location = Location::new("shop", "data", "nightly-20261123-020000").unwrap();
        assert_eq!(
            location.archive_key(Format::TarGz),
            "shop/data/nightly-20261123-020000.tar.gz"
        );
        assert_eq!(
            location.digest_key(Format::TarZst, true),
            "shop/data/nightly-20261123-020000.tar.zst.age.sha256"
        );
        assert_eq!(
            location.manifest_key(),
            "shop/data/nightly-20261123-020000.manifest.json"
        );
    }

    #[test]
    fn every_object_of_every_format_is_among_those_that_a_backup_has() {
        let location = Location::new("shop", "data", "nightly").unwrap();
        let all = location.data_keys();
        let published = |format, encrypted| {
            [
                location.stored_archive_key(format, encrypted),
                location.stored_index_key(encrypted),
                location.digest_key(format, encrypted),
            ]
        };
        let mut seen = std::collections::BTreeSet::new();
        for (format, encrypted) in Format::ALL
            .into_iter()
            .flat_map(|f| [(f, false), (f, true)])
        {
            let keys = published(format, encrypted);
            let places = keys.map(|key| all.iter().position(|other| *other == key));
            assert!(places.iter().all(Option::is_some), "{places:?}");
            assert!(places.is_sorted(), "{places:?}");
            seen.extend(places);
        }
        assert_eq!(all.len(), seen.len());
    }

    #[test]
    fn a_location_cannot_leave_its_storage() {
        let long = "a".repeat(201);
        for bad in [
            "",
            "a/b",
            "a/b/c/d",
            "../b/c",
            "a/../c",
            "/b/c",
            "a//c",
            "a/b/.hidden",
            "a/b/c\n",
            "a/b/C",
            "a/b/é",
            &format!("a/b/{long}"),
        ] {
            assert!(
                Location::try_from(bad.to_owned()).is_err(),
                "{bad:?} was taken"
            );
        }
    }
}
