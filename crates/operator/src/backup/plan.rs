//! What a Backup comes down to: which claims, which Job, which location. Pure.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use tidelock_api::{
    Backup, BackupPolicy, DEFAULT_START_DEADLINE_SECONDS, DeletionPolicy, Format, Guard, MoverSpec,
};
use tidelock_core::names;
use tidelock_core::run::Readiness;
use tidelock_protocol::{
    BackupTask, DeleteItem, DeleteTask, Household, Location, SOURCE_PATH, Task, VerificationLevel,
};

use crate::backup::archived;
use crate::convert;
use crate::error::Error;
use crate::job::{self, Mount, RunJob, RunKind};
use crate::placement::Placement;
use crate::store::{Store, StoreRef, Use};
use crate::telemetry::reasons;
use crate::volume;

/// A Backup with everything resolved.
#[derive(Debug, Clone)]
pub struct BackupPlan {
    /// The claim to save.
    pub pvc: String,
    /// Where the archive is kept.
    pub store: StoreRef,
    /// The same as it was found; none before it was looked for.
    pub found: Option<Store>,
    /// Where the archive goes.
    pub location: Location,
    /// Its form.
    pub format: Format,
    /// What happens to it when the Backup is deleted.
    pub deletion_policy: DeletionPolicy,
    /// The Job's name.
    pub job_name: String,
    /// How the mover pod runs.
    pub mover: MoverSpec,
    /// How much is read back before the backup is called Completed.
    pub verification: VerificationLevel,
    /// What to look after in the volume's folder on the way.
    pub household: Household,
    /// Where, and as whom; found when all else is ready.
    pub placement: Placement,
}

/// Resolves a Backup's spec over its policy's. What is recorded in the status already stands,
/// whatever the policy says by now.
///
/// # Errors
/// The inner error says what the Backup waits for, or why it can never run.
pub fn resolve(
    backup: &Backup,
    policy: Option<&BackupPolicy>,
) -> Result<Result<BackupPlan, Readiness>, Error> {
    let namespace = convert::namespace(backup)?;
    let name = backup.name_any();
    let recorded = backup.status.as_ref();
    let spec = &backup.spec;
    let pvc = match recorded.and_then(|status| status.pvc_name.clone()) {
        Some(pvc) => pvc,
        None => match target(backup, policy) {
            Ok(pvc) => pvc,
            Err(readiness) => return Ok(Err(readiness)),
        },
    };
    let store = StoreRef::recorded(backup)
        .or_else(|| spec.storage.as_ref().map(StoreRef::named))
        .or_else(|| policy.map(StoreRef::of_policy))
        .unwrap_or_default();
    if store.claim() == Some(&*pvc) {
        return Ok(Err(volume::refused(
            reasons::STORAGE_IS_TARGET,
            format!(
                "PersistentVolumeClaim {pvc} is both the target and the storage; a backup inside the volume it saves is lost with it. Name another claim in storage.pvcName."
            ),
        )));
    }
    let location = location(&namespace, &pvc, &name)?;
    Ok(Ok(BackupPlan {
        pvc,
        store,
        found: None,
        location,
        format: format(backup, policy),
        deletion_policy: deletion_policy(backup, policy),
        job_name: names::backup_job_name(&name),
        mover: mover(backup, policy),
        verification: verification(backup, policy),
        household: Household::default(),
        placement: Placement::default(),
    }))
}

/// How the mover pods of a Backup run: as it says itself, or as its policy says.
pub fn mover(backup: &Backup, policy: Option<&BackupPolicy>) -> MoverSpec {
    let own = backup.spec.mover.as_deref();
    let of_policy = || policy.and_then(|policy| policy.spec.mover.as_deref());
    own.or_else(of_policy).cloned().unwrap_or_default()
}

