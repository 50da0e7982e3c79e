//! What is told of one Restore.

use jiff::Timestamp;
use kube::ResourceExt;
use tidelock_api::{Phase, Restore};

use crate::convert;
use crate::telemetry::metrics::active::{self, STATES};
use crate::telemetry::metrics::known::{self, PHASES};
use crate::telemetry::metrics::row::{Row, flag, of_count, of_time};
use crate::telemetry::metrics::table as metric;

/// What is told of one Restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    pvc: String,
    created: Timestamp,
    phase: usize,
    failure: Option<&'static str>,
    active: Option<(usize, Timestamp)>,
    ended: Option<Timestamp>,
    superseded: bool,
    seconds: Option<f64>,
    bytes: Option<i64>,
    files: Option<i64>,
}

/// What is told of `restore`; `filled` is when the youngest Restore that has filled the same claim
/// was made.
pub fn observe(restore: &Restore, filled: Option<Timestamp>) -> RestoreFacts {
    let status = restore.status.clone().unwrap_or_default();
    let run = active::Run {
        meta: &restore.metadata,
        phase: status.phase,
        started: status.start_time.as_ref(),
        ending: status.ending_since.as_ref(),
        conditions: &status.conditions,
    };
    let took = status
        .start_time
        .as_ref()
        .zip(status.completion_time.as_ref());
    RestoreFacts {
        namespace: restore.namespace().unwrap_or_default(),
        name: restore.name_any(),
        pvc: target(restore).unwrap_or_default().to_owned(),
        created: convert::created(&restore.metadata),
        phase: known::phase_index(status.phase),
        failure: failure(restore),
        active: active::state(&run),
        ended: status.completion_time.as_ref().map(|time| time.0),
        superseded: filled.is_some_and(|at| at > convert::created(&restore.metadata)),
        seconds: took.map(|(from, to)| to.0.duration_since(from.0).as_secs_f64()),
        bytes: status.restored_bytes,
        files: status.restored_files,
    }
}

/// Why a Restore failed; none for a dry run, whose target nobody waits for.
fn failure(restore: &Restore) -> Option<&'static str> {
    let status = restore.status.as_ref()?;
    let failed = status.phase == Some(Phase::Failed) && !restore.spec.dry_run;
    let reason = status.failure.as_ref().map_or("", |f| &f.reason);
    failed.then(|| known::reason(reason))
}

/// The claim that a Restore is to fill.
pub fn target(restore: &Restore) -> Option<&str> {
    let spec = &restore.spec;
    let template = spec.target_template.as_ref();
    let named = spec.target_pvc.as_ref();
    named
        .or_else(|| template.map(|template| &template.metadata.name))
        .map(String::as_str)
}

/// The claim that a Restore has filled, where it has.
pub fn filled(restore: &Restore) -> Option<&str> {
    let phase = restore.status.as_ref().and_then(|status| status.phase);
    let wrote = phase == Some(Phase::Completed) && !restore.spec.dry_run;
    target(restore).filter(|_| wrote)
}

/// The metrics of a restore, and how each is read from its facts.
pub const ROWS: &[Row<RestoreFacts>] = &[
    Row::info(metric::RESTORE_INFO, |r| vec![r.pvc.clone()]),
    Row::one(metric::RESTORE_CREATED, |r| of_time(Some(r.created))),
    Row::each(metric::RESTORE_PHASE, |r| vec![(PHASES[r.phase], 1.0)]),
    Row::each(metric::RESTORE_FAILURE, |r| {
        let failure = r.failure.into_iter();
        failure.map(|reason| (reason, 1.0)).collect()
    }),
    Row::each(metric::RESTORE_ACTIVE_SINCE, |r| {
        let active = r.active.into_iter();
        active
            .filter_map(|(state, since)| Some((STATES[state], of_time(Some(since))?)))
            .collect()
    }),
    Row::one(metric::RESTORE_ENDED, |r| of_time(r.ended)),
    Row::one(metric::RESTORE_SUPERSEDED, |r| flag(r.superseded)),
    Row::one(metric::RESTORE_DURATION, |r| r.seconds),
    Row::one(metric::RESTORE_WRITTEN, |r| of_count(r.bytes)),
    Row::one(metric::RESTORE_FILES, |r| of_count(r.files)),
];
