//! Measures the mover's speed beside that of other people's tools:
//! `cargo run --profile dist -p tidelock-mover --example speed`.
//!
//! For each tree, format, contest and state of the caches, every contestant runs in turn, `--runs`
//! times, every other time in the opposite order. All of them make what they write durable. Needs
//! root, to empty the page cache. What a session measures can be chosen; with `--json` results of
//! several sessions come together in a file, of which `cargo xtask generate` makes tables.

mod bucket;
mod contest;
mod contestants;
mod machine;
mod place;
mod trees;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail, ensure};
use clap::{Parser, ValueEnum};
use tidelock_benchmarks::{Cache, Contest, Format};
use tidelock_mover::{Progress, run_request};
use tidelock_protocol::{Outcome, Request};

use crate::bucket::Bucket;
use crate::contest::Session;
use crate::contestants::Peer;
use crate::place::{Place, content_bytes, remove};
use crate::trees::{NEEDLE, Shape};

/// Environment variable that makes this program the measured process.
const CHILD_ENV: &str = "TIDELOCK_SPEED_REQUEST";
/// Environment variable that makes it tell where its time goes.
const PROFILE_ENV: &str = "TIDELOCK_PROFILE";

/// Options that take several values take them with commas, and mean all when they are not given.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which trees.
    #[arg(long, value_enum, value_delimiter = ',')]
    shape: Vec<Shape>,
    /// A tree that is there already, instead.
    #[arg(long, conflicts_with = "shape")]
    tree: Option<PathBuf>,
    /// Percent of the full size.
    #[arg(long, default_value_t = 100)]
    percent: u64,
    /// Turns.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Of the mover's archives, and of what it is measured beside.
    #[arg(long, value_enum, value_delimiter = ',')]
    format: Vec<Format>,
    /// What is to be done.
    #[arg(long, value_enum, value_delimiter = ',')]
    contest: Vec<Contest>,
    /// What is in the page cache before.
    #[arg(long, value_enum, value_delimiter = ',')]
    cache: Vec<Cache>,
    /// Who is measured beside the mover.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Peer>,
    /// Who is not.
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Peer>,
    /// The program restic; without it, restic does not take part.
    #[arg(long)]
    restic: Option<PathBuf>,
    /// The program kopia; without it, kopia does not take part.
    #[arg(long)]
    kopia: Option<PathBuf>,
    /// The program rclone; without it, rclone does not take part.
    #[arg(long)]
    rclone: Option<PathBuf>,
    /// A file that results are added to, in place of what it holds of the same.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where trees and archives are made; removed afterwards.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Lets the mover run once more after all turns, and tell where its time goes.
    #[arg(long)]
    profile: bool,
}

fn main() -> Result<()> {
    if let Ok(request) = std::env::var(CHILD_ENV) {
        return child(&request);
    }
    let arguments = Arguments::parse();
    ensure!(arguments.runs > 0, "--runs must be at least 1");
    let session = Session::new(&arguments)?;
    if let Some(tree) = &arguments.tree {
        let contests = chosen(&arguments.contest);
        return measure(&session, &tree.display().to_string(), tree, &contests);
    }
    for shape in chosen(&arguments.shape) {
        let mut contests = chosen(&arguments.contest);
        contests.retain(|contest| shape.contests().contains(contest));
        if contests.is_empty() {
            continue;
        }
        let source = arguments.dir.join(format!("tidelock-speed-{shape:?}"));
        remove(&source)?;
        fs::create_dir_all(&source)?;
        eprintln!("making {shape:?} …");
        shape.make(&source, arguments.percent)?;
        let name = match arguments.percent {
            100 => format!("{shape:?}"),
            percent => format!("{shape:?} at {percent} %"),
        };
        measure(&session, &name, &source, &contests)?;
        remove(&source)?;
    }
    Ok(())
}

/// What was asked for, or everything.
fn chosen<T: ValueEnum>(some: &[T]) -> Vec<T> {
    match some {
        [] => T::value_variants().to_vec(),
        some => some.to_vec(),
    }
}

/// Measures all contests of one tree.
fn measure(session: &Session, name: &str, source: &Path, contests: &[Contest]) -> Result<()> {
    let arguments = session.arguments;
    let content_bytes = content_bytes(source)?;
    for format in chosen(&arguments.format) {
        let place = Place {
            source: source.to_owned(),
            out: arguments.dir.join("tidelock-speed-out"),
            target: arguments.dir.join("tidelock-speed-target"),
            format,
            restic: arguments.restic.clone(),
            kopia: arguments.kopia.clone(),
            rclone: arguments.rclone.clone(),
            bucket: Bucket::of(&arguments.dir, contests)?,
        };
        place.clear()?;
        for contest in contests {
            let is_in_bucket = matches!(contest, Contest::Upload | Contest::Download);
            if is_in_bucket && place.bucket.is_none() {
                continue;
            }
            if *contest == Contest::OneFile && !source.join(NEEDLE).exists() {
                eprintln!("{name} has no file {NEEDLE} to take out");
                continue;
            }
            for cache in chosen(&arguments.cache) {
                session.hold(&place, name, content_bytes, *contest, cache)?;
            }
        }
        remove(&place.out)?;
        remove(&place.target)?;
    }
    Ok(())
}

/// The measured process.
fn child(request: &str) -> Result<()> {
    let progress = Arc::new(match std::env::var_os(PROFILE_ENV) {
        Some(_) => Progress::profiling(),
        None => Progress::default(),
    });
    let outcome = run_request(
        &Request::from_json(request)?,
        &AtomicBool::new(false),
        &progress,
    );
    for step in progress.take_profiles() {
        eprintln!("{step}");
    }
    match outcome {
        Outcome::BackedUp(report) => {
            let told = (report.digest, report.stored_bytes);
            println!("{}", serde_json::to_string(&told)?);
        }
        Outcome::Restored(_) => {}
        other => bail!("it ended as {other:?}"),
    }
    Ok(())
}
