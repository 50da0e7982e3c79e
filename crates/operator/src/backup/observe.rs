//! What is known of a Backup.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use tidelock_api::{Backup, BackupPolicy};
use tidelock_core::names;
use tidelock_core::run::{Readiness, RunFacts};

use crate::backup::plan::{self, BackupPlan};
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::owners;
use crate::run::observe::{find_job, job_fact, pods_of};
use crate::volume;

/// What is known of a Backup that is not being deleted.
pub struct Observed {
    /// For the decision.
    pub facts: RunFacts,
    /// What it comes down to; none where that cannot be told yet.
    pub plan: Option<BackupPlan>,
    /// The Job under its name, whosever it is.
    pub job: Option<Arc<Job>>,
    uid: String,
}

impl Observed {
    /// The Job, where it is this Backup's.
    pub fn own_job(&self) -> Option<&Job> {
        let job = self.job.as_deref()?;
        owners::is_controlled_by(&job.metadata, &self.uid).then_some(job)
    }
}

/// The policy that a Backup names.
pub fn policy(backup: &Backup, ctx: &Context) -> Option<Arc<BackupPolicy>> {
    let name = backup.spec.policy_ref.as_ref()?;
    let namespace = backup.namespace()?;
    ctx.caches
        .policies
        .get(&ObjectRef::new(name).within(&namespace))
}

/// Reads all that the decision about `backup` needs: caches, and of the API server only what the
/// caches do not hold.
pub async fn observe(backup: &Backup, ctx: &Context) -> Result<Observed, Error> {
    let namespace = convert::namespace(backup)?;
    let uid = convert::uid(backup)?;
    let status = backup.status.as_ref();
    let phase = status.and_then(|status| status.phase);
    let started = status.and_then(|status| status.start_time.clone());
    let job_name = names::backup_job_name(&backup.name_any());
    let ended = convert::is_terminal(phase);
    let job = if ended {
        ctx.caches
            .jobs
            .get(&ObjectRef::new(&job_name).within(&namespace))
    } else {
        find_job(ctx, &namespace, &job_name).await?
    };
    let fact = job_fact(job.as_deref(), &uid, &pods_of(ctx, &namespace, &uid));
    let resolved = plan::resolve(backup, policy(backup, ctx).as_deref())?;
    let (plan, readiness) = match resolved {
        Ok(plan) if !ended && job.is_none() => {
            let readiness = check_volumes(ctx, &namespace, &plan).await?;
            (Some(plan), readiness)
        }
        Ok(plan) => (Some(plan), Readiness::Ready),
        Err(readiness) => (None, readiness),
    };
    Ok(Observed {
        facts: RunFacts {
            phase: phase.map(convert::to_core),
            created: convert::created(&backup.metadata),
            started: started.map(|time| time.0),
            start_deadline: convert::seconds(backup.spec.start_deadline_seconds),
            readiness,
            job_name,
            job: fact,
        },
        plan,
        job,
        uid,
    })
}

async fn check_volumes(
    ctx: &Context,
    namespace: &str,
    plan: &BackupPlan,
) -> Result<Readiness, Error> {
    let source = volume::get(ctx, namespace, &plan.pvc).await?;
    let storage = volume::get(ctx, namespace, &plan.storage_pvc).await?;
    Ok(volume::all([
        volume::source(&plan.pvc, source.as_ref()),
        volume::storage(&plan.storage_pvc, storage.as_ref()),
    ]))
}
