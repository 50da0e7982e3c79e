//! What a run — a Backup or a Restore — does next.

use jiff::{SignedDuration, Timestamp};

use crate::Phase;
use crate::text;

/// Reason of a run that was told to end.
pub const CANCELLED: &str = "Cancelled";

/// What keeps a run from starting, for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// One word for the condition.
    pub reason: &'static str,
    /// What is missing and what to do.
    pub message: String,
}

/// Why a run can never start as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One word for the condition.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// Whether all that a run needs is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can start.
    Ready,
    /// Something may still come.
    Blocked(Blocker),
    /// Waiting is in vain.
    Refused(Refusal),
}

impl Readiness {
    /// The reason, if it is not ready.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Ready => None,
            Self::Blocked(blocker) => Some(blocker.reason),
            Self::Refused(refusal) => Some(refusal.reason),
        }
    }

    /// What is missing or wrong, if anything is.
    pub fn words(&self) -> &str {
        match self {
            Self::Ready => "",
            Self::Blocked(blocker) => &blocker.message,
            Self::Refused(refusal) => &refusal.message,
        }
    }
}

/// What is known of the Job that a run's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobFact {
    /// No Job of that name, asked of the API server itself.
    Absent,
    /// A Job of that name that belongs to something else; who, in words.
    Foreign(String),
    /// The Job of an earlier object of the same name: the garbage collector removes it.
    Leaving,
    /// Ours and not at its end.
    Active(PodFact),
    /// Ours and ended well.
    Succeeded,
    /// Ours and ended badly.
    Failed,
}

/// What is known of the newest pod of a Job that is not at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodFact {
    /// There is none: the Job controller has not come to it, pauses before a retry, or is not
    /// allowed to.
    None {
        /// Since when; none is since the Job was asked for.
        since: Option<Timestamp>,
    },
    /// It is not at work.
    Waiting {
        /// Its name.
        pod: String,
        /// What it is stuck on, in the words of scheduler or kubelet.
        trouble: Option<String>,
        /// Since when.
        since: Timestamp,
        /// Whether the pod itself holds no word about it: what keeps a volume from being mounted
        /// is told in Events alone.
        is_mute: bool,
    },
    /// It is at work.
    Started,
}

/// How long a Job may be without a pod, or a pod without a word, before that is called trouble.
/// Longer than the Job controller's pauses between retries (10, 20 and 40 seconds).
pub const POD_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// How long a pod may be without a word before its Events are asked for. Longer than an ordinary
/// start takes with the image at hand.
const MUTE_GRACE: SignedDuration = SignedDuration::from_secs(10);

/// Shortest pause between two looks at the Events of a pod that goes on saying nothing.
const MUTE_PAUSE: SignedDuration = SignedDuration::from_secs(15);

/// What is known of a run: a Backup or a Restore that is not being deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFacts {
    /// Where it stands; none before it was first seen.
    pub phase: Option<Phase>,
    /// Since when it waits for what is missing: since it was made, or since its last turn in the
    /// queue, which is no wait of its own.
    pub waits_since: Timestamp,
    /// When its Job was asked for.
    pub started: Option<Timestamp>,
    /// How long it may wait before its Job is made, and how long that may wait for a pod to start.
    pub start_deadline: SignedDuration,
    /// Whether all it needs is there; only looked at before it starts.
    pub readiness: Readiness,
    /// The API server's words where it refused to make the Job the last time.
    pub refused: Option<String>,
    /// Its Job's name.
    pub job_name: String,
    /// Its Job.
    pub job: JobFact,
    /// Why it was told to end, if it was.
    pub cancelled: Option<String>,
    /// Set once its failure is recorded: what is left to do before it is called Failed.
    pub ending: Option<Ending>,
}

/// What is left to do before a run whose failure is recorded is called Failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Since when it is being brought to its end.
    pub since: Timestamp,
    /// A pod of it that may still be at work.
    pub live_pod: Option<String>,
    /// The Job that takes back what was half written.
    pub undo: UndoFact,
}