/// The form of a Backup's archive: as it was when it began, or as it says itself, or as its policy
/// says.
pub fn format(backup: &Backup, policy: Option<&BackupPolicy>) -> Format {
    let recorded = backup.status.as_ref().and_then(|status| status.format);
    let of_policy = || policy.map(|policy| policy.spec.format);
    let said = recorded.or(backup.spec.format);
    said.or_else(of_policy).unwrap_or_default()
}

/// What happens to the data of a Backup when that is deleted: as it says itself, or as its policy
/// said when it began, or says.
pub fn deletion_policy(backup: &Backup, policy: Option<&BackupPolicy>) -> DeletionPolicy {
    let status = backup.status.as_ref();
    let recorded = || status.and_then(|status| status.deletion_policy);
    let of_policy = || policy.map(|policy| policy.spec.deletion_policy);
    let archived = archived::deletion_policy(backup);
    let said = archived.or(backup.spec.deletion_policy).or_else(recorded);
    said.or_else(of_policy).unwrap_or_default()
}

/// How long a Backup may wait for its pod to start: as it says itself, or as its policy says.
pub fn start_deadline_seconds(backup: &Backup, policy: Option<&BackupPolicy>) -> u32 {
    let of_policy = || policy.map(|policy| policy.spec.start_deadline_seconds);
    let said = backup.spec.start_deadline_seconds.or_else(of_policy);
    said.unwrap_or(DEFAULT_START_DEADLINE_SECONDS)
}

/// How much of a Backup is read back: as it says itself, or as its policy says.
pub fn verification(backup: &Backup, policy: Option<&BackupPolicy>) -> VerificationLevel {
    let own = backup.spec.verification.as_ref().map(|v| v.on_backup);
    let of_policy = || {
        let wanted = policy.and_then(|policy| policy.spec.verification.as_ref());
        wanted.map(|wanted| wanted.on_backup)
    };
    convert::level(own.or_else(of_policy).unwrap_or_default())
}

/// What makes a Backup suspicious: as it says itself, or as its policy says.
pub fn guard(backup: &Backup, policy: Option<&BackupPolicy>) -> Guard {
    let own = backup.spec.guard.as_ref();
    let of_policy = || policy.and_then(|policy| policy.spec.guard.as_ref());
    own.or_else(of_policy).cloned().unwrap_or_default()
}

/// Where the archive of a Backup stands.
pub fn location(namespace: &str, pvc: &str, backup: &str) -> Result<Location, Error> {
    Ok(Location::new(
        &names::storage_stem(namespace),
        &names::storage_stem(pvc),
        &names::storage_stem(backup),
    )?)
}

fn target(backup: &Backup, policy: Option<&BackupPolicy>) -> Result<String, Readiness> {
    let named = backup.spec.target.as_ref().map(|target| &target.pvc_name);
    let Some(policy_name) = &backup.spec.policy_ref else {
        return named.cloned().ok_or_else(|| {
            volume::refused(
                reasons::PVC_NOT_FOUND,
                "Neither target nor policyRef is set; name the claim to save in target.pvcName."
                    .to_owned(),
            )
        });
    };
    let Some(policy) = policy else {
        return Err(volume::blocked(
            reasons::POLICY_NOT_FOUND,
            format!(
                "BackupPolicy {policy_name} does not exist in this namespace; create it, or leave policyRef out for a backup that stands alone."
            ),
        ));
    };
    let of_policy = &policy.spec.target.pvc_name;
    match named {
        Some(pvc) if pvc != of_policy => Err(volume::refused(
            reasons::TARGET_MISMATCH,
            format!(
                "target.pvcName is {pvc}, but BackupPolicy {policy_name} saves {of_policy}; its retention must not mix volumes. Leave policyRef out to save {pvc} on its own."
            ),
        )),
        _ => Ok(of_policy.clone()),
    }
}

