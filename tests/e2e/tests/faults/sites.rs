//! Where the operator's source writes, found in the source itself: a new call there fails the
//! test until a scenario brings it about.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A function that writes: its file below the operator's sources, its name, and how its effect
/// begins.
pub struct Site {
    /// `file.rs function`.
    pub place: &'static str,
    /// The beginning of `Effect`'s text.
    pub effect: &'static str,
}

const fn site(place: &'static str, effect: &'static str) -> Site {
    Site { place, effect }
}

/// Every function that writes. One that serves several kinds, or steps of which each has a crash
/// window of its own, has a line for each.
pub const SITES: &[Site] = &[
    site(
        "backup/mod.rs claim",
        "patch backups now metadata.finalizers=[tidelock.dev/data]",
    ),
    site(
        "finalizers.rs set",
        "patch backups now metadata.finalizers=[]",
    ),
    site("policy/retention.rs delete_judged", "delete backups "),
    site(
        "policy/release.rs disown",
        "patch backups waits metadata.ownerReferences",
    ),
    site("policy/mod.rs ensure_backup", "create backups "),
    site("storage/discovery.rs ensure", "create backups now"),
    site(
        "storage/report.rs write_as_of",
        "update backupstorages/status ",
    ),
    site("finalizers.rs set", "patch backuppolicies "),
    site(
        "policy/retention.rs patch_judged",
        "patch backups earlier metadata.annotations.tidelock.dev/replaced-for spec.cancel",
    ),
    site("policy/report.rs write", "update backuppolicies/status "),
    site("finalizers.rs set", "patch restores "),
    site("restore/run.rs prepare", "create persistentvolumeclaims "),
    site(
        "run/effects.rs ensure_expiry",
        "patch jobs now-backup spec.ttlSecondsAfterFinished",
    ),
    site("run/effects.rs ensure_job", "create jobs "),
    site(
        "run/effects.rs ensure_job",
        "create jobs back-restore-undo-last (Undo)",
    ),
    site("run/effects.rs ensure_job_stopped", "delete jobs "),
    site("run/status.rs write", "update backups/status "),
    site(
        "run/status.rs write",
        "update backups/status now Running Stopping",
    ),
    site(
        "run/status.rs write",
        "update backups/status now Running TakingBack",
    ),
    site("run/status.rs write", "update restores/status "),
    site(
        "run/status.rs write",
        "update restores/status back Running Stopping",
    ),
    site(
        "run/status.rs write",
        "update restores/status back (leaving) Running Stopping",
    ),
    site(
        "run/status.rs write",
        "update restores/status back Running TakingBack",
    ),
    site(
        "run/status.rs write",
        "update restores/status back (leaving) Running TakingBack",
    ),
    site("telemetry/events.rs tell", "create events "),
];

/// Functions whose writes are disturbed elsewhere: `tests/leader.rs` kills, stops and cuts off who
/// writes the Lease.
const ELSEWHERE: &[&str] = &["leader.rs send"];

/// How the client's writing methods are called.
const CALLS: [&str; 8] = [
    ".create(",
    ".patch(",
    ".patch_status(",
    ".patch_metadata(",
    ".replace_status(",
    ".delete(",
    ".delete_collection(",
    ".evict(",
];

/// What is in the source and not in [`SITES`], and the other way round.
pub fn differences() -> Result<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/operator/src");
    let mut found = BTreeSet::new();
    let mut left = vec![root.clone()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path)?;
            left.extend(
                entries
                    .collect::<Result<Vec<_>, _>>()?
                    .iter()
                    .map(|e| e.path()),
            );
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            writing_functions(&root, &path, &mut found)?;
        }
    }
    let sites = SITES.iter().map(|site| site.place);
    let known = sites.chain(ELSEWHERE.iter().copied());
    let known: BTreeSet<String> = known.map(str::to_owned).collect();
    let unknown = found.difference(&known);
    let mut told: Vec<String> = unknown
        .map(|new| format!("{new} (writes, not in SITES)"))
        .collect();
    let gone = known.difference(&found);
    told.extend(gone.map(|old| format!("{old} (in SITES, writes no more)")));
    Ok(told)
}

fn writing_functions(root: &Path, path: &PathBuf, found: &mut BTreeSet<String>) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = path.strip_prefix(root)?.to_string_lossy();
    let mut function = "";
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("//") {
            continue;
        }
        if let Some(name) = function_name(line) {
            function = name;
        }
        if CALLS.iter().any(|call| line.contains(call)) {
            found.insert(format!("{file} {function}"));
        }
    }
    Ok(())
}

/// The name in a line that begins a function.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let qualifiers = ["pub", "pub(crate)", "pub(super)", "async", "const", ""];
    let begins = before.split(' ').all(|word| qualifiers.contains(&word));
    begins.then(|| after.split(['(', '<']).next())?
}

#[test]
fn every_function_that_writes_is_known() -> Result<()> {
    let unknown = differences()?;
    anyhow::ensure!(unknown.is_empty(), "{unknown:?}");
    Ok(())
}

#[test]
fn a_function_is_known_by_its_first_line() {
    assert_eq!(function_name("pub async fn tell<K>(&self"), Some("tell"));
    assert_eq!(function_name("async fn claim(a: u8) {"), Some("claim"));
    assert_eq!(function_name("let f = take(fn of())"), None);
}
