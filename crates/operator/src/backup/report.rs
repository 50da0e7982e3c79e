//! Status and Events of Backups. Events are told before the status is written: the write is what
//! ends a transition, and a repeat tells the same Event again, which makes no second one.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tidelock_api::{Backup, BackupStatus, Phase, SizeStatus};
use tidelock_core::run::Blocker;
use tidelock_core::text;
use tidelock_protocol::BackupReport;

use crate::backup::observe::Observed;
use crate::backup::plan::BackupPlan;
use crate::conditions::{Verdict, ready_reason, set_ready};
use crate::context::Context;
use crate::convert::{self, to_i64, whole_seconds};
use crate::error::Error;
use crate::run::report::RunFailure;
use crate::telemetry::events::Story;
use crate::telemetry::reasons;

/// Writes `status` where it differs, against the resourceVersion of `backup`.
async fn write(backup: &Backup, ctx: &Context, status: BackupStatus) -> Result<Backup, Error> {
    if backup.status.as_ref() == Some(&status) {
        return Ok(backup.clone());
    }
    let namespace = convert::namespace(backup)?;
    let name = backup.name_any();
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut changed = backup.clone();
    changed.status = Some(status);
    api.replace_status(&name, &PostParams::default(), &changed)
        .await
        .map_err(Error::api(format!(
            "write the status of Backup {namespace}/{name}"
        )))
}

/// The status so far, with a new phase and verdict.
fn next(backup: &Backup, phase: Phase, verdict: &Verdict, now: Timestamp) -> BackupStatus {
    let mut status = backup.status.clone().unwrap_or_default();
    status.phase = Some(phase);
    status.observed_generation = backup.metadata.generation;
    set_ready(
        &mut status.conditions,
        verdict,
        backup.metadata.generation,
        now,
    );
    status
}

async fn tell(
    backup: &Backup,
    ctx: &Context,
    reason: &'static str,
    warning: bool,
    note: String,
    now: Timestamp,
) -> Result<(), Error> {
    let key = if reason == reasons::BACKUP_WAITING {
        note.clone()
    } else {
        String::new()
    };
    let story = Story {
        warning,
        reason,
        action: "Backup",
        note,
        key: &key,
    };
    ctx.events.tell(backup, story, now).await
}

/// Says what it waits for.
pub async fn waiting(
    backup: &Backup,
    ctx: &Context,
    blocker: &Blocker,
    now: Timestamp,
) -> Result<(), Error> {
    let conditions = backup.status.as_ref().map(|status| &status.conditions[..]);
    if ready_reason(conditions.unwrap_or_default()) != blocker.reason {
        tell(
            backup,
            ctx,
            reasons::BACKUP_WAITING,
            true,
            blocker.message.clone(),
            now,
        )
        .await?;
    }
    let verdict = Verdict::no(blocker.reason, blocker.message.clone());
    write(backup, ctx, next(backup, Phase::Pending, &verdict, now)).await?;
    Ok(())
}

/// Records what is going to be done, before any of it is.
pub async fn planned(
    backup: &Backup,
    ctx: &Context,
    plan: &BackupPlan,
    now: Timestamp,
) -> Result<Backup, Error> {
    let note = format!(
        "Backing up PersistentVolumeClaim {} to {} on {}",
        plan.pvc,
        plan.location.archive_key(),
        plan.storage_pvc
    );
    tell(
        backup,
        ctx,
        reasons::BACKUP_STARTED,
        false,
        note.clone(),
        now,
    )
    .await?;
    let mut status = next(
        backup,
        Phase::Pending,
        &Verdict::no(reasons::PENDING, note),
        now,
    );
    status.start_time.get_or_insert_with(|| whole_seconds(now));
    status.pvc_name = Some(plan.pvc.clone());
    status.storage_pvc_name = Some(plan.storage_pvc.clone());
    status.backup_location = Some(plan.location.archive_key());
    status.job_name = Some(plan.job_name.clone());
    status.format = Some(backup.spec.format);
    write(backup, ctx, status).await
}

/// Tells that the Job exists.
pub async fn job_created(
    backup: &Backup,
    ctx: &Context,
    job_name: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!("Created Job {job_name}");
    tell(backup, ctx, reasons::JOB_CREATED, false, note, now).await
}

