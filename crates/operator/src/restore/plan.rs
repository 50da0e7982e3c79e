//! What a Restore comes down to. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;
use tidelock_api::{
    Backup, MoverSpec, Phase, RESTORE_UID_ANNOTATION, Restore, TargetTemplate, VERIFIED,
};
use tidelock_core::identity::Ids;
use tidelock_core::names;
use tidelock_core::run::Readiness;
use tidelock_protocol::{
    Effect, ExpectedArchive, Location, RestoreTask, TARGET_PATH, Task, UndoTask,
};

use crate::backup::archived;
use crate::convert;
use crate::error::Error;
use crate::job::{self, Mount, RunJob, RunKind};
use crate::placement::{self, Placement};
use crate::store::{Store, StoreRef, Use};
use crate::telemetry::reasons;
use crate::volume;

/// A Restore with everything resolved.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    /// The Backup that is restored.
    pub backup_name: String,
    /// The claim to fill.
    pub target_pvc: String,
    /// The claim to make first, where a template asks for it.
    pub claim_to_make: Option<PersistentVolumeClaim>,
    /// The claim that was backed up.
    pub source_pvc: String,
    /// As whom the mover of the backup ran, where it was not root.
    pub backed_up_as: Option<Ids>,
    /// Where the archive is kept.
    pub store: StoreRef,
    /// The same as it was found; none before it was looked for.
    pub found: Option<Store>,
    /// Where the archive stands.
    pub location: Location,
    /// What the archive must be.
    pub expected: ExpectedArchive,
    /// When the backup was started.
    pub recovery_point: Option<Time>,
    /// The Job's name.
    pub job_name: String,
    /// How the mover pod runs.
    pub mover: MoverSpec,
    /// Where, and as whom; found when all else is ready.
    pub placement: Placement,
}

/// The claim that a Restore names or makes.
pub fn target_name(restore: &Restore) -> &str {
    let template = restore.spec.target_template.as_ref();
    let made = template.map(|template| template.metadata.name.as_str());
    restore
        .spec
        .target_pvc
        .as_deref()
        .or(made)
        .unwrap_or_default()
}

/// The Backup that a Restore takes: the one it was pinned to, or else the one it names.
pub fn backup_name(restore: &Restore) -> Option<String> {
    let pinned = restore.status.as_ref().and_then(|s| s.backup_name.clone());
    pinned.or_else(|| restore.spec.backup_name.clone())
}

/// What keeps a Backup that was found damaged from being restored, unless that is allowed.
fn trusted(name: &str, backup: &Backup, allow_unverified: bool) -> Result<(), Readiness> {
    let conditions = backup.status.iter().flat_map(|status| &status.conditions);
    let refuted = conditions
        .filter(|condition| condition.type_ == VERIFIED && condition.status == "False")
        .map(|condition| condition.message.as_str())
        .next();
    match refuted {
        Some(words) if !allow_unverified => Err(volume::refused(
            reasons::BACKUP_NOT_VERIFIED,
            format!(
                "Backup {name} was found damaged: {words} Choose another; allowUnverified: true tries it all the same, and still compares every digest."
            ),
        )),
        _ => Ok(()),
    }
}

/// The Job that takes back what a Restore half wrote.
pub fn undo_job(
    restore: &Restore,
    placement: &Placement,
    name: &str,
    image: &str,
) -> Result<Job, Error> {
    let target = target_name(restore);
    let task = Task::Undo(UndoTask {
        target_path: TARGET_PATH.to_owned(),
        overwrite: convert::overwrite(restore.spec.overwrite),
    });
    let job = RunJob {
        name,
        kind: RunKind::Undo,
        image,
        task,
        mounts: &[Mount::claim(target, TARGET_PATH, false)],
        store: None,
        mover: &job::in_its_own_time(restore.spec.mover.clone().unwrap_or_default()),
        placement,
    };
    job::of_run(restore, job)
}

