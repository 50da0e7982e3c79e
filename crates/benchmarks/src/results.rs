//! What is kept of each measurement: every turn as it was, so that medians can be made anew.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The contestant whom all others are measured against.
pub const MOVER: &str = "the mover";
/// The mover when it reads back what it wrote, as it does unless told otherwise.
pub const READING_BACK: &str = "the mover, reading back";

/// Everything that was measured on one machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// Where it was measured; none before anything was.
    pub machine: Option<Machine>,
    /// What took part, each with what it says of its version.
    pub programs: BTreeMap<String, String>,
    /// At most one for each tree, contest, format, state of the caches and contestant.
    pub records: Vec<Record>,
}

/// The machine, as far as it matters for speed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// What the processor calls itself.
    pub processor: String,
    /// How many processors the mover may use.
    pub cores: usize,
    /// All of its memory.
    pub memory_mib: u64,
    /// Release of Linux.
    pub kernel: String,
    /// Of the folder that trees and archives were in.
    pub file_system: String,
}

/// One contestant in one contest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Name of the tree, with its percentage where that is not 100.
    pub tree: String,
    /// What was to be done.
    pub contest: Contest,
    /// Of the mover's archive.
    pub format: Format,
    /// What was in the page cache before.
    pub cache: Cache,
    /// Who did it; [`MOVER`] or a command.
    pub contestant: String,
    /// The day it was measured, as in 2026-11-26.
    pub day: String,
    /// Sum of the sizes of the tree's files, holes included.
    pub content_bytes: u64,
    /// Size of all that a backup made; none for other contests.
    pub stored_bytes: Option<u64>,
    /// Of that the mover's archive alone, without its index and manifest; none for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<u64>,
    /// One for each time that it ran.
    pub turns: Vec<Turn>,
    /// What the mover could not be faster than, one line for each of its steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// What was asked of the object store in one run more, and how often; none without one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, u64>,
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// From its start until all that it wrote was durable.
    pub seconds: f64,
    /// User and system time of all of its processes.
    pub cpu_seconds: f64,
    /// The peak of resident memory of its largest process.
    pub peak_memory_kib: u64,
    /// How many times as long as the mover in the same turn it took.
    pub against_mover: f64,
}

/// What contestants do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Contest {
    /// Make an archive of a tree.
    Backup,
    /// Make the tree of an archive.
    Restore,
    /// Take one small file out of an archive.
    OneFile,
    /// Make an archive of a tree in a bucket.
    Upload,
    /// Make the tree of an archive in a bucket.
    Download,
}

/// The form of the mover's archive, and of those that are measured beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A tar stream compressed by gzip.
    TarGz,
    /// A tar stream compressed by zstd.
    TarZst,
}

/// What is in the page cache when a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Nothing.
    Cold,
    /// All that is to be read, as it was read once before.
    Warm,
}

impl Contest {
    /// In headings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "Backup",
            Self::Restore => "Restore",
            Self::OneFile => "One file",
            Self::Upload => "Backup to a bucket",
            Self::Download => "Restore from a bucket",
        }
    }
}

impl Format {
    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TarGz => "TarGz",
            Self::TarZst => "TarZst",
        }
    }
}

impl Cache {
    /// In headings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

impl Results {
    /// Reads a file of results; one that is not there holds none.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        serde_json::from_str(&text)
            .with_context(|| format!("{} holds no results of `speed`", path.display()))
    }

    /// Adds what was measured to a file of results, in place of what it holds of the same.
    ///
    /// # Errors
    /// When the file holds results of another machine, or cannot be read or written.
    pub fn add_to(self, path: &Path) -> Result<()> {
        let mut all = Self::read(path)?;
        match (&all.machine, &self.machine) {
            (Some(there), Some(here)) if there != here => bail!(
                "{} was measured on another machine ({there:?}; this is {here:?}); give another \
                 file, or remove it",
                path.display()
            ),
            _ => all.merge(self),
        }
        let partial = path.with_extension("partial");
        let text = serde_json::to_string_pretty(&all)? + "\n";
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn merge(&mut self, newer: Self) {
        self.machine = newer.machine.or(self.machine.take());
        self.programs.extend(newer.programs);
        for record in newer.records {
            match self.records.iter_mut().find(|old| old.is_of(&record)) {
                Some(old) => *old = record,
                None => self.records.push(record),
            }
        }
    }
}

impl Record {
    fn is_of(&self, other: &Self) -> bool {
        (&self.tree, self.contest, self.format, self.cache)
            == (&other.tree, other.contest, other.format, other.cache)
            && self.contestant == other.contestant
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(tree: &str, contestant: &str, against_mover: &[f64]) -> Record {
        let turn = |ratio: &f64| Turn {
            seconds: 2.0 * ratio,
            cpu_seconds: 3.0,
            peak_memory_kib: 2048,
            against_mover: *ratio,
        };
        Record {
            tree: tree.into(),
            contest: Contest::Backup,
            format: Format::TarGz,
            cache: Cache::Cold,
            contestant: contestant.into(),
            day: "2026-11-26".into(),
            content_bytes: 1_500_000_000,
            stored_bytes: Some(1_000_000),
            archive_bytes: None,
            turns: against_mover.iter().map(turn).collect(),
            limits: Vec::new(),
            requests: BTreeMap::new(),
        }
    }

    fn machine(cores: usize) -> Machine {
        Machine {
            processor: "one".into(),
            cores,
            memory_mib: 1024,
            kernel: "6.1".into(),
            file_system: "ext4".into(),
        }
    }

    fn results(cores: usize, records: Vec<Record>) -> Results {
        Results {
            machine: Some(machine(cores)),
            programs: BTreeMap::new(),
            records,
        }
    }

    #[test]
    fn what_is_measured_again_replaces_what_was_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("tidelock-results-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let first = [record("S", MOVER, &[1.0]), record("S", "gzip", &[2.0])];
        results(2, first.to_vec()).add_to(&path).unwrap();
        let again = [record("M", MOVER, &[1.0]), record("S", "gzip", &[3.0])];
        results(2, again.to_vec()).add_to(&path).unwrap();
        let all = Results::read(&path).unwrap();
        assert_eq!(
            all.records,
            [first[0].clone(), again[1].clone(), again[0].clone()]
        );
        let error = results(4, Vec::new()).add_to(&path).unwrap_err();
        assert!(error.to_string().contains("another machine"), "{error}");
        assert_eq!(Results::read(&path).unwrap(), all);
        fs::remove_file(&path).unwrap();
    }
}
