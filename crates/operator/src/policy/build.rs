//! What a policy makes for a slot: a Backup, or a Job that reads stored backups again. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::{Resource, ResourceExt};
use tidelock_api::{
    Backup, BackupPolicy, BackupSpec, BackupVerification, DATA_FINALIZER, POLICY_LABEL, PVC_LABEL,
    SLOT_ANNOTATION,
};
use tidelock_core::names;
use tidelock_protocol::{ExpectedArchive, Household, RunId, Task, VerifyItem, VerifyTask};

use crate::backup::archived;
use crate::convert;
use crate::error::Error;
use crate::job::{JobPlan, RunKind};
use crate::placement::Placement;
use crate::store::{Store, Use};

/// The Backup of `policy` for `slot`, with all it needs written out, so that a later change of the
/// policy does not change this run.
pub fn backup(policy: &BackupPolicy, slot: Timestamp) -> Result<Backup, Error> {
    let name = policy.name_any();
    let spec = &policy.spec;
    let mut backup = Backup::new(
        &names::slot_backup_name(&name, slot),
        BackupSpec {
            policy_ref: Some(name.clone()),
            target: Some(spec.target.clone()),
            storage: spec.storage.clone(),
            format: Some(spec.format),
            deletion_policy: Some(spec.deletion_policy),
            start_deadline_seconds: Some(spec.start_deadline_seconds),
            verification: spec.verification.as_ref().map(|wanted| BackupVerification {
                on_backup: wanted.on_backup,
            }),
            guard: spec.guard.clone(),
            mover: spec.mover.clone(),
            archive: None,
            cancel: false,
        },
    );
    let pvc = &spec.target.pvc_name;
    let meta = &mut backup.metadata;
    meta.namespace = Some(convert::namespace(policy)?);
    meta.finalizers = Some(vec![DATA_FINALIZER.to_owned()]);
    meta.owner_references = Some(policy.controller_owner_ref(&()).into_iter().collect());
    meta.labels = Some(BTreeMap::from([
        (POLICY_LABEL.to_owned(), names::label_value(&name)),
        (PVC_LABEL.to_owned(), names::label_value(pvc)),
    ]));
    meta.annotations = Some(BTreeMap::from([(
        SLOT_ANNOTATION.to_owned(),
        slot.to_string(),
    )]));
    Ok(backup)
}

/// Annotation on a Job that reads stored backups again: their UIDs, in the order of the report.
pub const VERIFIES_ANNOTATION: &str = "tidelock.dev/verifies";

/// What a Job that reads stored backups again is made from.
pub struct VerifyJob<'a> {
    /// Its name.
    pub name: &'a str,
    /// What no other run of the cluster is known by.
    pub run_uid: &'a str,
    /// Where all of them are kept.
    pub store: &'a Store,
    /// What it reads.
    pub backups: &'a [&'a Backup],
    /// The names of all Backups of the volume that the cluster knows.
    pub known: Option<Vec<String>>,
    /// Where it runs and as whom.
    pub placement: &'a Placement,
    /// The mover's image.
    pub image: &'a str,
}

/// The Job of `policy` that reads stored backups again.
///
/// # Guarantees
/// The storage is mounted read-only, so nothing is swept on the way.
pub fn verify_job(policy: &BackupPolicy, job: VerifyJob<'_>) -> Result<Job, Error> {
    let namespace = convert::namespace(policy)?;
    let items: Result<Vec<VerifyItem>, Error> = job
        .backups
        .iter()
        .map(|backup| verify_item(backup))
        .collect();
    let uids: Vec<String> = job
        .backups
        .iter()
        .filter_map(|backup| backup.uid())
        .collect();
    let id = RunId {
        namespace: namespace.clone(),
        name: job.name.to_owned(),
        uid: job.run_uid.to_owned(),
    };
    let mover = policy.spec.mover.clone().unwrap_or_default();
    let task = Task::Verify(VerifyTask {
        items: items?,
        identities_path: job.store.identities_path(),
        household: Household {
            known: job.known,
            active: None,
        },
    });
    Ok(crate::job::build(JobPlan {
        name: job.name,
        namespace: &namespace,
        kind: RunKind::Verify,
        run_name: job.name,
        run_uid: job.run_uid,
        owners: policy.controller_owner_ref(&()).into_iter().collect(),
        image: job.image,
        request: crate::job::request(id, &mover, task, Some((job.store, Use::Open)))?,
        mounts: &[],
        store: Some((job.store, Use::Open)),
        mover: &mover,
        placement: job.placement,
        ttl_seconds: None,
        annotations: BTreeMap::from([(VERIFIES_ANNOTATION.to_owned(), uids.join(","))]),
    }))
}

fn verify_item(backup: &Backup) -> Result<VerifyItem, Error> {
    let status = backup.status.clone().unwrap_or_default();
    let stored = status.size.map(|size| size.stored_bytes);
    Ok(VerifyItem {
        location: archived::location(backup, &status.pvc_name.unwrap_or_default())?,
        expected: ExpectedArchive {
            digest: status.digest.unwrap_or_default(),
            stored_bytes: stored.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            backup_uid: archived::uid(backup)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use tidelock_protocol::STORAGE_PATH;

    use super::*;

    #[test]
    fn a_job_that_reads_again_cannot_write_and_says_what_it_reads() {
        let policy: BackupPolicy = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "nightly", "namespace": "shop", "uid": "p-1"},
            "spec": {"schedule": "0 2 * * *", "target": {"pvcName": "data"}},
        }))
        .unwrap();
        let backup = |name: &str, uid: &str| -> Backup {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": name, "namespace": "shop", "uid": uid},
                "spec": {"policyRef": "nightly"},
                "status": {"pvcName": "data", "digest": "sha256:0"},
            }))
            .unwrap()
        };
        let (a, b) = (backup("a", "u-a"), backup("b", "u-b"));
        let wanted = VerifyJob {
            name: "j",
            run_uid: "p-1-0",
            store: &Store::of_claim("store"),
            backups: &[&a, &b],
            known: None,
            placement: &Placement::default(),
            image: "image",
        };
        let job = verify_job(&policy, wanted).unwrap();
        assert_eq!(
            job.metadata.annotations.unwrap()[VERIFIES_ANNOTATION],
            "u-a,u-b"
        );
        assert_eq!(job.metadata.owner_references.unwrap()[0].uid, "p-1");
        let pod = job.spec.unwrap().template.spec.unwrap();
        let mounts = pod.containers[0].volume_mounts.clone().unwrap();
        let storage = mounts
            .iter()
            .find(|m| m.mount_path == STORAGE_PATH)
            .unwrap();
        assert_eq!(storage.read_only, Some(true));
    }
}
