//! What a run does, whatever is true of the world around it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use tidelock_core::Phase;
use tidelock_core::run::{
    Blocker, Ending, JobFact, PodFact, Readiness, Refusal, RunDecision, RunFacts, UNDO_PATIENCE,
    UndoFact, decide,
};

const PHASES: [Option<Phase>; 5] = [
    None,
    Some(Phase::Pending),
    Some(Phase::Running),
    Some(Phase::Completed),
    Some(Phase::Failed),
];

fn readiness() -> impl Strategy<Value = Readiness> {
    let message = "[a-zA-Z .]{0,20}";
    prop_oneof![
        Just(Readiness::Ready),
        message.prop_map(|message| Readiness::Blocked(Blocker {
            reason: "PVCNotFound",
            message
        })),
        message.prop_map(|message| Readiness::Refused(Refusal {
            reason: "PVCIsBlock",
            message
        })),
    ]
}

fn pod() -> impl Strategy<Value = PodFact> {
    let second = || (-10_000i64..10_000).prop_map(|s| Timestamp::from_second(s).unwrap());
    prop_oneof![
        prop::option::of(second()).prop_map(|since| PodFact::None { since }),
        Just(PodFact::Started),
        (prop::option::of(".{0,10}"), second(), any::<bool>()).prop_map(
            |(trouble, since, is_mute)| PodFact::Waiting {
                pod: "nightly-backup-x".to_owned(),
                trouble,
                since,
                is_mute,
            }
        ),
    ]
}

fn job() -> impl Strategy<Value = JobFact> {
    prop_oneof![
        Just(JobFact::Absent),
        Just(JobFact::Succeeded),
        Just(JobFact::Failed),
        Just(JobFact::Leaving),
        ".{0,10}".prop_map(JobFact::Foreign),
        pod().prop_map(JobFact::Active),
    ]
}

fn undo() -> impl Strategy<Value = UndoFact> {
    let words = || ".{0,10}";
    prop_oneof![
        Just(UndoFact::NotNeeded),
        Just(UndoFact::Absent),
        Just(UndoFact::Done),
        words().prop_map(UndoFact::Impossible),
        words().prop_map(UndoFact::Failed),
        (any::<bool>(), prop::option::of(words()))
            .prop_map(|(at_work, trouble)| UndoFact::Active { at_work, trouble }),
    ]
}

prop_compose! {
    fn ending()(
        since in -10_000i64..10_000,
        live_pod in prop::option::of("[a-z]{1,9}"),
        undo in undo(),
    ) -> Ending {
        Ending { since: Timestamp::from_second(since).unwrap(), live_pod, undo }
    }
}

prop_compose! {
    fn run()(
        phase in prop::sample::select(PHASES.to_vec()),
        created in -10_000i64..10_000,
        started in prop::option::of(-10_000i64..10_000),
        deadline in 0i64..10_000,
        readiness in readiness(),
        refused in prop::option::of("[a-z ]{0,20}"),
        job in job(),
        cancelled in prop::option::weighted(0.2, "[a-z ]{0,20}"),
        ending in prop::option::weighted(0.2, ending()),
    ) -> RunFacts {
        RunFacts {
            phase,
            waits_since: Timestamp::from_second(created).unwrap(),
            started: started.map(|second| Timestamp::from_second(second).unwrap()),
            start_deadline: SignedDuration::from_secs(deadline),
            readiness,
            refused,
            job_name: "nightly-backup".to_owned(),
            job,
            cancelled,
            ending,
        }
    }
}

/// The phase that a decision leads to.
fn next_phase(decision: &RunDecision, phase: Option<Phase>) -> Option<Phase> {
    match decision {
        RunDecision::Rest => phase,
        RunDecision::Wait { .. } => Some(Phase::Pending),
        RunDecision::Start
        | RunDecision::Follow { .. }
        | RunDecision::Stop(_)
        | RunDecision::Undo
        | RunDecision::AwaitUndo { .. } => Some(Phase::Running),
        RunDecision::Finish => Some(Phase::Completed),
        RunDecision::Collapse
        | RunDecision::Fail(_)
        | RunDecision::GiveUp(_)
        | RunDecision::FailAsRecorded(_) => Some(Phase::Failed),
    }
}

