use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Format, Location, PathSample};

/// Look at a storage: whether it can be written, read and listed and objects removed, and what stands
/// there of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckTask {
    /// The first part of the keys that are looked at; all others are passed over.
    pub namespace: String,
    /// Whether an object is written, read back and removed.
    pub writes: bool,
    /// Whom backups there are to be encrypted to; that they can be is made sure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// The Backups that the cluster has there; none where there are too many to list, and then
    /// nothing is told to be unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<KnownBackups>,
    /// Whether backups that are not known are described, as far as the report has room.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub describe: bool,
}

/// What a look at a storage found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckReport {
    /// Backups of the namespace: manifests that stand there.
    pub backups: u64,
    /// Bytes of all objects of the namespace.
    pub stored_bytes: u64,
    /// Backups among them that the cluster does not know, as `<pvc>/<backup>`.
    pub unknown: PathSample,
    /// Whether it could not be told which are unknown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blind: bool,
    /// Of the unknown ones, those whose manifest says nothing that could be relied on.
    #[serde(default, skip_serializing_if = "PathSample::is_empty")]
    pub unreadable: PathSample,
    /// Free space, where the storage tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Unknown backups as their manifests describe them, the first in the order of their locations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub described: Vec<DescribedBackup>,
    /// Whether there are more to describe.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// Milliseconds it took.
    pub duration_ms: u64,
}

/// A backup as its manifest describes it. Nothing of its data was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DescribedBackup {
    /// Where it stands.
    pub location: Location,
    /// Name of the claim that was backed up, where it is not the one in the location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc: Option<String>,
    /// Name of the Backup that made it, where it is not the one in the location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// UID of the Backup that made it.
    pub uid: String,
    /// Form of the archive.
    pub format: Format,
    /// Whether it is encrypted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// `sha256:` and 64 hex digits, over the stored archive.
    pub digest: String,
    /// Size of the archive in storage.
    pub stored_bytes: u64,
    /// Sum of the sizes of the regular files.
    pub logical_bytes: u64,
    /// Regular files.
    pub files: u64,
    /// When the first byte was read, in seconds since 1970.
    pub started_at: i64,
    /// When the last byte was written, in seconds since 1970.
    pub finished_at: i64,
    /// Until when its store lets nobody remove it, in seconds since 1970; none when it is not locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<i64>,
}

/// A set of locations in a form that is short enough for a request: 48 bits of each one's SHA-256.
///
/// # Guarantees
/// A location that was put in is in it. One that was not is taken for one with a chance below one
/// in ten thousand, for 10,000 in the set and a million asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownBackups(String);

impl KnownBackups {
    /// Most locations in a set; keeps the request well below the size of an environment variable.
    pub const MOST: usize = 8000;

    /// The set of these; none where there are too many.
    pub fn of<'l>(locations: impl IntoIterator<Item = &'l Location>) -> Option<Self> {
        let marks: HashSet<String> = locations.into_iter().map(mark).collect();
        let mut marks: Vec<String> = marks.into_iter().collect();
        marks.sort_unstable();
        (marks.len() <= Self::MOST).then(|| Self(marks.concat()))
    }

    /// What [`KnownSet::contains`] is asked of.
    pub fn to_set(&self) -> KnownSet<'_> {
        let mark = |at: usize| self.0.get(at..at + MARK_CHARS);
        let all = (0..self.0.len()).step_by(MARK_CHARS);
        KnownSet(all.filter_map(mark).collect())
    }
}

/// A [`KnownBackups`] to be asked.
pub struct KnownSet<'k>(HashSet<&'k str>);

impl KnownSet<'_> {
    /// Whether it has this location.
    pub fn contains(&self, location: &Location) -> bool {
        self.0.contains(mark(location).as_str())
    }
}

const MARK_CHARS: usize = 12;

fn mark(location: &Location) -> String {
    hex::encode(&Sha256::digest(location.as_str().as_bytes())[..MARK_CHARS / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(n: usize) -> Location {
        Location::new("shop", "data", &format!("nightly-{n}")).unwrap()
    }

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_else() {
        let known: Vec<Location> = (0..1000).map(location).collect();
        let set = KnownBackups::of(&known).unwrap();
        let json = serde_json::to_string(&set).unwrap();
        let set: KnownBackups = serde_json::from_str(&json).unwrap();
        let set = set.to_set();
        assert!(known.iter().all(|location| set.contains(location)));
        assert!(!(1000..5000).map(location).any(|other| set.contains(&other)));
    }

    #[test]
    fn a_set_that_would_not_fit_a_request_is_none() {
        let known: Vec<Location> = (0..=KnownBackups::MOST).map(location).collect();
        assert!(KnownBackups::of(&known).is_none());
        assert!(KnownBackups::of(&known[1..]).is_some_and(|set| set.0.len() < 100_000));
    }

    #[test]
    fn a_set_of_anything_else_has_nothing() {
        let odd: KnownBackups = serde_json::from_str("\"äöü1234567890\"").unwrap();
        assert!(!odd.to_set().contains(&location(1)));
    }
}
