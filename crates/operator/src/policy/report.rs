//! Status and Events of BackupPolicies.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tidelock_api::{Backup, BackupPolicy, BackupPolicyStatus, LastBackup, Phase};
use tidelock_core::policy::PolicyDecision;
use tidelock_core::schedule::ScheduleError;

use crate::conditions::{Verdict, ready_reason, set_ready};
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::policy::observe::{Observed, followed_schedule};
use crate::telemetry::events::Story;
use crate::telemetry::reasons;

/// Tells `note` about `policy`, once.
pub async fn tell(
    policy: &BackupPolicy,
    ctx: &Context,
    reason: &'static str,
    warning: bool,
    note: String,
    now: Timestamp,
) -> Result<(), Error> {
    let key = format!("{:?}/{note}", policy.metadata.generation);
    let story = Story {
        warning,
        reason,
        action: "Schedule",
        note,
        key: &key,
    };
    ctx.events.tell(policy, story, now).await
}

/// Tells that a slot got its Backup.
pub async fn created(
    policy: &BackupPolicy,
    ctx: &Context,
    backup: &str,
    slot: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!("Created Backup {backup} for {slot}");
    tell(policy, ctx, reasons::BACKUP_CREATED, false, note, now).await
}

/// Tells that a slot was given up.
pub async fn missed(
    policy: &BackupPolicy,
    ctx: &Context,
    slot: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let deadline = policy.spec.starting_deadline_seconds.unwrap_or_default();
    let note = format!(
        "Gave up the backup due at {slot}: it could not start within startingDeadlineSeconds={deadline}"
    );
    tell(policy, ctx, reasons::MISSED_SCHEDULE, true, note, now).await
}

/// Tells that a slot has no Backup of its own because its name is taken.
pub async fn name_taken(
    policy: &BackupPolicy,
    ctx: &Context,
    backup: &str,
    slot: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!(
        "No backup for {slot}: a Backup named {backup} exists that does not belong to this policy; delete it or rename the policy"
    );
    tell(policy, ctx, reasons::MISSED_SCHEDULE, true, note, now).await
}

/// Says that the schedule cannot be followed.
pub async fn invalid(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    error: &ScheduleError,
    now: Timestamp,
) -> Result<(), Error> {
    let note = error.to_string();
    let mut status = summary(policy, observed);
    if ready_reason(&status.conditions) != reasons::INVALID_SCHEDULE
        || status.observed_generation != policy.metadata.generation
    {
        tell(
            policy,
            ctx,
            reasons::INVALID_SCHEDULE,
            true,
            note.clone(),
            now,
        )
        .await?;
    }
    status.next_scheduled_backup = None;
    let verdict = Verdict::no(reasons::INVALID_SCHEDULE, note);
    write(policy, ctx, status, &verdict, now).await
}

/// Says that the API server does not take the Backup of a due slot; the slot stays due.
pub async fn refused(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    words: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!("The API server does not take the Backup that is due: {words}");
    tell(
        policy,
        ctx,
        reasons::BACKUP_REFUSED,
        true,
        note.clone(),
        now,
    )
    .await?;
    let verdict = Verdict::no(reasons::BACKUP_REFUSED, note);
    write(policy, ctx, summary(policy, observed), &verdict, now).await
}

/// Writes what was decided.
pub async fn decided(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    decision: &PolicyDecision,
    now: Timestamp,
) -> Result<(), Error> {
    let mut status = summary(policy, observed);
    status.last_schedule_time = Some(convert::whole_seconds(decision.dealt_with_until));
    status.followed_schedule = Some(followed_schedule(policy));
    status.next_scheduled_backup = decision.next.map(Time);
    let verdict = if policy.spec.suspend {
        Verdict::no(
            reasons::SUSPENDED,
            "Suspended: no backups are started until spec.suspend is false",
        )
    } else if let Some(slot) = decision.held {
        let message = format!(
            "The backup due at {slot} waits for an earlier one to end (concurrencyPolicy Forbid)"
        );
        Verdict::yes(reasons::WAITING_FOR_ACTIVE, message)
    } else {
        Verdict::yes(reasons::SCHEDULED, "The schedule is followed")
    };
    write(policy, ctx, status, &verdict, now).await
}

/// The status so far, with what its Backups tell. Times of Backups that are gone stay.
fn summary(policy: &BackupPolicy, observed: &Observed) -> BackupPolicyStatus {
    let mut status = policy.status.clone().unwrap_or_default();
    let backups = || observed.backups.iter().map(|backup| backup.as_ref());
    let newest = backups().max_by_key(|b| (convert::created(&b.metadata), b.name_any()));
    if let Some(newest) = newest {
        status.last_backup = Some(LastBackup {
            name: newest.name_any(),
            phase: phase(newest),
        });
    }
    let started = backups().filter_map(|b| b.status.as_ref()?.start_time.clone());
    status.last_backup_time = latest(started.chain(status.last_backup_time.take()));
    let completed = backups().filter(|b| phase(b) == Some(Phase::Completed));
    let ended = completed
        .clone()
        .filter_map(|b| b.status.as_ref()?.completion_time.clone());
    status.last_successful_backup_time =
        latest(ended.chain(status.last_successful_backup_time.take()));
    let kept = completed
        .filter(|b| b.metadata.deletion_timestamp.is_none())
        .count();
    status.completed_backups = u32::try_from(kept).unwrap_or(u32::MAX);
    let mut active: Vec<String> = backups()
        .filter(|b| !convert::is_terminal(phase(b)))
        .map(ResourceExt::name_any)
        .collect();
    active.sort();
    status.active = active;
    status
}

fn phase(backup: &Backup) -> Option<Phase> {
    backup.status.as_ref()?.phase
}

fn latest(times: impl Iterator<Item = Time>) -> Option<Time> {
    times.max_by_key(|time| time.0)
}

async fn write(
    policy: &BackupPolicy,
    ctx: &Context,
    mut status: BackupPolicyStatus,
    verdict: &Verdict,
    now: Timestamp,
) -> Result<(), Error> {
    status.observed_generation = policy.metadata.generation;
    set_ready(
        &mut status.conditions,
        verdict,
        policy.metadata.generation,
        now,
    );
    if policy.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let namespace = convert::namespace(policy)?;
    let name = policy.name_any();
    let api: Api<BackupPolicy> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut changed = policy.clone();
    changed.status = Some(status);
    api.replace_status(&name, &PostParams::default(), &changed)
        .await
        .map_err(Error::api(format!(
            "write the status of BackupPolicy {namespace}/{name}"
        )))?;
    Ok(())
}
