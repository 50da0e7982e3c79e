//! What is known of a BackupPolicy.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use tidelock_api::{Backup, BackupPolicy, ConcurrencyPolicy, SLOT_ANNOTATION};
use tidelock_core::fact::BackupFact;
use tidelock_core::names;
use tidelock_core::policy::{Concurrency, PolicyFacts};
use tidelock_core::schedule::{Schedule, ScheduleError};

use crate::conditions::ready_reason;
use crate::context::Context;
use crate::convert;
use crate::error::Error;
use crate::fact;
use crate::owners;
use crate::policy::retention::keep;
use crate::telemetry::reasons;

/// What is known of a BackupPolicy that is not being deleted.
pub struct Observed {
    /// Its Backups, in no order.
    pub backups: Vec<Arc<Backup>>,
    /// The same, as decisions take them.
    pub facts: Vec<BackupFact>,
}

/// Reads the caches.
pub fn observe(policy: &BackupPolicy, ctx: &Context) -> Result<Observed, Error> {
    let namespace = convert::namespace(policy)?;
    let uid = convert::uid(policy)?;
    let backups = ctx.caches.backups.state_filter(|backup| {
        backup.metadata.namespace.as_ref() == Some(&namespace)
            && owners::is_controlled_by(&backup.metadata, &uid)
    });
    let facts = backups.iter().map(|b| fact::of_backup(b)).collect();
    Ok(Observed { backups, facts })
}

/// The schedule of a policy, understood.
pub fn schedule(policy: &BackupPolicy, now: Timestamp) -> Result<Schedule, ScheduleError> {
    let namespace = policy.namespace().unwrap_or_default();
    let seed = format!("{namespace}/{}", policy.name_any());
    let spec = &policy.spec;
    Schedule::parse(&spec.schedule, spec.time_zone.as_deref(), &seed, now)
}

/// Schedule and zone in one line, to tell a changed one.
pub fn followed_schedule(policy: &BackupPolicy) -> String {
    let zone = policy.spec.time_zone.as_deref().unwrap_or("UTC");
    format!("{} {zone}", policy.spec.schedule)
}

impl Observed {
    /// The Backups of these names.
    pub fn named<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = &'a Backup> {
        let backups = self.backups.iter().map(Arc::as_ref);
        backups.filter(|backup| names.contains(&backup.name_any()))
    }

    /// The facts for the decision.
    pub fn facts<'a>(&'a self, policy: &BackupPolicy, schedule: &'a Schedule) -> PolicyFacts<'a> {
        let spec = &policy.spec;
        let status = policy.status.as_ref();
        let dealt_with = status.and_then(|status| status.last_schedule_time.as_ref());
        PolicyFacts {
            schedule,
            created: convert::created(&policy.metadata),
            dealt_with_until: dealt_with.map(|time| time.0),
            made: self.backups.iter().filter_map(|b| slot(policy, b)).max(),
            starts_afresh: starts_afresh(policy),
            suspend: spec.suspend,
            concurrency: match spec.concurrency_policy {
                ConcurrencyPolicy::Forbid => Concurrency::Forbid,
                ConcurrencyPolicy::Allow => Concurrency::Allow,
                ConcurrencyPolicy::Replace => Concurrency::Replace,
            },
            starting_deadline: spec.starting_deadline_seconds.map(convert::seconds),
            keep: keep(policy),
            backups: &self.facts,
        }
    }
}

/// The slot of `policy` that `backup` stands for; its name proves what the annotation says.
pub fn slot(policy: &BackupPolicy, backup: &Backup) -> Option<Timestamp> {
    let slot = backup.annotations().get(SLOT_ANNOTATION)?.parse().ok()?;
    let name = names::slot_backup_name(&policy.name_any(), slot);
    (backup.name_any() == name).then_some(slot)
}

/// Whether slots before now are nobody's wish: the schedule has changed, was invalid, or was
/// suspended until now.
fn starts_afresh(policy: &BackupPolicy) -> bool {
    let Some(status) = &policy.status else {
        return false;
    };
    let reason = ready_reason(&status.conditions);
    let was_held = reason == reasons::SUSPENDED || reason == reasons::INVALID_SCHEDULE;
    let followed = status.followed_schedule.as_ref();
    was_held || followed.is_some_and(|followed| *followed != followed_schedule(policy))
}
