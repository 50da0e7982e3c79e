//! Four hundred days of one policy, with what goes wrong in that time, and what retention keeps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tidelock_core::Phase;
use tidelock_core::fact::{BackupFact, Holdings, Proof, Standard};
use tidelock_core::guard::{self, Guard};
use tidelock_core::policy::{Concurrency, LONGEST_SLEEP, PolicyFacts, decide};
use tidelock_core::retention::{Rule, Verdict, judge};
use tidelock_core::schedule::Schedule;

const DAYS: i64 = 400;
const GUARD: Guard = Guard {
    max_shrink_percent: 50,
    allow_empty: false,
};

/// What happens on a day, at its start.
enum Incident {
    /// Runs of the next days fail.
    RunsFail(i64),
    /// The volume is empty for some days.
    VolumeEmpty(i64),
    /// The volume is this large from now on, in MiB.
    VolumeIs(u64),
    /// A person accepts the newest suspicious backup.
    Accepted,
    /// New backups are read back from now on, or not any more.
    Verification(Standard),
    /// Re-verification finds the newest completed backups damaged, so many of them.
    RotFound(usize),
    /// Storage that could not be read right heals: re-verification finds all whole.
    RotHealed,
    /// `keepLast` is this from now on.
    KeepLast(u32),
    /// The policy is suspended for some days.
    Suspended(i64),
    /// The operator is away for some days.
    OperatorAway(i64),
    /// The clock steps by so many hours.
    ClockSteps(i64),
}

use Incident::*;

const INCIDENTS: &[(i64, &str, Incident)] = &[
    (20, "the storage is full for two days", RunsFail(2)),
    (
        40,
        "the volume is mounted empty for ten days",
        VolumeEmpty(10),
    ),
    (70, "a cleanup shrinks the volume to 300 MiB", VolumeIs(300)),
    (76, "a person accepts the smaller volume", Accepted),
    (90, "rot is found in the two newest", RotFound(2)),
    (95, "the storage heals", RotHealed),
    (110, "keepLast is lowered to 2", KeepLast(2)),
    (
        120,
        "verification is turned off",
        Verification(Standard::Completed),
    ),
    (130, "rot is found in all", RotFound(9)),
    (
        150,
        "verification is turned on",
        Verification(Standard::Verified),
    ),
    (170, "suspended for five days", Suspended(5)),
    (190, "the operator is away for six days", OperatorAway(6)),
    (
        210,
        "the clock steps thirty days ahead",
        ClockSteps(30 * 24),
    ),
    (214, "the clock is set right", ClockSteps(-30 * 24)),
    (230, "the clock steps back by two hours", ClockSteps(-2)),
    (250, "the clock steps ten days back", ClockSteps(-240)),
    (255, "the clock is set right", ClockSteps(240)),
    (300, "every run fails for forty days", RunsFail(40)),
    (360, "keepLast is raised to 4", KeepLast(4)),
    (370, "the volume is lost and stays empty", VolumeEmpty(30)),
];

struct World {
    schedule: Schedule,
    created: Timestamp,
    now: Timestamp,
    dealt_with_until: Option<Timestamp>,
    was_suspended: bool,
    rule: Rule,
    volume_mib: u64,
    fails_until: i64,
    empty_until: i64,
    suspended_until: i64,
    away_until: i64,
    backups: Vec<BackupFact>,
    /// What retention said last of each.
    said: Vec<String>,
    last_told: String,
    diary: Vec<String>,
}

impl World {
    fn new() -> Self {
        let created: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        Self {
            schedule: Schedule::parse("0 2 * * *", Some("UTC"), "", created).unwrap(),
            created,
            now: created,
            dealt_with_until: None,
            was_suspended: false,
            rule: Rule {
                keep_last: 3,
                standard: Standard::Verified,
            },
            volume_mib: 1000,
            fails_until: 0,
            empty_until: 0,
            suspended_until: 0,
            away_until: 0,
            backups: vec![],
            said: vec![],
            last_told: String::new(),
            diary: vec![],
        }
    }

    fn meet(&mut self, day: i64, incident: &Incident) {
        match incident {
            RunsFail(days) => self.fails_until = day + days,
            VolumeEmpty(days) => self.empty_until = day + days,
            VolumeIs(mib) => self.volume_mib = *mib,
            Accepted => {
                let found = self.backups.iter_mut().rev().find(|fact| fact.suspicious);
                found.unwrap().suspicious = false;
            }
            Verification(standard) => self.rule.standard = *standard,
            RotFound(count) => {
                let stored = self.backups.iter_mut().rev().filter(|f| f.is_stored());
                stored.take(*count).for_each(|f| f.proof = Proof::Refuted);
            }
            RotHealed => {
                let stored = self.backups.iter_mut().filter(|f| f.is_stored());
                stored.for_each(|fact| fact.proof = Proof::Verified);
            }
            KeepLast(keep) => self.rule.keep_last = *keep,
            Suspended(days) => self.suspended_until = day + days,
            OperatorAway(days) => self.away_until = day + days,
            ClockSteps(hours) => self.now += SignedDuration::from_hours(*hours),
        }
    }

