//! Measures the mover's speed beside that of other people's tools:
//! `cargo run --profile dist -p tidelock-mover --example speed`.
//!
//! For each tree, every contestant runs in turn with cold caches, `--runs` times; printed are the
//! medians, and how much faster the mover is than each of the others, as the median of the ratios
//! within a turn. All of them make what they write durable. Needs root, to empty the page cache.

mod contestants;
mod trees;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use tidelock_mover::{Progress, run_request};
use tidelock_protocol::{
    BackupTask, Effect, ExpectedArchive, Household, Location, Outcome, Overwrite, PROTOCOL_VERSION,
    Request, RestoreTask, RunId, StorageTarget, Task, VerificationLevel,
};

use crate::contestants::{Contestant, Form, Run};
use crate::trees::{NEEDLE, Shape};

/// Environment variable that makes this program the measured process.
const CHILD_ENV: &str = "TIDELOCK_SPEED_REQUEST";
/// Environment variable that makes it tell where its time goes.
const PROFILE_ENV: &str = "TIDELOCK_PROFILE";
const UID: &str = "measured";

#[derive(Debug, Parser)]
struct Arguments {
    /// Which trees; S, M, L and D by default.
    #[arg(long, value_enum)]
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
    #[arg(long, value_enum, default_value_t = Form::TarGz)]
    format: Form,
    /// Where trees and archives are made; removed afterwards.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Tells where the mover's time goes, after each of its runs.
    #[arg(long)]
    profile: bool,
}

fn main() -> Result<()> {
    if let Ok(request) = std::env::var(CHILD_ENV) {
        return child(&request);
    }
    let arguments = Arguments::parse();
    ensure!(arguments.runs > 0, "--runs must be at least 1");
    if let Some(tree) = &arguments.tree {
        return measure(&arguments, &tree.display().to_string(), tree);
    }
    let shapes = match arguments.shape.as_slice() {
        [] => Shape::value_variants(),
        some => some,
    };
    for shape in shapes {
        let source = arguments.dir.join(format!("tidelock-speed-{shape:?}"));
        remove(&source)?;
        fs::create_dir_all(&source)?;
        eprintln!("making {shape:?} …");
        shape.make(&source, arguments.percent)?;
        measure(&arguments, &format!("{shape:?}"), &source)?;
        remove(&source)?;
    }
    Ok(())
}

fn measure(arguments: &Arguments, name: &str, source: &Path) -> Result<()> {
    let place = Place {
        source: source.to_owned(),
        out: arguments.dir.join("tidelock-speed-out"),
        target: arguments.dir.join("tidelock-speed-target"),
        form: arguments.format,
        profile: arguments.profile,
    };
    println!("\n{name}, backup\n");
    contest(arguments.runs, &place, place.form.backups())?;
    println!("\n{name}, restore\n");
    contest(arguments.runs, &place, place.form.restores())?;
    if source.join(NEEDLE).exists() {
        println!("\n{name}, one file\n");
        contest(arguments.runs, &place, place.form.singles())?;
    }
    remove(&place.out)?;
    remove(&place.target)
}

