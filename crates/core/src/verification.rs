//! Which stored backups are read again, and when.

use jiff::Timestamp;

use crate::fact::{BackupFact, CLOCK_SLACK};
use crate::policy::LONGEST_SLEEP;
use crate::schedule::Schedule;
use crate::slots;

/// Most backups in one batch: their report must fit into a termination message, their request into
/// an environment variable.
pub const BATCH: usize = 50;

/// What is known of a policy whose stored backups are read again on a schedule.
#[derive(Debug, Clone)]
pub struct VerificationFacts<'a> {
    /// When they are.
    pub schedule: &'a Schedule,
    /// Every slot up to here is dealt with; none where there was none yet.
    pub dealt_with_until: Option<Timestamp>,
    /// The slot that was announced as the next; none where none was.
    pub announced: Option<Timestamp>,
    /// Whether nothing new is started.
    pub suspend: bool,
    /// Whether the Job of an earlier batch is not at its end, or its results are not recorded.
    pub busy: bool,
    /// The policy's backups.
    pub backups: &'a [BackupFact],
}

/// Backups to read in one Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The slot it is for.
    pub slot: Timestamp,
    /// The claim that holds all of them.
    pub storage: String,
    /// Their names, the longest unread first.
    pub backups: Vec<String>,
}

/// What to do about re-verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerificationDecision {
    /// The batch to start now.
    pub run: Option<Batch>,
    /// Every slot up to here is dealt with, once the rest is carried out.
    pub dealt_with_until: Option<Timestamp>,
    /// When the next batch is due; none while suspended.
    pub next: Option<Timestamp>,
    /// When to look again though nothing happened; none waits for a change.
    pub wake_at: Option<Timestamp>,
}

/// Decides at `now` whether a batch is read, and which.
///
/// # Guarantees
/// - One batch at a time, and for any number of slots that passed at most one, late.
/// - Only a slot that was announced before is run: neither a new schedule, nor a changed one, nor
///   the end of a suspension starts a batch by itself.
/// - A clock that steps back repeats no slot within [`slots::LONGEST_SILENCE`], and silences it for
///   no longer.
pub fn decide(facts: &VerificationFacts<'_>, now: Timestamp) -> VerificationDecision {
    let dealt_with_until = facts
        .dealt_with_until
        .map(|until| slots::floor(until, now).after);
    let mut decision = VerificationDecision {
        run: None,
        dealt_with_until,
        next: None,
        wake_at: None,
    };
    if facts.suspend {
        return decision;
    }
    if let Some(slot) = due(facts, dealt_with_until, now) {
        if facts.busy {
            decision.next = facts.announced;
            return decision;
        }
        decision.dealt_with_until = Some(slot);
        decision.run = batch(facts.backups, slot, now);
    }
    let after = decision
        .dealt_with_until
        .map_or(now, |until| until.max(now));
    decision.next = facts.schedule.next_after(after);
    let latest_look = now.checked_add(LONGEST_SLEEP).unwrap_or(now);
    decision.wake_at = decision.next.map(|next| next.min(latest_look));
    decision
}

/// The latest slot that has come since one was announced.
fn due(
    facts: &VerificationFacts<'_>,
    dealt_with_until: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let announced = facts.announced.filter(|slot| *slot <= now)?;
    let second = jiff::SignedDuration::from_secs(1);
    let just_before = announced.checked_sub(second).ok()?;
    let is_a_slot = facts.schedule.next_after(just_before) == Some(announced);
    let slot = facts.schedule.latest_between(just_before, now)?;
    let is_open = dealt_with_until.is_none_or(|until| slot > until);
    (is_a_slot && is_open).then_some(slot)
}

/// The stored backups that were not read for the longest time, all in one storage; those never
/// read come first, by age. When one was read by a clock that was ahead, nobody knows.
fn batch(backups: &[BackupFact], slot: Timestamp, now: Timestamp) -> Option<Batch> {
    let mut stored: Vec<&BackupFact> = backups
        .iter()
        .filter(|fact| fact.is_stored() && !fact.storage.is_empty())
        .collect();
    let believed = |at: &Timestamp| at.duration_since(now) <= CLOCK_SLACK;
    stored.sort_by_key(|fact| (fact.proved_at.filter(believed), fact.age_order()));
    let storage = stored.first()?.storage.clone();
    let backups = stored
        .into_iter()
        .filter(|fact| fact.storage == storage)
        .take(BATCH)
        .map(|fact| fact.name.clone());
    Some(Batch {
        slot,
        backups: backups.collect(),
        storage,
    })
}
