//! Taking back a restore that ended before it was done.

use std::os::fd::AsFd;

use crate::error::RestoreError;
use crate::loss::Lost;
use crate::marker::{Overwrite, Stage};
use crate::meta::{FileKind, Meta};
use crate::names::{LOST_AND_FOUND, drain};
use crate::place;
use crate::remove::remove_tree;
use crate::target::Target;
use crate::walk::{Step, Walk};

/// What a target is like after an undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// The restore has no marker there, or had written nothing.
    Untouched,
    /// It is empty again, `lost+found` aside.
    Emptied,
    /// What it held before is back in its place: so many names in the root.
    PutBack(u64),
    /// It holds a part of the backup beside what it held.
    PartlyMerged,
    /// The restore was done already.
    Restored,
}

/// Takes back what the restore of this target's UID has written and not finished.
///
/// # Guarantees
/// - Without that restore's own marker nothing is touched.
/// - With [`Overwrite::Never`] and [`Overwrite::Replace`] the target is as it was before, owner,
///   mode, time and attributes of the root included. A restore that had succeeded is finished
///   instead. With [`Overwrite::Merge`] only the restore's own files go.
/// - Memory is bounded by the depth of what is removed.
///
/// # Crash window
/// At any point a further undo, or a further try of the restore, goes on rightly.
pub fn undo(target: &mut Target) -> Result<Undone, RestoreError> {
    if !target.take()? {
        target.forget_new_marker()?;
        return Ok(Undone::Untouched);
    }
    let (overwrite, stage) = (target.marker()?.overwrite, target.marker()?.stage);
    if stage == Stage::Finished {
        target.complete()?;
        return Ok(Undone::Restored);
    }
    let undone = match (overwrite, stage) {
        (Overwrite::Merge, Stage::Writing) => {
            remove_partials(target)?;
            remove_tree(target.root.as_fd(), target.names.linked.as_bytes())?;
            target.release(None)?;
            return Ok(Undone::PartlyMerged);
        }
        (Overwrite::Never, Stage::Writing) => {
            remove_written(target)?;
            Undone::Emptied
        }
        (Overwrite::Replace, Stage::Writing) => {
            remove_written(target)?;
            // From here on what is in the root is what was there before.
            target.advance(Stage::Preparing, None)?;
            Undone::PutBack(target.put_back()?)
        }
        (Overwrite::Replace, _) => match target.put_back()? {
            0 => Undone::Untouched,
            names => Undone::PutBack(names),
        },
        (Overwrite::Never | Overwrite::Merge, _) => Undone::Untouched,
    };
    let mtime = restore_root(target)?;
    target.release(Some(mtime))?;
    Ok(undone)
}

/// Removes all that stands in the root, but for what was there before the restore.
fn remove_written(target: &Target) -> Result<(), RestoreError> {
    let names = &target.names;
    let stays = |name: &[u8]| {
        let own = [&names.marker, &names.new_marker, &names.replaced];
        name == LOST_AND_FOUND || own.iter().any(|own| own.as_bytes() == name)
    };
    let root = target.root.as_fd();
    drain(root, stays, |name| remove_tree(root, name))
}

/// Gives the root back what the restore may have changed; gives its time.
fn restore_root(target: &Target) -> Result<crate::meta::Time, RestoreError> {
    let before = &target.marker()?.root;
    let entry = before.to_entry().map_err(|e| {
        RestoreError::target("read the attributes of", b".", std::io::Error::other(e))
    })?;
    let root = target.root.as_fd();
    // Best effort: what the file system refuses now, the restore could not have changed either.
    let mut lost = Lost::default();
    place::start_dir(root, &entry, true, &mut lost)
        .and_then(|()| place::finish_dir(root, &entry, &mut lost))
        .map_err(|(step, e)| RestoreError::target(step, b".", e))?;
    Ok(before.mtime)
}

/// Removes entries that were about to take their places.
fn remove_partials(target: &Target) -> Result<(), RestoreError> {
    let mut walk = Walk::new(target.root()?);
    while let Some(step) = walk.next() {
        let fault = |e| RestoreError::target("look through", walk.path(), e);
        let is_file = match step {
            Step::Unreadable(error) => return Err(fault(error)),
            Step::Found(Meta { kind, .. }) => kind != FileKind::Directory,
            Step::OtherMount(_) | Step::Vanished | Step::LostAndFound => false,
        };
        if is_file && walk.name().to_bytes() == target.names.partial.as_bytes() {
            let path = walk.path().to_vec();
            let removed = walk
                .dir()
                .map_err(|e| RestoreError::target("open", &path, e));
            remove_tree(removed?, target.names.partial.as_bytes())?;
        }
    }
    Ok(())
}