/// What is known of the Job that takes back what a run half wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UndoFact {
    /// Nothing was written, or nothing can be taken back.
    NotNeeded,
    /// It is not there yet.
    Absent,
    /// It cannot be made: why.
    Impossible(String),
    /// It is under way.
    Active {
        /// Whether its pod is at work.
        at_work: bool,
        /// What its pod is stuck on, if it is.
        trouble: Option<String>,
    },
    /// It is done.
    Done,
    /// It failed: why.
    Failed(String),
}

/// How long the pods of a run that was stopped are waited for. Longer than their grace period; a
/// pod that is still there then is on a node that does not answer.
pub const STOP_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// How long taking back is waited for once it is at work, from the moment the run was stopped.
pub const UNDO_PATIENCE: SignedDuration = SignedDuration::from_hours(2);

/// How long taking back is waited for to start, from that moment. Longer than a node takes to start
/// anew, or Kubernetes to detach a volume from a lost one (six minutes). What keeps it from starting
/// has often kept the run from starting as well, and then there is nothing to take back.
pub const UNDO_START_PATIENCE: SignedDuration = SignedDuration::from_mins(15);

/// What to do about a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunDecision {
    /// Nothing: it has ended.
    Rest,
    /// Say what it waits for, and look again then at the latest.
    Wait {
        /// What it waits for.
        blocker: Blocker,
        /// When its start deadline passes.
        wake_at: Timestamp,
    },
    /// Make its Job.
    Start,
    /// Its Job is under way.
    Follow {
        /// Whether its pod is at work.
        at_work: bool,
        /// What its pod is stuck on, if it is.
        trouble: Option<String>,
        /// When to look again though nothing happened.
        wake_at: Option<Timestamp>,
    },
    /// Fail, and stop the Job whose pod never started.
    GiveUp(Refusal),
    /// Its Job ended well: read the report and go terminal.
    Finish,
    /// Its Job ended badly: read the report and fail.
    Collapse,
    /// Fail without a Job's verdict.
    Fail(Refusal),
    /// Stop the Job, and look again then at the latest.
    Stop(Timestamp),
    /// Make the Job that takes back what was half written.
    Undo,
    /// That Job is under way; look again then at the latest.
    AwaitUndo {
        /// What its pod is stuck on, if it is.
        trouble: Option<String>,
        /// When patience ends.
        wake_at: Timestamp,
    },
    /// Fail for the recorded reason; what stays behind, if something does.
    FailAsRecorded(Option<String>),
}

/// Decides what a run does at `now`.
///
/// # Guarantees
/// A terminal run rests. A Job is only ever started from Pending, so a run whose Job vanishes ends
/// instead of running twice. A Job that exists and is ours is followed whatever the phase says,
/// so a crash between making it and recording it is made good. A run that ended well before it was
/// told to end has ended well. A failed one is called Failed only when its pods are gone and what
/// they half wrote is taken back, or when that cannot be had in bounded time, which is then said.
pub fn decide(facts: &RunFacts, now: Timestamp) -> RunDecision {
    if facts.phase.is_some_and(Phase::is_terminal) {
        return RunDecision::Rest;
    }
    if let Some(ending) = &facts.ending {
        return end(facts, ending, now);
    }
    match (&facts.job, &facts.cancelled) {
        (JobFact::Succeeded, _) => return RunDecision::Finish,
        (JobFact::Failed, None) => return RunDecision::Collapse,
        (_, Some(why)) => return RunDecision::Fail(cancelled(why)),
        _ => {}
    }
    match &facts.job {
        JobFact::Succeeded => RunDecision::Finish,
        JobFact::Failed => RunDecision::Collapse,
        JobFact::Active(pod) => follow(facts, pod, now),
        JobFact::Foreign(owner) => RunDecision::Fail(job_conflict(&facts.job_name, owner)),
        JobFact::Absent | JobFact::Leaving if facts.phase == Some(Phase::Running) => {
            RunDecision::Fail(job_lost(&facts.job_name))
        }
        JobFact::Leaving => wait_or_fail(facts, &predecessor(&facts.job_name), now),
        JobFact::Absent => before_start(facts, now),
    }
}

