//! Four hundred days of one policy, with what goes wrong in that time, and what retention keeps:
//! a line each day. A backup is called by the day on which it was taken.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use jiff::civil::Date;
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
    /// On which day each was taken, by its name.
    days: BTreeMap<String, i64>,
    /// What happened on this day.
    news: Vec<String>,
    /// What retention said last of those that stay.
    kept: Sayings,
    /// What it said on this day of those that go.
    gone: Sayings,
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
            days: BTreeMap::new(),
            news: vec![],
            kept: Sayings::default(),
            gone: Sayings::default(),
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
        self.days.insert(name.clone(), day);
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
        let fact = BackupFact {
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
            locked_until: None,
        };
        let came_to = if fails { "failed" } else { state(&fact) };
        self.news.push(format!("backup {came_to}"));
        self.backups.push(fact);
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
            self.news.push(format!("{} slots skipped", skipped.count));
        }
        if let Some(until) = decision.clock_stepped_back {
            self.news
                .push(format!("the clock was ahead: {until} is not believed"));
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
        let (had_good, had_whole) = self.relied_on();
        self.kept = Sayings::default();
        for (fact, verdict) in self.backups.iter().zip(&verdicts) {
            let day = self.days[&fact.name];
            match verdict {
                Verdict::NotKept => {}
                Verdict::Goes => self.gone.say(state(fact), day),
                _ => self
                    .kept
                    .say(&format!("{} {}", state(fact), words(*verdict)), day),
            }
        }
        let mut verdicts = verdicts.into_iter();
        self.backups
            .retain(|_| verdicts.next() != Some(Verdict::Goes));
        // The promises, at each look anew.
        let (has_good, has_whole) = self.relied_on();
        assert!(has_good || !had_good);
        assert!(has_whole || !had_whole);
    }

    /// Whether there is a good backup, and whether one that is known to be whole.
    fn relied_on(&self) -> (bool, bool) {
        let stored = || self.backups.iter().filter(|fact| fact.is_stored());
        let whole = |fact: &BackupFact| fact.proof == Proof::Verified && !fact.suspicious;
        let good = stored().any(|fact| fact.is_good(Standard::Completed));
        (good, stored().any(whole))
    }

    fn live(&mut self) {
        for day in 0..DAYS {
            for (_, words, incident) in INCIDENTS.iter().filter(|(on, ..)| *on == day) {
                self.news.push((*words).to_owned());
                self.meet(day, incident);
            }
            let date = self.now.to_zoned(TimeZone::UTC).date();
            let end = self.now + SignedDuration::from_hours(24);
            while self.now < end {
                if day >= self.away_until {
                    self.look(day);
                }
                self.now += LONGEST_SLEEP;
            }
            self.tell(day, date);
        }
    }

    /// One line: the day, its date by the clock of then, what happened, what is kept, what went.
    fn tell(&mut self, day: i64, date: Date) {
        let mut news = std::mem::take(&mut self.news).join("; ");
        if news.is_empty() {
            "no backup".clone_into(&mut news);
        }
        let gone = std::mem::take(&mut self.gone);
        let (count, kept) = (self.kept.count(), self.kept.words());
        let mut line = format!("day {day:3} {date} | {news} | {count} kept: {kept}");
        if gone.count() > 0 {
            let keep = self.rule.keep_last;
            let gone = gone.words();
            line += &format!(" | gone, as {keep} good ones are younger: {gone}");
        }
        self.diary.push(line);
    }
}

/// What is said alike of the backups of some days, in the order in which it was said first.
#[derive(Default)]
struct Sayings(Vec<(String, Vec<i64>)>);

impl Sayings {
    fn say(&mut self, what: &str, day: i64) {
        match self.0.iter_mut().find(|(said, _)| said == what) {
            Some((_, days)) => days.push(day),
            None => self.0.push((what.to_owned(), vec![day])),
        }
    }

    fn count(&self) -> usize {
        self.0.iter().map(|(_, days)| days.len()).sum()
    }

    fn words(&self) -> String {
        let all = self.0.iter();
        let all = all.map(|(said, days)| format!("{} {said}", stretches(days)));
        all.collect::<Vec<_>>().join("; ")
    }
}

/// Days, those in a row as `40-49`.
fn stretches(days: &[i64]) -> String {
    let rows = days.chunk_by(|day, next| day + 1 == *next);
    let rows = rows.map(|row| match row {
        [first, .., last] => format!("{first}-{last}"),
        _ => row.iter().map(i64::to_string).collect(),
    });
    rows.collect::<Vec<_>>().join(" ")
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
        Verdict::Goes => "gone",
        Verdict::NotKept => "no concern of retention",
        Verdict::FromTheFuture => "uncounted, dated in the future",
        Verdict::Counts => "counted",
        Verdict::TooFewGood => "uncounted, too few good ones are younger",
        Verdict::LastVerified => "kept as the last one known to be whole",
        Verdict::Locked => "locked",
    }
}

#[test]
fn four_hundred_days_of_retention() {
    let mut world = World::new();
    world.live();
    insta::assert_snapshot!(world.diary.join("\n"));
}
