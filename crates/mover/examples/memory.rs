//! Measures the mover's peak memory: `cargo run --profile dist -p tidelock-mover --example memory`.
//!
//! For each shape of tree it makes so many files, backs them up and restores them, each in a
//! process of its own that runs what the mover runs, and prints a table for docs/benchmarks.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use tidelock_mover::run_request;
use tidelock_protocol::{
    BackupTask, Effect, ExpectedArchive, Format, Household, Location, Outcome, Overwrite,
    PROTOCOL_VERSION, Request, RestoreTask, RunId, StorageTarget, Task, VerificationLevel,
};

/// Environment variable that makes this program the measured process.
const CHILD_ENV: &str = "TIDELOCK_MEMORY_REQUEST";

#[derive(Debug, Parser)]
struct Arguments {
    /// How many files.
    #[arg(long, default_value_t = 100_000)]
    files: u64,
    /// Which shapes of tree; all by default.
    #[arg(long, value_enum)]
    shape: Vec<Shape>,
    /// Of the archives.
    #[arg(long, value_enum, default_value_t = Form::TarGz)]
    format: Form,
    /// Where trees and archives are made; removed afterwards.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Fails when a peak is above this.
    #[arg(long, default_value_t = 64)]
    limit_mib: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// 100 files of 100 bytes to 8 KiB in each directory.
    Spread,
    /// All files in one directory.
    Flat,
    /// Each directory holds one file and the next directory, 5,000 deep, in as many chains as
    /// needed; a tenth of the files.
    Deep,
    /// Each file has a second name in another directory.
    Linked,
    /// Files of 64 MiB, half of them noise; one for 10,000 files.
    Large,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    TarGz,
    TarZst,
}

impl From<Form> for Format {
    fn from(form: Form) -> Self {
        match form {
            Form::TarGz => Self::TarGz,
            Form::TarZst => Self::TarZst,
        }
    }
}

/// What one measured process did.
struct Measured {
    outcome: Outcome,
    peak_kib: u64,
    seconds: f64,
}

fn main() -> anyhow::Result<()> {
    if let Ok(request) = std::env::var(CHILD_ENV) {
        return child(&request);
    }
    let arguments = Arguments::parse();
    let shapes = match arguments.shape.as_slice() {
        [] => Shape::value_variants(),
        some => some,
    };
    println!("| tree | files | run | peak memory | time |");
    println!("|---|---|---|---|---|");
    let mut highest = 0;
    for shape in shapes {
        highest = highest.max(measure_shape(&arguments, *shape)?);
    }
    if highest > arguments.limit_mib * 1024 {
        bail!(
            "the peak of {highest} KiB is above {} MiB",
            arguments.limit_mib
        );
    }
    Ok(())
}

/// Backs up and restores one tree; gives the higher peak.
fn measure_shape(arguments: &Arguments, shape: Shape) -> anyhow::Result<u64> {
    let dir = arguments
        .dir
        .join(format!("tidelock-memory-{}", std::process::id()));
    let clean = || Command::new("rm").arg("-rf").arg(&dir).status();
    clean()?;
    for name in ["source", "storage", "target"] {
        fs::create_dir_all(dir.join(name))?;
    }
    build(&dir.join("source"), shape, arguments.files)?;
    let location = Location::new("bench", "data", "memory")?;
    let text = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let backup = measure(
        &dir,
        Task::Backup(BackupTask {
            recipients: Vec::new(),
            lock: None,
            source_path: text("source"),
            location: location.clone(),
            format: arguments.format.into(),
            pvc_name: "data".into(),
            policy_name: None,
            verification: VerificationLevel::Full,
            household: Household::default(),
        }),
    )?;
    let Outcome::BackedUp(report) = &backup.outcome else {
        bail!("the backup ended as {:?}", backup.outcome);
    };
    let restore = measure(
        &dir,
        Task::Restore(RestoreTask {
            identities_path: None,
            target_path: text("target"),
            location,
            expected: ExpectedArchive {
                digest: report.digest.clone(),
                stored_bytes: report.stored_bytes,
                backup_uid: "measured".into(),
            },
            overwrite: Overwrite::Never,
            effect: Effect::Write,
            paths: Vec::new(),
            read_back: false,
            allow_metadata_loss: false,
        }),
    )?;
    if !matches!(restore.outcome, Outcome::Restored(_)) {
        bail!("the restore ended as {:?}", restore.outcome);
    }
    for (name, run) in [("backup", &backup), ("restore", &restore)] {
        println!(
            "| {shape:?} | {} | {name} | {:.1} MiB | {:.1} s |",
            report.files,
            run.peak_kib as f64 / 1024.0,
            run.seconds
        );
    }
    clean()?;
    Ok(backup.peak_kib.max(restore.peak_kib))
}

