//! What is told of one BackupPolicy.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use tidelock_api::{Backup, BackupPolicy, FolderStatus, Phase};
use tidelock_core::fact::{BackupFact, Proof, Standard};
use tidelock_core::run::CANCELLED;

use crate::conditions::{self, holds, ready_reason};
use crate::convert;
use crate::fact;
use crate::policy::observe;
use crate::store::StoreRef;
use crate::telemetry::metrics::active::{self, Oldest, STATES};
use crate::telemetry::metrics::known::{self, PHASES};
use crate::telemetry::metrics::lateness;
use crate::telemetry::metrics::row::{Row, flag, of_count, of_time};
use crate::telemetry::metrics::table as metric;
use crate::telemetry::{policy_reasons, reasons};

/// What is told of one BackupPolicy.
#[derive(Debug, Clone, Default)]
pub struct PolicyFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    pvc: String,
    storage: String,
    created: Timestamp,
    ready: bool,
    suspended_since: Option<Timestamp>,
    suspended: bool,
    schedule_invalid: bool,
    next_schedule: Option<Timestamp>,
    overdue_since: Option<Timestamp>,
    skipped: i64,
    keep: Option<u32>,
    verifies: bool,
    verification_overdue_since: Option<Timestamp>,
    unknown_archives: Option<i64>,
    history: History,
}

/// What the policy's Backups tell.
#[derive(Debug, Clone, Default)]
struct History {
    phases: [u32; PHASES.len()],
    active: Oldest,
    waiting: Vec<&'static str>,
    last_attempt: Option<Timestamp>,
    last_ended: Option<bool>,
    last_failure: Option<&'static str>,
    failures: u32,
    last_success: Option<Timestamp>,
    last: Option<Last>,
    good: u32,
    newest_good: Option<Timestamp>,
    suspicious: u32,
    damaged: u32,
    stored_bytes: i64,
    last_verified: Option<Timestamp>,
}

/// The newest completed backup.
#[derive(Debug, Clone, Default)]
struct Last {
    seconds: Option<f64>,
    logical_bytes: Option<i64>,
    stored_bytes: Option<i64>,
    files: Option<i64>,
    changed_files: Option<i64>,
    suspicious: bool,
}

/// What is told of `policy`, whose Backups are `backups`.
pub fn observe(policy: &BackupPolicy, backups: &[&Backup], now: Timestamp) -> PolicyFacts {
    let spec = &policy.spec;
    let status = policy.status.clone().unwrap_or_default();
    let facts: Vec<BackupFact> = backups.iter().map(|b| fact::of_backup(b)).collect();
    let mut history = history(policy, backups, &facts);
    let recorded = |time: &Option<_>| time.as_ref().map(|time: &Time| time.0);
    history.last_attempt = history.last_attempt.max(recorded(&status.last_backup_time));
    history.last_success = history
        .last_success
        .max(recorded(&status.last_successful_backup_time));
    let slots = backups.iter().filter_map(|b| observe::slot(policy, b));
    let newest = slots.max().max(history.last_attempt);
    let reason = ready_reason(&status.conditions);
    let invalid = [
        reasons::INVALID_SCHEDULE,
        policy_reasons::INVALID_VERIFICATION_SCHEDULE,
    ];
    let standard = fact::standard(Some(policy));
    let folders = backups
        .iter()
        .filter_map(|b| b.status.as_ref()?.folder.as_deref());
    PolicyFacts {
        namespace: policy.namespace().unwrap_or_default(),
        name: policy.name_any(),
        pvc: spec.target.pvc_name.clone(),
        storage: StoreRef::of_policy(policy).key(),
        created: convert::created(&policy.metadata),
        ready: holds(&status.conditions, tidelock_api::READY),
        suspended: spec.suspend,
        suspended_since: suspended_since(policy),
        schedule_invalid: invalid.contains(&reason),
        next_schedule: recorded(&status.next_scheduled_backup),
        overdue_since: lateness::overdue_since(policy, newest, now),
        skipped: status.skipped_slots,
        keep: spec.retention.as_ref().map(|retention| retention.keep_last),
        verifies: standard == Standard::Verified,
        verification_overdue_since: lateness::verification_overdue_since(policy, &facts, now),
        unknown_archives: newest_folder(folders.chain(status.storage.as_deref()))
            .map(|folder| folder.unknown_archives),
        history,
    }
}

fn suspended_since(policy: &BackupPolicy) -> Option<Timestamp> {
    let conditions = &policy.status.as_ref()?.conditions;
    let since = conditions::since(conditions, tidelock_api::SUSPENDED, true)?;
    policy.spec.suspend.then_some(since)
}

