//! What a BackupPolicy does next.

use jiff::{SignedDuration, Timestamp};

use crate::Phase;
use crate::retention::{RetentionFact, surplus};
use crate::schedule::Schedule;

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
    /// Whether the schedule is new, or the policy was suspended until now: slots before `now` are
    /// then nobody's wish.
    pub starts_afresh: bool,
    /// Whether new runs are held back.
    pub suspend: bool,
    /// What may happen while an earlier run is active.
    pub concurrency: Concurrency,
    /// How late a slot may still start.
    pub starting_deadline: Option<SignedDuration>,
    /// How many completed backups stay; none keeps all.
    pub keep_last: Option<u32>,
    /// The policy's backups.
    pub backups: &'a [RetentionFact],
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
    /// Every slot up to here is dealt with, once the rest is carried out.
    pub dealt_with_until: Timestamp,
    /// When the next backup is due; none while suspended.
    pub next: Option<Timestamp>,
    /// Names of the Backups to delete, oldest first.
    pub remove: Vec<String>,
    /// When to look again though nothing happened; none waits for a change.
    pub wake_at: Option<Timestamp>,
}

/// Decides what a policy does at `now`.
///
/// # Guarantees
/// At most one run, of the latest due slot: after downtime the older ones are passed over. No slot
/// at or before `dealt_with_until` is ever run, so a clock that steps back repeats nothing.
pub fn decide(facts: &PolicyFacts<'_>, now: Timestamp) -> PolicyDecision {
    let known_until = facts.dealt_with_until.unwrap_or(facts.created);
    // While suspended nothing moves; what passed meanwhile is skipped when it resumes, afresh.
    let floor = if facts.starts_afresh && !facts.suspend {
        known_until.max(now)
    } else {
        known_until
    };
    let mut decision = PolicyDecision {
        run: None,
        missed: None,
        held: None,
        dealt_with_until: floor,
        next: None,
        remove: removals(facts),
        wake_at: None,
    };
    if facts.suspend {
        return decision;
    }
    if let Some(slot) = facts.schedule.latest_between(floor, now) {
        let too_late = facts
            .starting_deadline
            .is_some_and(|deadline| now.duration_since(slot) > deadline);
        if too_late {
            decision.missed = Some(slot);
            decision.dealt_with_until = slot;
        } else if facts.concurrency == Concurrency::Forbid && has_active(facts.backups) {
            decision.held = Some(slot);
        } else {
            decision.run = Some(slot);
            decision.dealt_with_until = slot;
        }
    }
    decision.next = facts
        .schedule
        .next_after(now.max(decision.dealt_with_until));
    let latest_look = now.checked_add(LONGEST_SLEEP).unwrap_or(now);
    decision.wake_at = decision.next.map(|next| next.min(latest_look));
    decision
}

fn removals(facts: &PolicyFacts<'_>) -> Vec<String> {
    let going = facts
        .keep_last
        .map(|keep| surplus(facts.backups, keep))
        .unwrap_or_default();
    going
        .into_iter()
        .map(|backup| backup.name.clone())
        .collect()
}

fn has_active(backups: &[RetentionFact]) -> bool {
    backups
        .iter()
        .any(|backup| !backup.leaving && !backup.phase.is_some_and(Phase::is_terminal))
}
