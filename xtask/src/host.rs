//! What this machine must have before a cluster can run on it.

use std::env;
use std::process::Command;

use anyhow::{Result, bail};

use crate::place::Place;
use crate::run;

/// Debian packages of the cluster, the images and the end-to-end tests.
const PACKAGES: &[&str] = &[
    "acl",
    "age",
    "attr",
    "busybox-static",
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "coreutils",
    "curl",
    "diffutils",
    "e2fsprogs",
    "findutils",
    "iproute2",
    "iptables",
    "jq",
    "libarchive-tools",
    "libfaketime",
    "mount",
    "openssl",
    "python3",
    "runc",
    "sqlite3",
    "tar",
    "util-linux",
    "zstd",
];

/// What the mover's speed is measured beside, and what measures it.
const PEERS: &[&str] = &["gzip", "isal", "pigz", "tar", "time", "zstd"];

/// Stops with a clear message unless this process may make namespaces and mounts.
pub fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the test cluster makes network namespaces, mounts and cgroups, which needs root; \
             run the same command again with `sudo -E` or as root"
        );
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the test cluster runs on Linux on x86_64 only");
    }
    Ok(())
}

/// Whether a program can be found.
pub fn has_program(name: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

/// Installs the Debian packages that are missing.
///
/// # Errors
/// Lists what to install by hand when there is no `apt-get`, or it fails.
pub fn ensure_packages(place: &Place) -> Result<()> {
    ensure(place, PACKAGES)
}

/// Installs the Debian packages of the tools that the mover is measured beside.
///
/// # Errors
/// As [`ensure_packages`].
pub fn ensure_peers(place: &Place) -> Result<()> {
    ensure(place, PEERS)
}

fn ensure(place: &Place, wanted: &'static [&'static str]) -> Result<()> {
    let missing = missing_packages(wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !has_program("apt-get") {
        bail!(
            "these packages are missing and there is no apt-get to install them: {list}; \
             install what your distribution calls them (containerd 1.6 or 1.7, runc 1.1, the \
             CNI plugins in /usr/lib/cni) and try again"
        );
    }
    require_root()?;
    run::say(format!("Debian packages to install: {list}"));
    let hint = |error: anyhow::Error| {
        error.context(format!(
            "cannot install packages; try it by hand: apt-get update && apt-get install {list}"
        ))
    };
    apt("apt-get update", &["update"], &[], place).map_err(hint)?;
    apt(
        &format!("apt-get install ({} packages)", missing.len()),
        &["install", "--yes", "--no-install-recommends"],
        &missing,
        place,
    )
    .map_err(hint)
}

fn apt(what: &str, args: &[&str], packages: &[&str], place: &Place) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args(args)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run::logged(what, &mut command, &place.cache.join("logs/apt.log"))
}

fn missing_packages(wanted: &'static [&'static str]) -> Vec<&'static str> {
    // Fails when it does not know a package, and still prints the others.
    let printed = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    missing_of(wanted, &printed)
}

fn missing_of<'a>(wanted: &[&'a str], printed: &str) -> Vec<&'a str> {
    wanted
        .iter()
        .copied()
        .filter(|package| {
            !printed
                .lines()
                .any(|line| line.split_once(' ') == Some((package, "installed")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_of_which_only_settings_are_left_is_missing() {
        let printed = "acl installed\nrunc config-files\n";
        assert_eq!(
            missing_of(&["acl", "runc", "tar"], printed),
            ["runc", "tar"]
        );
    }
}