fn newest_folder<'a>(folders: impl Iterator<Item = &'a FolderStatus>) -> Option<&'a FolderStatus> {
    folders.max_by_key(|folder| folder.check_time.0)
}

fn history(policy: &BackupPolicy, backups: &[&Backup], facts: &[BackupFact]) -> History {
    let mut history = History::default();
    let standard = fact::standard(Some(policy));
    let mut all: Vec<(&Backup, &BackupFact)> = backups.iter().copied().zip(facts).collect();
    all.sort_by(|(_, a), (_, b)| b.age_order().cmp(&a.age_order()));
    for (backup, fact) in &all {
        history.take(backup, fact, standard);
    }
    let mut ended = all
        .iter()
        .filter(|(backup, _)| convert::is_terminal(phase(backup)));
    if let Some((backup, _)) = ended.clone().next() {
        let failure = backup.status.as_ref().and_then(|s| s.failure.as_ref());
        let failed = phase(backup) == Some(Phase::Failed);
        history.last_ended = Some(!failed);
        history.last_failure = failed.then(|| match failure.map_or("", |f| &f.reason) {
            CANCELLED if is_replaced(backup) => known::REPLACED,
            reason => known::reason(reason),
        });
    }
    // What a person told to end says nothing of what comes next.
    let in_a_row = ended
        .by_ref()
        .filter(|(backup, _)| !is_cancelled(backup) || is_replaced(backup))
        .take_while(|(backup, _)| phase(backup) == Some(Phase::Failed))
        .count();
    history.failures = u32::try_from(in_a_row).unwrap_or(u32::MAX);
    let completed = all
        .iter()
        .find(|(backup, _)| phase(backup) == Some(Phase::Completed));
    history.last = completed.map(|(backup, fact)| last(backup, fact));
    history
}

fn is_cancelled(backup: &Backup) -> bool {
    let failure = backup.status.as_ref().and_then(|s| s.failure.as_ref());
    failure.is_some_and(|failure| failure.reason == CANCELLED)
}

fn is_replaced(backup: &Backup) -> bool {
    fact::replaced_for(backup).is_some()
}

fn phase(backup: &Backup) -> Option<Phase> {
    backup.status.as_ref()?.phase
}

impl History {
    fn take(&mut self, backup: &Backup, fact: &BackupFact, standard: Standard) {
        let status = backup.status.as_ref();
        let run = active::Run {
            meta: &backup.metadata,
            phase: phase(backup),
            started: status.and_then(|status| status.start_time.as_ref()),
            ending: status.and_then(|status| status.ending_since.as_ref()),
            conditions: status.map_or(&[], |status| &status.conditions),
        };
        active::note(&mut self.active, &run);
        self.phases[known::phase_index(run.phase)] += 1;
        if fact.is_active() && known::phase_index(run.phase) == 0 {
            self.waiting
                .push(known::reason(ready_reason(run.conditions)));
        }
        self.last_attempt = self
            .last_attempt
            .max(Some(convert::created(&backup.metadata)));
        if run.phase == Some(Phase::Completed) {
            self.last_success = self.last_success.max(fact.completed_at);
        }
        if !fact.is_stored() {
            return;
        }
        if fact.is_good(standard) {
            self.good += 1;
            self.newest_good = self.newest_good.max(Some(fact.taken()));
        }
        self.suspicious += u32::from(fact.suspicious);
        self.damaged += u32::from(fact.proof == Proof::Refuted);
        if fact.proof == Proof::Verified {
            self.last_verified = self.last_verified.max(fact.proved_at);
        }
        let size = status.and_then(|status| status.size.as_ref());
        self.stored_bytes = self
            .stored_bytes
            .saturating_add(size.map_or(0, |size| size.stored_bytes));
    }
}

fn last(backup: &Backup, fact: &BackupFact) -> Last {
    let status = backup.status.as_ref();
    let size = status.and_then(|status| status.size.as_ref());
    let started = status.and_then(|status| status.start_time.as_ref());
    let took = started.zip(fact.completed_at);
    Last {
        seconds: took.map(|(from, to)| to.duration_since(from.0).as_secs_f64()),
        logical_bytes: size.map(|size| size.logical_bytes),
        stored_bytes: size.map(|size| size.stored_bytes),
        files: size.map(|size| size.files),
        changed_files: size.map(|size| size.changed_files),
        suspicious: fact.suspicious,
    }
}

impl PolicyFacts {
    /// Whether a backup was expected and none has ever completed.
    fn never_run(&self) -> bool {
        let expected = self.overdue_since.is_some() || self.history.last_attempt.is_some();
        expected && !self.suspended && self.history.last_success.is_none()
    }

