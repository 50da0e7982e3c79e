//! Taking back what a restore that ended for good has written.

use std::path::Path;

use tidelock_archive::Target;
use tidelock_protocol::{Failure, RunId, UndoReport, UndoTask};

use crate::failure::of_restore;
use crate::words;

/// Puts the target back as it was before the restore `run`, as far as its `overwrite` allows.
///
/// # Guarantees
/// What has not that restore's marker is left as it is.
pub(crate) fn undo(run: &RunId, task: &UndoTask) -> Result<UndoReport, Failure> {
    let undone = Target::open(Path::new(&task.target_path), &run.uid)
        .and_then(|mut target| tidelock_archive::undo(&mut target))
        .map_err(|e| of_restore(&e))?;
    Ok(words::undone(undone))
}