/// Says that the Job is under way, or what its pod is stuck on.
pub async fn running(
    backup: &Backup,
    ctx: &Context,
    observed: &Observed,
    trouble: Option<String>,
    now: Timestamp,
) -> Result<(), Error> {
    let verdict = match trouble {
        Some(words) => Verdict::no(reasons::POD_PENDING, words),
        None => Verdict::no(
            reasons::RUNNING,
            format!("Job {} is backing up the volume", observed.facts.job_name),
        ),
    };
    write(backup, ctx, next(backup, Phase::Running, &verdict, now)).await?;
    Ok(())
}

/// Ends well.
pub async fn completed(
    backup: &Backup,
    ctx: &Context,
    job: &Job,
    done: &BackupReport,
    now: Timestamp,
) -> Result<(), Error> {
    let ended = job
        .status
        .as_ref()
        .and_then(|status| status.completion_time.clone());
    let ended = ended.unwrap_or_else(|| whole_seconds(now));
    let started = backup
        .status
        .as_ref()
        .and_then(|status| status.start_time.clone());
    let took = started.map(|started| text::duration(ended.0.duration_since(started.0)));
    let took = took.unwrap_or_else(|| "an unknown time".to_owned());
    tell_leftovers(backup, ctx, done, now).await?;
    let note = format!("Backup completed successfully in {took}");
    tell(backup, ctx, reasons::BACKUP_COMPLETED, false, note, now).await?;

    let size = size(done);
    let message = format!(
        "{} in {}, {} stored in {took}",
        text::bytes(done.logical_bytes),
        text::count(done.files, "file"),
        size.stored
    );
    let verdict = Verdict::yes(reasons::COMPLETED, message);
    let mut status = next(backup, Phase::Completed, &verdict, now);
    status.completion_time = Some(ended);
    status.duration = Some(took);
    status.digest = Some(done.digest.clone());
    status.size = Some(size);
    write(backup, ctx, status).await?;
    tracing::info!(backup = %convert::describe(backup), "backup completed");
    Ok(())
}

/// Tells of files that are not in the archive as they were at one moment.
async fn tell_leftovers(
    backup: &Backup,
    ctx: &Context,
    done: &BackupReport,
    now: Timestamp,
) -> Result<(), Error> {
    if !done.torn.is_empty() {
        let note = format!(
            "{} changed while being read, again and again; the copies may mix old and new content: {}",
            text::count(done.torn.total, "file"),
            done.torn.first.join(", ")
        );
        tell(backup, ctx, reasons::FILES_CHANGED, true, note, now).await?;
    }
    if !done.skipped.is_empty() {
        let note = format!(
            "{} left out, as tar leaves them out: {}",
            text::count(done.skipped.total, "socket"),
            done.skipped.first.join(", ")
        );
        tell(backup, ctx, reasons::FILES_SKIPPED, false, note, now).await?;
    }
    Ok(())
}

fn size(done: &BackupReport) -> SizeStatus {
    SizeStatus {
        logical_bytes: to_i64(done.logical_bytes),
        stored_bytes: to_i64(done.stored_bytes),
        stored: text::bytes(done.stored_bytes),
        files: to_i64(done.files),
        changed_files: to_i64(done.torn.total),
    }
}

/// Ends badly.
pub async fn failed(
    backup: &Backup,
    ctx: &Context,
    failure: &RunFailure,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!("{}: {}", failure.reason, failure.message);
    tell(backup, ctx, reasons::BACKUP_FAILED, true, note, now).await?;
    let verdict = Verdict::no(&failure.reason, failure.message.clone());
    let mut status = next(backup, Phase::Failed, &verdict, now);
    let ended = whole_seconds(now);
    let started = status.start_time.clone();
    status.duration = started.map(|started| text::duration(ended.0.duration_since(started.0)));
    status.completion_time = Some(ended);
    status.failure = Some(failure.to_status());
    write(backup, ctx, status).await?;
    tracing::warn!(backup = %convert::describe(backup), reason = failure.reason, "backup failed");
    Ok(())
}
