//! Restores that are being deleted.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use tidelock_api::{PUT_BACK_ANNOTATION, RESTORE_FINALIZER, Restore};
use tidelock_core::names;
use tidelock_core::run::{self as core_run, Ending, Readiness, RunDecision, RunFacts, UndoFact};

use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::finalizers;
use crate::owners;
use crate::restore::{plan, run};
use crate::run::effects::{self, Created};
use crate::run::kind::Run;
use crate::run::observe::{find_job, is_live, job_fact, pods_of, undo_pods_of};
use crate::run::{ending, tell};
use crate::telemetry::reasons;
use crate::volume;

/// Lets a deleted Restore go once it has ended; one that is under way is cancelled first, so that
/// its target is put back. Where that could not be had when it failed, it is tried again if a person
/// says so: by then somebody may have put other data into the target. What was restored stays.
pub async fn leave(
    restore: &Restore,
    ctx: &Context,
    ended: bool,
    now: Timestamp,
) -> Result<Action, Error> {
    if !finalizers::has(restore, RESTORE_FINALIZER) {
        return Ok(Action::await_change());
    }
    let status = restore.status.as_ref();
    let began = status.is_some_and(|status| status.job_name.is_some());
    if began && !ended {
        return crate::run::reconcile::step(restore, ctx, now).await;
    }
    if to_put_back_since(restore).is_some() && !is_to_be_put_back(restore) {
        let left = "The target was left as it is, with what this Restore half wrote.".to_owned();
        return release(restore, ctx, Some(left), now).await;
    }
    let facts = observe(restore, ctx, now).await?;
    match core_run::decide_leaving(&facts, now) {
        RunDecision::Stop(wake_at) => {
            let namespace = convert::namespace(restore)?;
            let uid = convert::uid(restore)?;
            if let Some(job) = find_job(ctx, &namespace, &facts.job_name).await?
                && owners::is_controlled_by(&job.metadata, &uid)
            {
                effects::ensure_job_stopped(ctx, &job).await?;
            }
            Ok(effects::requeue_at(wake_at, now))
        }
        RunDecision::Undo => start_undo(restore, ctx, now).await,
        RunDecision::AwaitUndo { trouble, wake_at } => {
            if let Some(words) = trouble {
                not_yet(restore, ctx, &words, now).await?;
            }
            Ok(effects::requeue_at(wake_at, now))
        }
        RunDecision::FailAsRecorded(left) => release(restore, ctx, left, now).await,
        _ => go(restore, ctx).await,
    }
}

/// When the deletion began, where the target may still hold what was half written and that was not
/// tried to be taken back since.
fn to_put_back_since(restore: &Restore) -> Option<Timestamp> {
    let status = restore.status.as_ref().filter(|s| s.undo_pending)?;
    let deleted = restore.metadata.deletion_timestamp.as_ref()?.0;
    let tried = status.ending_since.as_ref().map(|time| time.0);
    tried.is_none_or(|tried| tried < deleted).then_some(deleted)
}

/// Whether a person says that the target is to be put back when the Restore goes.
fn is_to_be_put_back(restore: &Restore) -> bool {
    let told = restore.annotations().get(PUT_BACK_ANNOTATION);
    told.is_some_and(|text| text == "true")
}

fn undo_job_name(restore: &Restore) -> String {
    names::last_undo_job_name(&restore.job_name())
}

async fn observe(restore: &Restore, ctx: &Context, now: Timestamp) -> Result<RunFacts, Error> {
    let namespace = convert::namespace(restore)?;
    let uid = convert::uid(restore)?;
    let job_name = restore.job_name();
    let since = to_put_back_since(restore);
    let (job, ending) = match since {
        Some(since) => {
            let name = undo_job_name(restore);
            let job = find_job(ctx, &namespace, &job_name).await?;
            let undo = match ending::undo_job_fact(restore, ctx, &name).await? {
                UndoFact::Absent => absent(restore, ctx, &namespace).await?,
                known => known,
            };
            let own = find_job(ctx, &namespace, &name).await?;
            let own = own.and_then(|job| job.uid());
            let live_pod = live_pod(ctx, &namespace, &uid, own.as_deref());
            let ending = Ending {
                since,
                live_pod: live_pod.map(|pod| pod.name_any()),
                undo,
            };
            (job, Some(ending))
        }
        None => (None, None),
    };
    Ok(RunFacts {
        phase: restore.progress().phase.map(convert::to_core),
        waits_since: now,
        started: None,
        start_deadline: SignedDuration::ZERO,
        readiness: Readiness::Ready,
        refused: None,
        job: job_fact(job.as_deref(), restore, &[]),
        job_name,
        cancelled: None,
        ending,
    })
}

