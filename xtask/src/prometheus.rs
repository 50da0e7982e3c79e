//! Debian's Prometheus: promtool for the alerts' tests, and the server for the stories.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host;
use crate::place::Place;
use crate::run;

const PACKAGE: &str = "prometheus";

/// The programs of the package.
pub struct Programs(PathBuf);

impl Programs {
    /// Tests and checks rules.
    pub fn promtool(&self) -> PathBuf {
        self.0.join("usr/bin/promtool")
    }

    /// The server.
    pub fn server(&self) -> PathBuf {
        self.0.join("usr/bin/prometheus")
    }
}

/// Downloads the package once and unpacks it into the cache. It is not installed: that would start
/// a service on this machine.
///
/// # Errors
/// When there is no `apt-get`, or it does not know the package.
pub fn ensure(place: &Place) -> Result<Programs> {
    let programs = Programs(place.cache.join("debian-prometheus"));
    if programs.promtool().exists() && programs.server().exists() {
        return Ok(programs);
    }
    if !host::has_program("apt-get") || !host::has_program("dpkg-deb") {
        bail!(
            "promtool tests the alerts, and there is no apt-get to download Debian's package \
             {PACKAGE}; put promtool and prometheus into {}",
            programs.0.join("usr/bin").display()
        );
    }
    // Unpacked beside its place and renamed, so that half of it is never taken for the whole.
    let work = place.cache.join("debian-prometheus.part");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(work.join("root"))?;
    let log = place.cache.join("logs/apt-prometheus.log");
    let mut update = run::command("apt-get", ["update"]);
    run::logged("apt-get update", &mut update, &log)?;
    let mut download = Command::new("apt-get");
    download.args(["download", PACKAGE]).current_dir(&work);
    run::logged(&format!("apt-get download {PACKAGE}"), &mut download, &log)?;
    let package = fs::read_dir(&work)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .with_context(|| format!("apt-get left no package in {}", work.display()))?;
    let mut unpack = run::command("dpkg-deb", ["--extract"]);
    unpack.arg(package).arg(work.join("root"));
    run::output(&mut unpack)?;
    if programs.0.exists() {
        fs::remove_dir_all(&programs.0)?;
    }
    fs::rename(work.join("root"), &programs.0)?;
    fs::remove_dir_all(&work)?;
    Ok(programs)
}
