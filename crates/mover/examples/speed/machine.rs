//! What it is measured on, and beside which versions.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use tidelock_benchmarks::Machine;

/// This machine, with the file system that `dir` is on.
pub(crate) fn machine(dir: &Path) -> Result<Machine> {
    let memory_kib: u64 = value_of("/proc/meminfo", "MemTotal")?
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse().ok())
        .context("/proc/meminfo tells no MemTotal")?;
    let mut df = Command::new("df");
    let file_system = said(df.arg("--output=fstype").arg(dir))?;
    Ok(Machine {
        processor: value_of("/proc/cpuinfo", "model name")?,
        cores: thread::available_parallelism().map_or(1, NonZero::get),
        memory_mib: memory_kib / 1024,
        kernel: kernel()?,
        file_system: file_system
            .lines()
            .last()
            .unwrap_or_default()
            .trim()
            .to_owned(),
    })
}

/// The release without what a distribution or a host adds to it.
fn kernel() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let numbers = release.trim().split('-').next().unwrap_or_default();
    Ok(numbers.to_owned())
}

/// What programs say of their version, by their names.
pub(crate) fn programs(
    all: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<BTreeMap<String, String>> {
    let of = |(name, program): (&str, String)| {
        let version = match name {
            "restic" => "version",
            _ => "--version",
        };
        let told = said(Command::new(&program).arg(version))?;
        let first = told.lines().next().unwrap_or_default();
        // kopia's ends with a place for a revision, which a module has none of.
        let first = first.split(" build:").next().unwrap_or(first).trim();
        let told = match first.contains(name) {
            true => first.to_owned(),
            false => format!("{name} {first}"),
        };
        Ok((name.to_owned(), told))
    };
    all.into_iter().map(of).collect()
}

/// Output of a command; some tell their version among errors.
fn said(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
    let both = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&both).into_owned())
}

/// The first value of that name in a file of lines with a colon.
fn value_of(file: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(file)?;
    let value = text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    });
    value.with_context(|| format!("{file} tells no {name}"))
}
