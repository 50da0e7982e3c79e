//! Status and Events of BackupPolicies.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tidelock_api::{
    Backup, BackupPolicy, BackupPolicyStatus, ConcurrencyPolicy, LastBackup, Phase, SUSPENDED,
};
use tidelock_core::policy::PolicyDecision;
use tidelock_core::schedule::ScheduleError;
use tidelock_core::slots::Skipped;
use tidelock_core::text;

use crate::conditions::{self, Verdict, ready_reason, set_ready_or_stalled};
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::fact;
use crate::policy::observe::{Observed, followed_schedule};
use crate::policy::verify::Verification;
use crate::telemetry::events::Story;
use crate::telemetry::{policy_reasons, reasons};

/// Tells `note` about `policy`: once for each reason and key.
pub async fn tell_of(
    policy: &BackupPolicy,
    ctx: &Context,
    (reason, warning, key): (&'static str, bool, &str),
    note: String,
    now: Timestamp,
) -> Result<(), Error> {
    let story = Story {
        warning,
        reason,
        action: "Schedule",
        note,
        key,
    };
    ctx.events.tell(policy, story, now).await
}

/// Tells `note` about `policy`, once.
pub async fn tell(
    policy: &BackupPolicy,
    ctx: &Context,
    reason: &'static str,
    warning: bool,
    note: String,
    now: Timestamp,
) -> Result<(), Error> {
    let key = format!("{:?}/{note}", policy.metadata.generation);
    tell_of(policy, ctx, (reason, warning, &key), note, now).await
}

/// Tells that a slot got its Backup.
pub async fn created(
    policy: &BackupPolicy,
    ctx: &Context,
    backup: &str,
    slot: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!("Created Backup {backup} for {slot}");
    tell(policy, ctx, reasons::BACKUP_CREATED, false, note, now).await
}

/// Tells that a slot was given up.
pub async fn missed(
    policy: &BackupPolicy,
    ctx: &Context,
    slot: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let deadline = policy.spec.starting_deadline_seconds.unwrap_or_default();
    let note = format!(
        "Gave up the backup due at {slot}: it could not start within startingDeadlineSeconds={deadline}"
    );
    tell(policy, ctx, reasons::MISSED_SCHEDULE, true, note, now).await
}

/// Tells that a slot has no Backup of its own because its name is taken.
pub async fn name_taken(
    policy: &BackupPolicy,
    ctx: &Context,
    backup: &str,
    slot: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!(
        "No backup for {slot}: a Backup named {backup} exists that does not belong to this policy; delete it or rename the policy"
    );
    tell(policy, ctx, reasons::MISSED_SCHEDULE, true, note, now).await
}

/// Whether the status of `policy` as it is now says `reason` already.
fn says(policy: &BackupPolicy, reason: &str) -> bool {
    policy.status.as_ref().is_some_and(|status| {
        ready_reason(&status.conditions) == reason
            && status.observed_generation == policy.metadata.generation
    })
}

/// Says that the schedule cannot be followed.
pub async fn invalid(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    error: &ScheduleError,
    now: Timestamp,
) -> Result<(), Error> {
    let note = error.to_string();
    let mut status = summary(policy, observed);
    if !says(policy, reasons::INVALID_SCHEDULE) {
        tell(
            policy,
            ctx,
            reasons::INVALID_SCHEDULE,
            true,
            note.clone(),
            now,
        )
        .await?;
    }
    status.next_scheduled_backup = None;
    let verdict = Verdict::no(reasons::INVALID_SCHEDULE, note);
    write(policy, ctx, status, &verdict, now).await
}

/// Says that the API server does not take the Backup of a due slot; the slot stays due.
pub async fn refused(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    verification: &Verification,
    words: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!("The API server does not take the Backup that is due: {words}");
    // The words name the slot, and the next one is most likely refused for the same cause.
    if !says(policy, reasons::BACKUP_REFUSED) {
        let key = format!("{:?}", policy.metadata.generation);
        let telling = (reasons::BACKUP_REFUSED, true, key.as_str());
        tell_of(policy, ctx, telling, note.clone(), now).await?;
    }
    let verdict = Verdict::no(reasons::BACKUP_REFUSED, note);
    let mut status = summary(policy, observed);
    verification.write_to(&mut status);
    write(policy, ctx, status, &verdict, now).await
}

/// Tells of slots that passed without a run.
async fn skipped(
    policy: &BackupPolicy,
    ctx: &Context,
    skipped: &Skipped,
    now: Timestamp,
) -> Result<(), Error> {
    let at_least = if skipped.at_least { "at least " } else { "" };
    let note = format!(
        "Skipped {at_least}{} from {} to {}: the operator was away, or an earlier backup was still active; of slots that passed only the latest is run",
        text::count(skipped.count.into(), "slot"),
        skipped.from,
        skipped.until
    );
    tell(policy, ctx, policy_reasons::SLOTS_SKIPPED, true, note, now).await
}

/// Tells that what was recorded lies in the future.
async fn clock_stepped_back(
    policy: &BackupPolicy,
    ctx: &Context,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let note = format!(
        "Slots up to {until} are recorded as dealt with, and that lies in the future: the operator's clock was ahead, or is behind. The schedule is followed by the clock as it is now; make sure that the clocks of all nodes are synchronised"
    );
    tell(
        policy,
        ctx,
        policy_reasons::CLOCK_STEPPED_BACK,
        true,
        note,
        now,
    )
    .await
}

/// Tells and writes what was decided.
///
/// # Crash window
/// Skipped slots are counted by the write that records them as dealt with, so they are counted
/// once; telling them again makes no second Event.
pub async fn decided(
    policy: &BackupPolicy,
    ctx: &Context,
    observed: &Observed,
    decision: &PolicyDecision,
    verification: &Verification,
    now: Timestamp,
) -> Result<(), Error> {
    let mut status = summary(policy, observed);
    if let Some(slots) = &decision.skipped {
        skipped(policy, ctx, slots, now).await?;
    }
    let without_backup = decision.slots_without_backup().into();
    status.skipped_slots = status.skipped_slots.saturating_add(without_backup);
    if let Some(until) = decision.clock_stepped_back {
        clock_stepped_back(policy, ctx, until, now).await?;
    }
    status.last_schedule_time = Some(convert::whole_seconds(decision.dealt_with_until));
    status.followed_schedule = Some(followed_schedule(policy));
    status.next_scheduled_backup = decision.next.map(Time);
    verification.write_to(&mut status);
    if let Some(error) = &verification.invalid {
        let note = format!("verification.schedule: {error}");
        tell(
            policy,
            ctx,
            policy_reasons::INVALID_VERIFICATION_SCHEDULE,
            true,
            note,
            now,
        )
        .await?;
    }
    let verdict = verdict(policy, decision, verification);
    write(policy, ctx, status, &verdict, now).await
}

fn verdict(
    policy: &BackupPolicy,
    decision: &PolicyDecision,
    verification: &Verification,
) -> Verdict {
    if policy.spec.suspend {
        // It does what it was told, and whoever waits for it to be well need not wait.
        return Verdict::yes(
            reasons::SUSPENDED,
            "Suspended: no backups are started until spec.suspend is false",
        );
    }
    if let Some(error) = &verification.invalid {
        let message = format!(
            "Backups are made, but stored ones are not read again: verification.schedule: {error}"
        );
        return Verdict::no(policy_reasons::INVALID_VERIFICATION_SCHEDULE, message);
    }
    let Some(slot) = decision.held else {
        return Verdict::yes(reasons::SCHEDULED, "The schedule is followed");
    };
    let waits = match policy.spec.concurrency_policy {
        ConcurrencyPolicy::Replace => {
            "until the earlier one, which is cancelled, has ended (concurrencyPolicy Replace)"
        }
        ConcurrencyPolicy::Forbid | ConcurrencyPolicy::Allow => {
            "for an earlier one to end (concurrencyPolicy Forbid)"
        }
    };
    let message = format!("The backup due at {slot} waits {waits}");
    Verdict::yes(reasons::WAITING_FOR_ACTIVE, message)
}

/// The status so far, with what its Backups tell. Times of Backups that are gone stay.
fn summary(policy: &BackupPolicy, observed: &Observed) -> BackupPolicyStatus {
    let mut status = policy.status.clone().unwrap_or_default();
    let backups = || observed.backups.iter().map(|backup| backup.as_ref());
    let newest = backups().max_by_key(|b| (convert::created(&b.metadata), b.name_any()));
    if let Some(newest) = newest {
        status.last_backup = Some(LastBackup {
            name: newest.name_any(),
            phase: phase(newest),
        });
    }
    let started = backups().filter_map(|b| b.status.as_ref()?.start_time.clone());
    status.last_backup_time = latest(started.chain(status.last_backup_time.take()));
    let completed = backups().filter(|b| phase(b) == Some(Phase::Completed));
    let ended = completed
        .clone()
        .filter_map(|b| b.status.as_ref()?.completion_time.clone());
    status.last_successful_backup_time =
        latest(ended.chain(status.last_successful_backup_time.take()));
    let kept = completed
        .filter(|b| b.metadata.deletion_timestamp.is_none())
        .count();
    status.completed_backups = u32::try_from(kept).unwrap_or(u32::MAX);
    let standard = fact::standard(Some(policy));
    let good = observed.facts.iter().filter(|fact| fact.is_good(standard));
    status.good_backups = u32::try_from(good.count()).unwrap_or(u32::MAX);
    let mut active: Vec<String> = backups()
        .filter(|b| !convert::is_terminal(phase(b)))
        .map(ResourceExt::name_any)
        .collect();
    active.sort();
    status.active = active;
    status
}

fn phase(backup: &Backup) -> Option<Phase> {
    backup.status.as_ref()?.phase
}

fn latest(times: impl Iterator<Item = Time>) -> Option<Time> {
    times.max_by_key(|time| time.0)
}

/// Takes `verdict` into `status`, and whether the policy is suspended, whatever else there is to say.
fn conclude(
    policy: &BackupPolicy,
    status: &mut BackupPolicyStatus,
    verdict: &Verdict,
    now: Timestamp,
) {
    let generation = policy.metadata.generation;
    status.observed_generation = generation;
    // Only a change of the spec can mend these.
    let invalid = [
        reasons::INVALID_SCHEDULE,
        policy_reasons::INVALID_VERIFICATION_SCHEDULE,
    ];
    let is_stalled = invalid.contains(&verdict.reason.as_str());
    let conditions = &mut status.conditions;
    set_ready_or_stalled(conditions, verdict, is_stalled, generation, now);
    let suspension = if policy.spec.suspend {
        Verdict::yes(reasons::SUSPENDED, "spec.suspend is true")
    } else {
        Verdict::no(policy_reasons::RESUMED, "spec.suspend is false")
    };
    conditions::mark(conditions, SUSPENDED, &suspension, generation, now);
}

async fn write(
    policy: &BackupPolicy,
    ctx: &Context,
    mut status: BackupPolicyStatus,
    verdict: &Verdict,
    now: Timestamp,
) -> Result<(), Error> {
    conclude(policy, &mut status, verdict, now);
    if policy.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let namespace = convert::namespace(policy)?;
    let name = policy.name_any();
    let api: Api<BackupPolicy> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut changed = policy.clone();
    changed.status = Some(status);
    api.replace_status(&name, &PostParams::default(), &changed)
        .await
        .map_err(Error::api(format!(
            "write the status of BackupPolicy {namespace}/{name}"
        )))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> BackupPolicy {
        let spec = r#"{"schedule": "x", "target": {"pvcName": "data"}}"#;
        BackupPolicy::new("nightly", serde_json::from_str(spec).unwrap())
    }

    #[test]
    fn a_suspended_policy_is_ready_as_it_does_what_it_was_told() {
        let mut policy = policy();
        policy.spec.suspend = true;
        let decision = PolicyDecision {
            run: None,
            missed: None,
            held: None,
            cancel: Vec::new(),
            skipped: None,
            clock_stepped_back: None,
            dealt_with_until: Timestamp::UNIX_EPOCH,
            next: None,
            misdated: Vec::new(),
            remove: Vec::new(),
            locked: Vec::new(),
            wake_at: None,
        };
        let verdict = verdict(&policy, &decision, &Verification::default());
        let mut status = BackupPolicyStatus::default();
        conclude(&policy, &mut status, &verdict, Timestamp::UNIX_EPOCH);
        let holds = |kind| conditions::holds(&status.conditions, kind);
        assert!(holds(tidelock_api::READY) && holds(SUSPENDED));
        assert!(!holds(tidelock_api::STALLED));
        assert_eq!(ready_reason(&status.conditions), reasons::SUSPENDED);
    }

    #[test]
    fn a_refusal_is_news_until_the_status_of_this_generation_says_it() {
        let mut policy = policy();
        policy.metadata.generation = Some(1);
        assert!(!says(&policy, reasons::BACKUP_REFUSED));
        let mut status = BackupPolicyStatus::default();
        for slot in ["nightly-1", "nightly-2"] {
            let refused = Verdict::no(reasons::BACKUP_REFUSED, format!("{slot} is forbidden"));
            conclude(&policy, &mut status, &refused, Timestamp::UNIX_EPOCH);
            policy.status = Some(status.clone());
            assert!(says(&policy, reasons::BACKUP_REFUSED), "{slot}");
        }
        policy.metadata.generation = Some(2);
        assert!(!says(&policy, reasons::BACKUP_REFUSED));
    }

    #[test]
    fn a_policy_is_suspended_since_it_was_and_not_since_its_schedule_was_invalid() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut policy = policy();
        let mut status = BackupPolicyStatus::default();
        let invalid = Verdict::no(reasons::INVALID_SCHEDULE, "");
        conclude(&policy, &mut status, &invalid, at(1));
        let since = |status: &BackupPolicyStatus, holds| {
            conditions::since(&status.conditions, SUSPENDED, holds)
        };
        assert_eq!((since(&status, true), since(&status, false)), (None, None));
        policy.spec.suspend = true;
        for second in [2, 3] {
            conclude(&policy, &mut status, &invalid, at(second));
            assert_eq!(since(&status, true), Some(at(2)));
        }
        policy.spec.suspend = false;
        conclude(&policy, &mut status, &invalid, at(4));
        assert_eq!(since(&status, false), Some(at(4)));
    }
}
