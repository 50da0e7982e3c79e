//! BackupPolicies: schedules and retention.

mod build;
mod observe;
mod report;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, POLICY_FINALIZER};
use tidelock_core::policy::{self as core_policy, PolicyDecision};
use tidelock_core::retention::surplus;
use tidelock_core::text;

use crate::context::Context;
use crate::convert;
use crate::error::{Error, is_namespace_leaving, is_status};
use crate::owners;
use crate::run::effects::requeue_by;
use crate::telemetry::reasons;

/// Pause before a Backup that the API server did not take is asked for again; no event tells when
/// a quota has room.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);

/// Brings one BackupPolicy a step further.
pub async fn reconcile(policy: Arc<BackupPolicy>, ctx: Arc<Context>) -> Result<Action, Error> {
    let now = ctx.now();
    if policy.metadata.deletion_timestamp.is_some() {
        release(&policy, &ctx, now).await?;
        return Ok(Action::await_change());
    }
    if !has_finalizer(&policy) {
        add_finalizer(&policy, &ctx).await?;
        return Ok(Action::await_change());
    }
    let observed = observe::observe(&policy, &ctx)?;
    let schedule = match observe::schedule(&policy, now) {
        Ok(schedule) => schedule,
        Err(error) => {
            report::invalid(&policy, &ctx, &observed, &error, now).await?;
            return Ok(Action::await_change());
        }
    };
    let decision = core_policy::decide(&observed.facts(&policy, &schedule), now);
    if let Some(refusal) = run_due(&policy, &ctx, &decision, now).await? {
        report::refused(&policy, &ctx, &observed, &refusal, now).await?;
        return Ok(Action::requeue(AFTER_REFUSAL));
    }
    report::decided(&policy, &ctx, &observed, &decision, now).await?;
    if !decision.remove.is_empty() {
        trim(&policy, &ctx, now).await?;
    }
    Ok(requeue_by(decision.wake_at, now))
}

/// Makes the Backup of the due slot, or tells of one that was given up; why the API server does
/// not take it, otherwise.
///
/// # Crash window
/// The Backup's name is fixed by policy and slot, and `lastScheduleTime` is written after it is
/// made: a crash between the two makes the same Backup again, which is none.
async fn run_due(
    policy: &BackupPolicy,
    ctx: &Context,
    decision: &PolicyDecision,
    now: Timestamp,
) -> Result<Option<String>, Error> {
    if let Some(slot) = decision.missed {
        report::missed(policy, ctx, slot, now).await?;
    }
    match decision.run {
        Some(slot) => {
            let backup = build::backup(policy, slot)?;
            ensure_backup(policy, ctx, &backup, slot, now).await
        }
        None => Ok(None),
    }
}

async fn ensure_backup(
    policy: &BackupPolicy,
    ctx: &Context,
    backup: &Backup,
    slot: Timestamp,
    now: Timestamp,
) -> Result<Option<String>, Error> {
    let namespace = convert::namespace(policy)?;
    let name = backup.name_any();
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    match api.create(&PostParams::default(), backup).await {
        Ok(_) => {
            report::created(policy, ctx, &name, slot, now).await?;
            Ok(None)
        }
        Err(error) if is_status(&error, 409) => {
            let existing = api
                .get_opt(&name)
                .await
                .map_err(Error::api(format!("read Backup {namespace}/{name}")))?;
            let uid = convert::uid(policy)?;
            let foreign = existing.is_some_and(|b| !owners::is_controlled_by(&b.metadata, &uid));
            if foreign {
                report::name_taken(policy, ctx, &name, slot, now).await?;
            }
            Ok(None)
        }
        Err(error) if is_namespace_leaving(&error) => Ok(None),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            Ok(Some(status.message))
        }
        Err(error) => Err(Error::api(format!("create Backup {namespace}/{name}"))(
            error,
        )),
    }
}

