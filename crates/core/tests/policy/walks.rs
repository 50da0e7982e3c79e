//! Whatever happens to a policy between many looks at it.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use tidelock_core::Phase;
use tidelock_core::fact::BackupFact;
use tidelock_core::policy::{Concurrency, LONGEST_SLEEP, PolicyDecision, PolicyFacts, decide};
use tidelock_core::retention::Rule;
use tidelock_core::schedule::Schedule;
use tidelock_core::slots::LONGEST_SILENCE;

use crate::{fact, keep};

/// One thing that happens to a policy between two looks at it.
#[derive(Debug, Clone)]
enum Happening {
    TimePasses(i64),
    ClockStepsBack(i64),
    ClockStepsAhead(i64),
    RunsEnd(Phase),
    Suspended(bool),
    Rescheduled(usize),
    /// The operator dies after it made the Backup and before it wrote the status.
    StatusIsLost,
}

const EXPRESSIONS: [&str; 4] = ["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *"];

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0i64..200).prop_map(Happening::TimePasses),
        2 => (0i64..50_000).prop_map(Happening::TimePasses),
        1 => (1i64..10_000).prop_map(Happening::ClockStepsBack),
        1 => (1i64..400_000).prop_map(Happening::ClockStepsBack),
        1 => (1i64..100_000).prop_map(Happening::ClockStepsAhead),
        4 => prop::sample::select(vec![Phase::Completed, Phase::Failed])
            .prop_map(Happening::RunsEnd),
        1 => any::<bool>().prop_map(Happening::Suspended),
        1 => (0..EXPRESSIONS.len()).prop_map(Happening::Rescheduled),
        1 => Just(Happening::StatusIsLost),
    ]
}

/// A policy's life, with the state kept as the operator keeps it: a Backup's name is its slot, so
/// a slot that is decided on again never makes a second Backup while the first is there.
struct Life {
    schedules: [Schedule; 4],
    chosen: usize,
    followed: Option<usize>,
    now: Timestamp,
    suspend: bool,
    concurrency: Concurrency,
    deadline: Option<SignedDuration>,
    keep: Option<Rule>,
    saved: Option<Timestamp>,
    backups: Vec<BackupFact>,
    skipped: u32,
}

impl Life {
    const START: i64 = 1_793_000_000;

    fn new(concurrency: Concurrency, deadline: Option<i64>, keep: Option<Rule>) -> Self {
        let start = Timestamp::from_second(Self::START).unwrap();
        let zone = Some("Europe/Berlin");
        Self {
            schedules: EXPRESSIONS.map(|e| Schedule::parse(e, zone, "", start).unwrap()),
            chosen: 0,
            followed: Some(0),
            now: start,
            suspend: false,
            concurrency,
            deadline: deadline.map(SignedDuration::from_secs),
            keep,
            saved: None,
            backups: vec![],
            skipped: 0,
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::TimePasses(seconds) | Happening::ClockStepsAhead(seconds) => {
                self.now += SignedDuration::from_secs(*seconds);
            }
            Happening::ClockStepsBack(seconds) => self.now -= SignedDuration::from_secs(*seconds),
            Happening::RunsEnd(phase) => self.end_active(*phase),
            Happening::Suspended(to) => self.suspend = *to,
            Happening::Rescheduled(to) => self.chosen = *to,
            Happening::StatusIsLost => {}
        }
    }

    fn end_active(&mut self, phase: Phase) {
        let active = self.backups.iter_mut().filter(|backup| backup.is_active());
        active.for_each(|backup| backup.phase = Some(phase));
    }

    fn decide(&self) -> PolicyDecision {
        let facts = PolicyFacts {
            schedule: &self.schedules[self.chosen],
            created: Timestamp::from_second(Self::START).unwrap(),
            dealt_with_until: self.saved,
            made: None,
            starts_afresh: self.followed != Some(self.chosen),
            suspend: self.suspend,
            concurrency: self.concurrency,
            starting_deadline: self.deadline,
            keep: self.keep,
            backups: &self.backups,
        };
        decide(&facts, self.now)
    }

    /// Carries `decision` out; the slot that got a new Backup.
    fn apply(&mut self, decision: &PolicyDecision, status_is_lost: bool) -> Option<Timestamp> {
        let made = decision.run.filter(|slot| {
            let name = slot.to_string();
            !self.backups.iter().any(|backup| backup.name == name)
        });
        if let Some(slot) = made {
            self.backups.push(fact(&slot.to_string(), self.now, None));
        }
        for name in &decision.cancel {
            let cancelled = self.backups.iter_mut().find(|backup| backup.name == *name);
            cancelled.unwrap().phase = Some(Phase::Failed);
        }
        if !status_is_lost {
            self.saved = Some(decision.dealt_with_until);
            self.followed = (!self.suspend).then_some(self.chosen);
            self.skipped += decision.slots_without_backup();
            self.backups.retain(|b| !decision.remove.contains(&b.name));
        }
        made
    }
}

