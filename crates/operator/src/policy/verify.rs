//! Reading stored backups of a policy again, on a schedule: one Job for a batch, at most one at a
//! time.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use tidelock_api::{Backup, BackupPolicy, BackupPolicyStatus, FolderStatus};
use tidelock_core::identity::Ids;
use tidelock_core::queue::{Kind, Waiting};
use tidelock_core::run::{PodFact, Readiness};
use tidelock_core::schedule::{Schedule, ScheduleError};
use tidelock_core::verification::{self, Batch, VerificationDecision, VerificationFacts};
use tidelock_core::{names, text};

use crate::backup::household;
use crate::backup::placing::written_as;
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::gate::{RETELL, Turn, storage_key};
use crate::job::RunKind;
use crate::placement::{self, DataOwner, Placement, Wanted};
use crate::policy::build::VerifyJob;
use crate::policy::observe::Observed;
use crate::policy::{build, report, verdicts};
use crate::run::effects::{self, Created};
use crate::run::observe::{is_finished, pod_fact, pods_of, run_uid, unrecorded_jobs};
use crate::store::{self, Store, StoreRef};
use crate::telemetry::{policy_reasons, reasons};

/// Pause before a Job that the API server did not take is asked for again.
const AFTER_REFUSAL: SignedDuration = SignedDuration::from_secs(60);

/// What became of re-verification in one look, to be written into the policy's status.
#[derive(Default)]
pub struct Verification {
    dealt_with_until: Option<Timestamp>,
    next: Option<Timestamp>,
    job: Option<String>,
    last_time: Option<Timestamp>,
    folder: Option<FolderStatus>,
    /// Why the schedule cannot be followed.
    pub invalid: Option<ScheduleError>,
    /// When to look again though nothing happened.
    pub wake_at: Option<Timestamp>,
    /// Jobs whose results are recorded.
    recorded: Vec<Arc<Job>>,
}

impl Verification {
    /// Takes it into `status`.
    pub fn write_to(&self, status: &mut BackupPolicyStatus) {
        status.last_verification_schedule_time = self.dealt_with_until.map(convert::whole_seconds);
        status.next_verification = self.next.map(Time);
        status.verification_job = self.job.clone();
        if let Some(at) = self.last_time {
            status.last_verification_time = Some(convert::whole_seconds(at));
        }
        if let Some(folder) = &self.folder {
            status.storage = Some(folder.clone().into());
        }
    }

    /// Lets the Jobs go whose results are recorded, after the status that tells of them is written.
    pub async fn settle(&self, ctx: &Context) -> Result<(), Error> {
        for job in &self.recorded {
            effects::ensure_settled(ctx, job).await?;
        }
        Ok(())
    }
}

/// Records what finished Jobs found, follows the one under way, and starts the next batch.
///
/// # Crash window
/// A finished Job stays until its results are recorded, and recording them twice changes nothing.
/// A Job is named by policy and slot, and its slot is written as dealt with after it is made.
pub async fn step(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    now: Timestamp,
) -> Result<Verification, Error> {
    let status = policy.status.clone().unwrap_or_default();
    let mut step = Verification::default();
    let (finished, active): (Vec<_>, Vec<_>) = own_jobs(policy, ctx)?
        .into_iter()
        .partition(|job| is_finished(job));
    for job in finished {
        let found = verdicts::take_in(policy, ctx, observed, &job, now).await?;
        step.last_time = step.last_time.max(found.read_at);
        step.folder = found.folder.or(step.folder);
        step.recorded.push(job);
    }
    if let Some(job) = active.first() {
        step.job = Some(job.name_any());
        step.wake_at = follow(policy, ctx, job, now).await?;
    }
    let schedule = match schedule(policy, now) {
        Some(Ok(schedule)) => schedule,
        Some(Err(error)) => {
            step.invalid = Some(error);
            return Ok(step);
        }
        None => return Ok(step),
    };
    let facts = VerificationFacts {
        schedule: &schedule,
        dealt_with_until: status.last_verification_schedule_time.map(|time| time.0),
        announced: status.next_verification.map(|time| time.0),
        suspend: policy.spec.suspend,
        busy: !active.is_empty(),
        backups: &observed.facts,
    };
    let decision = verification::decide(&facts, now);
    step.wake_at = earliest(step.wake_at, decision.wake_at);
    let started = match &decision.run {
        Some(batch) => start(policy, ctx, observed, batch, now).await?,
        None => Started::Passed,
    };
    step.take(started, &decision, &facts, now);
    Ok(step)
}

