//! What a restore needs of a target, before anything is written.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::fstatvfs;

use crate::entry::EntryKind;
use crate::error::RestoreError;
use crate::follow::Follow;
use crate::index::{IndexEntry, IndexReader};
use crate::manifest::Sample;
use crate::marker::Overwrite;
use crate::meta::{FileKind, Meta};
use crate::select::{Pick, Picker, Selection, Survey};
use crate::target::Target;

/// What a restore needs, and what stands in its way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of content that the target must have room for at once.
    pub bytes: u64,
    /// Files, directories and links that it must have room for.
    pub inodes: u64,
    /// Names in the target that are a directory where the archive has none, or the reverse.
    pub conflicts: Sample,
}

/// What a target has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes; none where the file system does not tell.
    pub bytes: Option<u64>,
    /// Files, directories and links; none where the file system sets no limit.
    pub inodes: Option<u64>,
}

impl Target {
    /// What the target has room for, for the user that this process runs as.
    pub fn room(&self) -> Result<Room, RestoreError> {
        let stat = fstatvfs(&self.root)
            .map_err(|e| RestoreError::target("ask for the free space of", b".", e))?;
        Ok(Room {
            bytes: (stat.f_blocks != 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize)),
            // File systems that make inodes as they are needed tell of none.
            inodes: (stat.f_files != 0).then_some(stat.f_favail),
        })
    }
}

/// Finds out what a restore of the selection needs; `entries` and `ahead` are two readers of the
/// index.
///
/// # Guarantees
/// Nothing is written. Memory is bounded by the depth of the tree.
pub fn plan<I: Read>(
    target: &Target,
    overwrite: Overwrite,
    (selection, survey): (&Selection, &Survey),
    [entries, ahead]: [I; 2],
    stop: &AtomicBool,
) -> Result<Plan, RestoreError> {
    let mut planner = Planner {
        plan: Plan::default(),
        follow: (overwrite == Overwrite::Merge)
            .then(|| target.root().map(Follow::new))
            .transpose()?,
        settled: 0,
        peak: 0,
    };
    let mut entries = IndexReader::new(entries);
    let mut picker = Picker::new(selection, ahead);
    while let Some(entry) = entries.next_entry()? {
        if stop.load(Ordering::Relaxed) {
            return Err(RestoreError::Stopped);
        }
        let left = picker.pick(&entry)? == Pick::Left;
        if entry.superseded {
            continue;
        }
        if !left {
            planner.entry(&entry)?;
        } else if survey.links.name_of(&entry.path).is_some() {
            planner.add(&entry, None);
        }
    }
    planner.plan.bytes = u64::try_from(planner.peak).unwrap_or(u64::MAX);
    Ok(planner.plan)
}

struct Planner {
    plan: Plan,
    /// Where the target may hold something.
    follow: Option<Follow>,
    /// By how many bytes the target has grown after the entries so far.
    settled: i128,
    /// The most it ever grows by.
    peak: i128,
}

impl Planner {
    fn entry(&mut self, entry: &IndexEntry) -> Result<(), RestoreError> {
        let path = &entry.path;
        let fault = |e| RestoreError::target("look at", path, e);
        let Some(follow) = &mut self.follow else {
            self.add(entry, None);
            return Ok(());
        };
        while follow.is_past(path) {
            follow.leave();
        }
        let found = follow.look(path).map_err(fault)?;
        let in_archive = entry.kind == EntryKind::Directory;
        let in_target = found.as_ref().map(|meta| meta.kind == FileKind::Directory);
        match in_target {
            Some(in_target) if in_target != in_archive => self.plan.conflicts.push(path),
            Some(true) if path != b"." => return follow.enter(path).map_err(fault),
            _ => {}
        }
        if in_archive && in_target != Some(true) {
            follow.skip(path);
        }
        self.add(entry, found.as_ref());
        Ok(())
    }

    /// Counts an entry that is written whole before what it replaces goes.
    fn add(&mut self, entry: &IndexEntry, replaces: Option<&Meta>) {
        if replaces.is_none() && entry.kind != EntryKind::HardLink && entry.path != b"." {
            self.plan.inodes += 1;
        }
        let freed = replaces.filter(|meta| meta.kind == FileKind::File && meta.nlink == 1);
        let freed = freed.map_or(0, |meta| i128::from(meta.size));
        self.peak = self
            .peak
            .max(self.settled + i128::from(entry.stored_bytes()));
        self.settled += i128::from(entry.stored_bytes()) - freed;
    }
}
