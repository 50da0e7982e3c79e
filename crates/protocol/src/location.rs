use serde::{Deserialize, Serialize};

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

    /// Key of the archive.
    pub fn archive_key(&self) -> String {
        format!("{}.tar.gz", self.0)
    }

    /// Key of the index: where each file stands in the archive.
    pub fn index_key(&self) -> String {
        format!("{}.index.jsonl.gz", self.0)
    }

    /// Key of the archive's digest in the form that `sha256sum -c` reads.
    pub fn digest_key(&self) -> String {
        format!("{}.tar.gz.sha256", self.0)
    }

    /// Key of the manifest: written last, so what has one is complete.
    pub fn manifest_key(&self) -> String {
        format!("{}.manifest.json", self.0)
    }
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
            location.archive_key(),
            "shop/data/nightly-20261123-020000.tar.gz"
        );
        assert_eq!(
            location.digest_key(),
            "shop/data/nightly-20261123-020000.tar.gz.sha256"
        );
        assert_eq!(
            location.manifest_key(),
            "shop/data/nightly-20261123-020000.manifest.json"
        );
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
