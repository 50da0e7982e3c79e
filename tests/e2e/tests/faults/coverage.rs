//! Whether every write that the code can make was struck on both sides.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use tidelock_api::{DATA_FINALIZER, POLICY_FINALIZER, RESTORE_FINALIZER};
use tidelock_e2e::effect::Effect;
use tidelock_e2e::proxy::{Fault, Side};
use tidelock_operator::job::RunKind;
use tidelock_operator::rbac::PERMISSIONS;

use crate::case::Expected;
use crate::scenario::Scenario;
use crate::sites;

const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// Where the operator was killed.
#[derive(Default)]
pub struct Struck(BTreeSet<Fault>);

impl Struck {
    /// A kill that happened.
    pub fn note(&mut self, fault: &Fault) {
        self.0.insert(fault.clone());
    }

    /// Asserts that each permission to write, each function that writes, each kind of Job, each
    /// finalizer's coming and going, and each write that was ever seen, was struck on both sides.
    pub fn covers_the_code(&self, expected: &BTreeMap<Scenario, Expected>) -> Result<()> {
        let mut missing = Vec::new();
        for side in [Side::Before, Side::After] {
            for (name, is_it) in of_the_code() {
                let here = |fault: &Fault| fault.side == side && is_it(&fault.effect);
                if !self.0.iter().any(here) {
                    missing.push(format!("just {side} {name}"));
                }
            }
            for effect in expected.values().flat_map(|expected| &expected.effects) {
                let effect = effect.clone();
                let fault = Fault { effect, side };
                if !self.0.contains(&fault) {
                    missing.push(fault.to_string());
                }
            }
        }
        for change in sites::differences()? {
            missing.push(format!("around {change}"));
        }
        if !missing.is_empty() {
            bail!(
                "the operator was never killed\n  {}\nA write that no scenario brings about needs \
                 one in tests/e2e/tests/faults/scenario.rs, and a line in sites.rs; a permission that nothing uses goes \
                 from crates/operator/src/rbac.rs.",
                missing.join("\n  ")
            );
        }
        Ok(())
    }
}

type Matches = Box<dyn Fn(&Effect) -> bool>;

/// What the operator can do, by its own tables.
fn of_the_code() -> Vec<(String, Matches)> {
    let mut all: Vec<(String, Matches)> = Vec::new();
    for permission in PERMISSIONS {
        // No request is made on this subresource: admission asks whether one could be.
        if permission.resource.ends_with("/finalizers") {
            continue;
        }
        for &verb in permission.verbs {
            if WRITES.contains(&verb) {
                let name = format!("{verb} {} (rbac.rs)", permission.resource);
                let is_it = move |effect: &Effect| {
                    effect.verb == verb
                        && effect.group == permission.group
                        && effect.resource == permission.resource
                };
                all.push((name, Box::new(is_it)));
            }
        }
    }
    let mut kind = next(None);
    while let Some(of) = kind {
        let mark = format!("({})", of.as_str());
        let name = format!("create jobs {mark} (RunKind)");
        let is_it = move |effect: &Effect| {
            effect.resource == "jobs" && effect.verb == "create" && effect.detail.ends_with(&mark)
        };
        all.push((name, Box::new(is_it)));
        kind = next(kind);
    }
    for (resource, finalizer) in [
        ("backups", DATA_FINALIZER),
        ("backuppolicies", POLICY_FINALIZER),
        ("restores", RESTORE_FINALIZER),
    ] {
        for (what, comes) in [("add", true), ("remove", false)] {
            let is_it = move |effect: &Effect| {
                effect.resource == resource
                    && effect.detail.contains("metadata.finalizers=[")
                    && effect.detail.contains(finalizer) == comes
            };
            all.push((format!("{what} finalizer {finalizer}"), Box::new(is_it)));
        }
    }
    for site in sites::SITES {
        let is_it = |effect: &Effect| effect.to_string().starts_with(site.effect);
        all.push((format!("{} ({})", site.effect, site.place), Box::new(is_it)));
    }
    all
}

/// The kinds of Job one after the other. A new kind does not compile here, and then needs a
/// scenario.
fn next(kind: Option<RunKind>) -> Option<RunKind> {
    match kind {
        None => Some(RunKind::Backup),
        Some(RunKind::Backup) => Some(RunKind::Restore),
        Some(RunKind::Restore) => Some(RunKind::Delete),
        Some(RunKind::Delete) => Some(RunKind::Undo),
        Some(RunKind::Undo) => Some(RunKind::Verify),
        Some(RunKind::Verify) => Some(RunKind::Check),
        Some(RunKind::Check) => None,
    }
}