impl Verification {
    fn take(
        &mut self,
        started: Started,
        decision: &VerificationDecision,
        facts: &VerificationFacts<'_>,
        now: Timestamp,
    ) {
        self.dealt_with_until = decision.dealt_with_until;
        self.next = decision.next;
        match started {
            Started::Job(name) => self.job = Some(name),
            Started::Passed => {}
            Started::NotYet(pause) => {
                self.dealt_with_until = facts.dealt_with_until;
                self.next = facts.announced;
                self.wake_at = earliest(self.wake_at, now.checked_add(pause).ok());
            }
        }
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

/// The schedule of re-verification, understood; none where there is none.
fn schedule(policy: &BackupPolicy, now: Timestamp) -> Option<Result<Schedule, ScheduleError>> {
    let wanted = policy.spec.verification.as_ref()?.schedule.as_ref()?;
    let namespace = policy.namespace().unwrap_or_default();
    let seed = format!("{namespace}/{}/verification", policy.name_any());
    let zone = policy.spec.time_zone.as_deref();
    Some(Schedule::parse(wanted, zone, &seed, now))
}

/// The policy's Jobs whose results are not recorded, the oldest first. One whose results are has a
/// time to live.
fn own_jobs(policy: &BackupPolicy, ctx: &Context) -> Result<Vec<Arc<Job>>, Error> {
    let namespace = convert::namespace(policy)?;
    let uid = convert::uid(policy)?;
    Ok(unrecorded_jobs(ctx, &namespace, RunKind::Verify, &uid))
}

/// Stops a Job whose pod did not start in time; when to look again, otherwise.
async fn follow(
    policy: &BackupPolicy,
    ctx: &Context,
    job: &Job,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let namespace = convert::namespace(policy)?;
    let name = job.name_any();
    let (since, trouble) = match pod_fact(job, &pods_of(ctx, &namespace, &run_uid(job))) {
        PodFact::Started => return Ok(None),
        PodFact::Waiting { since, trouble, .. } => (since, trouble),
        PodFact::None { since } => (since.unwrap_or(now), None),
    };
    let deadline = convert::seconds(policy.spec.start_deadline_seconds);
    let ends = since.checked_add(deadline).unwrap_or(Timestamp::MAX);
    if now < ends {
        return Ok(Some(ends));
    }
    let words = trouble.unwrap_or_else(|| format!("Job {name} has no pod."));
    let note = format!(
        "Stored backups were not read again: {words} Job {name} is stopped after startDeadlineSeconds={}",
        policy.spec.start_deadline_seconds
    );
    report::tell_of(
        policy,
        ctx,
        (policy_reasons::VERIFICATION_NOT_DONE, true, &name),
        note,
        now,
    )
    .await?;
    effects::ensure_job_stopped(ctx, job).await?;
    Ok(None)
}

/// What came of starting a batch.
enum Started {
    /// This Job reads it.
    Job(String),
    /// The slot passes; why is told.
    Passed,
    /// It cannot be now; the slot stays due, and is looked at again after this time.
    NotYet(SignedDuration),
}

/// Where and as whom stored backups are read again: as they were written.
async fn place(
    policy: &BackupPolicy,
    ctx: &Context,
    store: &Store,
    backups: &[&Backup],
) -> Result<Result<Placement, Readiness>, Error> {
    let written: Vec<Ids> = backups.iter().copied().filter_map(written_as).collect();
    let mut owners: Vec<DataOwner<'_>> = written.iter().map(DataOwner::Recorded).collect();
    let source = &policy.spec.target.pvc_name;
    owners.push(DataOwner::PodsOf(source));
    let volumes: Vec<_> = store.volume().into_iter().collect();
    let wanted = Wanted {
        namespace: &convert::namespace(policy)?,
        volumes: &volumes,
        unused: None,
        mover: &policy.spec.mover.clone().unwrap_or_default(),
        data: source,
        owners: &owners,
    };
    placement::place(ctx, &wanted).await
}

async fn start(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    batch: &Batch,
    now: Timestamp,
) -> Result<Started, Error> {
    let name = names::verify_job_name(&policy.name_any(), batch.slot);
    let run_uid = format!("{}-{}", convert::uid(policy)?, batch.slot.as_second());
    let waiting = Waiting {
        kind: Kind::Verify,
        created: batch.slot,
        key: run_uid.clone(),
        node: None,
        storage: storage_key(&convert::namespace(policy)?, &batch.storage),
    };
    let Turn::Now { full_nodes } = ctx.gate.ask(&ctx.caches, waiting, now) else {
        return Ok(Started::NotYet(RETELL));
    };
    let started = launch(policy, ctx, observed, batch, (&name, &run_uid, full_nodes)).await;
    let (started, words) = match started {
        Ok(Launch::Made(note)) => {
            let head = (reasons::JOB_CREATED, false, name.as_str());
            report::tell_of(policy, ctx, head, note, now).await?;
            return Ok(Started::Job(name));
        }
        Ok(Launch::Passed(words)) => (Started::Passed, words),
        Ok(Launch::NotYet(words)) => (Started::NotYet(AFTER_REFUSAL), words),
        Err(error) => {
            ctx.gate.leave(&run_uid);
            return Err(error);
        }
    };
    ctx.gate.leave(&run_uid);
    let head = (policy_reasons::VERIFICATION_NOT_DONE, true, name.as_str());
    report::tell_of(policy, ctx, head, words, now).await?;
    Ok(started)
}

/// What came of asking for a Job, in words.
enum Launch {
    Made(String),
    Passed(String),
    NotYet(String),
}

async fn launch(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    batch: &Batch,
    (name, run_uid, full_nodes): (&str, &str, Vec<String>),
) -> Result<Launch, Error> {
    let namespace = convert::namespace(policy)?;
    let reference = StoreRef::of_key(&batch.storage);
    let count = text::count(batch.backups.len() as u64, "backup");
    let passed = |why: &str| {
        Ok(Launch::Passed(format!(
            "{count} cannot be read again: {why}"
        )))
    };
    let store = match store::find(ctx, &namespace, &reference).await? {
        Ok(store) => store,
        Err(not_ready) => return passed(not_ready.words()),
    };
    if let Some(why) = store.missing() {
        return passed(&why);
    }
    let backups: Vec<&Backup> = batch
        .backups
        .iter()
        .flat_map(|name| observed.named(std::slice::from_ref(name)))
        .collect();
    let mut placement = match place(policy, ctx, &store, &backups).await? {
        Ok(placement) => placement,
        Err(not_ready) => return Ok(Launch::NotYet(text::sentence(not_ready.words()))),
    };
    placement.exclude_nodes = full_nodes;
    let pvc = &policy.spec.target.pvc_name;
    let wanted = VerifyJob {
        name,
        run_uid,
        store: &store,
        backups: &backups,
        known: household::household(ctx, &namespace, pvc, &reference).known,
        placement: &placement,
        image: &ctx.mover_image,
    };
    let job = build::verify_job(policy, wanted)?;
    Ok(match effects::ensure_job(ctx, &job).await? {
        Created::Exists => Launch::Made(format!("Created Job {name}, which reads {count} again")),
        Created::NamespaceLeaving => Launch::Passed("The namespace is being deleted".to_owned()),
        Created::Refused(words) | Created::Blocked(words) => Launch::NotYet(format!(
            "The API server does not take Job {name}, which reads {count} again: {words}"
        )),
    })
}
