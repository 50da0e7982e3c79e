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
    },
    /// It is at work.
    Started,
}

/// How long a Job may be without a pod, or a pod without a word, before that is called trouble.
/// Longer than the Job controller's pauses between retries (10, 20 and 40 seconds).
pub const POD_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// What is known of a run: a Backup or a Restore that is not being deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFacts {
    /// Where it stands; none before it was first seen.
    pub phase: Option<Phase>,
    /// When the object was made.
    pub created: Timestamp,
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
        JobFact::Active(pod) => follow(facts, pod, now),
        JobFact::Foreign(owner) => RunDecision::Fail(job_conflict(&facts.job_name, owner)),
        JobFact::Absent | JobFact::Leaving if facts.phase == Some(Phase::Running) => {
            RunDecision::Fail(job_lost(&facts.job_name))
        }
        JobFact::Leaving => wait_or_fail(facts, &predecessor(&facts.job_name), now),
        JobFact::Absent => before_start(facts, now),
    }
}

fn follow(facts: &RunFacts, pod: &PodFact, now: Timestamp) -> RunDecision {
    let asked = facts.started.unwrap_or(facts.created);
    let (since, trouble, silence) = match pod {
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
            (since.unwrap_or(asked), None, silence)
        }
        PodFact::Waiting {
            pod,
            trouble,
            since,
        } => {
            let silence = format!(
                "Pod {pod} does not start; `kubectl describe pod {pod}` shows why, such as a volume that is attached to another node."
            );
            (*since, trouble.clone(), silence)
        }
    };
    let grace_ends = later(since, POD_GRACE);
    let deadline = later(since, facts.start_deadline);
    if now >= deadline {
        return RunDecision::GiveUp(Refusal {
            reason: "StartDeadlineExceeded",
            message: gave_up(&trouble.unwrap_or(silence), facts),
        });
    }
    let in_grace = now < grace_ends;
    RunDecision::Follow {
        at_work: false,
        trouble: trouble.or((!in_grace).then_some(silence)),
        wake_at: Some(if in_grace {
            grace_ends.min(deadline)
        } else {
            deadline
        }),
    }
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
    let asked = facts.started.unwrap_or(facts.created);
    match &facts.refused {
        Some(words) if now >= later(asked, facts.start_deadline) => RunDecision::Fail(Refusal {
            reason: "StartDeadlineExceeded",
            message: gave_up(words, facts),
        }),
        _ => RunDecision::Start,
    }
}

fn wait_or_fail(facts: &RunFacts, blocker: &Blocker, now: Timestamp) -> RunDecision {
    let wake_at = later(facts.created, facts.start_deadline);
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
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn facts(phase: Option<Phase>, readiness: Readiness, job: JobFact) -> RunFacts {
        RunFacts {
            phase,
            created: at(0),
            started: Some(at(0)),
            start_deadline: SignedDuration::from_secs(60),
            readiness,
            refused: None,
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
                JobFact::Active(PodFact::Started),
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
        let run = facts(
            Some(Phase::Pending),
            missing(),
            JobFact::Active(PodFact::Started),
        );
        assert!(matches!(
            decide(&run, at(1)),
            RunDecision::Follow { trouble: None, .. }
        ));
    }

    #[test]
    fn a_job_whose_pod_never_starts_is_told_then_given_up() {
        let run = |pod| {
            let mut run = facts(Some(Phase::Running), Readiness::Ready, JobFact::Active(pod));
            run.start_deadline = SignedDuration::from_secs(600);
            run
        };
        let none = run(PodFact::None { since: None });
        let follow = |trouble_expected: bool, wake: i64, now: i64| {
            let RunDecision::Follow {
                trouble, wake_at, ..
            } = decide(&none, at(now))
            else {
                panic!("does not follow")
            };
            assert_eq!(trouble.is_some(), trouble_expected);
            assert_eq!(wake_at, Some(at(wake)));
        };
        follow(false, 60, 1);
        follow(true, 600, 60);
        let stuck = run(PodFact::Waiting {
            pod: "p".into(),
            trouble: Some("ImagePullBackOff".into()),
            since: at(100),
        });
        assert!(matches!(
            decide(&stuck, at(699)),
            RunDecision::Follow { .. }
        ));
        let RunDecision::GiveUp(refusal) = decide(&stuck, at(700)) else {
            panic!("waits for ever")
        };
        assert!(refusal.message.contains("ImagePullBackOff"));
        assert!(matches!(
            decide(&run(PodFact::Started), at(99_999)),
            RunDecision::Follow { at_work: true, .. }
        ));
    }

    #[test]
    fn a_job_that_the_api_server_refuses_is_asked_for_until_the_deadline() {
        let mut run = facts(Some(Phase::Pending), Readiness::Ready, JobFact::Absent);
        run.refused = Some("exceeded quota".into());
        assert_eq!(decide(&run, at(59)), RunDecision::Start);
        let RunDecision::Fail(refusal) = decide(&run, at(60)) else {
            panic!("tries for ever")
        };
        assert!(refusal.message.contains("exceeded quota"));
        run.refused = None;
        assert_eq!(
            decide(&run, at(60)),
            RunDecision::Start,
            "a late operator still starts it"
        );
    }

    #[test]
    fn the_job_of_a_namesake_that_is_leaving_is_waited_for() {
        let run = facts(None, Readiness::Ready, JobFact::Leaving);
        assert!(matches!(decide(&run, at(1)), RunDecision::Wait { .. }));
        assert!(matches!(decide(&run, at(60)), RunDecision::Fail(_)));
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
