//! Running other programs: quiet when they work, complete when they fail.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{IsTerminal, Read, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a wait looks again at what it waits for.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How many lines of a failed program's output go into the error.
const SHOWN_LINES: usize = 40;

/// Prints a line about what happens now.
pub fn say(text: impl AsRef<str>) {
    print(format!("[tidelock] {}", text.as_ref()));
}

/// Prints a line; a reader that has gone away must not end the work half way.
pub fn print(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stdout(), "{}", text.as_ref());
}

/// The command line, for messages.
pub fn line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// Builds a command in one expression.
pub fn command<I, S>(program: impl AsRef<OsStr>, args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Runs a command and returns what it printed; its complaint is in the error.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = line(command);
    let result = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !result.status.success() {
        bail!(
            "`{shown}` failed ({}): {}",
            result.status,
            String::from_utf8_lossy(&result.stderr).trim()
        );
    }
    String::from_utf8(result.stdout).with_context(|| format!("`{shown}` printed no UTF-8"))
}

/// Whether a command succeeds, without its output.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command on the caller's terminal.
pub fn visible(command: &mut Command) -> Result<()> {
    let shown = line(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs a long command with its output in a log file and the elapsed time on the terminal.
///
/// # Errors
/// The end of the log is in the error.
pub fn logged(what: &str, command: &mut Command, log: &Path) -> Result<()> {
    if let Some(parent) = log.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let shown = line(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let progress = Progress::start(what);
    let status: ExitStatus = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        progress.tick();
        thread::sleep(POLL_INTERVAL);
    };
    if !status.success() {
        progress.end("failed");
        bail!(
            "`{shown}` failed ({status}); its whole output is in {}:\n{}",
            log.display(),
            tail(log, SHOWN_LINES)
        );
    }
    progress.end("done");
    Ok(())
}

/// Looks at `ready` until it is true.
///
/// # Errors
/// Names what was waited for when `deadline` passes, or returns the error of `ready` at once.
pub fn wait_for(
    what: &str,
    deadline: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let progress = Progress::start(&format!("waiting for {what}"));
    loop {
        match ready() {
            Ok(true) => {
                progress.end("ok");
                return Ok(());
            }
            Ok(false) => {}
            Err(error) => {
                progress.end("failed");
                return Err(error);
            }
        }
        if progress.started.elapsed() > deadline {
            progress.end("timed out");
            bail!("{what}: not ready after {} s", deadline.as_secs());
        }
        progress.tick();
        thread::sleep(POLL_INTERVAL);
    }
}

/// The last lines of a file, or a note that it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let mut text = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut text)) {
        Ok(_) => {
            let text = String::from_utf8_lossy(&text);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({} cannot be read: {error})", path.display()),
    }
}

/// One line that shows what is going on and for how long.
struct Progress {
    what: String,
    started: Instant,
    terminal: bool,
    shown: std::cell::Cell<u64>,
}

impl Progress {
    /// Between lines when the output is not a terminal, in seconds.
    const QUIET_SECONDS: u64 = 20;

    fn start(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            started: Instant::now(),
            terminal: std::io::stdout().is_terminal(),
            shown: std::cell::Cell::new(0),
        }
    }

    fn tick(&self) {
        let seconds = self.started.elapsed().as_secs();
        if self.terminal {
            if seconds != self.shown.replace(seconds) {
                let mut out = std::io::stdout();
                let _ = write!(out, "\r[tidelock] {} … {seconds} s", self.what);
                let _ = out.flush();
            }
        } else if seconds >= self.shown.get() + Self::QUIET_SECONDS {
            self.shown.set(seconds);
            say(format!("{} … {seconds} s", self.what));
        }
    }

    fn end(&self, how: &str) {
        if self.terminal {
            let _ = write!(std::io::stdout(), "\r");
        }
        say(format!(
            "{}: {how} ({:.1} s)",
            self.what,
            self.started.elapsed().as_secs_f64()
        ));
    }
}
