//! How a Restore ended, as its status tells it. Pure.

use tidelock_api::{ChangeStatus, ChangesStatus, MetadataLossStatus, Restore};
use tidelock_core::text;
use tidelock_protocol::{Change, Changes, Losses, Outcome, RestoreReport, TargetState};

use crate::convert::to_i64;
use crate::run::kind::{Remark, Settled};
use crate::run::report::RunFailure;
use crate::telemetry::reasons;

/// Takes a good report into the status where it fits what was asked for.
pub fn settle(restore: &mut Restore, outcome: Outcome) -> Result<Settled, RunFailure> {
    match (outcome, restore.spec.dry_run) {
        (Outcome::Restored(done), false) => restored(restore, &done),
        (Outcome::Compared(changes), true) => Ok(compared(restore, &changes)),
        (other, _) => Err(RunFailure::new(
            reasons::REPORT_MISMATCH,
            format!("The mover reports something else than it was asked for ({other:?})."),
        )),
    }
}

fn restored(restore: &mut Restore, done: &RestoreReport) -> Result<Settled, RunFailure> {
    if restore.spec.verify && !done.read_back {
        let words = "The mover was asked to read the target back and did not.";
        return Err(RunFailure::new(reasons::REPORT_MISMATCH, words));
    }
    if done.losses.need_leave() && !restore.spec.allow_metadata_loss {
        let words = "The mover lost metadata that it was not allowed to lose.";
        return Err(RunFailure::new(reasons::REPORT_MISMATCH, words));
    }
    let restored = text::bytes(done.logical_bytes);
    let files = text::count(done.files, "file");
    let status = restore.status.get_or_insert_default();
    status.restored_bytes = Some(to_i64(done.logical_bytes));
    status.restored = Some(restored.clone());
    status.restored_files = Some(to_i64(done.files));
    status.target_touched = Some(true);
    status.verified = Some(done.read_back);
    let mut remarks = Vec::new();
    if !done.losses.is_empty() {
        status.metadata_loss = Some(loss_status(&done.losses));
        remarks.push(Remark {
            warning: true,
            reason: reasons::METADATA_LOST,
            note: loss_words(&done.losses),
        });
    }
    let read_back = if done.read_back {
        ", and read back"
    } else {
        ""
    };
    Ok(Settled {
        summary: format!("{restored} in {files}, each compared with its digest{read_back}"),
        remarks,
    })
}

fn loss_words(losses: &Losses) -> String {
    format!(
        "The target refused {}, {}, {} and {}; the first entries: {}",
        text::count(losses.owners, "owner"),
        text::count(losses.modes, "mode"),
        text::count(losses.times, "time"),
        text::count(losses.xattrs, "extended attribute"),
        losses.paths.first.join(", ")
    )
}

fn loss_status(losses: &Losses) -> MetadataLossStatus {
    MetadataLossStatus {
        owners: to_i64(losses.owners),
        modes: to_i64(losses.modes),
        times: to_i64(losses.times),
        xattrs: to_i64(losses.xattrs),
        first: losses.paths.first.clone(),
    }
}

fn compared(restore: &mut Restore, changes: &Changes) -> Settled {
    let status = restore.status.get_or_insert_default();
    status.target_touched = Some(false);
    status.recovery_point = None;
    status.changes = Some(ChangesStatus {
        added: change_status(&changes.added),
        changed: change_status(&changes.changed),
        removed: change_status(&changes.removed),
        unchanged: to_i64(changes.unchanged),
    });
    let words = |change: &Change, verb: &str| {
        let names = text::count(change.paths.total, "name");
        format!("{verb} {names} ({})", text::bytes(change.bytes))
    };
    Settled {
        summary: format!(
            "a restore would {}, {} and {}; nothing was written",
            words(&changes.added, "add"),
            words(&changes.changed, "change"),
            words(&changes.removed, "remove")
        ),
        remarks: Vec::new(),
    }
}

fn change_status(change: &Change) -> ChangeStatus {
    ChangeStatus {
        count: to_i64(change.paths.total),
        bytes: to_i64(change.bytes),
        first: change.paths.first.clone(),
    }
}

/// Takes a failure in: how far it got, and no recovery point that the target does not have.
pub fn fail(restore: &mut Restore, failure: &RunFailure) {
    let status = restore.status.get_or_insert_default();
    status.recovery_point = None;
    if let Some(touched) = failure.target_touched {
        status.target_touched = Some(touched);
    }
    if let Some(done) = failure.done {
        status.restored_bytes = Some(to_i64(done.bytes));
        status.restored = Some(text::bytes(done.bytes));
        status.restored_files = Some(to_i64(done.files));
    }
}

