//! Backups that are being deleted, and the Jobs that remove their data.

mod batch;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use tidelock_api::{Backup, BackupPolicy, DATA_FINALIZER, DeletionPolicy, Phase, RUN_KIND_LABEL};
use tidelock_core::removal::{
    self as core_removal, DeleteJob, Owner, RemovalDecision, RemovalFacts,
};
use tidelock_core::run::{POD_GRACE, PodFact};
use tidelock_protocol::Outcome;

use crate::backup::{archived, placing, plan};
use crate::conditions::{Verdict, ready_reason, set_ready};
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::fact;
use crate::finalizers;
use crate::job::RunKind;
use crate::owners;
use crate::run::effects::{self, Created};
use crate::run::observe::{
    condition, find_job, has_condition, is_finished, is_live, pod_fact, pods_of,
};
use crate::run::{report, tell as tell_run, write_status};
use crate::store::{self, StoreRef};
use crate::telemetry::reasons;

/// Annotation on a delete Job: how many tries were made before it.
const ATTEMPT_ANNOTATION: &str = "tidelock.dev/attempt";
/// Pause before a delete Job that the API server did not take is asked for again.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);
/// Why data stays that nobody aimed at.
const POLICY_DELETED: &str = "its BackupPolicy was deleted";

/// Brings the deletion of one Backup a step further.
pub async fn reconcile(backup: &Backup, ctx: &Context, now: Timestamp) -> Result<Action, Error> {
    if !finalizers::has(backup, DATA_FINALIZER) {
        return Ok(Action::await_change());
    }
    let mut facts = observe(backup, ctx).await?;
    let mut decision = core_removal::decide(&facts, now);
    if waits_or_works(&decision) {
        facts.namespace_is_leaving = namespace_is_leaving(backup, ctx).await?;
        decision = core_removal::decide(&facts, now);
    }
    match decision {
        RemovalDecision::Release(left_behind) => release(backup, ctx, left_behind, now).await?,
        _ if !says_deleting(backup) => say_deleting(backup, ctx, now).await?,
        RemovalDecision::StopRun(wake_at) => {
            stop_run(backup, ctx).await?;
            return Ok(effects::requeue_at(wake_at, now));
        }
        RemovalDecision::Gather(wake_at) => return Ok(effects::requeue_at(wake_at, now)),
        RemovalDecision::Hold(why) => {
            let note = format!("The data stays for now: {why}");
            tell(backup, ctx, reasons::DATA_HELD, false, note, now).await?;
        }
        RemovalDecision::Locked(end) => {
            let until = fact::locked_until(backup).unwrap_or(end);
            let note = format!(
                "The data stays for now: its storage keeps it locked until {until}; it goes then"
            );
            tell(backup, ctx, reasons::DATA_HELD, false, note, now).await?;
            return Ok(effects::requeue_at(end, now));
        }
        RemovalDecision::Await(wake_at) => {
            await_job(backup, ctx, now).await?;
            return Ok(effects::requeue_at(wake_at, now));
        }
        RemovalDecision::Remove(attempt) => return remove_batch(backup, ctx, attempt, now).await,
        RemovalDecision::Retry { message, wake_at } => {
            not_yet(backup, ctx, &message, now).await?;
            return Ok(effects::requeue_at(wake_at, now));
        }
    }
    Ok(Action::await_change())
}

/// Whether a namespace that is being deleted makes a difference: a release is one all the same, and
/// what is gathered or awaited goes with it.
fn waits_or_works(decision: &RemovalDecision) -> bool {
    use RemovalDecision::{Await, Gather, Hold, Locked, Release, Remove, Retry, StopRun};
    match decision {
        StopRun(_) | Remove(_) | Hold(_) | Locked(_) | Retry { .. } => true,
        Release(_) | Gather(_) | Await(_) => false,
    }
}

fn says_deleting(backup: &Backup) -> bool {
    let conditions = backup.status.as_ref().map(|status| &status.conditions[..]);
    ready_reason(conditions.unwrap_or_default()) == reasons::DELETING
}

