//! The Job that looks at a storage.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kube::{Resource, ResourceExt};
use tidelock_api::{BackupStorage, MoverSpec};
use tidelock_core::names;
use tidelock_core::run::Readiness;
use tidelock_protocol::{CheckTask, KnownBackups, RunId, Task};

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::job::{self, JobPlan, RunKind};
use crate::placement::{self, Placement, Wanted};
use crate::run::effects::{self, Created};
use crate::run::observe::unrecorded_jobs;
use crate::storage::{known, report};
use crate::store::{self, Store, StoreRef, Use};
use crate::telemetry::reasons;

/// What came of starting a look.
pub enum Started {
    /// This Job looks.
    Job(String),
    /// None can look now.
    NotReady {
        /// One word.
        reason: String,
        /// The sentence.
        message: String,
    },
    /// The namespace is being deleted.
    NamespaceLeaving,
}

/// The storage's Jobs whose results are not recorded, the oldest first.
pub fn own_jobs(storage: &BackupStorage, ctx: &Context) -> Result<Vec<Arc<Job>>, Error> {
    let namespace = convert::namespace(storage)?;
    let uid = convert::uid(storage)?;
    let mut jobs = unrecorded_jobs(ctx, &namespace, RunKind::Check, &uid);
    jobs.retain(|job| job.metadata.deletion_timestamp.is_none());
    Ok(jobs)
}

/// Name of the Job of the look that follows what is recorded.
pub fn job_name(storage: &BackupStorage) -> Result<String, Error> {
    let uid = convert::uid(storage)?;
    let look = report::look(storage);
    Ok(names::check_job_name(&storage.name_any(), &uid, &look))
}

/// Makes the Job of the next look.
///
/// # Crash window
/// The Job's name is fixed by the last look that was recorded: a crash before this one is recorded
/// makes the same Job again, which is none.
pub async fn start(storage: &BackupStorage, ctx: &Context) -> Result<Started, Error> {
    let namespace = convert::namespace(storage)?;
    let reference = StoreRef::Storage(storage.name_any());
    let wanted = if storage.spec.read_only {
        Use::Read
    } else {
        Use::Write
    };
    let store = match store::find(ctx, &namespace, &reference).await? {
        Ok(store) => store,
        Err(not_ready) => return Ok(unable(&not_ready)),
    };
    let readiness = store.readiness(wanted);
    if readiness != Readiness::Ready {
        return Ok(unable(&readiness));
    }
    let placement = match place(ctx, &namespace, &store).await? {
        Ok(placement) => placement,
        Err(not_ready) => return Ok(unable(&not_ready)),
    };
    let known = known::backups(ctx, storage).await?;
    let job = build(storage, (&store, wanted), &placement, known, ctx)?;
    Ok(match effects::ensure_job(ctx, &job).await? {
        Created::Exists => Started::Job(job.name_any()),
        Created::NamespaceLeaving => Started::NamespaceLeaving,
        Created::Refused(words) | Created::Blocked(words) => Started::NotReady {
            reason: reasons::JOB_REFUSED.to_owned(),
            message: format!("The API server does not take the Job that looks at it: {words}"),
        },
    })
}

fn unable(not_ready: &Readiness) -> Started {
    Started::NotReady {
        reason: not_ready.reason().unwrap_or_default().to_owned(),
        message: not_ready.words().to_owned(),
    }
}

async fn place(
    ctx: &Context,
    namespace: &str,
    store: &Store,
) -> Result<Result<Placement, Readiness>, Error> {
    let volumes: Vec<_> = store.volume().into_iter().collect();
    let wanted = Wanted {
        namespace,
        volumes: &volumes,
        unused: None,
        mover: &MoverSpec::default(),
        data: volumes.first().map_or("", |volume| volume.name),
        owners: &[],
    };
    placement::place(ctx, &wanted).await
}

fn build(
    storage: &BackupStorage,
    (store, wanted): (&Store, Use),
    placement: &Placement,
    known: Option<KnownBackups>,
    ctx: &Context,
) -> Result<Job, Error> {
    let namespace = convert::namespace(storage)?;
    let name = job_name(storage)?;
    let id = RunId {
        namespace: namespace.clone(),
        name: name.clone(),
        uid: name.clone(),
    };
    let task = Task::Check(CheckTask {
        namespace: names::storage_stem(&namespace),
        writes: wanted == Use::Write,
        recipients: store.recipients(),
        known,
        describe: storage.spec.discover,
    });
    let mover = MoverSpec::default();
    Ok(job::build(JobPlan {
        name: &name,
        namespace: &namespace,
        kind: RunKind::Check,
        run_name: &name,
        run_uid: &name,
        owners: storage.controller_owner_ref(&()).into_iter().collect(),
        image: &ctx.mover_image,
        request: job::request(id, &mover, task, Some((store, wanted)))?,
        mounts: &[],
        store: Some((store, wanted)),
        mover: &mover,
        placement,
        ttl_seconds: None,
        annotations: BTreeMap::new(),
    }))
}