fn concurrency() -> impl Strategy<Value = Concurrency> {
    prop::sample::select(vec![
        Concurrency::Forbid,
        Concurrency::Allow,
        Concurrency::Replace,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn whatever_happens_a_slot_runs_at_most_once_and_is_never_a_surprise(
        happenings in prop::collection::vec(happening(), 1..400),
        concurrency in concurrency(),
        deadline in prop::option::of(1i64..5_000),
        keep_last in prop::option::of(0u32..4),
    ) {
        let mut life = Life::new(concurrency, deadline, keep_last.and_then(keep));
        let mut ran: Vec<Timestamp> = Vec::new();
        for happening in happenings {
            life.happen(&happening);
            let decision = life.decide();
            let outcomes = [decision.run, decision.missed, decision.held];
            prop_assert!(outcomes.iter().flatten().count() <= 1);
            let far_ahead = |until: Timestamp| until.duration_since(life.now) > LONGEST_SILENCE;
            let stepped_back = decision.clock_stepped_back.is_some();
            prop_assert!(stepped_back || life.saved.is_none_or(|u| decision.dealt_with_until >= u));
            prop_assert!(!stepped_back || life.saved.is_none_or(far_ahead));
            if stepped_back {
                // What follows is a time that comes a second time: only a Backup that is there
                // still tells its slot.
                ran.retain(|slot| life.backups.iter().any(|b| b.name == slot.to_string()));
            }
            if let Some(slot) = decision.run {
                prop_assert!(!life.suspend && slot <= life.now);
                prop_assert!(slot > decision.clock_stepped_back.map_or(
                    life.saved.unwrap_or(Timestamp::MIN), |_| life.now - SignedDuration::from_secs(1)));
                prop_assert_eq!(life.followed, Some(life.chosen));
            }
            if let Some(skipped) = decision.skipped {
                let end = decision.run.or(decision.missed).unwrap();
                prop_assert!(skipped.from <= skipped.until && skipped.until < end);
                prop_assert!(life.saved.is_none_or(|until| skipped.from > until));
                prop_assert!(skipped.count <= 10_000);
            }
            if let Some(wake_at) = decision.wake_at {
                prop_assert!(wake_at > life.now && wake_at <= life.now + LONGEST_SLEEP);
                prop_assert!(decision.next.is_some_and(|next| next >= wake_at));
            }
            prop_assert_eq!(decision.next.is_none(), life.suspend);
            prop_assert!(life.keep.is_some() || decision.remove.is_empty());
            prop_assert!(decision.cancel.is_empty() || concurrency == Concurrency::Replace);
            let lost = matches!(happening, Happening::StatusIsLost);
            if let Some(slot) = life.apply(&decision, lost) {
                prop_assert!(!ran.contains(&slot), "{} ran twice", slot);
                ran.push(slot);
            }
        }
    }

    /// However the clock walked before, an ordinary time follows in which the policy runs again.
    #[test]
    fn no_clock_silences_a_policy(
        happenings in prop::collection::vec(happening(), 1..60),
        concurrency in concurrency(),
    ) {
        let mut life = Life::new(concurrency, None, None);
        for happening in happenings {
            life.happen(&happening);
            let decision = life.decide();
            life.apply(&decision, matches!(happening, Happening::StatusIsLost));
        }
        (life.suspend, life.chosen) = (false, 0);
        life.end_active(Phase::Completed);
        let resumes = life.now;
        let mut looks = 0;
        let silent_until = loop {
            let decision = life.decide();
            life.apply(&decision, false);
            if decision.run.is_some() {
                break life.now;
            }
            looks += 1;
            prop_assert!(looks < 1000, "no run and no end of waking");
            life.now = decision.wake_at.unwrap();
        };
        let bound = LONGEST_SILENCE + SignedDuration::from_mins(1);
        prop_assert!(silent_until.duration_since(resumes) <= bound);
    }

    /// Runs and slots that passed without one are together all the slots there were.
    #[test]
    fn every_slot_is_run_or_counted(
        pauses in prop::collection::vec(0i64..5_000, 1..60),
        concurrency in concurrency(),
        deadline in prop::option::of(1i64..100),
    ) {
        let mut life = Life::new(concurrency, deadline, None);
        let start = life.now;
        let mut ran = 0;
        for pause in pauses {
            life.happen(&Happening::TimePasses(pause));
            if life.now.as_second() % 3 == 0 {
                life.end_active(Phase::Failed);
            }
            let decision = life.decide();
            ran += u32::from(life.apply(&decision, false).is_some());
        }
        life.end_active(Phase::Completed);
        let decision = life.decide();
        ran += u32::from(life.apply(&decision, false).is_some());
        let slots = (life.now.as_second() / 60) - (start.as_second() / 60);
        prop_assert_eq!(i64::from(ran + life.skipped), slots);
    }
}