/// Deletes the Backups beyond `keepLast`.
///
/// # Guarantees
/// The cache only tells that there may be something to do. What goes is decided over a list read
/// from the API server now, and each delete names the UID and resourceVersion that was judged: a
/// Backup that changed meanwhile stays.
async fn trim(policy: &BackupPolicy, ctx: &Context, now: Timestamp) -> Result<(), Error> {
    let Some(retention) = &policy.spec.retention else {
        return Ok(());
    };
    let namespace = convert::namespace(policy)?;
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    let list = api
        .list(&ListParams::default())
        .await
        .map_err(Error::api(format!("list the Backups of {namespace}")))?;
    let uid = convert::uid(policy)?;
    let own: Vec<Backup> = list
        .items
        .into_iter()
        .filter(|backup| owners::is_controlled_by(&backup.metadata, &uid))
        .collect();
    let facts: Vec<_> = own.iter().map(observe::retention_fact).collect();
    let mut deleted = Vec::new();
    for going in surplus(&facts, retention.keep_last) {
        let Some(backup) = own.iter().find(|backup| backup.name_any() == going.name) else {
            continue;
        };
        if delete_judged(&api, backup).await? {
            deleted.push(backup.name_any());
        }
    }
    if !deleted.is_empty() {
        let note = format!(
            "Deleted {} (keepLast={}): {}",
            text::count(deleted.len() as u64, "old backup"),
            retention.keep_last,
            deleted.join(", ")
        );
        report::tell(policy, ctx, reasons::CLEANUP_TRIGGERED, false, note, now).await?;
    }
    Ok(())
}

/// Deletes `backup` as it was read; false where it is gone or has changed since.
async fn delete_judged(api: &Api<Backup>, backup: &Backup) -> Result<bool, Error> {
    let name = backup.name_any();
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: backup.uid(),
            resource_version: backup.resource_version(),
        }),
        ..Default::default()
    };
    match api.delete(&name, &params).await {
        Ok(_) => Ok(true),
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(false),
        Err(error) => Err(Error::api(format!("delete Backup {name}"))(error)),
    }
}

fn has_finalizer(policy: &BackupPolicy) -> bool {
    policy.finalizers().iter().any(|f| f == POLICY_FINALIZER)
}

async fn add_finalizer(policy: &BackupPolicy, ctx: &Context) -> Result<(), Error> {
    let mut finalizers = policy.finalizers().to_vec();
    finalizers.push(POLICY_FINALIZER.to_owned());
    set_finalizers(policy, ctx, finalizers).await
}

async fn set_finalizers(
    policy: &BackupPolicy,
    ctx: &Context,
    finalizers: Vec<String>,
) -> Result<(), Error> {
    let namespace = convert::namespace(policy)?;
    let name = policy.name_any();
    let api: Api<BackupPolicy> = Api::namespaced(ctx.client.clone(), &namespace);
    let patch = json!({"metadata": {
        "resourceVersion": policy.resource_version(),
        "finalizers": finalizers,
    }});
    match api
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => Err(Error::api(format!(
            "set the finalizers of BackupPolicy {namespace}/{name}"
        ))(error)),
    }
}

/// Takes this policy off its Backups' owners, so that they and their data outlive it, then lets it
/// go.
async fn release(policy: &BackupPolicy, ctx: &Context, now: Timestamp) -> Result<(), Error> {
    if !has_finalizer(policy) {
        return Ok(());
    }
    let namespace = convert::namespace(policy)?;
    let uid = convert::uid(policy)?;
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    let all = api
        .list(&ListParams::default())
        .await
        .map_err(Error::api(format!("list the Backups of {namespace}")))?;
    let mut released = 0;
    for backup in &all.items {
        // One that is being deleted keeps its owner: that it falls with its policy, and its data
        // must not, shows by nothing else.
        let leaving = backup.metadata.deletion_timestamp.is_some();
        if !leaving && owners::is_controlled_by(&backup.metadata, &uid) {
            disown(&api, backup, &uid).await?;
            released += 1;
        }
    }
    if released > 0 {
        let note = format!(
            "Kept {} of this policy with their data; delete the Backups to remove it",
            text::count(released, "backup")
        );
        report::tell(policy, ctx, reasons::BACKUPS_RELEASED, false, note, now).await?;
    }
    let rest = policy
        .finalizers()
        .iter()
        .filter(|f| *f != POLICY_FINALIZER);
    set_finalizers(policy, ctx, rest.cloned().collect()).await
}

async fn disown(api: &Api<Backup>, backup: &Backup, policy_uid: &str) -> Result<(), Error> {
    let name = backup.name_any();
    let owners = backup.metadata.owner_references.iter().flatten();
    let rest: Vec<_> = owners.filter(|owner| owner.uid != policy_uid).collect();
    let patch = json!({"metadata": {
        "resourceVersion": backup.resource_version(),
        "ownerReferences": rest,
    }});
    match api
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => Err(Error::api(format!("release Backup {name}"))(error)),
    }
}