    /// What the run of `slot` leaves behind.
    fn run(&mut self, day: i64, slot: Timestamp) {
        let name = slot
            .to_zoned(TimeZone::UTC)
            .strftime("%Y-%m-%d")
            .to_string();
        if self.backups.iter().any(|fact| fact.name == name) {
            return;
        }
        let fails = day < self.fails_until;
        let holdings = if day < self.empty_until {
            Holdings {
                files: 0,
                others: 1,
                logical_bytes: 0,
            }
        } else {
            Holdings {
                files: 100,
                others: 9,
                logical_bytes: self.volume_mib << 20,
            }
        };
        let baseline = guard::baseline(&self.backups, self.now, self.rule.standard);
        let suspicion = guard::judge(baseline, &holdings, GUARD);
        let verified = self.rule.standard == Standard::Verified && !fails;
        self.backups.push(BackupFact {
            name,
            phase: Some(if fails {
                Phase::Failed
            } else {
                Phase::Completed
            }),
            leaving: false,
            taken_at: self.now,
            there_by: None,
            completed_at: Some(self.now),
            proof: if verified {
                Proof::Verified
            } else {
                Proof::Unknown
            },
            proved_at: verified.then_some(self.now),
            suspicious: !fails && suspicion.is_some(),
            storage: "backup-storage".to_owned(),
            holdings: (!fails).then_some(holdings),
        });
    }

    fn look(&mut self, day: i64) {
        let suspend = day < self.suspended_until;
        let decision = decide(
            &PolicyFacts {
                schedule: &self.schedule,
                created: self.created,
                dealt_with_until: self.dealt_with_until,
                made: None,
                starts_afresh: self.was_suspended,
                suspend,
                concurrency: Concurrency::Forbid,
                starting_deadline: None,
                keep: Some(self.rule),
                backups: &self.backups,
            },
            self.now,
        );
        self.dealt_with_until = Some(decision.dealt_with_until);
        self.was_suspended = suspend;
        if let Some(skipped) = decision.skipped {
            self.diary
                .push(format!("    {} slots skipped", skipped.count));
        }
        if let Some(until) = decision.clock_stepped_back {
            self.diary
                .push(format!("    the clock was ahead: {until} is not believed"));
        }
        if let Some(slot) = decision.run {
            self.run(day, slot);
        }
        for fact in &mut self.backups {
            if decision.misdated.contains(&fact.name) {
                fact.there_by = Some(self.now);
            }
        }
        self.retain();
    }

    fn retain(&mut self) {
        let verdicts = judge(&self.backups, self.rule, self.now);
        let judged = self.backups.iter().zip(&verdicts);
        let said: Vec<String> = judged
            .filter(|(_, verdict)| **verdict != Verdict::NotKept)
            .map(|(fact, verdict)| format!("{} {}: {}", fact.name, state(fact), words(*verdict)))
            .collect();
        let new: Vec<&String> = said
            .iter()
            .filter(|line| !self.said.contains(line))
            .collect();
        // What happened alike the last time is not worth a line each day.
        let alike: Vec<&str> = new.iter().filter_map(|line| line.get(10..)).collect();
        let alike = alike.join(";");
        if !new.is_empty() && alike != self.last_told {
            self.diary
                .extend(new.iter().map(|line| format!("    {line}")));
            self.last_told = alike;
        }
        self.said = said;
        let mut verdicts = verdicts.into_iter();
        self.backups
            .retain(|_| verdicts.next() != Some(Verdict::Goes));
        self.check();
    }

    /// The promises, each day anew.
    fn check(&self) {
        let keeps = |fits: &dyn Fn(&BackupFact) -> bool| self.backups.iter().any(fits);
        let ever = |words: &str| self.said.iter().any(|line| line.contains(words));
        assert!(!ever("verified: ") || keeps(&|fact| fact.is_good(Standard::Completed)));
        assert!(!ever(" verified: ") || keeps(&|fact| fact.proof == Proof::Verified));
    }

    fn live(&mut self) {
        for day in 0..DAYS {
            let mut heading = format!("day {day:3}");
            for (_, words, incident) in INCIDENTS.iter().filter(|(on, ..)| *on == day) {
                heading += &format!(": {words}");
                self.meet(day, incident);
            }
            let length = self.diary.len();
            let end = self.now + SignedDuration::from_hours(24);
            while self.now < end {
                if day >= self.away_until {
                    self.look(day);
                }
                self.now += LONGEST_SLEEP;
            }
            if self.diary.len() > length || heading.len() > "day 123".len() {
                self.diary.insert(length, heading);
            }
        }
    }
}

fn state(fact: &BackupFact) -> &'static str {
    match (fact.suspicious, fact.proof) {
        (true, _) => "suspicious",
        (false, Proof::Verified) => "verified",
        (false, Proof::Refuted) => "damaged",
        (false, Proof::Unknown) => "unverified",
    }
}

fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Goes => "goes",
        Verdict::NotKept => "no concern of retention",
        Verdict::FromTheFuture => "stays uncounted, dated in the future",
        Verdict::Counts => "counts",
        Verdict::TooFewGood => "stays uncounted, too few good ones are younger",
        Verdict::LastVerified => "stays, the last one known to be whole",
    }
}

#[test]
fn four_hundred_days_of_retention() {
    let mut world = World::new();
    world.live();
    insta::assert_snapshot!(world.diary.join("\n"));
}
