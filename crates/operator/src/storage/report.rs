//! Status and Events of BackupStorages.

use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tidelock_api::{BackupStorage, BackupStorageStatus, READY};
use tidelock_core::text;
use tidelock_protocol::CheckReport;

use crate::conditions::{Verdict, holds, ready_reason, set_ready};
use crate::context::Context;
use crate::convert::{self, to_i64, whole_seconds};
use crate::error::Error;
use crate::telemetry::events::Story;
use crate::telemetry::reasons;

/// What is known of a storage by now.
pub enum Finding {
    /// It is not to be used.
    Suspended,
    /// This Job looks at it.
    Looking(String),
    /// The pod that is to look at it does not start: why.
    Stuck(String),
    /// It was looked at; so many archives that were unknown have a Backup now.
    Found {
        /// What was found.
        found: CheckReport,
        /// Archives that were unknown, and have a Backup now.
        made: u64,
    },
    /// It cannot be used, or could not be looked at.
    Failed {
        /// One word.
        reason: String,
        /// The sentence.
        message: String,
    },
}

/// Writes what is known into the status; whether it can be used is told as an Event where that has
/// changed.
pub async fn write(
    storage: &BackupStorage,
    ctx: &Context,
    finding: Finding,
    now: Timestamp,
) -> Result<(), Error> {
    write_as_of(storage, ctx, finding, storage.metadata.generation, now).await
}

/// As [`write`], of what a Job found that was made for the spec of that generation.
pub async fn write_as_of(
    storage: &BackupStorage,
    ctx: &Context,
    finding: Finding,
    generation: Option<i64>,
    now: Timestamp,
) -> Result<(), Error> {
    let made = match &finding {
        Finding::Found { made, .. } => *made,
        _ => 0,
    };
    let status = conclude(storage, finding, generation, now);
    if storage.status.as_ref() == Some(&status) {
        return Ok(());
    }
    tell_change(storage, ctx, &status, now).await?;
    if made > 0 {
        let note = format!(
            "Found {} that no Backup stood for",
            text::count(made, "archive")
        );
        let story = (reasons::BACKUPS_DISCOVERED, false, note, look(storage));
        tell(storage, ctx, story, now).await?;
    }
    let namespace = convert::namespace(storage)?;
    let name = storage.name_any();
    let api: Api<BackupStorage> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut changed = storage.clone();
    changed.status = Some(status);
    api.replace_status(&name, &PostParams::default(), &changed)
        .await
        .map_err(Error::api(format!(
            "write the status of BackupStorage {namespace}/{name}"
        )))?;
    Ok(())
}

/// What tells one look from another, also after a crash: what was recorded before it.
pub fn look(storage: &BackupStorage) -> String {
    let status = storage.status.as_ref();
    let last = status.and_then(|status| status.last_check_time.as_ref());
    format!("{:?}/{:?}", storage.metadata.generation, last.map(|t| t.0))
}

/// The status that follows from `finding`.
fn conclude(
    storage: &BackupStorage,
    finding: Finding,
    generation: Option<i64>,
    now: Timestamp,
) -> BackupStorageStatus {
    let mut status = storage.status.clone().unwrap_or_default();
    status.location = Some(location(storage));
    let verdicts = status.conditions.iter().filter(|c| c.type_ == READY);
    let is_known = verdicts.into_iter().any(|ready| ready.status != "Unknown");
    let is_judged = is_known && status.observed_generation == generation;
    let verdict = match finding {
        Finding::Suspended => {
            status.observed_generation = generation;
            Verdict::no(reasons::STORAGE_SUSPENDED, "spec.suspend is true")
        }
        Finding::Looking(job) => {
            status.check_job = Some(job);
            if is_judged {
                return status;
            }
            Verdict::unknown(reasons::STORAGE_CHECKING, "It is being looked at")
        }
        // It may pass: a node hears of a new claim a moment later.
        Finding::Stuck(_) if is_judged => return status,
        Finding::Stuck(message) => Verdict::unknown(reasons::POD_PENDING, message),
        Finding::Found { found, made } => {
            let verdict = usable(storage, &found, made);
            take(&mut status, &found, made);
            looked(&mut status, generation, now);
            verdict
        }
        Finding::Failed { reason, message } => {
            status.discovering = false;
            looked(&mut status, generation, now);
            Verdict::no(&reason, message)
        }
    };
    set_ready(&mut status.conditions, &verdict, generation, now);
    status
}

