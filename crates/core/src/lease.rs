//! Who leads: a lease that at most one process holds, in the way of client-go's leader election.
//!
//! No clock is compared with another one. A holder counts from when it *sent* the write that renewed
//! the lease; everybody else counts from when they *saw* the lease change, which is later. Whoever
//! waits for longer than a holder holds therefore never holds beside it, however far apart the
//! clocks are; only their speed has to agree, within the distance of the two times.

use std::ops::Add;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A reading of a clock of this machine that never steps and goes on while the machine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// So long after the clock's own beginning, such as the machine's start.
    pub fn since_start(time: Duration) -> Self {
        Self(time)
    }

    /// Time since the clock's beginning.
    pub fn as_duration(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to here; zero where that lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// The three times of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    lease: Duration,
    renew_within: Duration,
    retry: Duration,
}

/// Times that do not make an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// Others would take over from a holder that still writes.
    #[error(
        "the lease lasts {lease_seconds} s, which must be at least 2 s longer than the {renew_seconds} s within which it is renewed"
    )]
    LeaseTooShort {
        /// How long the lease lasts.
        lease_seconds: u32,
        /// Within which time it is renewed.
        renew_seconds: u32,
    },
    /// One lost request would end a term.
    #[error(
        "the lease is tried every {retry_seconds} s, which must be at least once and at most half of the {renew_seconds} s within which it is renewed"
    )]
    RetryTooLong {
        /// How often it is tried.
        retry_seconds: u32,
        /// Within which time it is renewed.
        renew_seconds: u32,
    },
}

impl Timing {
    /// A lease of `lease_seconds`, whose holder stops `renew_seconds` after its last renewal and
    /// tries to renew every `retry_seconds`.
    ///
    /// # Errors
    /// When the times leave no room for a request that is on its way, or for a second try.
    pub fn new(
        lease_seconds: u32,
        renew_seconds: u32,
        retry_seconds: u32,
    ) -> Result<Self, TimingError> {
        if lease_seconds < renew_seconds.saturating_add(2) {
            return Err(TimingError::LeaseTooShort {
                lease_seconds,
                renew_seconds,
            });
        }
        if retry_seconds == 0 || retry_seconds > renew_seconds / 2 {
            return Err(TimingError::RetryTooLong {
                retry_seconds,
                renew_seconds,
            });
        }
        let seconds = |count: u32| Duration::from_secs(count.into());
        Ok(Self {
            lease: seconds(lease_seconds),
            renew_within: seconds(renew_seconds),
            retry: seconds(retry_seconds),
        })
    }

    /// How long a request about the lease may take: half of a term, so that a slow answer still
    /// renews it, and one that never comes leaves time for another try. It is not safety that hangs
    /// on it: a term counts from when its renewal was sent, however late the answer comes.
    pub fn patience(self) -> Duration {
        self.renew_within / 2
    }
}

/// What a lease says, as coordination.k8s.io writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; none where it was released.
    pub holder: Option<String>,
    /// How long others wait for the next renewal; none where it is not said.
    pub lasts: Option<Duration>,
    /// Since when, by the holder's clock; for people.
    pub acquired: Option<Timestamp>,
    /// When it was renewed, by the holder's clock; for people, and to tell one renewal from the next.
    pub renewed: Option<Timestamp>,
    /// How often the holder has changed.
    pub transitions: i32,
}

/// A lease as it was read: its version makes that of two who write, one succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// What it says.
    pub record: Record,
    /// Its resourceVersion.
    pub version: String,
}

/// What is to be done about the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this moment.
    Wait(Moment),
    /// Read it.
    Look,
    /// Write this over the version that was read; none means that it is created.
    Write {
        /// What it is to say.
        record: Record,
        /// What it replaces.
        version: Option<String>,
    },
    /// The term is over. Nothing may be written any more, and no later step brings the term back.
    StepDown(Lost),
}

