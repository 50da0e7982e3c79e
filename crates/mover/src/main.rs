//! `tidelock-mover`: one task, one report, one exit code.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use clap::builder::FalseyValueParser;
use rustix::fs::Mode;
use tidelock_mover::{Progress, Watchdog, run_request, tell_progress};
use tidelock_protocol::{
    ExitCode, Failure, FailureReason, Outcome, PathSample, REQUEST_ENV, Report, Request,
    TERMINATION_LOG,
};
use tracing_subscriber::EnvFilter;

/// Moves the bytes of one backup, restore or deletion. The operator runs it in Job pods; run by
/// hand it does the same.
#[derive(Debug, Clone, Parser)]
#[command(version)]
struct Arguments {
    /// The request as JSON in a file, instead of in the environment variable TIDELOCK_REQUEST.
    #[arg(long, value_name = "FILE")]
    request_file: Option<PathBuf>,
    /// Where the report goes.
    #[arg(long, value_name = "FILE", default_value = TERMINATION_LOG)]
    report_file: PathBuf,
    /// Tells at the end, in the log, where the time of each step went: the seconds that each kind of
    /// thread spent in each phase, and which phase the step cannot be faster than.
    #[arg(long, env = "TIDELOCK_PROFILE", value_parser = FalseyValueParser::new())]
    profile: bool,
}

fn main() -> process::ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    // What is stored is shared within its group: the runtime's mask would keep the movers of other
    // users in that group from the folders that this one makes. All others get nothing.
    rustix::process::umask(Mode::RWXO);
    let text = request_text(&arguments);
    let uid = text.as_deref().map_or_else(|_| String::new(), run_uid);
    let outcome = catch_unwind(AssertUnwindSafe(|| match &text {
        Ok(text) => carry_out(text, &arguments),
        Err(error) => failed(FailureReason::InvalidRequest, format!("{error:#}")),
    }))
    .unwrap_or_else(|panic| failed(FailureReason::Internal, panic_message(panic.as_ref())));
    let code = exit_code(&outcome);
    let report = Report::new(uid, outcome);
    let peak_memory_kib = peak_memory_kib();
    match write_report(&arguments, &report) {
        Ok(report) => {
            let code = code.code();
            tracing::info!(report, code, peak_memory_kib, "done");
            process::ExitCode::from(code)
        }
        Err(error) => {
            let error = format!("{error:#}");
            tracing::error!(?report, error, "the report cannot be written");
            process::ExitCode::from(ExitCode::Internal.code())
        }
    }
}

fn request_text(arguments: &Arguments) -> anyhow::Result<String> {
    match &arguments.request_file {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the request file {}", file.display())),
        None => std::env::var(REQUEST_ENV)
            .with_context(|| format!("cannot read the request from {REQUEST_ENV}")),
    }
}

/// The run's UID, also of a request that cannot be carried out.
fn run_uid(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text)
        .ok()
        .and_then(|request| Some(request.pointer("/run/uid")?.as_str()?.to_owned()))
        .unwrap_or_default()
}

fn carry_out(text: &str, arguments: &Arguments) -> Outcome {
    let request = match Request::from_json(text) {
        Ok(request) => request,
        Err(error) => return failed(FailureReason::InvalidRequest, error.to_string()),
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
            let text = format!("cannot handle signal {signal}: {error}");
            return failed(FailureReason::Internal, text);
        }
    }
    let run = &request.run;
    tracing::info!(
        namespace = run.namespace,
        name = run.name,
        uid = run.uid,
        "started"
    );
    let progress = Arc::new(match arguments.profile {
        true => Progress::profiling(),
        false => Progress::default(),
    });
    let watchdog = request.stall_timeout_seconds.map(|seconds| {
        let (arguments, uid) = (arguments.clone(), run.uid.clone());
        let on_stall = move |failure| give_up(&arguments, uid, failure);
        let timeout = Duration::from_secs(seconds.max(1));
        Watchdog::start(Arc::clone(&progress), &request.task, timeout, on_stall)
    });
    tell_progress(&progress, &run.uid);
    let outcome = run_request(&request, &stop, &progress);
    if let Some(watchdog) = watchdog {
        watchdog.end();
    }
    for step in progress.take_profiles() {
        step.to_string()
            .lines()
            .for_each(|line| tracing::info!("profile: {line}"));
    }
    outcome
}

/// Ends the process in place of a run that waits for what does not come.
///
/// # Crash window
/// What the run wrote stays as after a kill, and its next try sweeps it.
fn give_up(arguments: &Arguments, uid: String, failure: Failure) {
    let code = failure.reason.exit_code();
    let report = Report::new(uid, Outcome::Failed(failure));
    match write_report(arguments, &report) {
        Ok(report) => tracing::error!(report, code = code.code(), "stalled"),
        Err(error) => tracing::error!(?report, error = format!("{error:#}"), "stalled"),
    }
    process::exit(code.code().into());
}

fn failed(reason: FailureReason, message: String) -> Outcome {
    Outcome::Failed(Failure {
        reason,
        message,
        paths: PathSample::default(),
        target_touched: None,
        done: None,
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("the mover has a fault, please report it with its log: {text}")
}

fn exit_code(outcome: &Outcome) -> ExitCode {
    match outcome {
        Outcome::Failed(failure) => failure.reason.exit_code(),
        // The operator decides when to try the rest again.
        Outcome::Deleted(report) if report.failed_total > 0 => ExitCode::Permanent,
        _ => ExitCode::Success,
    }
}

/// Leaves the report; gives it as it was written.
fn write_report(arguments: &Arguments, report: &Report) -> anyhow::Result<String> {
    let message = report.to_termination_message()?;
    std::fs::write(&arguments.report_file, &message)
        .with_context(|| format!("cannot write {}", arguments.report_file.display()))?;
    Ok(message)
}

/// The most resident memory that this process had, as the kernel tells it.
fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
