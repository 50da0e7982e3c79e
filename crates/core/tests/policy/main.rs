//! What a policy does, told as what happens to it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod decisions;
mod walks;

use jiff::Timestamp;
use tidelock_core::Phase;
use tidelock_core::fact::{BackupFact, Proof, Standard};
use tidelock_core::policy::{Concurrency, PolicyFacts};
use tidelock_core::retention::Rule;
use tidelock_core::schedule::Schedule;

fn at(text: &str) -> Timestamp {
    format!("2026-11-23T{text}Z").parse().unwrap()
}

fn schedule(expression: &str) -> Schedule {
    Schedule::parse(expression, None, "", at("00:00:00")).unwrap()
}

fn facts(schedule: &Schedule) -> PolicyFacts<'_> {
    PolicyFacts {
        schedule,
        created: at("01:30:00"),
        dealt_with_until: None,
        made: None,
        starts_afresh: false,
        suspend: false,
        concurrency: Concurrency::Forbid,
        starting_deadline: None,
        keep: None,
        backups: &[],
    }
}

fn keep(keep_last: u32) -> Option<Rule> {
    Some(Rule {
        keep_last,
        standard: Standard::Completed,
    })
}

fn fact(name: &str, taken_at: Timestamp, phase: Option<Phase>) -> BackupFact {
    BackupFact {
        name: name.to_owned(),
        phase,
        leaving: false,
        taken_at,
        there_by: None,
        completed_at: None,
        proof: Proof::Unknown,
        proved_at: None,
        suspicious: false,
        storage: "backup-storage".to_owned(),
        holdings: None,
        locked_until: None,
    }
}

fn backup(name: &str, taken_at: &str, phase: Option<Phase>) -> BackupFact {
    fact(name, at(taken_at), phase)
}