/// Decides what is still done at `now` for a run that has failed and is being deleted, while what it
/// half wrote is there; its `ending` began with the deletion.
///
/// # Guarantees
/// The object always goes in the end: [`RunDecision::FailAsRecorded`] and [`RunDecision::Rest`] let
/// it go, the former with what stays behind.
pub fn decide_leaving(facts: &RunFacts, now: Timestamp) -> RunDecision {
    match &facts.ending {
        Some(ending) => end(facts, ending, now),
        None => RunDecision::Rest,
    }
}

/// Whether the Events of a pod that is waited for at `now` are worth a look: `since` is when it was
/// made, `asked` when its Job was asked for. The pod's time is the API server's, whose clock may be
/// behind the operator's.
pub fn wants_events(since: Timestamp, asked: Timestamp, now: Timestamp) -> bool {
    now >= later(since.max(asked), MUTE_GRACE)
}

/// Brings a run whose failure is recorded to rest.
fn end(facts: &RunFacts, ending: &Ending, now: Timestamp) -> RunDecision {
    let stop_by = later(ending.since, STOP_PATIENCE);
    if matches!(facts.job, JobFact::Active(_)) {
        if now < stop_by {
            return RunDecision::Stop(stop_by);
        }
        // It may still make a pod that writes.
        return RunDecision::FailAsRecorded(Some(format!(
            "Job {} does not end; what it wrote stays as it is.",
            facts.job_name
        )));
    }
    if let Some(pod) = &ending.live_pod {
        if now < stop_by {
            return RunDecision::Stop(stop_by);
        }
        return RunDecision::FailAsRecorded(Some(format!(
            "Pod {pod} does not end, its node may be lost; what it wrote stays as it is."
        )));
    }
    let at_work = matches!(ending.undo, UndoFact::Active { at_work: true, .. });
    let give_up = later(
        ending.since,
        if at_work {
            UNDO_PATIENCE
        } else {
            UNDO_START_PATIENCE
        },
    );
    match &ending.undo {
        UndoFact::NotNeeded | UndoFact::Done => RunDecision::FailAsRecorded(None),
        UndoFact::Failed(why) | UndoFact::Impossible(why) => {
            RunDecision::FailAsRecorded(Some(why.clone()))
        }
        UndoFact::Absent if now < give_up => RunDecision::Undo,
        UndoFact::Active { trouble, .. } if now < give_up => RunDecision::AwaitUndo {
            trouble: trouble.clone(),
            wake_at: give_up,
        },
        UndoFact::Absent => RunDecision::FailAsRecorded(Some(not_in_time(None))),
        UndoFact::Active { trouble, .. } => {
            RunDecision::FailAsRecorded(Some(not_in_time(trouble.as_deref())))
        }
    }
}

fn not_in_time(trouble: Option<&str>) -> String {
    let why = trouble.map(|words| format!(" {words}")).unwrap_or_default();
    format!(
        "What it half wrote, if anything, could not be taken back in time and stays as it is.{why}"
    )
}

fn cancelled(why: &str) -> Refusal {
    Refusal {
        reason: CANCELLED,
        message: why.to_owned(),
    }
}

