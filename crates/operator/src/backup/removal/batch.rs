//! Backups whose data is removed together, by one Job.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource, ResourceExt};
use tidelock_api::{Backup, BackupPolicy, DATA_FINALIZER, MoverSpec};
use tidelock_core::names;
use tidelock_core::removal::{self as core_removal, RemovalDecision};
use tidelock_protocol::{DeleteItem, DeleteTask, RunId, Task};

use super::{
    ATTEMPT_ANNOTATION, cached_facts, delete_job, has_completed, is_retained, leaving_since,
    own_location,
};
use crate::backup::{archived, placing, plan};
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::finalizers;
use crate::job::{self, JobPlan, RunKind};
use crate::owners;
use crate::placement::Placement;
use crate::store::{Store, StoreRef, Use};

/// How long a finished delete Job stays. Longer than the longest pause between tries, which is
/// counted from its end.
const DELETE_TTL_SECONDS: i32 = 2 * 3600;
/// Most Backups in one batch; keeps the request well below the size of an environment variable.
const MAX_BATCH: usize = 100;

/// A Backup whose data is to go.
pub struct Item {
    /// The Backup.
    pub backup: Arc<Backup>,
    /// Whether an archive that was finished stays all the same: nobody meant that one.
    unfinished_only: bool,
}

/// Those of `batch` whose data goes: what a run half wrote in any case, what completed unless it falls
/// with a policy that is gone or going.
pub async fn still_meant(batch: Vec<Arc<Backup>>, ctx: &Context) -> Result<Vec<Item>, Error> {
    let mut judged: BTreeMap<String, bool> = BTreeMap::new();
    let mut meant = Vec::new();
    for backup in batch {
        let alive = match owners::controller(&backup.metadata) {
            None => true,
            Some(owner) => match judged.get(&owner.uid) {
                Some(alive) => *alive,
                None => {
                    let alive = policy_lives(&backup, owner, ctx).await?;
                    judged.insert(owner.uid.clone(), alive);
                    alive
                }
            },
        };
        meant.extend(item(backup, alive));
    }
    Ok(meant)
}

/// What goes of `backup`, whose policy lives or not; none where all of it stays.
fn item(backup: Arc<Backup>, policy_lives: bool) -> Option<Item> {
    let whole = policy_lives && !is_retained(&backup);
    let goes = whole || !has_completed(&backup);
    goes.then_some(Item {
        backup,
        unfinished_only: !whole,
    })
}

async fn policy_lives(
    backup: &Backup,
    owner: &OwnerReference,
    ctx: &Context,
) -> Result<bool, Error> {
    let namespace = convert::namespace(backup)?;
    let api: Api<BackupPolicy> = Api::namespaced(ctx.client.clone(), &namespace);
    let name = &owner.name;
    let policy = api
        .get_metadata_opt(name)
        .await
        .map_err(Error::api(format!("read BackupPolicy {namespace}/{name}")))?;
    Ok(policy.is_some_and(|policy| {
        policy.metadata.uid.as_ref() == Some(&owner.uid)
            && policy.metadata.deletion_timestamp.is_none()
    }))
}

/// The Backups that go along with `backup`: a first try takes all that wait on the same storage,
/// a repeat only itself, so that one bad item does not hold up others for ever.
pub fn gather(backup: &Backup, ctx: &Context, attempt: u32, now: Timestamp) -> Vec<Arc<Backup>> {
    let alone = || vec![Arc::new(backup.clone())];
    if attempt > 0 {
        return alone();
    }
    let mut others = ctx.caches.backups.state_filter(|other| {
        let waits = other.metadata.deletion_timestamp.is_some()
            && finalizers::has(other, DATA_FINALIZER)
            && other.namespace() == backup.namespace()
            && StoreRef::recorded(other) == StoreRef::recorded(backup)
            && placing::written_as(other) == placing::written_as(backup)
            && delete_job(other, ctx).is_none();
        waits
            && matches!(
                core_removal::decide(&cached_facts(other, ctx), now),
                RemovalDecision::Remove(_) | RemovalDecision::Gather(_)
            )
    });
    others.sort_by_key(|other| (leaving_since(other), other.name_any()));
    let own = |chunk: &&[Arc<Backup>]| chunk.iter().any(|other| other.uid() == backup.uid());
    let chunk = others.chunks(MAX_BATCH).find(own);
    chunk.map_or_else(alone, <[Arc<Backup>]>::to_vec)
}

/// The Job that removes the data of `batch`, for the sake of `lead`.
pub fn job(
    batch: &[Item],
    lead: &Backup,
    attempt: u32,
    (store, placement): (&Store, &Placement),
    ctx: &Context,
) -> Result<Job, Error> {
    let namespace = convert::namespace(lead)?;
    let uids: Vec<String> = batch.iter().filter_map(|item| item.backup.uid()).collect();
    let uid_refs: Vec<&str> = uids.iter().map(String::as_str).collect();
    let name = names::delete_job_name(&uid_refs, attempt);
    let items: Result<Vec<DeleteItem>, Error> = batch
        .iter()
        .map(|item| {
            Ok(DeleteItem {
                location: own_location(&item.backup)?,
                backup_uid: archived::uid(&item.backup)?,
                unfinished_only: item.unfinished_only,
            })
        })
        .collect();
    let id = RunId {
        namespace: namespace.clone(),
        name: name.clone(),
        uid: name.clone(),
    };
    let policy = crate::backup::policy(lead, ctx);
    let mover = plan::mover(lead, policy.as_deref());
    let task = Task::Delete(DeleteTask { items: items? });
    let request = job::request(id, &mover, task, Some((store, Use::Write)))?;
    Ok(job::build(JobPlan {
        name: &name,
        namespace: &namespace,
        kind: RunKind::Delete,
        run_name: &name,
        run_uid: &name,
        owners: batch
            .iter()
            .filter_map(|item| item.backup.owner_ref(&()))
            .collect(),
        image: &ctx.mover_image,
        request,
        mounts: &[],
        store: Some((store, Use::Write)),
        mover: &MoverSpec {
            resources: None,
            ..mover
        },
        placement,
        ttl_seconds: Some(DELETE_TTL_SECONDS),
        annotations: BTreeMap::from([(ATTEMPT_ANNOTATION.to_owned(), attempt.to_string())]),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whether anything goes of a Backup, and then whether its finished archive does.
    fn goes(phase: &str, deletion_policy: &str, policy_lives: bool) -> Option<bool> {
        let spec = json!({"deletionPolicy": deletion_policy});
        let mut backup = Backup::new("now", serde_json::from_value(spec).unwrap());
        backup.status = Some(serde_json::from_value(json!({"phase": phase})).unwrap());
        item(Arc::new(backup), policy_lives).map(|item| !item.unfinished_only)
    }

    #[test]
    fn a_finished_archive_goes_only_when_it_was_meant_and_a_half_written_one_in_any_case() {
        for phase in ["Pending", "Running", "Completed", "Failed"] {
            assert_eq!(goes(phase, "Delete", true), Some(true));
        }
        for (deletion_policy, policy_lives) in
            [("Retain", true), ("Delete", false), ("Retain", false)]
        {
            assert_eq!(goes("Completed", deletion_policy, policy_lives), None);
            for phase in ["Pending", "Running", "Failed"] {
                assert_eq!(goes(phase, deletion_policy, policy_lives), Some(false));
            }
        }
    }
}