proptest! {
    #[test]
    fn a_run_only_moves_forward(run in run(), now in -30_000i64..30_000) {
        let now = Timestamp::from_second(now).unwrap();
        let decision = decide(&run, now);
        let next = next_phase(&decision, run.phase);
        if let (Some(from), Some(to)) = (run.phase, next) {
            prop_assert!(from.may_become(to), "{:?} to {:?}", from, to);
        }
        let ended = run.phase.is_some_and(Phase::is_terminal);
        prop_assert_eq!(ended, decision == RunDecision::Rest);
    }

    #[test]
    fn a_job_is_only_made_where_none_is_and_none_was(run in run(), now in -30_000i64..30_000) {
        let decision = decide(&run, Timestamp::from_second(now).unwrap());
        if decision == RunDecision::Start {
            prop_assert_eq!(&run.job, &JobFact::Absent);
            prop_assert_eq!(&run.readiness, &Readiness::Ready);
            prop_assert!(matches!(run.phase, None | Some(Phase::Pending)));
            prop_assert!(run.cancelled.is_none() && run.ending.is_none());
        }
    }

    #[test]
    fn a_waiting_run_wakes_later_and_then_ends(run in run(), now in -30_000i64..30_000) {
        let now = Timestamp::from_second(now).unwrap();
        if let RunDecision::Wait { wake_at, .. } = decide(&run, now) {
            prop_assert!(wake_at > now);
            prop_assert!(matches!(decide(&run, wake_at), RunDecision::Fail(_)));
        }
    }

    #[test]
    fn a_run_whose_pod_does_not_start_ends_in_time(
        mut run in run(), is_mute in any::<bool>(), now in -30_000i64..30_000,
    ) {
        let since = run.waits_since;
        let pod = "nightly-backup-x".to_owned();
        run.job = JobFact::Active(PodFact::Waiting { pod, trouble: None, since, is_mute });
        (run.cancelled, run.ending) = (None, None);
        let now = Timestamp::from_second(now).unwrap();
        if let RunDecision::Follow { wake_at, .. } = decide(&run, now) {
            prop_assert!(wake_at.is_some_and(|wake_at| wake_at > now));
            let asked = run.started.unwrap_or(run.waits_since).max(since);
            prop_assert!(matches!(decide(&run, asked + run.start_deadline), RunDecision::GiveUp(_)));
        }
    }

    #[test]
    fn a_cancelled_run_ends_unless_it_ended_well_before(mut run in run(), now in -30_000i64..30_000) {
        (run.cancelled, run.ending) = (Some("spec.cancel is true.".to_owned()), None);
        let decision = decide(&run, Timestamp::from_second(now).unwrap());
        match (run.phase.is_some_and(Phase::is_terminal), &run.job) {
            (true, _) => prop_assert_eq!(decision, RunDecision::Rest),
            (false, JobFact::Succeeded) => prop_assert_eq!(decision, RunDecision::Finish),
            (false, _) => prop_assert!(
                matches!(&decision, RunDecision::Fail(refusal) if refusal.reason == "Cancelled"),
                "{:?}", decision
            ),
        }
    }

    #[test]
    fn a_failure_that_is_recorded_is_final_in_bounded_time(
        mut run in run(), ending in ending(), now in -30_000i64..30_000,
    ) {
        let over = ending.since + UNDO_PATIENCE;
        run.ending = Some(ending);
        prop_assume!(!run.phase.is_some_and(Phase::is_terminal));
        let now = Timestamp::from_second(now).unwrap();
        if let RunDecision::Stop(wake_at) | RunDecision::AwaitUndo { wake_at, .. } = decide(&run, now) {
            prop_assert!(wake_at > now && wake_at <= over);
        }
        prop_assert!(matches!(decide(&run, over), RunDecision::FailAsRecorded(_)));
    }

    /// A life of one run: the world does as it likes, the phase is kept as the operator keeps it.
    #[test]
    fn a_run_that_has_ended_never_changes_again(
        worlds in prop::collection::vec((readiness(), job(), 0i64..500), 1..40),
    ) {
        let mut run = RunFacts {
            phase: None,
            waits_since: Timestamp::UNIX_EPOCH,
            started: None,
            start_deadline: SignedDuration::from_secs(60),
            readiness: Readiness::Ready,
            refused: None,
            job_name: "nightly-backup".to_owned(),
            job: JobFact::Absent,
            cancelled: None,
            ending: None,
        };
        let (mut now, mut end, mut started) = (Timestamp::UNIX_EPOCH, None, 0);
        for (readiness, job, seconds) in worlds {
            now += SignedDuration::from_secs(seconds);
            (run.readiness, run.job) = (readiness, job);
            let decision = decide(&run, now);
            started += u32::from(decision == RunDecision::Start);
            run.phase = next_phase(&decision, run.phase);
            if let Some(end) = end {
                prop_assert_eq!(run.phase, Some(end));
            }
            end = run.phase.filter(|phase| phase.is_terminal());
        }
        prop_assert!(started <= 1, "its Job was made {} times", started);
    }
}
