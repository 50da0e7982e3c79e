use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn facts(phase: Option<Phase>, readiness: Readiness, job: JobFact) -> RunFacts {
    RunFacts {
        phase,
        waits_since: at(0),
        started: Some(at(0)),
        start_deadline: SignedDuration::from_secs(60),
        readiness,
        refused: None,
        job_name: "b-backup".into(),
        job,
        cancelled: None,
        ending: None,
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
fn a_pod_of_a_clock_that_is_behind_gets_the_whole_deadline() {
    let pod = PodFact::Waiting {
        pod: "p".into(),
        trouble: None,
        since: at(-86_400),
        is_mute: false,
    };
    let mut run = facts(Some(Phase::Running), Readiness::Ready, JobFact::Active(pod));
    run.start_deadline = SignedDuration::from_secs(600);
    let followed = |now| matches!(decide(&run, at(now)), RunDecision::Follow { .. });
    assert!(followed(599) && !followed(600));
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
        is_mute: false,
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
    assert!(refusal.message.contains("Exceeded quota"));
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

fn ending(live_pod: Option<&str>, undo: UndoFact, job: JobFact) -> RunFacts {
    let mut run = facts(Some(Phase::Running), Readiness::Ready, job);
    run.ending = Some(Ending {
        since: at(1000),
        live_pod: live_pod.map(str::to_owned),
        undo,
    });
    run
}

fn undoing(at_work: bool, trouble: Option<&str>) -> UndoFact {
    UndoFact::Active {
        at_work,
        trouble: trouble.map(str::to_owned),
    }
}

fn active() -> JobFact {
    JobFact::Active(PodFact::Started)
}

#[test]
fn a_cancelled_run_fails_unless_it_has_ended_well_before() {
    let why = Some("spec.cancel is true.".to_owned());
    for job in [
        JobFact::Absent,
        active(),
        JobFact::Failed,
        JobFact::Leaving,
        JobFact::Foreign("CronJob x".into()),
    ] {
        for phase in [None, Some(Phase::Pending), Some(Phase::Running)] {
            let mut run = facts(phase, missing(), job.clone());
            run.cancelled.clone_from(&why);
            let RunDecision::Fail(refusal) = decide(&run, at(1)) else {
                panic!("{job:?} in {phase:?} goes on")
            };
            assert_eq!(refusal.reason, CANCELLED);
        }
    }
    let mut run = facts(Some(Phase::Running), Readiness::Ready, JobFact::Succeeded);
    run.cancelled = why;
    assert_eq!(decide(&run, at(1)), RunDecision::Finish);
}

#[test]
fn a_failed_run_is_stopped_then_taken_back_then_called_failed() {
    let stop_by = at(1300);
    let run = ending(Some("p"), UndoFact::Absent, active());
    assert_eq!(decide(&run, at(1001)), RunDecision::Stop(stop_by));
    let run = ending(Some("p"), UndoFact::Absent, JobFact::Absent);
    assert_eq!(decide(&run, at(1001)), RunDecision::Stop(stop_by));
    let run = ending(None, UndoFact::Absent, JobFact::Absent);
    assert_eq!(decide(&run, at(1001)), RunDecision::Undo);
    let run = ending(None, undoing(true, None), JobFact::Absent);
    assert!(matches!(
        decide(&run, at(1001)),
        RunDecision::AwaitUndo { .. }
    ));
    for undo in [UndoFact::Done, UndoFact::NotNeeded] {
        let run = ending(None, undo, JobFact::Failed);
        assert_eq!(decide(&run, at(1001)), RunDecision::FailAsRecorded(None));
    }
}

#[test]
fn nothing_is_taken_back_while_a_pod_may_write() {
    for now in [1001, 1299, 1300, 99_999] {
        for (live, job) in [
            (Some("p"), JobFact::Absent),
            (Some("p"), active()),
            (None, active()),
        ] {
            let run = ending(live, UndoFact::Absent, job);
            assert_ne!(decide(&run, at(now)), RunDecision::Undo);
        }
    }
}

#[test]
fn every_ending_is_bounded_and_says_what_stays() {
    for (live, undo) in [
        (Some("p"), UndoFact::Absent),
        (None, UndoFact::Absent),
        (None, undoing(true, None)),
        (None, undoing(false, None)),
        (None, undoing(false, Some("not scheduled"))),
        (None, UndoFact::Failed("it is read-only".into())),
    ] {
        let run = ending(live, undo, JobFact::Absent);
        let RunDecision::FailAsRecorded(Some(left)) = decide(&run, at(99_999)) else {
            panic!("{run:?} goes on for ever, or says nothing")
        };
        assert!(!left.is_empty());
    }
}

#[test]
fn taking_back_that_does_not_start_is_given_up_sooner_than_one_that_is_at_work() {
    let second = |patience: SignedDuration| 1000 + patience.as_secs();
    let (starts, ends) = (second(UNDO_START_PATIENCE), second(UNDO_PATIENCE));
    let waits = |undo, now| {
        let run = ending(None, undo, JobFact::Absent);
        !matches!(decide(&run, at(now)), RunDecision::FailAsRecorded(_))
    };
    for undo in [UndoFact::Absent, undoing(false, Some("not scheduled"))] {
        assert!(waits(undo.clone(), starts - 1) && !waits(undo, starts));
    }
    assert!(waits(undoing(true, None), starts));
    assert!(!waits(undoing(true, None), ends));
}

#[test]
fn a_failed_run_that_is_deleted_goes_once_it_is_taken_back_or_that_cannot_be_had() {
    let leaving = |live, undo, now| {
        let mut run = ending(live, undo, JobFact::Absent);
        run.phase = Some(Phase::Failed);
        decide_leaving(&run, at(now))
    };
    assert_eq!(leaving(None, UndoFact::Absent, 1001), RunDecision::Undo);
    assert!(matches!(
        leaving(Some("p"), UndoFact::Absent, 1001),
        RunDecision::Stop(_)
    ));
    assert_eq!(
        leaving(None, UndoFact::Done, 1001),
        RunDecision::FailAsRecorded(None)
    );
    for (live, undo) in [
        (Some("p"), UndoFact::Absent),
        (None, UndoFact::Absent),
        (None, undoing(true, None)),
    ] {
        assert!(matches!(
            leaving(live, undo, 99_999),
            RunDecision::FailAsRecorded(Some(_))
        ));
    }
    let mut nothing_left = ending(None, UndoFact::Absent, JobFact::Absent);
    nothing_left.ending = None;
    assert_eq!(decide_leaving(&nothing_left, at(1)), RunDecision::Rest);
}

#[test]
fn a_pod_that_says_nothing_has_its_events_looked_at_ever_less_often() {
    let pod = PodFact::Waiting {
        pod: "p".into(),
        trouble: None,
        since: at(0),
        is_mute: true,
    };
    let mut run = facts(Some(Phase::Running), Readiness::Ready, JobFact::Active(pod));
    run.start_deadline = SignedDuration::from_mins(30);
    assert!(!wants_events(at(0), at(5), at(14)) && wants_events(at(0), at(5), at(15)));
    let (mut now, mut looks) = (0, 0);
    while let RunDecision::Follow { wake_at, .. } = decide(&run, at(now)) {
        let next = wake_at.unwrap().as_second();
        assert!(next > now, "{next} comes after {now}");
        assert!(next - now <= 15.max(now / 4), "{now} to {next}");
        (now, looks) = (next, looks + 1);
    }
    assert_eq!(now, 1800);
    assert!(looks < 25, "{looks} looks in half an hour");
}