fn looked(status: &mut BackupStorageStatus, generation: Option<i64>, now: Timestamp) {
    status.check_job = None;
    status.observed_generation = generation;
    status.last_check_time = Some(whole_seconds(now));
}

fn usable(storage: &BackupStorage, found: &CheckReport, made: u64) -> Verdict {
    let unreadable = match found.unreadable.total {
        0 => String::new(),
        total => format!(
            " The manifests of {} cannot be relied on: {}.",
            text::count(total, "archive"),
            found.unreadable.first.join(", ")
        ),
    };
    let unknown = match found.unknown.total.saturating_sub(made) {
        _ if found.blind => {
            " There are too many Backups to tell which archives have none.".to_owned()
        }
        0 => String::new(),
        // Those that have one by now are among the names.
        total if made > 0 => format!(" No Backup stands for {}.", text::count(total, "archive")),
        total => format!(
            " No Backup stands for {}: {}.",
            text::count(total, "archive"),
            found.unknown.first.join(", ")
        ),
    };
    let done = if storage.spec.read_only {
        "Listed what is there (readOnly)."
    } else {
        "Wrote, read, listed and removed an object."
    };
    Verdict::yes(
        reasons::STORAGE_READY,
        format!("{done}{unknown}{unreadable}"),
    )
}

/// What stands there. More is discovered at once only where something new came of it.
fn take(status: &mut BackupStorageStatus, found: &CheckReport, made: u64) {
    status.backups = Some(to_i64(found.backups));
    status.stored_bytes = Some(to_i64(found.stored_bytes));
    let unknown = to_i64(found.unknown.total.saturating_sub(made));
    status.unknown_archives = (!found.blind).then_some(unknown);
    status.free_bytes = found.free_bytes.map(to_i64);
    status.discovering = found.more && made > 0;
}

/// `s3://bucket/prefix` or `pvc://claim/folder`.
fn location(storage: &BackupStorage) -> String {
    let spec = &storage.spec;
    let (start, folder) = match (&spec.s3, &spec.pvc) {
        (Some(s3), _) => (format!("s3://{}", s3.bucket), &s3.prefix),
        (None, Some(pvc)) => (format!("pvc://{}", pvc.claim_name), &pvc.sub_path),
        (None, None) => (String::new(), &None),
    };
    match folder {
        Some(folder) => format!("{start}/{folder}"),
        None => start,
    }
}

async fn tell_change(
    storage: &BackupStorage,
    ctx: &Context,
    status: &BackupStorageStatus,
    now: Timestamp,
) -> Result<(), Error> {
    let before = storage.status.as_ref().map(|status| &status.conditions[..]);
    let before = before.unwrap_or_default();
    let reason = ready_reason(&status.conditions);
    let is_ready = holds(&status.conditions, READY);
    if status.check_job.is_some() || reason == reasons::STORAGE_SUSPENDED {
        return Ok(());
    }
    let was_told = before
        .iter()
        .any(|c| c.type_ == READY && c.status != "Unknown");
    if was_told && holds(before, READY) == is_ready && ready_reason(before) == reason {
        return Ok(());
    }
    let ready = status.conditions.iter().find(|c| c.type_ == READY);
    let message = ready.map(|ready| ready.message.clone()).unwrap_or_default();
    let (event, note) = if is_ready {
        (reasons::STORAGE_READY, message)
    } else {
        (reasons::STORAGE_NOT_READY, format!("{reason}: {message}"))
    };
    let key = format!("{reason}/{}", look(storage));
    tell(storage, ctx, (event, !is_ready, note, key), now).await
}

