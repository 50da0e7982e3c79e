//! Whether a PersistentVolumeClaim can be used.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt};
use tidelock_core::run::{Blocker, Readiness, Refusal};

use crate::context::Context;
use crate::error::Error;
use crate::telemetry::reasons;

/// The claim as the API server knows it now.
pub async fn get(
    ctx: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<PersistentVolumeClaim>, Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), namespace);
    api.get_opt(name).await.map_err(Error::api(format!(
        "read PersistentVolumeClaim {namespace}/{name}"
    )))
}

/// A blocker as readiness.
pub fn blocked(reason: &'static str, message: String) -> Readiness {
    Readiness::Blocked(Blocker { reason, message })
}

/// A refusal as readiness.
pub fn refused(reason: &'static str, message: String) -> Readiness {
    Readiness::Refused(Refusal { reason, message })
}

/// The first of `checks` that is not ready.
pub fn all(checks: impl IntoIterator<Item = Readiness>) -> Readiness {
    checks
        .into_iter()
        .find(|check| *check != Readiness::Ready)
        .unwrap_or(Readiness::Ready)
}

/// Whether `claim` can be read: bound, whole, with a file system. A claim that was never bound is
/// not bound by a backup.
pub fn source(name: &str, claim: Option<&PersistentVolumeClaim>) -> Readiness {
    let Some(claim) = claim else {
        return blocked(
            reasons::PVC_NOT_FOUND,
            format!(
                "PersistentVolumeClaim {name} does not exist in this namespace; create it, or correct target.pvcName."
            ),
        );
    };
    let phase = phase(claim);
    if let Some(unusable) = unusable(name, claim) {
        return unusable;
    }
    if phase != "Bound" {
        return blocked(
            reasons::PVC_NOT_BOUND,
            format!(
                "PersistentVolumeClaim {name} is {phase}, so it has no volume to back up; it binds when a volume is provisioned or a pod first uses it."
            ),
        );
    }
    Readiness::Ready
}

/// Whether backups can be kept on `claim`; one that waits for its first consumer gets it.
pub fn storage(name: &str, claim: Option<&PersistentVolumeClaim>) -> Readiness {
    let Some(claim) = claim else {
        return blocked(
            reasons::STORAGE_NOT_FOUND,
            format!(
                "Storage PersistentVolumeClaim {name} does not exist in this namespace; create it, or name another in storage.pvcName."
            ),
        );
    };
    match unusable(name, claim) {
        Some(Readiness::Refused(why)) => refused(
            reasons::STORAGE_UNUSABLE,
            format!("Storage: {}", why.message),
        ),
        Some(Readiness::Blocked(why)) => blocked(
            reasons::STORAGE_UNUSABLE,
            format!("Storage: {}", why.message),
        ),
        _ => Readiness::Ready,
    }
}

/// Whether `claim` can be written into; one that waits for its first consumer gets it.
pub fn target(name: &str, claim: Option<&PersistentVolumeClaim>) -> Readiness {
    let Some(claim) = claim else {
        return blocked(
            reasons::PVC_NOT_FOUND,
            format!(
                "PersistentVolumeClaim {name} does not exist in this namespace; create it, or use targetTemplate to have it made."
            ),
        );
    };
    unusable(name, claim).unwrap_or(Readiness::Ready)
}

/// What makes a claim unusable whatever it is used for.
fn unusable(name: &str, claim: &PersistentVolumeClaim) -> Option<Readiness> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Some(blocked(
            reasons::PVC_TERMINATING,
            format!("PersistentVolumeClaim {name} is being deleted."),
        ));
    }
    let mode = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_mode.as_deref());
    if mode == Some("Block") {
        return Some(refused(
            reasons::VOLUME_MODE_BLOCK,
            format!(
                "PersistentVolumeClaim {name} has volumeMode Block; Tidelock works on file systems (volumeMode Filesystem)."
            ),
        ));
    }
    (phase(claim) == "Lost").then(|| {
        blocked(
            reasons::PVC_NOT_BOUND,
            format!(
                "PersistentVolumeClaim {name} has lost its volume; its PersistentVolume is gone."
            ),
        )
    })
}

fn phase(claim: &PersistentVolumeClaim) -> String {
    let status = claim.status.as_ref();
    status
        .and_then(|status| status.phase.clone())
        .unwrap_or_else(|| "Pending".to_owned())
}

/// `uid` of the Restore that made `claim`, if one did.
pub fn made_by_restore(claim: &PersistentVolumeClaim) -> Option<&String> {
    claim
        .annotations()
        .get(tidelock_api::RESTORE_UID_ANNOTATION)
}