/// Whether the Restore is there by the API server's own word: with it, its undo Job goes, and the
/// caches may tell of the one before they tell of the other.
async fn is_still_there(restore: &Restore, ctx: &Context) -> Result<bool, Error> {
    let namespace = convert::namespace(restore)?;
    let name = restore.name_any();
    let api: Api<Restore> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = api
        .get_metadata_opt(&name)
        .await
        .map_err(Error::api(format!("read Restore {namespace}/{name}")))?;
    Ok(found.is_some_and(|found| found.metadata.uid == restore.metadata.uid))
}

/// A pod of the restore that may still write, but for those of the Job `own`.
fn live_pod(ctx: &Context, namespace: &str, uid: &str, own: Option<&str>) -> Option<Arc<Pod>> {
    let of_run = pods_of(ctx, namespace, uid).into_iter();
    let mut all = of_run.chain(undo_pods_of(ctx, namespace, uid));
    all.find(|pod| {
        let is_own = own.is_some_and(|own| owners::is_controlled_by(&pod.metadata, own));
        is_live(pod) && !is_own
    })
}

/// What is known where there is no undo Job: without its target there is nothing to put back.
async fn absent(restore: &Restore, ctx: &Context, namespace: &str) -> Result<UndoFact, Error> {
    let target = plan::target_name(restore);
    Ok(match volume::get(ctx, namespace, target).await? {
        Some(_) => UndoFact::Absent,
        None => UndoFact::Impossible(format!(
            "PersistentVolumeClaim {target} does not exist any more."
        )),
    })
}

/// Makes the Job that puts the target back.
///
/// # Crash window
/// None: its name is fixed by the run, and a repeat finds it.
async fn start_undo(restore: &Restore, ctx: &Context, now: Timestamp) -> Result<Action, Error> {
    if !is_still_there(restore, ctx).await? {
        return Ok(Action::await_change());
    }
    let name = undo_job_name(restore);
    let job = match run::undo_job_of_unused(restore, ctx, &name).await? {
        Ok(job) => job,
        Err(not_ready) => {
            not_yet(restore, ctx, not_ready.words(), now).await?;
            return Ok(Action::requeue(effects::AFTER_REFUSAL));
        }
    };
    match effects::ensure_job(ctx, &job).await? {
        Created::Exists => {
            let note = format!("Putting the target back with Job {name} before this goes");
            let head = (reasons::TAKING_BACK, false, "");
            tell(restore, ctx, head, note, now).await?;
            Ok(effects::requeue_at(now, now))
        }
        Created::Blocked(words) => {
            let words = format!("The API server does not take Job {name}: {words}");
            not_yet(restore, ctx, &words, now).await?;
            Ok(Action::requeue(effects::AFTER_REFUSAL))
        }
        Created::Refused(words) => {
            let left = format!("The API server refuses Job {name}: {words}");
            release(restore, ctx, Some(left), now).await
        }
        Created::NamespaceLeaving => {
            let left = "Its namespace is being deleted.".to_owned();
            release(restore, ctx, Some(left), now).await
        }
    }
}

async fn not_yet(
    restore: &Restore,
    ctx: &Context,
    words: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!("The target could not be put back yet: {words}");
    let head = (reasons::TAKING_BACK, true, words);
    tell(restore, ctx, head, note, now).await
}

/// Says what became of the target, and lets the Restore go.
async fn release(
    restore: &Restore,
    ctx: &Context,
    left: Option<String>,
    now: Timestamp,
) -> Result<Action, Error> {
    let (reason, warning, note) = match left {
        Some(left) => {
            let note = format!("{left} {}", run::by_hand(restore));
            (reasons::TARGET_LEFT, true, note)
        }
        None => {
            let namespace = convert::namespace(restore)?;
            let job = find_job(ctx, &namespace, &undo_job_name(restore)).await?;
            let note = match job {
                Some(job) => ending::what_was_undone(&mut restore.clone(), ctx, &job).await?,
                None => String::new(),
            };
            (reasons::TARGET_PUT_BACK, false, note)
        }
    };
    tell(restore, ctx, (reason, warning, ""), note, now).await?;
    go(restore, ctx).await
}

async fn go(restore: &Restore, ctx: &Context) -> Result<Action, Error> {
    finalizers::remove(restore, ctx, RESTORE_FINALIZER).await?;
    Ok(Action::await_change())
}

#[cfg(test)]
#[path = "leaving_tests.rs"]
mod tests;