/// An Event to be told: reason, whether a person should worry, note, and what tells it from others.
type Told = (&'static str, bool, String, String);

async fn tell(
    storage: &BackupStorage,
    ctx: &Context,
    (reason, warning, note, key): Told,
    now: Timestamp,
) -> Result<(), Error> {
    let story = Story {
        warning,
        reason,
        action: "Check",
        note,
        key: &key,
    };
    ctx.events.tell(storage, story, now).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn storage() -> BackupStorage {
        serde_json::from_value(json!({
            "metadata": {"name": "offsite", "namespace": "shop", "uid": "s-1", "generation": 2},
            "spec": {"s3": {
                "bucket": "backups", "prefix": "east", "credentialsSecretRef": {"name": "s3"},
            }},
        }))
        .unwrap()
    }

    fn concluded(storage: &BackupStorage, finding: Finding, now: Timestamp) -> BackupStorageStatus {
        conclude(storage, finding, storage.metadata.generation, now)
    }

    #[test]
    fn what_an_older_spec_was_looked_at_for_leaves_the_newer_one_to_be_looked_at() {
        let found = CheckReport::default();
        let finding = Finding::Found { found, made: 0 };
        let status = conclude(&storage(), finding, Some(1), now());
        assert_eq!(status.observed_generation, Some(1));
    }

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    #[test]
    fn what_was_found_is_told_and_nothing_is_promised_before() {
        let looking = concluded(&storage(), Finding::Looking("job".into()), now());
        assert_eq!(looking.conditions[0].status, "Unknown");
        assert_eq!(looking.location.as_deref(), Some("s3://backups/east"));
        assert_eq!(looking.observed_generation, None);
        let mut found = CheckReport {
            backups: 3,
            stored_bytes: 9,
            more: true,
            ..CheckReport::default()
        };
        found.unknown.push(b"data/lost");
        let status = concluded(&storage(), Finding::Found { found, made: 1 }, now());
        assert_eq!(status.conditions[0].status, "True");
        assert_eq!((status.backups, status.stored_bytes), (Some(3), Some(9)));
        assert_eq!(status.unknown_archives, Some(0));
        assert!(status.discovering);
        let told = &status.conditions[0].message;
        assert!(!told.contains("No Backup"), "{told}");
        assert_eq!(status.observed_generation, Some(2));
    }

    #[test]
    fn where_it_cannot_be_told_nothing_is_said_to_be_known() {
        let found = CheckReport {
            backups: 9000,
            blind: true,
            ..CheckReport::default()
        };
        let status = concluded(&storage(), Finding::Found { found, made: 0 }, now());
        assert_eq!(status.unknown_archives, None);
        assert!(status.conditions[0].message.contains("too many"));
    }

    #[test]
    fn more_is_not_discovered_at_once_where_nothing_new_came_of_it() {
        let found = CheckReport {
            more: true,
            ..CheckReport::default()
        };
        let status = concluded(&storage(), Finding::Found { found, made: 0 }, now());
        assert!(!status.discovering);
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_the_store_and_counts_as_a_look() {
        let failed = Finding::Failed {
            reason: "StorageDenied".into(),
            message: "AccessDenied: no".into(),
        };
        let status = concluded(&storage(), failed, now());
        let ready = &status.conditions[0];
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", "StorageDenied")
        );
        assert_eq!(ready.message, "AccessDenied: no");
        assert!(status.last_check_time.is_some());
    }

    #[test]
    fn a_look_at_what_is_judged_already_changes_the_verdict_at_its_end_only() {
        let mut judged = storage();
        let found = CheckReport::default();
        judged.status = Some(concluded(
            &storage(),
            Finding::Found { found, made: 0 },
            now(),
        ));
        let looking = concluded(&judged, Finding::Looking("job".into()), now());
        assert_eq!(looking.conditions[0].status, "True");
        assert_eq!(looking.check_job.as_deref(), Some("job"));
    }
}
