//! What a run — a Backup or a Restore — does next.

use jiff::{SignedDuration, Timestamp};

use crate::Phase;
use crate::text;

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

/// What is known of the Job that a run's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobFact {
    /// No Job of that name, asked of the API server itself.
    Absent,
    /// A Job of that name that belongs to something else; who, in words.
    Foreign(String),
    /// Ours and not at its end; what its pod is stuck on, if it is.
    Active(Option<String>),
    /// Ours and ended well.
    Succeeded,
    /// Ours and ended badly.
    Failed,
}

/// What is known of a run: a Backup or a Restore that is not being deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFacts {
    /// Where it stands; none before it was first seen.
    pub phase: Option<Phase>,
    /// When the object was made.
    pub created: Timestamp,
    /// How long it may wait before it starts.
    pub start_deadline: SignedDuration,
    /// Whether all it needs is there; only looked at before it starts.
    pub readiness: Readiness,
    /// Its Job's name.
    pub job_name: String,
    /// Its Job.
    pub job: JobFact,
}

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
    /// Its Job is under way; what its pod is stuck on, if it is.
    Follow(Option<String>),
    /// Its Job ended well: read the report and go terminal.
    Finish,
    /// Its Job ended badly: read the report and fail.
    Collapse,
    /// Fail without a Job's verdict.
    Fail(Refusal),
}

/// Decides what a run does at `now`.
///
/// # Guarantees
/// A terminal run rests. A Job is only ever started from Pending, so a run whose Job vanishes ends
/// instead of running twice. A Job that exists and is ours is followed whatever the phase says,
/// so a crash between making it and recording it is made good.
pub fn decide(facts: &RunFacts, now: Timestamp) -> RunDecision {
    if facts.phase.is_some_and(Phase::is_terminal) {
        return RunDecision::Rest;
    }
    match &facts.job {
        JobFact::Succeeded => RunDecision::Finish,
        JobFact::Failed => RunDecision::Collapse,
        JobFact::Active(trouble) => RunDecision::Follow(trouble.clone()),
        JobFact::Foreign(owner) => RunDecision::Fail(job_conflict(&facts.job_name, owner)),
        JobFact::Absent if facts.phase == Some(Phase::Running) => {
            RunDecision::Fail(job_lost(&facts.job_name))
        }
        JobFact::Absent => before_start(facts, now),
    }
}

fn before_start(facts: &RunFacts, now: Timestamp) -> RunDecision {
    match &facts.readiness {
        Readiness::Ready => RunDecision::Start,
        Readiness::Refused(refusal) => RunDecision::Fail(refusal.clone()),
        Readiness::Blocked(blocker) => {
            let wake_at = facts
                .created
                .checked_add(facts.start_deadline)
                .unwrap_or(Timestamp::MAX);
            if now < wake_at {
                return RunDecision::Wait {
                    blocker: blocker.clone(),
                    wake_at,
                };
            }
            RunDecision::Fail(Refusal {
                reason: blocker.reason,
                message: format!(
                    "{} Gave up after {} (startDeadlineSeconds).",
                    blocker.message,
                    text::duration(facts.start_deadline)
                ),
            })
        }
    }
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
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn facts(phase: Option<Phase>, readiness: Readiness, job: JobFact) -> RunFacts {
        RunFacts {
            phase,
            created: at(0),
            start_deadline: SignedDuration::from_secs(60),
            readiness,
            job_name: "b-backup".into(),
            job,
        }
    }

    fn missing() -> Readiness {
        Readiness::Blocked(Blocker {
            reason: "PVCNotFound",
            message: "PVC data does not exist.".into(),
        })
    }

    #[test]
    fn a_terminal_run_rests_whatever_its_job_does() {
        for phase in [Phase::Completed, Phase::Failed] {
            for job in [
                JobFact::Absent,
                JobFact::Active(None),
                JobFact::Failed,
                JobFact::Succeeded,
            ] {
                assert_eq!(
                    decide(&facts(Some(phase), Readiness::Ready, job), at(1)),
                    RunDecision::Rest
                );
            }
        }
    }

    #[test]
    fn a_blocked_run_waits_then_fails_with_the_reason_it_waited_for() {
        let run = facts(None, missing(), JobFact::Absent);
        let RunDecision::Wait { wake_at, .. } = decide(&run, at(59)) else {
            panic!("does not wait")
        };
        assert_eq!(wake_at, at(60));
        let RunDecision::Fail(refusal) = decide(&run, at(60)) else {
            panic!("does not fail")
        };
        assert_eq!(refusal.reason, "PVCNotFound");
        assert!(refusal.message.contains("after 1m"), "{}", refusal.message);
    }

    #[test]
    fn a_run_whose_job_vanished_is_never_started_twice() {
        let run = facts(Some(Phase::Running), Readiness::Ready, JobFact::Absent);
        assert!(matches!(
            decide(&run, at(1)),
            RunDecision::Fail(Refusal {
                reason: "JobLost",
                ..
            })
        ));
    }

    #[test]
    fn a_job_made_before_a_crash_is_followed() {
        let run = facts(Some(Phase::Pending), missing(), JobFact::Active(None));
        assert_eq!(decide(&run, at(1)), RunDecision::Follow(None));
    }

    #[test]
    fn a_foreign_job_is_reported_not_adopted() {
        let run = facts(None, Readiness::Ready, JobFact::Foreign("CronJob x".into()));
        let RunDecision::Fail(refusal) = decide(&run, at(1)) else {
            panic!("adopted")
        };
        assert!(refusal.message.contains("CronJob x"));
    }
}
