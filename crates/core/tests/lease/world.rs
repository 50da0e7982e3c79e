//! Processes, a store and a network between them, in steps of one microsecond of true time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidelock_core::lease::{Elector, Moment, Record, Step, Versioned};

use crate::{timing, wall};

/// Microseconds of true time.
pub type Time = u64;
pub const SECOND: Time = 1_000_000;

/// Numbers that are the same for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What the world does to the processes.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Longest time a message takes.
    pub delay: Time,
    /// One message of so many is lost; 0 is none.
    pub loses_one_in: u64,
    /// One step of so many is followed by a pause; 0 is none.
    pub pauses_one_in: u64,
    /// Longest pause.
    pub pause: Time,
    /// By how many thousandths clocks run fast or slow at most.
    pub drift: u64,
    /// One process of so many steps is told to stop, and releases; 0 is none.
    pub stops_one_in: u64,
}

enum Event {
    Wake,
    /// A request arrives at the store: when it was sent by the process's clock.
    Arrives(Step, Moment),
    Answers(Answer, Moment),
}

enum Answer {
    Seen(Option<Versioned>),
    Written(Versioned),
    Conflict,
    Lost,
}

struct Process {
    elector: Elector,
    /// Local microseconds in a thousand true ones, and at true time zero.
    speed: u64,
    offset: Time,
    skew: i64,
    life: u32,
}

fn micros(time: Duration) -> Time {
    u64::try_from(time.as_micros()).unwrap()
}

impl Process {
    fn clock(&self, time: Time) -> Moment {
        let local = self.offset + time * self.speed / 1000;
        Moment::since_start(Duration::from_micros(local))
    }

    /// The first true time at which the clock shows `moment`.
    fn true_time(&self, moment: Moment) -> Time {
        let local = micros(moment.as_duration());
        (local.saturating_sub(self.offset) * 1000).div_ceil(self.speed)
    }

    fn wall(&self, time: Time) -> Timestamp {
        wall(self.skew) + SignedDuration::from_micros(time.cast_signed())
    }

    /// Until when, in true time, it takes itself for the leader.
    fn writes_until(&self) -> Option<Time> {
        Some(self.true_time(self.elector.writes_until()?))
    }
}

pub struct World {
    dice: Dice,
    pub weather: Weather,
    processes: Vec<Process>,
    store: Option<Versioned>,
    versions: u64,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<u64, (usize, u32, Event)>,
    posted: u64,
    pub now: Time,
    /// How often a lease was taken by another holder than before.
    pub terms: u32,
}

impl World {
    pub fn new(seed: u64, processes: usize, weather: Weather) -> Self {
        let mut world = Self {
            dice: Dice::new(seed),
            weather,
            processes: Vec::new(),
            store: None,
            versions: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            posted: 0,
            now: 0,
            terms: 0,
        };
        for number in 0..processes {
            let process = world.born(number, 0);
            world.processes.push(process);
            let start = world.dice.below(20 * SECOND);
            world.post(number, start, Event::Wake);
        }
        world
    }

    fn born(&mut self, number: usize, life: u32) -> Process {
        let drift = self.weather.drift;
        let mut process = Process {
            elector: Elector::new(String::new(), timing(), Moment::since_start(Duration::ZERO)),
            speed: 1000 - drift + self.dice.below(2 * drift + 1),
            offset: self.dice.below(1_000_000) * SECOND,
            skew: self.dice.below(2_000_000).cast_signed() - 1_000_000,
            life,
        };
        let identity = format!("process-{number}-{life}");
        process.elector = Elector::new(identity, timing(), process.clock(self.now));
        process
    }

    fn post(&mut self, number: usize, at: Time, event: Event) {
        self.post_to(number, self.processes[number].life, at, event);
    }

    fn post_to(&mut self, number: usize, life: u32, at: Time, event: Event) {
        self.posted += 1;
        self.queue.push(Reverse((at.max(self.now), self.posted)));
        self.events.insert(self.posted, (number, life, event));
    }

