//! Metadata that a target refuses.

use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::entry::{Entry, EntryKind};
use crate::error::Refused;
use crate::manifest::Sample;
use crate::meta::Meta;

/// A kind of metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetadataKind {
    /// Owner and group.
    Owner,
    /// Permission bits, with setuid, setgid and sticky.
    Mode,
    /// Time of the last change.
    Time,
    /// Extended attributes, with ACLs and capabilities.
    Xattr,
}

/// What a target refused in the course of a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Losses {
    /// Entries without their owner.
    pub owners: u64,
    /// Entries without their mode.
    pub modes: u64,
    /// Entries without their time.
    pub times: u64,
    /// Extended attributes that are missing, or that could not be removed.
    pub xattrs: u64,
    /// The entries it happened to.
    pub paths: Sample,
}

impl Losses {
    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.paths.total == 0
    }

    /// Whether a restore has to be allowed to lose this: all but the time of the volume's own root,
    /// which belongs to whoever made the volume where the mover does not own it.
    pub fn need_leave(&self) -> bool {
        let of_root = self.paths.total == 1 && self.paths.first[..] == ["."];
        let only_time = (self.owners, self.modes, self.xattrs) == (0, 0, 0);
        !(self.is_empty() || of_root && only_time)
    }

    /// Adds what was refused of one entry.
    pub(crate) fn add(&mut self, path: &[u8], lost: &Lost) {
        for kind in &lost.kinds {
            *self.count_mut(*kind) += 1;
        }
        if !lost.is_empty() {
            self.paths.push(path);
        }
    }

    fn count_mut(&mut self, kind: MetadataKind) -> &mut u64 {
        match kind {
            MetadataKind::Owner => &mut self.owners,
            MetadataKind::Mode => &mut self.modes,
            MetadataKind::Time => &mut self.times,
            MetadataKind::Xattr => &mut self.xattrs,
        }
    }

    /// Whether anything of this kind was refused.
    pub(crate) fn has(&self, kind: MetadataKind) -> bool {
        let count = match kind {
            MetadataKind::Owner => self.owners,
            MetadataKind::Mode => self.modes,
            MetadataKind::Time => self.times,
            MetadataKind::Xattr => self.xattrs,
        };
        count > 0
    }
}

/// What a target refused of one entry.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Each attribute counts; every other kind is there once.
    kinds: Vec<MetadataKind>,
}

impl Lost {
    /// Notes a refusal that a restore can live with; any other error stays one.
    pub(crate) fn tolerate(
        &mut self,
        kind: MetadataKind,
        result: Result<(), Refused>,
    ) -> Result<(), Refused> {
        match result {
            Err((_, error)) if is_refusal(&error) => {
                self.note(kind);
                Ok(())
            }
            other => other,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    pub(crate) fn note(&mut self, kind: MetadataKind) {
        if kind == MetadataKind::Xattr || !self.has(kind) {
            self.kinds.push(kind);
        }
    }

    pub(crate) fn has(&self, kind: MetadataKind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Notes what differs though nothing was refused: some file systems take less than they are
    /// given without a word.
    pub(crate) fn compare(&mut self, entry: &Entry, found: &Meta) {
        if (found.uid, found.gid) != (entry.uid, entry.gid) {
            self.note(MetadataKind::Owner);
        }
        if entry.kind != EntryKind::Symlink && found.mode != entry.mode {
            self.note(MetadataKind::Mode);
        }
        if found.mtime != entry.mtime {
            self.note(MetadataKind::Time);
        }
    }
}

/// Whether a target says that it will not or cannot keep something, not that it is broken or full.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS)
    )
}
