use serde::{Deserialize, Serialize};

use crate::{FailureReason, Location, PathSample, VerificationLevel};

/// What a finished backup wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupReport {
    /// Where the archive is.
    pub location: Location,
    /// `sha256:` and 64 hex digits, over the stored archive.
    pub digest: String,
    /// Size of the archive in storage.
    pub stored_bytes: u64,
    /// Sum of the sizes of the regular files.
    pub logical_bytes: u64,
    /// Regular files, each name of a hard-linked file counted.
    pub files: u64,
    /// Everything else that was archived: directories, links, FIFOs, device nodes.
    pub others: u64,
    /// Files that changed while they were read, and still did after the retries.
    pub torn: PathSample,
    /// What is not in the archive: sockets, and the content of other file systems mounted inside.
    pub skipped: PathSample,
    /// Milliseconds from the first read to the published manifest.
    pub duration_ms: u64,
    /// Whether it is encrypted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// How much of it was read back, and compared, before it was published.
    pub verification: VerificationLevel,
    /// Milliseconds that reading back took.
    pub verification_ms: u64,
    /// Until when its store lets nobody remove it, in seconds since 1970; none when it is not locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<i64>,
    /// What stands in the volume's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderReport>,
}

/// What stands in the folder of one volume in storage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FolderReport {
    /// Backups: manifests that stand there.
    pub archives: u64,
    /// Archives that no Backup object is known for, with or without a manifest; they are left alone.
    pub unknown: PathSample,
    /// Temporary files of dead runs that were removed.
    pub swept: u64,
}

/// What reading backups again found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyReport {
    /// One letter for each item of the task, in its order; see [`ItemVerdict`].
    pub verdicts: String,
    /// The first items that are not good, with the reason.
    pub faults: Vec<ItemFault>,
    /// What stands in the volume's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderReport>,
    /// Milliseconds it took.
    pub duration_ms: u64,
}

/// What reading one backup again found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemVerdict {
    /// `g`: everything was read, and is as it was written.
    Good,
    /// `b`: it is damaged, or not what the cluster knows.
    Bad,
    /// `m`: it is not there.
    Missing,
    /// `n`: it could not be read to the end, which says nothing of it.
    NotChecked,
}

impl ItemVerdict {
    /// The letter in a report.
    pub fn letter(self) -> char {
        match self {
            Self::Good => 'g',
            Self::Bad => 'b',
            Self::Missing => 'm',
            Self::NotChecked => 'n',
        }
    }

    /// The verdict of a letter; anything unknown was not checked.
    pub fn of(letter: char) -> Self {
        match letter {
            'g' => Self::Good,
            'b' => Self::Bad,
            'm' => Self::Missing,
            _ => Self::NotChecked,
        }
    }
}

/// Why one item is not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ItemFault {
    /// Its place in the task's list, from 0.
    pub item: u32,
    /// Archive, member, offset and what is wrong, in words for a person.
    pub message: String,
}

/// What a finished restore wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreReport {
    /// Sum of the sizes of the regular files written.
    pub logical_bytes: u64,
    /// Regular files written, each name of a hard-linked file counted.
    pub files: u64,
    /// Everything else that was made.
    pub others: u64,
    /// Milliseconds from the first check to the last time set.
    pub duration_ms: u64,
    /// Whether the target was read back and compared.
    #[serde(default)]
    pub read_back: bool,
    /// What the target refused; only ever there where that is allowed.
    #[serde(default)]
    pub losses: Losses,
}

/// Metadata that a target refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Losses {
    /// Entries without their owner.
    pub owners: u64,
    /// Entries without their mode.
    pub modes: u64,
    /// Entries without their time.
    pub times: u64,
    /// Extended attributes (ACLs and capabilities too) that are missing.
    pub xattrs: u64,
    /// The entries it happened to.
    pub paths: PathSample,
}

impl Losses {
    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Whether a restore has to be allowed to lose this: all but the time of the volume's own root,
    /// which belongs to whoever made the volume where the mover does not own it.
    pub fn need_leave(&self) -> bool {
        let of_root = self.paths.total == 1 && self.paths.first[..] == ["."];
        let only_time = (self.owners, self.modes, self.xattrs) == (0, 0, 0);
        !(self.is_empty() || of_root && only_time)
    }
}

/// What a restore changes in its target, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Changes {
    /// Names that are not in the target yet.
    pub added: Change,
    /// Names in the target whose content or metadata differs.
    pub changed: Change,
    /// Names that only the target has, where those go.
    pub removed: Change,
    /// Names that are alike.
    pub unchanged: u64,
}

impl Changes {
    /// Drops one path of the longest list; false when there is none left.
    pub(crate) fn shrink(&mut self) -> bool {
        let lists = [&mut self.added, &mut self.changed, &mut self.removed];
        let longest = lists
            .into_iter()
            .map(|change| &mut change.paths.first)
            .max_by_key(|first| first.len());
        longest.is_some_and(|first| first.pop().is_some())
    }
}

/// Names, how many bytes their files have, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    /// Sum of the sizes of the regular files, in bytes.
    pub bytes: u64,
    /// The names.
    pub paths: PathSample,
}

/// What became of the target of a restore that ended for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UndoReport {
    /// What it is like now.
    pub target: TargetState,
    /// Names at the target's root that were put back.
    pub put_back: u64,
}

/// What the target of a restore that ended for good is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetState {
    /// The restore never wrote to it.
    Untouched,
    /// It is empty again.
    Emptied,
    /// What it held before is back in its place.
    PutBack,
    /// It holds a part of the backup beside what it held (Merge).
    PartlyMerged,
    /// The restore was done already; the target holds the backup.
    Restored,
}

/// What a delete run removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteReport {
    /// Items whose data is gone now, also when it was gone before.
    pub deleted: u64,
    /// Bytes given back.
    pub freed_bytes: u64,
    /// The first items that are still there, with the reason.
    pub failed: Vec<DeleteFailure>,
    /// How many items are still there in all.
    pub failed_total: u64,
}

/// One item that could not be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteFailure {
    /// Which one.
    pub location: Location,
    /// Why, in words for a person.
    pub message: String,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// The stable word.
    pub reason: FailureReason,
    /// What happened, to what, and what to do.
    pub message: String,
    /// The paths it happened to.
    pub paths: PathSample,
    /// For a restore: whether anything was written into the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_touched: Option<bool>,
    /// For a restore that had begun to write: how far it got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Done>,
}

/// How far a restore got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Done {
    /// Regular files written.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
}