    /// Lets time pass until `end`.
    pub fn run_until(&mut self, end: Time) {
        while let Some(Reverse((at, _))) = self.queue.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, id))) = self.queue.pop() else {
                break;
            };
            self.now = at;
            if let Some((number, life, event)) = self.events.remove(&id) {
                self.happen(number, life, event);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, number: usize, life: u32, event: Event) {
        // What a process sent arrives also when it is no more; nothing else of it happens.
        let lives = self.processes[number].life == life;
        match event {
            Event::Arrives(step, sent) => self.arrive(number, life, step, sent),
            Event::Answers(answer, sent) if lives => {
                self.answer(number, answer, sent);
                self.assert_one_leader();
                self.act(number);
            }
            Event::Wake if lives => self.act(number),
            Event::Wake | Event::Answers(..) => {}
        }
    }

    /// The process looks at its clock, decides, and does what it decided, perhaps much later.
    fn act(&mut self, number: usize) {
        let stops = self.weather.stops_one_in;
        if stops > 0 && self.dice.once_in(stops) {
            return self.stop(number);
        }
        let process = &self.processes[number];
        let read = process.clock(self.now);
        let step = process.elector.next(read, process.wall(self.now));
        let pause = self.pause();
        match step {
            Step::Wait(until) => {
                let at = self.processes[number].true_time(until).max(self.now + 1);
                self.post(number, at + pause, Event::Wake);
            }
            Step::StepDown(_) => self.restart(number, pause),
            step => {
                let at = self.now + pause + self.dice.below(self.weather.delay);
                self.post(number, at, Event::Arrives(step, read));
            }
        }
    }

    fn pause(&mut self) -> Time {
        let one_in = self.weather.pauses_one_in;
        if one_in > 0 && self.dice.once_in(one_in) {
            return self.dice.below(self.weather.pause);
        }
        0
    }

    /// A new process takes the place of one that ended.
    fn restart(&mut self, number: usize, pause: Time) {
        let life = self.processes[number].life + 1;
        self.processes[number] = self.born(number, life);
        let delay = self.dice.below(3 * SECOND);
        self.post(number, self.now + pause + delay, Event::Wake);
    }

    /// Ends a process in order: it writes no more, and then frees the lease.
    fn stop(&mut self, number: usize) {
        let time = self.now;
        let process = &mut self.processes[number];
        let (wall, read) = (process.wall(time), process.clock(time));
        if let Some((record, version)) = process.elector.release(wall) {
            let version = Some(version);
            let at = self.now + self.dice.below(self.weather.delay);
            self.post(
                number,
                at,
                Event::Arrives(Step::Write { record, version }, read),
            );
        }
        self.restart(number, 0);
    }

    fn is_lost(&mut self) -> bool {
        let one_in = self.weather.loses_one_in;
        one_in > 0 && self.dice.once_in(one_in)
    }

    fn arrive(&mut self, number: usize, life: u32, step: Step, sent: Moment) {
        let mut answer = Answer::Lost;
        if !self.is_lost() {
            answer = match step {
                Step::Write { record, version } => self.swap(record, version.as_deref()),
                _ => Answer::Seen(self.store.clone()),
            };
        }
        if self.is_lost() {
            answer = Answer::Lost;
        }
        let patience = match answer {
            Answer::Lost => micros(timing().patience()),
            _ => 0,
        };
        let at = self.now + patience + self.dice.below(self.weather.delay) + self.pause();
        self.post_to(number, life, at, Event::Answers(answer, sent));
    }

    fn swap(&mut self, record: Record, over: Option<&str>) -> Answer {
        let current = self.store.as_ref().map(|lease| lease.version.as_str());
        if current != over {
            return Answer::Conflict;
        }
        self.versions += 1;
        let lease = Versioned {
            record,
            version: self.versions.to_string(),
        };
        self.store = Some(lease.clone());
        Answer::Written(lease)
    }

    fn answer(&mut self, number: usize, answer: Answer, sent: Moment) {
        let time = self.now;
        let process = &mut self.processes[number];
        let now = process.clock(time);
        let led = process.elector.writes_until().is_some();
        match answer {
            Answer::Seen(lease) => process.elector.saw(lease, now),
            Answer::Written(lease) => process.elector.wrote(lease, sent),
            Answer::Conflict => process.elector.conflicted(now),
            Answer::Lost => process.elector.failed(sent),
        }
        if !led && process.elector.writes_until().is_some() {
            self.terms += 1;
        }
    }

    /// The processes that may write at this instant.
    pub fn leaders(&self) -> Vec<usize> {
        let leads = |process: &Process| process.writes_until().is_some_and(|end| end > self.now);
        let all = self.processes.iter().enumerate();
        all.filter(|(_, process)| leads(process))
            .map(|(number, _)| number)
            .collect()
    }

    /// Terms begin and grow by answers only, so it is enough to look after each.
    fn assert_one_leader(&self) {
        let leaders = self.leaders();
        assert!(
            leaders.len() <= 1,
            "{leaders:?} lead at once at {} µs",
            self.now
        );
    }
}
