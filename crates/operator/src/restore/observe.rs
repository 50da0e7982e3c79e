//! What is known of a Restore.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use tidelock_api::{Backup, Restore};
use tidelock_core::names;
use tidelock_core::run::{Readiness, RunFacts};

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::owners;
use crate::restore::plan::{self, RestorePlan};
use crate::run::observe::{find_job, job_fact, pods_of};
use crate::telemetry::reasons;
use crate::volume;

/// What is known of a Restore.
pub struct Observed {
    /// For the decision.
    pub facts: RunFacts,
    /// What it comes down to; none where that cannot be told, or is no longer asked.
    pub plan: Option<RestorePlan>,
    /// The Job under its name, whosever it is.
    pub job: Option<Arc<Job>>,
    uid: String,
}

impl Observed {
    /// The Job, where it is this Restore's.
    pub fn own_job(&self) -> Option<&Job> {
        let job = self.job.as_deref()?;
        owners::is_controlled_by(&job.metadata, &self.uid).then_some(job)
    }
}

/// Reads all that the decision about `restore` needs. What it will rely on — the Backup, the
/// claims — is read from the API server itself, and only before it starts.
pub async fn observe(restore: &Restore, ctx: &Context) -> Result<Observed, Error> {
    let namespace = convert::namespace(restore)?;
    let uid = convert::uid(restore)?;
    let status = restore.status.as_ref();
    let phase = status.and_then(|status| status.phase);
    let started = status.and_then(|status| status.start_time.clone());
    let job_name = names::restore_job_name(&restore.name_any());
    let ended = convert::is_terminal(phase);
    let job = if ended {
        ctx.caches
            .jobs
            .get(&ObjectRef::new(&job_name).within(&namespace))
    } else {
        find_job(ctx, &namespace, &job_name).await?
    };
    let (plan, readiness) = if ended || job.is_some() {
        (None, Readiness::Ready)
    } else {
        check(restore, ctx, &namespace, &uid).await?
    };
    Ok(Observed {
        facts: RunFacts {
            phase: phase.map(convert::to_core),
            created: convert::created(&restore.metadata),
            started: started.map(|time| time.0),
            start_deadline: convert::seconds(restore.spec.start_deadline_seconds),
            readiness,
            job_name,
            job: job_fact(job.as_deref(), &uid, &pods_of(ctx, &namespace, &uid)),
        },
        plan,
        job,
        uid,
    })
}

async fn check(
    restore: &Restore,
    ctx: &Context,
    namespace: &str,
    uid: &str,
) -> Result<(Option<RestorePlan>, Readiness), Error> {
    let backup_name = &restore.spec.backup_name;
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), namespace);
    let backup = api
        .get_opt(backup_name)
        .await
        .map_err(Error::api(format!("read Backup {namespace}/{backup_name}")))?;
    let plan = match plan::resolve(restore, backup.as_ref())? {
        Ok(plan) => plan,
        Err(readiness) => return Ok((None, readiness)),
    };
    let storage = volume::get(ctx, namespace, &plan.storage_pvc).await?;
    let target = volume::get(ctx, namespace, &plan.target_pvc).await?;
    let target_readiness = match (&plan.claim_to_make, &target) {
        (Some(_), None) => Readiness::Ready,
        (Some(_), Some(claim)) if volume::made_by_restore(claim).is_none_or(|by| by != uid) => {
            volume::refused(
                reasons::TARGET_EXISTS,
                format!(
                    "PersistentVolumeClaim {} of targetTemplate exists and was not made by this Restore; choose another name, or name it in targetPVC if it is empty.",
                    plan.target_pvc
                ),
            )
        }
        _ => volume::target(&plan.target_pvc, target.as_ref()),
    };
    let readiness = volume::all([
        volume::storage(&plan.storage_pvc, storage.as_ref()),
        target_readiness,
    ]);
    Ok((Some(plan), readiness))
}
