//! Everything that can be known without a cluster.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::chart;
use crate::e2e;
use crate::go;
use crate::host;
use crate::place::Place;
use crate::prometheus;
use crate::run;

const DENY_VERSION: &str = "0.20.2";

/// Format, lints, tests, generated files, the chart, alerts, then licences and sources of what we
/// depend on.
///
/// # Errors
/// Stops at the first that fails, with the command that repairs it where there is one.
pub fn check(place: &Place) -> Result<()> {
    let started = Instant::now();
    // The mover's tests compare with other people's tools.
    host::ensure_packages(place)?;
    step(
        "format",
        &mut cargo(place, &["fmt", "--all", "--check"]),
        "cargo fmt --all",
    )?;
    step(
        "lints",
        &mut cargo(
            place,
            &[
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--",
                "--deny",
                "warnings",
            ],
        ),
        "",
    )?;
    step("lints of the suites run by name", &mut suites(place), "")?;
    step(
        "unit and property tests",
        cargo(place, &["test", "--locked"]).env("TIDELOCK_S3_SERVER", go::ensure_s3_server(place)?),
        "",
    )?;
    generate(place, true)?;
    chart::check(place)?;
    alerts(place)?;
    let deny = ensure_deny(place)?;
    let mut command = Command::new(deny);
    command
        .args(["--workspace", "check", "bans", "licenses", "sources"])
        .current_dir(&place.checkout);
    step("licences, sources and banned crates", &mut command, "")?;
    run::say(format!(
        "check: all good ({} s)",
        started.elapsed().as_secs()
    ));
    Ok(())
}

/// `--all-targets` passes over tests that are not run by default.
fn suites(place: &Place) -> Command {
    let mut command = cargo(place, &["clippy", "--locked", "--package", "tidelock-e2e"]);
    for suite in e2e::SUITES {
        command.args(["--test", suite]);
    }
    command.args(["--", "--deny", "warnings"]);
    command
}

/// Writes the generated files, or only compares them.
pub fn generate(place: &Place, only_check: bool) -> Result<()> {
    let mut command = cargo(
        place,
        &["run", "--quiet", "--package", "tidelock-generate", "--"],
    );
    if only_check {
        command.arg("--check");
    }
    step("generated files", &mut command, "make generate")?;
    chart::install_manifest(place, only_check)
}

/// What the alerts do in the worlds of `tests/alerts`, by Prometheus' own tool.
fn alerts(place: &Place) -> Result<()> {
    let promtool = prometheus::ensure(place)?.promtool();
    let rules = place.checkout.join("deploy/alerts.yaml");
    let mut check = run::command(&promtool, ["check", "rules"]);
    step("rules of the alerts", check.arg(&rules), "")?;
    let mut tests: Vec<PathBuf> = fs::read_dir(place.checkout.join("tests/alerts"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    // The folder beside them holds rules that some of them are about.
    tests.retain(|path| path.is_file());
    tests.sort();
    let mut test = run::command(&promtool, ["test", "rules"]);
    step("tests of the alerts", test.args(&tests), "")
}

fn cargo(place: &Place, arguments: &[&str]) -> Command {
    let mut command = run::command("cargo", arguments);
    command
        .current_dir(&place.checkout)
        .env("CARGO_TARGET_DIR", &place.target);
    command
}

fn step(what: &str, command: &mut Command, repair: &str) -> Result<()> {
    run::say(format!("{what}: {}", run::line(command)));
    let started = Instant::now();
    let result = run::visible(command);
    if result.is_ok() {
        run::say(format!("{what}: ok ({} s)", started.elapsed().as_secs()));
    }
    result.with_context(|| match repair {
        "" => format!("{what}: see above"),
        repair => format!("{what}: `{repair}` repairs it"),
    })
}

/// Builds cargo-deny once, outside the checkout.
fn ensure_deny(place: &Place) -> Result<PathBuf> {
    let root = place.cache.join(format!("cargo-deny-{DENY_VERSION}"));
    let program = root.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    let mut command = Command::new("cargo");
    command
        .args([
            "install",
            "cargo-deny",
            "--locked",
            "--version",
            DENY_VERSION,
        ])
        // It runs for seconds: a quick build matters more than a quick program.
        .args(["--profile", "dev", "--root"])
        .arg(&root)
        .current_dir(&place.checkout)
        .env("CARGO_TARGET_DIR", root.join("target"))
        .env("CARGO_PROFILE_DEV_DEBUG", "false");
    run::logged(
        &format!("cargo install cargo-deny {DENY_VERSION} (once, some minutes)"),
        &mut command,
        &place.cache.join("logs/cargo-deny.log"),
    )?;
    std::fs::remove_dir_all(root.join("target"))?;
    Ok(program)
}