/// Why a term ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It could not be renewed in time.
    #[error("the lease could not be renewed within {} s", .0.as_secs())]
    RanOut(Duration),
    /// It is another's.
    #[error("the lease is held by {0}")]
    Taken(String),
}

/// The lease when it was last read.
#[derive(Debug, Clone)]
struct Seen {
    /// None where there is no such object.
    lease: Option<Versioned>,
    /// When it was first seen to say this, after the answer had arrived.
    since: Moment,
    /// Whether it may still be so: no write of ours has failed since.
    fresh: bool,
}

/// One process that wants to lead. It never leads again once it stepped down.
///
/// # Guarantees
/// Of all electors with the same [`Timing`] on one lease, [`Elector::writes_until`] lies ahead for at
/// most one at any time, whatever the delays and pauses between the calls and however the clocks are
/// set.
///
/// # Assumptions
/// - Identities are unique among processes, also over restarts.
/// - The lease is written by compare-and-swap on its version, and nobody deletes it. One that
///   vanishes is waited for like one that is held; a process that never saw it takes it at once.
/// - The speed of two clocks differs by less than the lease lasts longer than a term.
#[derive(Debug, Clone)]
pub struct Elector {
    identity: String,
    timing: Timing,
    seen: Option<Seen>,
    /// When the write was sent that the term stands on.
    held: Option<Moment>,
    not_before: Moment,
}

impl Elector {
    /// One that knows nothing of the lease yet.
    pub fn new(identity: String, timing: Timing, now: Moment) -> Self {
        Self {
            identity,
            timing,
            seen: None,
            held: None,
            not_before: now,
        }
    }

    /// Until when this process leads and may write; none where it does not lead.
    pub fn writes_until(&self) -> Option<Moment> {
        Some(self.held? + self.timing.renew_within)
    }

    /// Who holds the lease as far as is known.
    pub fn holder(&self) -> Option<&str> {
        self.record()?.holder.as_deref()
    }

    /// What to do at `now`; `wall` is what a renewal is dated with.
    pub fn next(&self, now: Moment, wall: Timestamp) -> Step {
        match self.writes_until() {
            Some(end) => self.next_of_holder(now, wall, end),
            None => self.next_of_contender(now, wall),
        }
    }

    fn next_of_holder(&self, now: Moment, wall: Timestamp, end: Moment) -> Step {
        if now >= end {
            return Step::StepDown(Lost::RanOut(self.timing.renew_within));
        }
        if let Some(other) = self.holder().filter(|holder| *holder != self.identity) {
            return Step::StepDown(Lost::Taken(other.to_owned()));
        }
        if now < self.not_before {
            return Step::Wait(self.not_before.min(end));
        }
        match &self.seen {
            Some(seen) if seen.fresh => self.write(wall),
            _ => Step::Look,
        }
    }

    fn next_of_contender(&self, now: Moment, wall: Timestamp) -> Step {
        let free_at = self.seen.as_ref().and_then(|seen| self.free_at(seen));
        if free_at.is_some_and(|free_at| now >= free_at) {
            return self.write(wall);
        }
        if now >= self.not_before {
            return Step::Look;
        }
        Step::Wait(free_at.map_or(self.not_before, |free_at| free_at.min(self.not_before)))
    }

    /// From when on the lease may be taken; none where it has to be looked at first.
    fn free_at(&self, seen: &Seen) -> Option<Moment> {
        if !seen.fresh {
            return None;
        }
        let Some(lease) = &seen.lease else {
            return Some(seen.since);
        };
        match &lease.record.holder {
            None => Some(seen.since),
            // A write of ours whose answer was lost.
            Some(holder) if *holder == self.identity => Some(seen.since),
            Some(_) => Some(seen.since + self.lasts(&lease.record)),
        }
    }

    fn lasts(&self, record: &Record) -> Duration {
        let said = record.lasts.filter(|lasts| !lasts.is_zero());
        said.unwrap_or(self.timing.lease)
    }