    fn last(&self) -> Option<&Last> {
        self.history.last.as_ref()
    }
}

/// The metrics of a policy, and how each is read from its facts.
pub const ROWS: &[Row<PolicyFacts>] = &[
    Row::info(metric::POLICY_INFO, |p| {
        vec![p.pvc.clone(), p.storage.clone()]
    }),
    Row::one(metric::POLICY_CREATED, |p| of_time(Some(p.created))),
    Row::one(metric::POLICY_READY, |p| flag(p.ready)),
    Row::one(metric::POLICY_SUSPENDED, |p| flag(p.suspended)),
    Row::one(metric::POLICY_SUSPENDED_SINCE, |p| {
        of_time(p.suspended_since)
    }),
    Row::one(metric::POLICY_SCHEDULE_INVALID, |p| {
        flag(p.schedule_invalid)
    }),
    Row::one(metric::POLICY_NEXT_SCHEDULE, |p| of_time(p.next_schedule)),
    Row::one(metric::POLICY_OVERDUE_SINCE, |p| of_time(p.overdue_since)),
    Row::one(metric::POLICY_SKIPPED_SLOTS, |p| of_count(Some(p.skipped))),
    Row::one(metric::POLICY_NEVER_RUN, |p| flag(p.never_run())),
    Row::one(metric::POLICY_LAST_ATTEMPT, |p| {
        of_time(p.history.last_attempt)
    }),
    Row::one(metric::POLICY_LAST_ATTEMPT_SUCCEEDED, |p| {
        p.history.last_ended.and_then(flag)
    }),
    Row::each(metric::POLICY_LAST_FAILURE, |p| {
        let failure = p.history.last_failure.into_iter();
        failure.map(|reason| (reason, 1.0)).collect()
    }),
    Row::one(metric::POLICY_CONSECUTIVE_FAILURES, |p| {
        Some(p.history.failures.into())
    }),
    Row::one(metric::POLICY_LAST_SUCCESS, |p| {
        of_time(p.history.last_success)
    }),
    Row::one(metric::POLICY_LAST_DURATION, |p| p.last()?.seconds),
    Row::one(metric::POLICY_LAST_LOGICAL, |p| {
        of_count(p.last()?.logical_bytes)
    }),
    Row::one(metric::POLICY_LAST_STORED, |p| {
        of_count(p.last()?.stored_bytes)
    }),
    Row::one(metric::POLICY_LAST_FILES, |p| of_count(p.last()?.files)),
    Row::one(metric::POLICY_LAST_CHANGED_FILES, |p| {
        of_count(p.last()?.changed_files)
    }),
    Row::one(metric::POLICY_LAST_SUSPICIOUS, |p| {
        flag(p.last()?.suspicious)
    }),
    Row::each(metric::POLICY_BACKUPS, |p| {
        let counts = PHASES.into_iter().zip(p.history.phases);
        counts.map(|(phase, count)| (phase, count.into())).collect()
    }),
    Row::one(metric::POLICY_GOOD_BACKUPS, |p| Some(p.history.good.into())),
    Row::one(metric::POLICY_NEWEST_GOOD, |p| {
        of_time(p.history.newest_good)
    }),
    Row::one(metric::POLICY_KEEP_LAST, |p| p.keep.map(f64::from)),
    Row::one(metric::POLICY_SUSPICIOUS_BACKUPS, |p| {
        Some(p.history.suspicious.into())
    }),
    Row::one(metric::POLICY_DAMAGED_BACKUPS, |p| {
        Some(p.history.damaged.into())
    }),
    Row::one(metric::POLICY_STORED, |p| {
        of_count(Some(p.history.stored_bytes))
    }),
    Row::one(metric::POLICY_VERIFIES, |p| flag(p.verifies)),
    Row::one(metric::POLICY_LAST_VERIFIED, |p| {
        of_time(p.history.last_verified)
    }),
    Row::one(metric::POLICY_VERIFICATION_OVERDUE_SINCE, |p| {
        of_time(p.verification_overdue_since)
    }),
    Row::one(metric::POLICY_UNKNOWN_ARCHIVES, |p| {
        of_count(p.unknown_archives)
    }),
    Row::each(metric::POLICY_ACTIVE_SINCE, |p| {
        let known = STATES.into_iter().zip(p.history.active);
        known
            .filter_map(|(state, since)| Some((state, of_time(since)?)))
            .collect()
    }),
    Row::each(metric::POLICY_WAITING, |p| {
        let mut counts = std::collections::BTreeMap::new();
        for reason in &p.history.waiting {
            *counts.entry(*reason).or_insert(0.0) += 1.0;
        }
        counts.into_iter().collect()
    }),
];
