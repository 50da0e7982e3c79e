//! Backups that hold suspiciously little: told, and kept from taking the place of good ones.

use jiff::Timestamp;
use kube::ResourceExt;
use tidelock_api::{ACCEPT_ANNOTATION, Backup, Phase, SUSPICIOUS, VerificationLevel};
use tidelock_core::fact::{BackupFact, Holdings, Standard};
use tidelock_core::guard::{self, Guard, Suspicion};
use tidelock_core::text;
use tidelock_protocol::BackupReport;

use crate::backup::plan;
use crate::conditions::{self, Verdict};
use crate::context::Context;
use crate::convert;
use crate::fact;
use crate::run::kind::Remark;
use crate::telemetry::reasons;

/// Why `backup`, which holds what `done` says, is suspicious beside the last good one of its policy.
pub fn judge(backup: &Backup, ctx: &Context, done: &BackupReport) -> Option<Suspicion> {
    let policy = super::policy(backup, ctx);
    let guard = plan::guard(backup, policy.as_deref());
    let standard = match convert::to_api_level(done.verification) {
        VerificationLevel::None => Standard::Completed,
        VerificationLevel::Full | VerificationLevel::Digest => Standard::Verified,
    };
    let others = others(backup, ctx);
    let taken_at = fact::of_backup(backup).taken_at;
    let this = Holdings {
        files: done.files,
        others: done.others,
        logical_bytes: done.logical_bytes,
    };
    let guard = Guard {
        max_shrink_percent: guard.max_shrink_percent,
        allow_empty: guard.allow_empty,
    };
    guard::judge(guard::baseline(&others, taken_at, standard), &this, guard)
}

/// The other Backups of the same policy and claim.
fn others(backup: &Backup, ctx: &Context) -> Vec<BackupFact> {
    let Some(policy) = &backup.spec.policy_ref else {
        return Vec::new();
    };
    let pvc = |backup: &Backup| backup.status.as_ref()?.pvc_name.clone();
    let own_pvc = pvc(backup);
    let others = ctx.caches.backups.state_filter(|other| {
        other.namespace() == backup.namespace()
            && other.spec.policy_ref.as_ref() == Some(policy)
            && other.uid() != backup.uid()
            && pvc(other) == own_pvc
    });
    others.iter().map(|other| fact::of_backup(other)).collect()
}

/// Sets the condition; the Event that a suspicious Backup deserves.
pub fn take_in(
    backup: &mut Backup,
    suspicion: Option<Suspicion>,
    now: Timestamp,
) -> Option<Remark> {
    let (verdict, remark) = match suspicion {
        None => {
            let words = "Neither empty nor shrunk beyond what guard allows";
            (Verdict::no(reasons::AS_EXPECTED, words), None)
        }
        Some(found) => {
            let message = text::sentence(&found.message);
            let remark = Remark {
                warning: true,
                reason: reasons::BACKUP_SUSPICIOUS,
                note: format!("{}: {message}", found.reason.as_str()),
            };
            let verdict = Verdict::yes(found.reason.as_str(), message);
            (verdict, Some(remark))
        }
    };
    set(backup, &verdict, now);
    remark
}

/// `backup` with the annotation of a person who accepts it taken in; none where there is nothing to
/// take in.
pub fn accepted(backup: &Backup, now: Timestamp) -> Option<Backup> {
    let status = backup.status.as_ref()?;
    let said = backup.annotations().get(ACCEPT_ANNOTATION)?;
    let is_suspicious = conditions::holds(&status.conditions, SUSPICIOUS);
    if said != "true" || !is_suspicious || status.phase != Some(Phase::Completed) {
        return None;
    }
    let mut changed = backup.clone();
    let words = format!("Accepted by the annotation {ACCEPT_ANNOTATION}");
    set(&mut changed, &Verdict::no(reasons::ACCEPTED, words), now);
    Some(changed)
}

fn set(backup: &mut Backup, verdict: &Verdict, now: Timestamp) {
    let generation = backup.metadata.generation;
    let conditions = &mut backup.status.get_or_insert_default().conditions;
    conditions::set(conditions, SUSPICIOUS, verdict, generation, now);
}
