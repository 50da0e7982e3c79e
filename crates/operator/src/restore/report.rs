//! Status and Events of Restores; Events are told before the status is written.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tidelock_api::{Phase, Restore, RestoreStatus};
use tidelock_core::run::Blocker;
use tidelock_core::text;
use tidelock_protocol::RestoreReport;

use crate::conditions::{Verdict, ready_reason, set_ready};
use crate::context::Context;
use crate::convert::{self, to_i64, whole_seconds};
use crate::error::Error;
use crate::restore::observe::Observed;
use crate::restore::plan::{self, RestorePlan};
use crate::run::report::RunFailure;
use crate::telemetry::events::Story;
use crate::telemetry::reasons;

/// Writes `status` where it differs, against the resourceVersion of `restore`.
async fn write(restore: &Restore, ctx: &Context, status: RestoreStatus) -> Result<Restore, Error> {
    if restore.status.as_ref() == Some(&status) {
        return Ok(restore.clone());
    }
    let namespace = convert::namespace(restore)?;
    let name = restore.name_any();
    let api: Api<Restore> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut changed = restore.clone();
    changed.status = Some(status);
    api.replace_status(&name, &PostParams::default(), &changed)
        .await
        .map_err(Error::api(format!(
            "write the status of Restore {namespace}/{name}"
        )))
}

/// The status so far, with a new phase and verdict.
fn next(restore: &Restore, phase: Phase, verdict: &Verdict, now: Timestamp) -> RestoreStatus {
    let mut status = restore.status.clone().unwrap_or_default();
    status.phase = Some(phase);
    status.observed_generation = restore.metadata.generation;
    status.target_pvc = Some(plan::target_name(restore).to_owned());
    set_ready(
        &mut status.conditions,
        verdict,
        restore.metadata.generation,
        now,
    );
    status
}

async fn tell(
    restore: &Restore,
    ctx: &Context,
    reason: &'static str,
    warning: bool,
    note: String,
    now: Timestamp,
) -> Result<(), Error> {
    let key = if reason == reasons::RESTORE_WAITING {
        note.clone()
    } else {
        String::new()
    };
    let story = Story {
        warning,
        reason,
        action: "Restore",
        note,
        key: &key,
    };
    ctx.events.tell(restore, story, now).await
}

/// Says what it waits for.
pub async fn waiting(
    restore: &Restore,
    ctx: &Context,
    blocker: &Blocker,
    now: Timestamp,
) -> Result<(), Error> {
    let conditions = restore.status.as_ref().map(|status| &status.conditions[..]);
    if ready_reason(conditions.unwrap_or_default()) != blocker.reason {
        tell(
            restore,
            ctx,
            reasons::RESTORE_WAITING,
            true,
            blocker.message.clone(),
            now,
        )
        .await?;
    }
    let verdict = Verdict::no(blocker.reason, blocker.message.clone());
    write(restore, ctx, next(restore, Phase::Pending, &verdict, now)).await?;
    Ok(())
}

/// Records what is going to be done, before any of it is.
pub async fn planned(
    restore: &Restore,
    ctx: &Context,
    plan: &RestorePlan,
    now: Timestamp,
) -> Result<Restore, Error> {
    let note = format!(
        "Restoring Backup {} into PersistentVolumeClaim {}",
        restore.spec.backup_name, plan.target_pvc
    );
    tell(
        restore,
        ctx,
        reasons::RESTORE_STARTED,
        false,
        note.clone(),
        now,
    )
    .await?;
    let mut status = next(
        restore,
        Phase::Pending,
        &Verdict::no(reasons::PENDING, note),
        now,
    );
    status.start_time.get_or_insert_with(|| whole_seconds(now));
    status.job_name = Some(plan.job_name.clone());
    status.recovery_point = plan.recovery_point.clone();
    write(restore, ctx, status).await
}

/// Tells that the claim of the template was made.
pub async fn target_created(
    restore: &Restore,
    ctx: &Context,
    claim: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!("Created PersistentVolumeClaim {claim}");
    tell(restore, ctx, reasons::TARGET_CREATED, false, note, now).await
}

/// Tells that the Job exists.
pub async fn job_created(
    restore: &Restore,
    ctx: &Context,
    job_name: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!("Created Job {job_name}");
    tell(restore, ctx, reasons::JOB_CREATED, false, note, now).await
}

/// Says that the Job is under way, or what its pod is stuck on.
pub async fn running(
    restore: &Restore,
    ctx: &Context,
    observed: &Observed,
    trouble: Option<String>,
    now: Timestamp,
) -> Result<(), Error> {
    let verdict = match trouble {
        Some(words) => Verdict::no(reasons::POD_PENDING, words),
        None => Verdict::no(
            reasons::RUNNING,
            format!("Job {} is restoring the volume", observed.facts.job_name),
        ),
    };
    write(restore, ctx, next(restore, Phase::Running, &verdict, now)).await?;
    Ok(())
}

/// Ends well.
pub async fn completed(
    restore: &Restore,
    ctx: &Context,
    job: &Job,
    done: &RestoreReport,
    now: Timestamp,
) -> Result<(), Error> {
    let ended = job
        .status
        .as_ref()
        .and_then(|status| status.completion_time.clone());
    let ended = ended.unwrap_or_else(|| whole_seconds(now));
    let started = restore
        .status
        .as_ref()
        .and_then(|status| status.start_time.clone());
    let took = started.map(|started| text::duration(ended.0.duration_since(started.0)));
    let took = took.unwrap_or_else(|| "an unknown time".to_owned());
    let note = format!(
        "Restore completed successfully in {took}: {} in {}, each compared with its digest",
        text::bytes(done.logical_bytes),
        text::count(done.files, "file"),
    );
    tell(
        restore,
        ctx,
        reasons::RESTORE_COMPLETED,
        false,
        note.clone(),
        now,
    )
    .await?;
    let verdict = Verdict::yes(reasons::COMPLETED, note);
    let mut status = next(restore, Phase::Completed, &verdict, now);
    status.completion_time = Some(ended);
    status.duration = Some(took);
    status.restored_bytes = Some(to_i64(done.logical_bytes));
    status.restored = Some(text::bytes(done.logical_bytes));
    status.restored_files = Some(to_i64(done.files));
    write(restore, ctx, status).await?;
    tracing::info!(restore = %convert::describe(restore), "restore completed");
    Ok(())
}

/// Ends badly.
pub async fn failed(
    restore: &Restore,
    ctx: &Context,
    failure: &RunFailure,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!("{}: {}", failure.reason, failure.message);
    tell(restore, ctx, reasons::RESTORE_FAILED, true, note, now).await?;
    let verdict = Verdict::no(&failure.reason, failure.message.clone());
    let mut status = next(restore, Phase::Failed, &verdict, now);
    let ended = whole_seconds(now);
    let started = status.start_time.clone();
    status.duration = started.map(|started| text::duration(ended.0.duration_since(started.0)));
    status.completion_time = Some(ended);
    status.failure = Some(failure.to_status());
    write(restore, ctx, status).await?;
    tracing::warn!(restore = %convert::describe(restore), reason = failure.reason, "restore failed");
    Ok(())
}