fn follow(facts: &RunFacts, pod: &PodFact, now: Timestamp) -> RunDecision {
    let asked = facts.started.unwrap_or(facts.waits_since);
    let (since, trouble, silence, is_mute) = match pod {
        PodFact::Started => {
            return RunDecision::Follow {
                at_work: true,
                trouble: None,
                wake_at: None,
            };
        }
        PodFact::None { since } => {
            let silence = format!(
                "Job {0} has no pod; `kubectl describe job {0}` shows why, such as a quota or the namespace's Pod Security level.",
                facts.job_name
            );
            (since.unwrap_or(asked), None, silence, false)
        }
        PodFact::Waiting {
            pod,
            trouble,
            since,
            is_mute,
        } => {
            let silence = format!(
                "Pod {pod} does not start; `kubectl describe pod {pod}` shows why, such as a volume that is attached to another node."
            );
            (*since, trouble.clone(), silence, *is_mute)
        }
    };
    // The pod's time is the API server's, whose clock may be behind the operator's.
    let since = since.max(asked);
    let grace_ends = later(since, POD_GRACE);
    let deadline = later(since, facts.start_deadline);
    if now >= deadline {
        return RunDecision::GiveUp(Refusal {
            reason: "StartDeadlineExceeded",
            message: gave_up(&trouble.unwrap_or(silence), facts),
        });
    }
    let in_grace = now < grace_ends;
    let next = if in_grace {
        grace_ends.min(deadline)
    } else {
        deadline
    };
    RunDecision::Follow {
        at_work: false,
        trouble: trouble.or((!in_grace).then_some(silence)),
        wake_at: Some(if is_mute {
            next.min(next_look_at_events(since, now))
        } else {
            next
        }),
    }
}

/// When the Events of a pod that says nothing since `since` are looked at next: the longer it goes
/// on, the less often.
fn next_look_at_events(since: Timestamp, now: Timestamp) -> Timestamp {
    let first = later(since, MUTE_GRACE);
    if now < first {
        return first;
    }
    later(now, MUTE_PAUSE.max(now.duration_since(since) / 4))
}

fn before_start(facts: &RunFacts, now: Timestamp) -> RunDecision {
    match &facts.readiness {
        Readiness::Ready => start_unless_refused(facts, now),
        Readiness::Refused(refusal) => RunDecision::Fail(refusal.clone()),
        Readiness::Blocked(blocker) => wait_or_fail(facts, blocker, now),
    }
}

/// A Job that the API server goes on refusing is asked for until the start deadline.
fn start_unless_refused(facts: &RunFacts, now: Timestamp) -> RunDecision {
    let asked = facts.started.unwrap_or(facts.waits_since);
    match &facts.refused {
        Some(words) if now >= later(asked, facts.start_deadline) => RunDecision::Fail(Refusal {
            reason: "StartDeadlineExceeded",
            message: gave_up(words, facts),
        }),
        _ => RunDecision::Start,
    }
}

fn wait_or_fail(facts: &RunFacts, blocker: &Blocker, now: Timestamp) -> RunDecision {
    let wake_at = later(facts.waits_since, facts.start_deadline);
    if now < wake_at {
        return RunDecision::Wait {
            blocker: blocker.clone(),
            wake_at,
        };
    }
    RunDecision::Fail(Refusal {
        reason: blocker.reason,
        message: gave_up(&blocker.message, facts),
    })
}

fn gave_up(words: &str, facts: &RunFacts) -> String {
    let waited = text::duration(facts.start_deadline);
    let words = text::sentence(words);
    format!("{words} Gave up after {waited} (startDeadlineSeconds).")
}

fn predecessor(job: &str) -> Blocker {
    Blocker {
        reason: "PreviousJobLeaving",
        message: format!(
            "Job {job} of an earlier object of this name is still being removed; this run starts when it is gone."
        ),
    }
}

fn later(start: Timestamp, length: SignedDuration) -> Timestamp {
    start.checked_add(length).unwrap_or(Timestamp::MAX)
}

fn job_conflict(job: &str, owner: &str) -> Refusal {
    Refusal {
        reason: "JobConflict",
        message: format!(
            "Job {job} exists but belongs to {owner}; it was left alone. Delete or rename it, then start the run again under a new name."
        ),
    }
}

fn job_lost(job: &str) -> Refusal {
    Refusal {
        reason: "JobLost",
        message: format!(
            "Job {job} was deleted before it ended, so its result is unknown. Start the run again under a new name."
        ),
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
