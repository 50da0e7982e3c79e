//! What a BackupPolicy does next.

use jiff::{SignedDuration, Timestamp};

use crate::fact::{BackupFact, lock_ends};
use crate::retention::{Rule, locked, misdated, surplus};
use crate::schedule::Schedule;
use crate::slots::{self, Skipped};

/// Longest time between two looks at a policy. Timers run on the monotonic clock; this bounds how
/// late a slot is noticed after the wall clock was stepped forward or the machine slept. A look
/// reads caches only.
pub const LONGEST_SLEEP: SignedDuration = SignedDuration::from_mins(10);

/// What may happen while an earlier run is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// A due slot waits.
    Forbid,
    /// A due slot runs beside it.
    Allow,
    /// The earlier run is cancelled, and the slot runs when that has ended.
    Replace,
}

/// What is known of a policy whose schedule was understood.
#[derive(Debug, Clone)]
pub struct PolicyFacts<'a> {
    /// Its schedule.
    pub schedule: &'a Schedule,
    /// When the policy was made; slots before that are not its own.
    pub created: Timestamp,
    /// Every slot up to here is dealt with.
    pub dealt_with_until: Option<Timestamp>,
    /// The latest slot that has its Backup, whether that was written as dealt with or not.
    pub made: Option<Timestamp>,
    /// Whether the schedule is new, or the policy was suspended until now: slots before `now` are
    /// then nobody's wish.
    pub starts_afresh: bool,
    /// Whether new runs are held back.
    pub suspend: bool,
    /// What may happen while an earlier run is active.
    pub concurrency: Concurrency,
    /// How late a slot may still start.
    pub starting_deadline: Option<SignedDuration>,
    /// What retention keeps; none keeps all.
    pub keep: Option<Rule>,
    /// The policy's backups.
    pub backups: &'a [BackupFact],
}

/// What to do about a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDecision {
    /// The slot to make a Backup for, now.
    pub run: Option<Timestamp>,
    /// A slot that was given up because it is later than its starting deadline.
    pub missed: Option<Timestamp>,
    /// A slot that waits for an active run.
    pub held: Option<Timestamp>,
    /// Names of the active Backups to cancel so that the held slot can run, in order.
    pub cancel: Vec<String>,
    /// Slots that are passed over: after downtime, or while another run was active, only the
    /// latest slot runs. A slot that was given up is not among them.
    pub skipped: Option<Skipped>,
    /// What was said to be dealt with, where that lies so far in the future that the clock must
    /// have been ahead; slots are followed from now on again.
    pub clock_stepped_back: Option<Timestamp>,
    /// Every slot up to here is dealt with, once the rest is carried out.
    pub dealt_with_until: Timestamp,
    /// When the next backup is due; none while suspended.
    pub next: Option<Timestamp>,
    /// Names of the Backups to mark as there by now, because they are dated in the future.
    pub misdated: Vec<String>,
    /// Names of the Backups to delete, oldest first.
    pub remove: Vec<String>,
    /// Names of the Backups that retention would delete, and whose storage does not let go of them
    /// yet; oldest first.
    pub locked: Vec<String>,
    /// When to look again though nothing happened; none waits for a change.
    pub wake_at: Option<Timestamp>,
}

impl PolicyDecision {
    /// How many slots pass without a backup: those that are passed over, and the one that is given
    /// up.
    pub fn slots_without_backup(&self) -> u32 {
        let passed_over = self.skipped.map_or(0, |skipped| skipped.count);
        passed_over.saturating_add(u32::from(self.missed.is_some()))
    }
}

/// Decides what a policy does at `now`.
///
/// # Guarantees
/// - At most one run, of the latest due slot: after downtime the older ones are passed over, and
///   counted once.
/// - No slot at or before `dealt_with_until` is ever run, so a clock that steps back by up to
///   [`slots::LONGEST_SILENCE`] repeats nothing. After a longer step the policy goes on from now
///   instead of waiting for the past to come again; a slot whose Backup exists has none made.
pub fn decide(facts: &PolicyFacts<'_>, now: Timestamp) -> PolicyDecision {
    let known_until = facts.dealt_with_until.unwrap_or(facts.created);
    let floor = slots::floor(known_until, now);
    // While suspended nothing moves; what passed meanwhile is skipped when it resumes, afresh.
    let after = if facts.starts_afresh && !facts.suspend {
        floor.after.max(now)
    } else {
        floor.after
    };
    let mut decision = PolicyDecision {
        run: None,
        missed: None,
        held: None,
        cancel: Vec::new(),
        skipped: None,
        clock_stepped_back: floor.disbelieved,
        dealt_with_until: after,
        next: None,
        misdated: misdated(facts.backups, now)
            .map(|backup| backup.name.clone())
            .collect(),
        remove: removals(facts, now),
        locked: Vec::new(),
        wake_at: None,
    };
    wait_for_locks(&mut decision, facts, now);
    if facts.suspend {
        return decision;
    }
    if let Some(slot) = facts.schedule.latest_between(after, now) {
        take(&mut decision, facts, slot, now);
    }
    decision.next = facts
        .schedule
        .next_after(now.max(decision.dealt_with_until));
    let latest_look = now.checked_add(LONGEST_SLEEP).unwrap_or(now);
    let next_look = decision.next.map(|next| next.min(latest_look));
    decision.wake_at = decision.wake_at.into_iter().chain(next_look).min();
    decision
}

/// Decides about the due `slot`.
fn take(decision: &mut PolicyDecision, facts: &PolicyFacts<'_>, slot: Timestamp, now: Timestamp) {
    let active = || facts.backups.iter().filter(|backup| backup.is_active());
    let too_late = facts
        .starting_deadline
        .is_some_and(|deadline| now.duration_since(slot) > deadline);
    if facts.made == Some(slot) {
        // Its own Backup neither holds it up nor is replaced by it; making it again makes none.
        decision.run = Some(slot);
    } else if too_late {
        decision.missed = Some(slot);
    } else if facts.concurrency != Concurrency::Allow && active().next().is_some() {
        decision.held = Some(slot);
        if facts.concurrency == Concurrency::Replace {
            decision.cancel = active().map(|backup| backup.name.clone()).collect();
            decision.cancel.sort();
        }
        return;
    } else {
        decision.run = Some(slot);
    }
    decision.skipped = slots::skipped(facts.schedule, decision.dealt_with_until, slot);
    decision.dealt_with_until = slot;
}

/// What is locked goes when its lock ends, whether the policy is suspended by then or not.
fn wait_for_locks(decision: &mut PolicyDecision, facts: &PolicyFacts<'_>, now: Timestamp) {
    let locked = facts
        .keep
        .map(|rule| locked(facts.backups, rule, now))
        .unwrap_or_default();
    let ends = locked.iter().filter_map(|b| lock_ends(b.locked_until));
    decision.wake_at = ends.min();
    decision.locked = locked.iter().map(|backup| backup.name.clone()).collect();
}

fn removals(facts: &PolicyFacts<'_>, now: Timestamp) -> Vec<String> {
    let going = facts
        .keep
        .map(|rule| surplus(facts.backups, rule, now))
        .unwrap_or_default();
    going
        .into_iter()
        .map(|backup| backup.name.clone())
        .collect()
}