/// Carries a task out in a process of its own.
fn measure(dir: &Path, task: Task) -> anyhow::Result<Measured> {
    let request = Request {
        version: PROTOCOL_VERSION,
        run: RunId {
            namespace: "bench".into(),
            name: "memory".into(),
            uid: "measured".into(),
        },
        storage: StorageTarget::Directory {
            path: dir.join("storage").to_string_lossy().into_owned(),
        },
        limits: Default::default(),
        stall_timeout_seconds: None,
        task,
    };
    let start = Instant::now();
    let output = Command::new(std::env::current_exe()?)
        .env(CHILD_ENV, request.to_json()?)
        .output()?;
    let seconds = start.elapsed().as_secs_f64();
    let text = String::from_utf8(output.stdout)?;
    let (peak, outcome) = text
        .split_once('\n')
        .with_context(|| format!("the measured process said {text:?}"))?;
    Ok(Measured {
        outcome: serde_json::from_str(outcome)?,
        peak_kib: peak.parse()?,
        seconds,
    })
}

/// The measured process: prints its peak resident memory in KiB and its outcome.
fn child(request: &str) -> anyhow::Result<()> {
    let outcome = run_request(
        &Request::from_json(request)?,
        &AtomicBool::new(false),
        &Arc::default(),
    );
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("the kernel tells no peak memory")?;
    println!("{peak}\n{}", serde_json::to_string(&outcome)?);
    Ok(())
}

fn build(root: &Path, shape: Shape, files: u64) -> anyhow::Result<()> {
    let content: Vec<u8> = (0..8192_u32).map(|n| (n * 31 % 97) as u8).collect();
    let write = |path: PathBuf, n: u64| {
        let size = 100 + usize::try_from(n * 7919 % 8000).unwrap_or(0);
        fs::write(path, &content[..size])
    };
    match shape {
        Shape::Spread | Shape::Linked => {
            for n in 0..files {
                let dir = root.join(format!("{:03}/{:05}", n / 10_000, n / 100));
                if n % 100 == 0 {
                    fs::create_dir_all(&dir)?;
                }
                let path = dir.join(format!("file-{n:07}.txt"));
                write(path.clone(), n)?;
                if shape == Shape::Linked {
                    let twin = root.join(format!("twin/{:05}", n / 100));
                    if n % 100 == 0 {
                        fs::create_dir_all(&twin)?;
                    }
                    fs::hard_link(path, twin.join(format!("{n:07}")))?;
                }
            }
        }
        Shape::Flat => {
            for n in 0..files {
                write(root.join(format!("file-{n:07}.txt")), n)?;
            }
        }
        Shape::Deep => chains(root, files / 10)?,
        Shape::Large => large(root, files / 10_000)?,
    }
    Ok(())
}

fn large(root: &Path, files: u64) -> anyhow::Result<()> {
    let mut state = 1_u64;
    let mut piece = vec![0; 1 << 20];
    for n in 0..files {
        let mut file = fs::File::create(root.join(format!("{n}")))?;
        for _ in 0..64 {
            for (at, byte) in piece.iter_mut().enumerate() {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let noise = (state >> 24) as u8;
                // Half of it takes letters in little-varied order, as text does.
                *byte = if n % 2 == 0 || at % 8 == 0 {
                    noise
                } else {
                    b'a' + (at % 23) as u8
                };
            }
            std::io::Write::write_all(&mut file, &piece)?;
        }
    }
    Ok(())
}

/// Chains of 5,000 directories, deeper than any path that the kernel takes at once.
fn chains(root: &Path, files: u64) -> anyhow::Result<()> {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = rustix::fs::open(root, flags, Mode::empty())?;
    for n in 0..files {
        if n % 5000 == 0 {
            dir = rustix::fs::open(root, flags, Mode::empty())?;
        }
        let name = format!("d{}", n / 5000);
        mkdirat(&dir, &name, Mode::RWXU)?;
        dir = openat(&dir, &name, flags, Mode::empty())?;
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let file = openat(&dir, "file", create, Mode::RUSR | Mode::WUSR)?;
        std::io::Write::write_all(&mut fs::File::from(file), b"content")?;
    }
    Ok(())
}