/// Shows in `kubectl get` that the object is on its way out. The status write wakes the next step.
async fn say_deleting(backup: &Backup, ctx: &Context, now: Timestamp) -> Result<(), Error> {
    let verdict = Verdict::no(reasons::DELETING, "Its data is being removed from storage");
    let mut changed = backup.clone();
    let status = changed.status.get_or_insert_default();
    set_ready(
        &mut status.conditions,
        &verdict,
        backup.metadata.generation,
        now,
    );
    write_status(backup, changed, ctx).await?;
    Ok(())
}

async fn observe(backup: &Backup, ctx: &Context) -> Result<RemovalFacts, Error> {
    let namespace = convert::namespace(backup)?;
    let mut facts = cached_facts(backup, ctx);
    let run_job = match run_job_name(backup) {
        Some(name) => find_job(ctx, &namespace, name).await?,
        None => None,
    };
    let uid = convert::uid(backup)?;
    let own_job = run_job.filter(|job| owners::is_controlled_by(&job.metadata, &uid));
    if let Some(job) = own_job.filter(|job| !is_finished(job)) {
        let words = || format!("Job {}", job.name_any());
        facts.active_run.get_or_insert_with(words);
    }
    facts.delete_job = match delete_job(backup, ctx) {
        Some(job) => delete_fact(backup, &job, ctx).await?,
        None => DeleteJob::Absent,
    };
    if let Some(reference) = StoreRef::recorded(backup) {
        facts.storage_gone = store::gone(ctx, &namespace, &reference).await?;
    }
    Ok(facts)
}

/// What the caches tell; enough to see which Backups go along in a batch.
fn cached_facts(backup: &Backup, ctx: &Context) -> RemovalFacts {
    let namespace = backup.namespace().unwrap_or_default();
    let uid = backup.uid().unwrap_or_default();
    let pods = pods_of(ctx, &namespace, &uid);
    let live = pods.iter().find(|pod| is_live(pod));
    RemovalFacts {
        may_have_data: may_have_data(backup),
        completed: has_completed(backup),
        retain: is_retained(backup),
        owner: owner(backup, ctx),
        active_run: live.map(|pod| format!("Pod {}", pod.name_any())),
        deleted: leaving_since(backup),
        held_by: reader(backup, ctx),
        locked_until: fact::locked_until(backup),
        storage_gone: None,
        namespace_is_leaving: false,
        batch_since: leaving_since(backup),
        delete_job: DeleteJob::Absent,
    }
}

fn has_completed(backup: &Backup) -> bool {
    let status = backup.status.as_ref();
    status.and_then(|status| status.phase) == Some(Phase::Completed)
}

fn is_retained(backup: &Backup) -> bool {
    plan::deletion_policy(backup, None) == DeletionPolicy::Retain
}

/// Whether no Job can be made any more, by the namespace as it is now. Asked only where there is
/// something to be done or to wait for.
async fn namespace_is_leaving(backup: &Backup, ctx: &Context) -> Result<bool, Error> {
    let namespace = convert::namespace(backup)?;
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let live = api
        .get_metadata_opt(&namespace)
        .await
        .map_err(Error::api(format!("read Namespace {namespace}")))?;
    Ok(live.is_none_or(|live| is_leaving(&live.metadata)))
}

