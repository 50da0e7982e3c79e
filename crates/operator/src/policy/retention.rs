//! Retention of a BackupPolicy: what its Backups are marked with, and which of them go.

use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, REPLACED_ANNOTATION, THERE_BY_ANNOTATION};
use tidelock_core::policy::PolicyDecision;
use tidelock_core::retention::{Rule, surplus};
use tidelock_core::text;

use crate::context::Context;
use crate::convert;
use crate::error::{Error, is_status};
use crate::fact;
use crate::owners;
use crate::policy::observe::Observed;
use crate::policy::report;
use crate::telemetry::{policy_reasons, reasons};

/// What retention of `policy` keeps; none keeps all.
pub fn keep(policy: &BackupPolicy) -> Option<Rule> {
    let retention = policy.spec.retention.as_ref()?;
    Some(Rule {
        keep_last: retention.keep_last,
        standard: fact::standard(Some(policy)),
    })
}

/// Marks the Backups named in `misdated`, whose dates lie ahead, as there by `now`.
///
/// # Crash window
/// None: each is marked by itself, and one that is not is found again.
pub async fn mark_misdated(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    misdated: &[String],
    now: Timestamp,
) -> Result<(), Error> {
    for backup in observed.named(misdated) {
        let name = backup.name_any();
        let note = format!(
            "Backup {name} is dated in the future: a clock was ahead when it was made. Retention takes it as older than what is made from now on"
        );
        report::tell(
            policy,
            ctx,
            policy_reasons::BACKUP_MISDATED,
            true,
            note,
            now,
        )
        .await?;
        let there_by = convert::whole_seconds(now).0.to_string();
        let patch = json!({"metadata": {
            "uid": backup.uid(),
            "resourceVersion": backup.resource_version(),
            "annotations": {THERE_BY_ANNOTATION: there_by},
        }});
        patch_judged(backup, ctx, "mark", patch).await?;
    }
    Ok(())
}

/// Cancels the active Backups that are to make room for the slot that `decision` holds back.
///
/// # Crash window
/// None: a Backup is cancelled once, whoever asks.
pub async fn cancel_active(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    decision: &PolicyDecision,
    now: Timestamp,
) -> Result<(), Error> {
    let running = observed.named(&decision.cancel).filter(|b| !b.spec.cancel);
    for backup in running {
        let name = backup.name_any();
        let note = format!(
            "Cancelled Backup {name}: it was still active when the next one was due (concurrencyPolicy Replace)"
        );
        report::tell(
            policy,
            ctx,
            policy_reasons::BACKUP_REPLACED,
            true,
            note,
            now,
        )
        .await?;
        let slot = decision.held.map(|slot| slot.to_string());
        let patch = json!({
            "metadata": {"uid": backup.uid(), "annotations": {REPLACED_ANNOTATION: slot}},
            "spec": {"cancel": true},
        });
        patch_judged(backup, ctx, "cancel", patch).await?;
    }
    Ok(())
}

/// Patches `backup` as it was judged; one that is gone or has changed is looked at again when its
/// change arrives.
async fn patch_judged(
    backup: &Backup,
    ctx: &Context,
    verb: &str,
    patch: serde_json::Value,
) -> Result<(), Error> {
    let namespace = convert::namespace(backup)?;
    let name = backup.name_any();
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    match api
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(()),
        Err(error) => Err(Error::api(format!("{verb} Backup {namespace}/{name}"))(
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
pub async fn trim(policy: &BackupPolicy, ctx: &Context, now: Timestamp) -> Result<(), Error> {
    let Some(rule) = keep(policy) else {
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
    let facts: Vec<_> = own.iter().map(fact::of_backup).collect();
    let mut deleted = Vec::new();
    for going in surplus(&facts, rule, now) {
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
            rule.keep_last,
            deleted.join(", ")
        );
        report::tell(policy, ctx, reasons::CLEANUP_TRIGGERED, false, note, now).await?;
    }
    Ok(())
}

/// Tells which Backups retention would delete were they not locked by their storage: once for each set of
/// them.
pub async fn tell_locked(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    decision: &PolicyDecision,
    now: Timestamp,
) -> Result<(), Error> {
    let ends = observed
        .named(&decision.locked)
        .filter_map(fact::locked_until);
    let (Some(first), Some(rule)) = (ends.min(), keep(policy)) else {
        return Ok(());
    };
    let names = decision.locked.join(", ");
    let note = format!(
        "{} beyond keepLast={} cannot go yet, as the storage keeps them locked, the first until {first}: {names}",
        text::count(decision.locked.len() as u64, "old backup"),
        rule.keep_last,
    );
    let told = (policy_reasons::CLEANUP_WAITS, false, names.as_str());
    report::tell_of(policy, ctx, told, note, now).await
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
