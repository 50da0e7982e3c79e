//! The names that a restore gives to files of its own in a target.

use std::os::fd::BorrowedFd;

use rustix::fs::Dir;
use rustix::io::Errno;

use crate::error::RestoreError;

/// What a file system makes in the root of a new volume.
pub(crate) const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Names that are held at once while a directory is emptied.
const BATCH: usize = 1024;

const MARKER: &str = ".tidelock-restore-";
const NEW_MARKER: &str = ".tidelock-marker-";
const REPLACED: &str = ".tidelock-replaced-";
const PARTIAL: &str = ".tidelock-partial-";
const LINKED: &str = ".tidelock-linked-";

/// The names of one restore, all with its UID.
pub(crate) struct Names {
    /// In the root: says that a restore is not finished, and how far it is.
    pub(crate) marker: String,
    /// In the root: a marker that is being written.
    pub(crate) new_marker: String,
    /// In the root: the folder with what the target held before.
    pub(crate) replaced: String,
    /// In any folder: an entry that takes its place when it is complete.
    pub(crate) partial: String,
    /// In the root: files that are not taken, for the sake of links to them that are.
    pub(crate) linked: String,
}

impl Names {
    pub(crate) fn new(uid: &str) -> Self {
        Self {
            marker: format!("{MARKER}{uid}"),
            new_marker: format!("{NEW_MARKER}{uid}"),
            replaced: format!("{REPLACED}{uid}"),
            partial: format!("{PARTIAL}{uid}"),
            linked: format!("{LINKED}{uid}"),
        }
    }

    /// Whether a name in the root is this restore's own.
    pub(crate) fn is_own(&self, name: &[u8]) -> bool {
        [
            &self.marker,
            &self.new_marker,
            &self.replaced,
            &self.partial,
            &self.linked,
        ]
        .iter()
        .any(|own| own.as_bytes() == name)
    }

    /// Whether a path of an archive is, or is in, something of this restore's own.
    pub(crate) fn is_reserved(&self, path: &[u8]) -> bool {
        let mut parts = path.split(|b| *b == b'/');
        parts.next().is_some_and(|top| self.is_own(top))
            || parts.any(|part| part == self.partial.as_bytes())
    }
}

/// Whether some restore, this or another, has given a name in the root.
pub(crate) fn is_of_a_restore(name: &[u8]) -> bool {
    [MARKER, NEW_MARKER, REPLACED, PARTIAL, LINKED]
        .iter()
        .any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Calls `act`, which takes the name away, with every name in `dir` that `pass` does not pass over.
///
/// # Guarantees
/// Memory does not grow with the directory.
pub(crate) fn drain(
    dir: BorrowedFd<'_>,
    pass: impl Fn(&[u8]) -> bool,
    mut act: impl FnMut(&[u8]) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    loop {
        let batch = first_names(dir, &pass).map_err(|e| RestoreError::target("list", b".", e))?;
        if batch.is_empty() {
            return Ok(());
        }
        for name in batch {
            act(&name)?;
        }
    }
}

fn first_names(dir: BorrowedFd<'_>, pass: impl Fn(&[u8]) -> bool) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && !pass(name) {
            names.push(name.to_vec());
        }
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}
