//! Reading stored backups again, long after they were written.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tidelock_protocol::{
    Failure, FailureReason, FolderReport, ItemFault, ItemVerdict, RunId, Step, VerificationLevel,
    VerifyItem, VerifyReport, VerifyTask,
};
use tidelock_storage::Storage;

use crate::Control;
use crate::failure::{failure, stopped};
use crate::household;
use crate::progress::Total;
use crate::sealing::prove;
use crate::stored::expected_manifest;
use crate::unreadable::{Noting, Unreadable};

/// Faults told in full; the verdicts tell the rest.
const MAX_FAULTS: usize = 10;
/// One letter each must leave room for the faults in a termination message.
const MAX_ITEMS: usize = 2000;

/// Reads the backups of `task` in its order and compares everything.
///
/// # Guarantees
/// - A backup is called good only when every byte of it was read now and is what was written.
///   Storage that does not answer makes none of them bad; an object that its medium twice does not
///   give, while it gives others, is damaged.
/// - Told to stop, it reports the verdicts it has.
///
/// # Errors
/// The first reason why not, when none of the backups could be judged.
pub(crate) fn verify(
    storage: &dyn Storage,
    run: &RunId,
    task: &VerifyTask,
    control: &Control<'_>,
) -> Result<VerifyReport, Failure> {
    let (clock, stop) = (Instant::now(), control.stop);
    if task.items.len() > MAX_ITEMS {
        let count = task.items.len();
        return Err(failure(
            FailureReason::InvalidRequest,
            format!("{count} backups to verify are more than the {MAX_ITEMS} of one run"),
        ));
    }
    control.progress.begin(Step::Verifying, Total::default());
    let mut report = VerifyReport::default();
    let mut first_unjudged = None;
    for (item, at) in task.items.iter().zip(0..) {
        let identities = task.identities_path.as_deref();
        let (verdict, failure) = judge(storage, item, identities, control);
        report.verdicts.push(verdict.letter());
        let location = &item.location;
        let Some(failure) = failure else {
            tracing::info!(%location, "good");
            continue;
        };
        tracing::error!(%location, ?verdict, error = failure.message, "not good");
        if report.faults.len() < MAX_FAULTS && failure.reason != FailureReason::Interrupted {
            report.faults.push(ItemFault {
                item: at,
                message: shortened(&failure.message),
            });
        }
        if verdict == ItemVerdict::NotChecked {
            first_unjudged.get_or_insert(failure);
        }
    }
    let not_checked = ItemVerdict::NotChecked.letter();
    if let Some(failure) = first_unjudged
        && report.verdicts.chars().all(|letter| letter == not_checked)
    {
        return Err(failure);
    }
    report.folder = task.items.first().and_then(|item| {
        let location = &item.location;
        let found = household::look_after(storage, run, location, &task.household, stop);
        // The folder was looked at without this item, which was looked at before.
        let is_there = !report.verdicts.starts_with(ItemVerdict::Missing.letter());
        household::told(found).map(|folder| FolderReport {
            archives: folder.archives + u64::from(is_there),
            ..folder
        })
    });
    report.duration_ms = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

fn judge(
    storage: &dyn Storage,
    item: &VerifyItem,
    identities: Option<&str>,
    control: &Control<'_>,
) -> (ItemVerdict, Option<Failure>) {
    if control.stop.load(Ordering::Relaxed) {
        return (ItemVerdict::NotChecked, Some(stopped()));
    }
    let (mut proven, unreadable) = prove_noting(storage, item, identities, control);
    if let Some(earlier) = unreadable
        && proven.is_err()
    {
        let (again, unreadable) = prove_noting(storage, item, identities, control);
        proven = again;
        if let Some(unreadable) = unreadable
            && proven.is_err()
            && unreadable.is_again(&earlier)
            && unreadable.is_alone(storage, &item.location)
        {
            proven = Err(unreadable.to_failure());
        }
    }
    let Err(failure) = proven else {
        return (ItemVerdict::Good, None);
    };
    let verdict = match failure.reason {
        FailureReason::ArchiveCorrupt => ItemVerdict::Bad,
        FailureReason::ArchiveNotFound => ItemVerdict::Missing,
        _ => ItemVerdict::NotChecked,
    };
    (verdict, Some(failure))
}

/// Reads one backup; also where an object of it could not be read.
fn prove_noting(
    storage: &dyn Storage,
    item: &VerifyItem,
    identities: Option<&str>,
    control: &Control<'_>,
) -> (Result<(), Failure>, Option<Unreadable>) {
    let noting = Noting::new(storage);
    let proven = expected_manifest(&noting, &item.location, &item.expected)
        .and_then(|manifest| {
            prove(
                &noting,
                manifest,
                VerificationLevel::Full,
                identities,
                control,
            )
        })
        .map(drop);
    (proven, noting.found())
}

/// A message of which ten fit a termination message.
fn shortened(message: &str) -> String {
    const MAX_MESSAGE_BYTES: usize = 300;
    if message.len() <= MAX_MESSAGE_BYTES {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(MAX_MESSAGE_BYTES);
    format!("{}…", &message[..end])
}