/// The Job that carries `plan` out.
pub fn job(backup: &Backup, plan: &BackupPlan, image: &str) -> Result<Job, Error> {
    let task = Task::Backup(BackupTask {
        lock: plan.found.as_ref().and_then(Store::lock),
        recipients: plan.found.as_ref().map_or_else(Vec::new, Store::recipients),
        source_path: SOURCE_PATH.to_owned(),
        location: plan.location.clone(),
        format: convert::format(plan.format),
        pvc_name: plan.pvc.clone(),
        policy_name: backup.spec.policy_ref.clone(),
        verification: plan.verification,
        household: plan.household.clone(),
    });
    let source = Mount::claim(&plan.pvc, SOURCE_PATH, true);
    let job = RunJob {
        name: &plan.job_name,
        kind: RunKind::Backup,
        image,
        task,
        mounts: &[source],
        store: plan.found.as_ref().map(|store| (store, Use::Write)),
        mover: &plan.mover,
        placement: &plan.placement,
    };
    job::of_run(backup, job)
}

/// The Job that removes what a cancelled Backup half wrote.
pub fn undo_job(
    backup: &Backup,
    policy: Option<&BackupPolicy>,
    store: &Store,
    placement: &Placement,
    name: &str,
    image: &str,
) -> Result<Job, Error> {
    let status = backup.status.clone().unwrap_or_default();
    let pvc = status.pvc_name.unwrap_or_default();
    let task = Task::Delete(DeleteTask {
        items: vec![DeleteItem {
            location: archived::location(backup, &pvc)?,
            backup_uid: archived::uid(backup)?,
            unfinished_only: false,
        }],
    });
    let job = RunJob {
        name,
        kind: RunKind::Undo,
        image,
        task,
        mounts: &[],
        store: Some((store, Use::Write)),
        mover: &job::in_its_own_time(mover(backup, policy)),
        placement,
    };
    job::of_run(backup, job)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn backup(spec: Value, status: Value) -> Backup {
        let mut backup = Backup::new("b", serde_json::from_value(spec).unwrap());
        backup.status = serde_json::from_value(status).unwrap();
        backup
    }

    fn policy(more: Value) -> BackupPolicy {
        let mut spec = json!({"target": {"pvcName": "data"}, "schedule": "@daily", "retention": {"keepLast": 3}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        BackupPolicy::new("p", serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn what_a_backup_leaves_unset_is_as_its_policy_says_when_the_run_begins() {
        let keeps = policy(json!({
            "format": "TarZst", "deletionPolicy": "Retain", "startDeadlineSeconds": 7,
        }));
        let by_hand = backup(json!({"policyRef": "p"}), Value::Null);
        assert_eq!(format(&by_hand, Some(&keeps)), Format::TarZst);
        assert_eq!(
            deletion_policy(&by_hand, Some(&keeps)),
            DeletionPolicy::Retain
        );
        assert_eq!(start_deadline_seconds(&by_hand, Some(&keeps)), 7);
        let alone = backup(json!({"target": {"pvcName": "data"}}), Value::Null);
        assert_eq!(format(&alone, None), Format::TarGz);
        assert_eq!(deletion_policy(&alone, None), DeletionPolicy::Delete);
        assert_eq!(start_deadline_seconds(&alone, None), 1800);
        let says = json!({
            "policyRef": "p", "format": "TarGz", "deletionPolicy": "Delete",
            "startDeadlineSeconds": 9,
        });
        let says = backup(says, Value::Null);
        assert_eq!(format(&says, Some(&keeps)), Format::TarGz);
        assert_eq!(deletion_policy(&says, Some(&keeps)), DeletionPolicy::Delete);
        assert_eq!(start_deadline_seconds(&says, Some(&keeps)), 9);
    }

    #[test]
    fn what_was_recorded_stands_whatever_the_policy_says_by_now() {
        let status = json!({"format": "TarZst", "deletionPolicy": "Retain"});
        let began = backup(json!({"policyRef": "p"}), status);
        for policy in [None, Some(&policy(json!({})))] {
            assert_eq!(format(&began, policy), Format::TarZst);
            assert_eq!(deletion_policy(&began, policy), DeletionPolicy::Retain);
        }
    }
}