/// What became of the target, in a sentence.
pub fn undone(restore: &mut Restore, outcome: &Outcome) -> String {
    let Outcome::Undone(done) = outcome else {
        return format!("What became of the target is not known ({outcome:?}).");
    };
    let status = restore.status.get_or_insert_default();
    let (touched, words) = match done.target {
        TargetState::Untouched => (false, "The target was never written to."),
        TargetState::Emptied => (true, "The target is empty again."),
        TargetState::PutBack => (true, "What the target held is back in its place."),
        TargetState::PartlyMerged => (
            true,
            "The target holds what it held, and a part of the backup; a further Restore with overwrite Merge completes it.",
        ),
        TargetState::Restored => (
            true,
            "The restore had been done before that: the target holds the backup.",
        ),
    };
    status.target_touched = Some(touched);
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidelock_protocol::{Done, UndoReport};

    use super::*;

    fn restore(spec: serde_json::Value) -> Restore {
        let mut all = json!({"backupName": "b", "targetPVC": "data"});
        for (key, value) in spec.as_object().unwrap() {
            all[key] = value.clone();
        }
        Restore::new("r", serde_json::from_value(all).unwrap())
    }

    #[test]
    fn a_dry_run_is_never_taken_for_a_restore_nor_the_reverse() {
        let dry = json!({"overwrite": "Merge", "dryRun": true});
        let report = Outcome::Restored(RestoreReport::default());
        assert!(settle(&mut restore(dry.clone()), report.clone()).is_err());
        assert!(settle(&mut restore(json!({})), report).is_ok());
        let changes = Outcome::Compared(Changes::default());
        assert!(settle(&mut restore(json!({})), changes.clone()).is_err());
        let mut dry = restore(dry);
        assert!(
            settle(&mut dry, changes)
                .unwrap()
                .summary
                .contains("nothing was written")
        );
        assert_eq!(dry.status.unwrap().target_touched, Some(false));
    }

    #[test]
    fn a_target_that_was_not_read_back_is_not_called_verified() {
        let mut wanted = restore(json!({"verify": true}));
        let report = Outcome::Restored(RestoreReport::default());
        assert!(settle(&mut wanted, report).is_err());
    }

    #[test]
    fn lost_metadata_is_only_completed_where_it_is_allowed() {
        let mut losses = Losses {
            owners: 1,
            ..Losses::default()
        };
        losses.paths.push(b"a");
        let report = Outcome::Restored(RestoreReport {
            losses,
            ..Default::default()
        });
        assert!(settle(&mut restore(json!({})), report.clone()).is_err());
        let mut lenient = restore(json!({"allowMetadataLoss": true}));
        assert_eq!(settle(&mut lenient, report).unwrap().remarks.len(), 1);
        assert_eq!(lenient.status.unwrap().metadata_loss.unwrap().owners, 1);
    }

    #[test]
    fn only_the_time_of_a_root_that_is_anothers_is_told_and_needs_no_leave() {
        let lose = |path: &[u8], owners| {
            let mut losses = Losses {
                times: 1,
                owners,
                ..Losses::default()
            };
            losses.paths.push(path);
            settle(
                &mut restore(json!({})),
                Outcome::Restored(RestoreReport {
                    losses,
                    ..Default::default()
                }),
            )
        };
        assert_eq!(lose(b".", 0).unwrap().remarks.len(), 1);
        assert!(lose(b".", 1).is_err());
        assert!(lose(b"a", 0).is_err());
    }

    #[test]
    fn a_failed_restore_says_how_far_it_got_and_what_became_of_the_target() {
        let mut failed = restore(json!({}));
        let mut failure = RunFailure::new("TargetFull", "No space.");
        failure.target_touched = Some(true);
        failure.done = Some(Done {
            files: 3,
            bytes: 99,
        });
        fail(&mut failed, &failure);
        let words = undone(
            &mut failed,
            &Outcome::Undone(UndoReport {
                target: TargetState::Emptied,
                put_back: 0,
            }),
        );
        assert!(words.contains("empty"));
        let status = failed.status.unwrap();
        assert_eq!(status.restored_files, Some(3));
        assert_eq!(status.target_touched, Some(true));
    }
}