/// Resolves a Restore over the Backup it names.
///
/// # Errors
/// The inner error says why the Backup cannot be restored.
pub fn resolve(
    restore: &Restore,
    backup: Option<&Backup>,
) -> Result<Result<RestorePlan, Readiness>, Error> {
    let namespace = convert::namespace(restore)?;
    let backup_name = &backup_name(restore).unwrap_or_default();
    let backup = match restorable(backup_name, backup) {
        Ok(backup) => backup,
        Err(readiness) => return Ok(Err(readiness)),
    };
    if let Err(readiness) = trusted(backup_name, backup, restore.spec.allow_unverified) {
        return Ok(Err(readiness));
    }
    let status = backup.status.clone().unwrap_or_default();
    let (Some(digest), Some(size), Some(pvc), Some(store)) = (
        status.digest,
        status.size,
        status.pvc_name,
        StoreRef::recorded(backup),
    ) else {
        return Ok(Err(volume::refused(
            reasons::BACKUP_NOT_COMPLETED,
            format!(
                "Backup {backup_name} is Completed but its status lacks digest, size or location, so nothing could prove what is restored."
            ),
        )));
    };
    let target_pvc = target_name(restore).to_owned();
    if store.claim() == Some(&*target_pvc) {
        return Ok(Err(volume::refused(
            reasons::STORAGE_IS_TARGET,
            format!(
                "PersistentVolumeClaim {target_pvc} holds the backups; name another claim to restore into."
            ),
        )));
    }
    let location = archived::location(backup, &pvc)?;
    Ok(Ok(RestorePlan {
        backup_name: backup_name.clone(),
        claim_to_make: restore
            .spec
            .target_template
            .as_ref()
            .map(|template| claim(restore, &namespace, template)),
        target_pvc,
        source_pvc: pvc,
        backed_up_as: status.security_context.as_deref().map(placement::recorded),
        store,
        found: None,
        location,
        expected: ExpectedArchive {
            digest,
            stored_bytes: u64::try_from(size.stored_bytes).unwrap_or_default(),
            backup_uid: archived::uid(backup)?,
        },
        recovery_point: status.start_time,
        job_name: names::restore_job_name(&restore.name_any()),
        mover: restore.spec.mover.clone().unwrap_or_default(),
        placement: Placement::default(),
    }))
}

fn restorable<'a>(name: &str, backup: Option<&'a Backup>) -> Result<&'a Backup, Readiness> {
    let Some(backup) = backup else {
        return Err(volume::refused(
            reasons::BACKUP_NOT_FOUND,
            format!(
                "Backup {name} does not exist in this namespace; `kubectl get backups` lists what can be restored."
            ),
        ));
    };
    if backup.metadata.deletion_timestamp.is_some() {
        return Err(volume::refused(
            reasons::BACKUP_NOT_FOUND,
            format!("Backup {name} is being deleted, and its data with it; choose another."),
        ));
    }
    match backup.status.as_ref().and_then(|status| status.phase) {
        Some(Phase::Completed) => Ok(backup),
        phase => Err(volume::refused(
            reasons::BACKUP_NOT_COMPLETED,
            format!(
                "Backup {name} is {:?}; only a Completed one can be restored. Choose another, or make a new Restore once it is Completed.",
                phase.unwrap_or(Phase::Pending)
            ),
        )),
    }
}

/// The claim of a template. No owner: what was restored outlives the Restore.
fn claim(restore: &Restore, namespace: &str, template: &TargetTemplate) -> PersistentVolumeClaim {
    let mut annotations = template.metadata.annotations.clone();
    annotations.insert(
        RESTORE_UID_ANNOTATION.to_owned(),
        restore.uid().unwrap_or_default(),
    );
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(template.metadata.name.clone()),
            namespace: Some(namespace.to_owned()),
            labels: Some(template.metadata.labels.clone()),
            annotations: Some(annotations),
            ..Default::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(template.spec.access_modes.clone()),
            storage_class_name: template.spec.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(template.spec.resources.requests.clone()),
                limits: None,
            }),
            ..Default::default()
        }),
        status: None,
    }
}

/// The Job that carries `plan` out.
pub fn job(restore: &Restore, plan: &RestorePlan, image: &str) -> Result<Job, Error> {
    let task = Task::Restore(RestoreTask {
        target_path: TARGET_PATH.to_owned(),
        location: plan.location.clone(),
        expected: plan.expected.clone(),
        identities_path: plan.found.as_ref().and_then(Store::identities_path),
        overwrite: convert::overwrite(restore.spec.overwrite),
        effect: if restore.spec.dry_run {
            Effect::DryRun
        } else {
            Effect::Write
        },
        paths: restore.spec.paths.clone(),
        read_back: restore.spec.verify,
        allow_metadata_loss: restore.spec.allow_metadata_loss,
    });
    let target = Mount::claim(&plan.target_pvc, TARGET_PATH, restore.spec.dry_run);
    let job = RunJob {
        name: &plan.job_name,
        kind: RunKind::Restore,
        image,
        task,
        mounts: &[target],
        store: plan.found.as_ref().map(|store| (store, Use::Open)),
        mover: &plan.mover,
        placement: &plan.placement,
    };
    job::of_run(restore, job)
}