/// Lets all run in turn, and prints a table.
fn contest(runs: usize, place: &Place, all: &[Contestant]) -> Result<()> {
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
    let mut cpu = vec![Vec::new(); all.len()];
    for turn in 0..runs {
        for (at, contestant) in all.iter().enumerate() {
            place.prepare(contestant)?;
            eprintln!("turn {} of {runs}: {}", turn + 1, contestant.name);
            let (wall, used) = place.run(contestant)?;
            seconds[at].push(wall);
            cpu[at].push(used);
        }
    }
    println!("| | seconds | processor seconds | mover is faster by | stored |");
    println!("|---|---|---|---|---|");
    for (at, contestant) in all.iter().enumerate() {
        let ratios = seconds[at]
            .iter()
            .zip(&seconds[0])
            .map(|(other, own)| other / own);
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {} |",
            contestant.name,
            median(seconds[at].clone()),
            median(cpu[at].clone()),
            median(ratios.collect()),
            place.stored(contestant)?
        );
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Place {
    source: PathBuf,
    out: PathBuf,
    target: PathBuf,
    form: Form,
    profile: bool,
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn location() -> Result<Location> {
    Ok(Location::new("bench", "data", "speed")?)
}

impl Place {
    fn backup(&self, verification: VerificationLevel) -> Result<Task> {
        Ok(Task::Backup(BackupTask {
            source_path: text(&self.source),
            location: location()?,
            format: self.form.into(),
            pvc_name: "data".into(),
            policy_name: None,
            verification,
            household: Household::default(),
        }))
    }

    fn restore(&self, paths: Vec<String>) -> Result<Task> {
        let report: (String, i64) =
            serde_json::from_slice(&fs::read(self.out.join("report.json"))?)?;
        Ok(Task::Restore(RestoreTask {
            target_path: text(&self.target),
            location: location()?,
            expected: ExpectedArchive {
                digest: report.0,
                stored_bytes: u64::try_from(report.1)?,
                backup_uid: UID.into(),
            },
            overwrite: Overwrite::Never,
            effect: Effect::Write,
            paths,
            read_back: false,
            allow_metadata_loss: false,
        }))
    }

    /// Removes what a run made before, and empties the page cache.
    fn prepare(&self, contestant: &Contestant) -> Result<()> {
        remove(&self.target)?;
        fs::create_dir_all(&self.target)?;
        fs::create_dir_all(&self.out)?;
        if contestant.makes_archive {
            remove(&self.out.join("bench"))?;
        }
        rustix::fs::sync();
        fs::write("/proc/sys/vm/drop_caches", "3").context("the page cache cannot be emptied")
    }

    fn run(&self, contestant: &Contestant) -> Result<(f64, f64)> {
        let mut command = match &contestant.run {
            Run::Shell(script) => {
                let mut shell = Command::new("bash");
                shell.args(["-o", "pipefail", "-c", script]);
                shell.env("SOURCE", &self.source).env("OUT", &self.out);
                shell
                    .env("NEEDLE", NEEDLE)
                    .env("TARGET", &self.target)
                    .env("ARCHIVE", self.out.join(self.form.own()));
                shell
            }
            Run::Mover(task) => {
                let mut own = Command::new(std::env::current_exe()?);
                own.env(CHILD_ENV, self.request(task(self)?)?);
                if self.profile {
                    own.env(PROFILE_ENV, "1");
                }
                own
            }
        };
        let before = children_seconds();
        let start = Instant::now();
        let output = command.output()?;
        let wall = start.elapsed().as_secs_f64();
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {error}", contestant.name);
        if self.profile && matches!(contestant.run, Run::Mover(_)) {
            eprint!("{error}");
        }
        if contestant.makes_archive {
            fs::write(self.out.join("report.json"), &output.stdout)?;
        }
        Ok((wall, children_seconds() - before))
    }

    fn request(&self, task: Task) -> Result<String> {
        let request = Request {
            version: PROTOCOL_VERSION,
            run: RunId {
                namespace: "bench".into(),
                name: "speed".into(),
                uid: UID.into(),
            },
            storage: StorageTarget::Directory {
                path: text(&self.out),
            },
            stall_timeout_seconds: None,
            task,
        };
        Ok(request.to_json()?)
    }

    /// How many bytes the contestant's archive has.
    fn stored(&self, contestant: &Contestant) -> Result<u64> {
        Ok(fs::metadata(self.out.join(contestant.archive.unwrap_or(self.form.own())))?.len())
    }
}

fn children_seconds() -> f64 {
    // In clock ticks of 10 ms: user and system time of children that have ended.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = after
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    (fields.get(13).unwrap_or(&0.0) + fields.get(14).unwrap_or(&0.0)) / 100.0
}

fn remove(path: &Path) -> Result<()> {
    ensure!(Command::new("rm").arg("-rf").arg(path).status()?.success());
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
