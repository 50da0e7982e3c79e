//! What tells a Backup from a Restore; all else about a run is written once.

use std::fmt::Debug;
use std::future::Future;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidelock_api::{FailureStatus, Phase, ProgressStatus};
use tidelock_core::progress::Expected;
use tidelock_core::queue::Kind;
use tidelock_core::run::Readiness;
use tidelock_protocol::Outcome;

use crate::context::Context;
use crate::error::Error;
use crate::placement::Placement;
use crate::run::report::RunFailure;

/// The words of a kind of run.
pub struct Words {
    /// `Backup` or `Restore`.
    pub kind: &'static str,
    /// What its Job is doing.
    pub doing: &'static str,
    /// Event when it begins.
    pub started: &'static str,
    /// Event when it waits.
    pub waiting: &'static str,
    /// Event when it ends well.
    pub completed: &'static str,
    /// Event when it fails.
    pub failed: &'static str,
}

/// The part of the status that every run has, to be written.
pub struct Fields<'a> {
    /// Where it stands.
    pub phase: &'a mut Option<Phase>,
    /// Generation the status was made from.
    pub observed_generation: &'a mut Option<i64>,
    /// When its Job was asked for.
    pub start_time: &'a mut Option<Time>,
    /// When it ended.
    pub completion_time: &'a mut Option<Time>,
    /// How long it took.
    pub duration: &'a mut Option<String>,
    /// Its Job.
    pub job_name: &'a mut Option<String>,
    /// Since when it is being brought to its end.
    pub ending_since: &'a mut Option<Time>,
    /// The Job that takes back what it half wrote.
    pub undo_job_name: &'a mut Option<String>,
    /// How far it is.
    pub progress: &'a mut Option<Box<ProgressStatus>>,
    /// Why it failed.
    pub failure: &'a mut Option<Box<FailureStatus>>,
    /// Its conditions.
    pub conditions: &'a mut Vec<Condition>,
}

/// [`Fields`] of a status type that has them under these names.
macro_rules! fields {
    ($object:expr) => {{
        let status = $object.status.get_or_insert_default();
        $crate::run::kind::Fields {
            phase: &mut status.phase,
            observed_generation: &mut status.observed_generation,
            start_time: &mut status.start_time,
            completion_time: &mut status.completion_time,
            duration: &mut status.duration,
            job_name: &mut status.job_name,
            ending_since: &mut status.ending_since,
            undo_job_name: &mut status.undo_job_name,
            progress: &mut status.progress,
            failure: &mut status.failure,
            conditions: &mut status.conditions,
        }
    }};
}
pub(crate) use fields;

/// [`Progress`] of a status type that has it under these names.
macro_rules! progress {
    ($object:expr) => {{
        let status = $object.status.as_ref();
        let started = status.and_then(|status| status.start_time.as_ref());
        let ending = status.and_then(|status| status.ending_since.as_ref());
        $crate::run::kind::Progress {
            phase: status.and_then(|status| status.phase),
            start_time: started.map(|time| time.0),
            ending_since: ending.map(|time| time.0),
            undo_job_name: status.and_then(|status| status.undo_job_name.as_deref()),
            heard: status.and_then(|status| status.progress.as_deref()),
            failure: status.and_then(|status| status.failure.as_deref()),
            conditions: status
                .map(|status| &status.conditions[..])
                .unwrap_or_default(),
        }
    }};
}
pub(crate) use progress;

/// The part of the status that every run has, to be read.
pub struct Progress<'a> {
    /// Where it stands.
    pub phase: Option<Phase>,
    /// When its Job was asked for.
    pub start_time: Option<Timestamp>,
    /// Since when it is being brought to its end.
    pub ending_since: Option<Timestamp>,
    /// The Job that takes back what it half wrote.
    pub undo_job_name: Option<&'a str>,
    /// How far it was when its mover was last heard.
    pub heard: Option<&'a ProgressStatus>,
    /// The recorded failure.
    pub failure: Option<&'a FailureStatus>,
    /// Its conditions.
    pub conditions: &'a [Condition],
}

/// A further Event that a good end deserves.
pub struct Remark {
    /// Whether a person should worry.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// The sentence.
    pub note: String,
}

/// What a good end says.
pub struct Settled {
    /// What was done, without how long it took.
    pub summary: String,
    /// What else should be known.
    pub remarks: Vec<Remark>,
}

/// What a mover takes up.
pub struct Load {
    /// The one node it can run on, where there is one.
    pub node: Option<String>,
    /// The claim that holds the archives.
    pub storage: String,
}

/// A Backup or a Restore.
pub trait Run:
    Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
    + Clone
    + Debug
    + PartialEq
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Its words.
    const WORDS: Words;

    /// Where it stands among runs that wait for their turn.
    const TURN: Kind;

    /// The object with everything resolved.
    type Plan: Clone + Send + Sync;

    /// What its mover takes up.
    fn load(plan: &Self::Plan) -> Load;

    /// Where the plan's mover runs.
    fn placement(plan: &mut Self::Plan) -> &mut Placement;

    /// The shared part of the status, made where there is none.
    fn fields(&mut self) -> Fields<'_>;

    /// The shared part of the status.
    fn progress(&self) -> Progress<'_>;

    /// How much its mover will read or write, where an earlier run allows a guess.
    fn expected(&self, _ctx: &Context) -> Expected {
        Expected::default()
    }

    /// How long it may wait to start.
    fn start_deadline_seconds(&self, ctx: &Context) -> u32;

    /// Name of its Job.
    fn job_name(&self) -> String;

    /// What the run comes down to, and whether it can start. Only asked before it starts.
    fn plan(
        &self,
        ctx: &Context,
    ) -> impl Future<Output = Result<(Option<Self::Plan>, Readiness), Error>> + Send;

    /// Records the plan in the status; the sentence that tells it.
    fn record(&mut self, plan: &Self::Plan) -> String;

    /// Makes what the Job needs beside itself; why that can never be, otherwise.
    fn prepare(
        &self,
        ctx: &Context,
        plan: &Self::Plan,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<RunFailure>, Error>> + Send;

    /// The Job that carries the plan out.
    fn job(&self, plan: &Self::Plan, image: &str) -> Result<Job, Error>;

    /// Why it was told to end, if it was.
    fn cancelled(&self) -> Option<String>;

    /// Whether what it half wrote must be taken back after `failure`; only asked where its Job was
    /// made.
    fn needs_undo(&self, failure: &RunFailure) -> bool;

    /// The Job that takes back what it half wrote, under the name `name`; what keeps that from
    /// running anywhere, otherwise.
    fn undo_job(
        &self,
        ctx: &Context,
        name: &str,
    ) -> impl Future<Output = Result<Result<Job, Readiness>, Error>> + Send;

    /// What taking back came to, in a sentence.
    fn undone(&mut self, outcome: &Outcome) -> String;

    /// Takes in that what it half wrote could not be taken back; what to do about it, if anything.
    fn undo_pending(&mut self) -> Option<String> {
        None
    }

    /// Takes the mover's report into the status where it fits what was asked for.
    fn settle(
        &mut self,
        ctx: &Context,
        outcome: Outcome,
        now: Timestamp,
    ) -> Result<Settled, RunFailure>;

    /// Takes out of the status what only a good end makes true, and takes in what a failure tells.
    fn fail(&mut self, _failure: &RunFailure) {}
}