fn is_leaving(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The Restore that has begun to read a Backup and has not ended.
fn reader(backup: &Backup, ctx: &Context) -> Option<String> {
    let name = backup.name_any();
    let readers = ctx.caches.restores.state_filter(|restore| {
        let status = restore.status.as_ref();
        restore.namespace() == backup.namespace()
            && status.is_some_and(|status| {
                status.backup_name.as_ref() == Some(&name)
                    && status.job_name.is_some()
                    && !convert::is_terminal(status.phase)
            })
    });
    readers.first().map(|restore| restore.name_any())
}

/// Whether its Job was asked for at some time, or it stands for what another left.
fn may_have_data(backup: &Backup) -> bool {
    run_job_name(backup).is_some() || archived::is_taken_in(backup)
}

fn run_job_name(backup: &Backup) -> Option<&String> {
    backup.status.as_ref()?.job_name.as_ref()
}

fn leaving_since(backup: &Backup) -> Timestamp {
    let time = backup.metadata.deletion_timestamp.as_ref();
    time.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// Who stands behind the deletion, by the policy as it is now.
fn owner(backup: &Backup, ctx: &Context) -> Owner {
    let Some(reference) = owners::controller(&backup.metadata) else {
        return Owner::None;
    };
    let namespace = backup.namespace().unwrap_or_default();
    let key = ObjectRef::<BackupPolicy>::new(&reference.name).within(&namespace);
    let alive = ctx.caches.policies.get(&key).is_some_and(|policy| {
        policy.uid().as_ref() == Some(&reference.uid)
            && policy.metadata.deletion_timestamp.is_none()
    });
    if alive { Owner::Alive } else { Owner::Leaving }
}

/// The latest delete Job that covers `backup`.
fn delete_job(backup: &Backup, ctx: &Context) -> Option<Arc<Job>> {
    let uid = backup.uid()?;
    let covering = ctx.caches.jobs.state_filter(|job| {
        job.namespace() == backup.namespace()
            && job
                .labels()
                .get(RUN_KIND_LABEL)
                .is_some_and(|kind| kind == RunKind::Delete.as_str())
            && owners::owners_of_kind::<Backup>(&job.metadata).any(|owner| owner.uid == uid)
    });
    covering.into_iter().max_by_key(|job| attempt(job))
}

fn attempt(job: &Job) -> u32 {
    let text = job.annotations().get(ATTEMPT_ANNOTATION);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

async fn delete_fact(backup: &Backup, job: &Job, ctx: &Context) -> Result<DeleteJob, Error> {
    if has_condition(job, "Complete") {
        return Ok(DeleteJob::Done);
    }
    let Some(failed) = condition(job, "Failed") else {
        return Ok(DeleteJob::Active);
    };
    let ended = failed
        .last_transition_time
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    let report = report::newest(ctx, job, &job.name_any()).await?;
    let message = match report {
        Some(Outcome::Deleted(report)) => {
            let location = own_location(backup)?;
            let own = report.failed.iter().find(|item| item.location == location);
            let all_named = report.failed_total == report.failed.len() as u64;
            match own {
                Some(item) => item.message.clone(),
                None if all_named => return Ok(DeleteJob::Done),
                None => format!("{} items of the batch failed", report.failed_total),
            }
        }
        Some(Outcome::Failed(failure)) => failure.message,
        _ => failed
            .message
            .clone()
            .unwrap_or_else(|| "the Job failed without a report".to_owned()),
    };
    Ok(DeleteJob::Failed {
        message,
        ended,
        attempt: attempt(job),
    })
}

fn own_location(backup: &Backup) -> Result<tidelock_protocol::Location, Error> {
    let status = backup.status.as_ref();
    let pvc = status.and_then(|status| status.pvc_name.as_deref());
    archived::location(backup, pvc.unwrap_or_default())
}

async fn stop_run(backup: &Backup, ctx: &Context) -> Result<(), Error> {
    let namespace = convert::namespace(backup)?;
    let uid = convert::uid(backup)?;
    let Some(name) = run_job_name(backup) else {
        return Ok(());
    };
    match find_job(ctx, &namespace, name).await? {
        Some(job) if owners::is_controlled_by(&job.metadata, &uid) => {
            effects::ensure_job_stopped(ctx, &job).await
        }
        _ => Ok(()),
    }
}

/// Says what the delete Job's pod is stuck on, if it is.
async fn await_job(backup: &Backup, ctx: &Context, now: Timestamp) -> Result<(), Error> {
    let Some(job) = delete_job(backup, ctx) else {
        return Ok(());
    };
    let namespace = convert::namespace(backup)?;
    let pods = pods_of(ctx, &namespace, &job.name_any());
    let trouble = match pod_fact(&job, &pods) {
        PodFact::Waiting { trouble, .. } => trouble,
        PodFact::None { since } if pods.is_empty() => since
            .filter(|since| now.duration_since(*since) >= POD_GRACE)
            .map(|_| format!("Job {} has no pod", job.name_any())),
        // A pod that has ended is the Job controller's to judge.
        PodFact::None { .. } | PodFact::Started => None,
    };
    match trouble {
        Some(words) => not_yet(backup, ctx, &words, now).await,
        None => Ok(()),
    }
}

/// Makes one Job for all Backups on the same storage whose data is due to go.
///
/// # Guarantees
/// Whether the Backup is still there, and who stands behind each deletion, is asked of the API
/// server itself: the caches may show its Job gone before they show it gone.
async fn remove_batch(
    backup: &Backup,
    ctx: &Context,
    attempt: u32,
    now: Timestamp,
) -> Result<Action, Error> {
    let namespace = convert::namespace(backup)?;
    let api: Api<Backup> = Api::namespaced(ctx.client.clone(), &namespace);
    let live = api
        .get_metadata_opt(&backup.name_any())
        .await
        .map_err(Error::api(format!("read {}", convert::describe(backup))))?;
    if live.is_none_or(|live| live.uid() != backup.uid()) {
        return Ok(Action::await_change());
    }
    let batch = batch::still_meant(batch::gather(backup, ctx, attempt, now), ctx).await?;
    if !batch.iter().any(|item| item.backup.uid() == backup.uid()) {
        release(backup, ctx, Some(POLICY_DELETED.to_owned()), now).await?;
        return Ok(Action::await_change());
    }
    let (store, placement) = match placing::on_storage(backup, ctx).await? {
        Ok(both) => both,
        Err(not_ready) => {
            not_yet(backup, ctx, not_ready.words(), now).await?;
            return Ok(Action::requeue(AFTER_REFUSAL));
        }
    };
    let job = batch::job(&batch, backup, attempt, (&store, &placement), ctx)?;
    match effects::ensure_job(ctx, &job).await? {
        Created::Exists => {}
        Created::NamespaceLeaving => {
            let why = "its namespace is being deleted".to_owned();
            release(backup, ctx, Some(why), now).await?;
        }
        Created::Refused(words) | Created::Blocked(words) => {
            let words = format!("the API server does not take the Job: {words}");
            not_yet(backup, ctx, &words, now).await?;
            return Ok(Action::requeue(AFTER_REFUSAL));
        }
    }
    Ok(Action::await_change())
}

/// Takes the finalizer off, and says what is left behind.
async fn release(
    backup: &Backup,
    ctx: &Context,
    left_behind: Option<String>,
    now: Timestamp,
) -> Result<(), Error> {
    if may_have_data(backup) {
        let location = backup
            .status
            .as_ref()
            .and_then(|s| s.backup_location.clone());
        let location = location.unwrap_or_default();
        let (reason, note) = match left_behind {
            Some(why) => (
                reasons::DATA_RETAINED,
                format!("Left the data at {location} in place: {why}"),
            ),
            None if has_completed(backup) => (
                reasons::DATA_DELETED,
                format!("Removed the data at {location}"),
            ),
            None => (
                reasons::DATA_DELETED,
                format!("Removed what was half written at {location}"),
            ),
        };
        tell(backup, ctx, reason, false, note, now).await?;
    }
    finalizers::remove(backup, ctx, DATA_FINALIZER).await
}

/// Tells why the data is still there.
async fn not_yet(backup: &Backup, ctx: &Context, why: &str, now: Timestamp) -> Result<(), Error> {
    let note = format!("The data could not be removed yet: {why}");
    tell(backup, ctx, reasons::CLEANUP_FAILED, true, note, now).await
}

/// Tells `note` once.
async fn tell(
    backup: &Backup,
    ctx: &Context,
    reason: &'static str,
    warning: bool,
    note: String,
    now: Timestamp,
) -> Result<(), Error> {
    tell_run(backup, ctx, (reason, warning, &note.clone()), note, now).await
}

#[cfg(test)]
#[path = "removal/tests.rs"]
mod tests;