    fn record(&self) -> Option<&Record> {
        Some(&self.seen.as_ref()?.lease.as_ref()?.record)
    }

    /// The write that takes or renews the lease.
    fn write(&self, wall: Timestamp) -> Step {
        let lease = self.seen.as_ref().and_then(|seen| seen.lease.as_ref());
        let before = lease.map(|lease| &lease.record);
        let was_ours = before.is_some_and(|b| b.holder.as_deref() == Some(&self.identity));
        let renewed = later_than(wall, before.and_then(|before| before.renewed));
        let since = before.and_then(|before| before.acquired);
        let transitions = before.map_or(0, |before| before.transitions);
        Step::Write {
            record: Record {
                holder: Some(self.identity.clone()),
                lasts: Some(self.timing.lease),
                acquired: since.filter(|_| was_ours).or(Some(renewed)),
                renewed: Some(renewed),
                transitions: match before {
                    Some(_) if !was_ours => transitions.saturating_add(1),
                    _ => transitions,
                },
            },
            version: lease.map(|lease| lease.version.clone()),
        }
    }

    /// The lease was read; `now` is when the answer was there.
    pub fn saw(&mut self, lease: Option<Versioned>, now: Moment) {
        let known = self.seen.as_ref();
        let vanished = lease.is_none() && known.is_some_and(|seen| seen.lease.is_some());
        let record = lease.as_ref().map(|lease| &lease.record);
        let same = known.is_some() && self.record() == record;
        let since = match known {
            Some(seen) if same => seen.since,
            _ if vanished => now + self.timing.lease,
            _ => now,
        };
        self.seen = Some(Seen {
            lease,
            since,
            fresh: true,
        });
        // A holder that had to look writes at once.
        if self.held.is_none() {
            self.not_before = now + self.timing.retry;
        }
    }

    /// The write of [`Step::Write`] succeeded; `sent` is a moment before it was sent.
    pub fn wrote(&mut self, lease: Versioned, sent: Moment) {
        self.held = self.held.max(Some(sent));
        self.seen = Some(Seen {
            lease: Some(lease),
            since: sent,
            fresh: true,
        });
        self.not_before = sent + self.timing.retry;
    }

    /// Somebody else wrote first; `now` is when the answer was there.
    pub fn conflicted(&mut self, now: Moment) {
        self.doubt();
        let pause = match self.held {
            Some(_) => Duration::ZERO,
            None => self.timing.retry,
        };
        self.not_before = now + pause;
    }

    /// What became of a request that was sent at `sent` is not known.
    pub fn failed(&mut self, sent: Moment) {
        self.doubt();
        self.not_before = sent + self.timing.retry;
    }

    fn doubt(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.fresh = false;
        }
    }

    /// Ends the term; what to write over which version so that another one takes over at once. None
    /// where this process does not hold the lease as far as is known.
    ///
    /// # Assumptions
    /// Nothing is written in the name of the leader any more when this is called.
    pub fn release(&mut self, wall: Timestamp) -> Option<(Record, String)> {
        self.held = None;
        let lease = self.seen.as_ref()?.lease.as_ref()?;
        if lease.record.holder.as_deref() != Some(&self.identity) {
            return None;
        }
        let renewed = Some(later_than(wall, lease.record.renewed));
        let record = Record {
            holder: None,
            renewed,
            ..lease.record.clone()
        };
        Some((record, lease.version.clone()))
    }
}

/// `wall` in the precision of a lease, but after `before` in any case: a renewal by a clock that
/// stands still or steps back must still be a change.
fn later_than(wall: Timestamp, before: Option<Timestamp>) -> Timestamp {
    let wall = Timestamp::from_microsecond(wall.as_microsecond()).unwrap_or(wall);
    let least = before.and_then(|before| before.checked_add(SignedDuration::from_micros(1)).ok());
    least.map_or(wall, |least| wall.max(least))
}
