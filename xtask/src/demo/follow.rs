//! Watching the operator's Events.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::stage::Stage;

/// The operator's own Events, one line each.
const WATCH: &str = "kubectl get events --watch \\\n  \
    --field-selector reportingComponent=tidelock.dev/operator \\\n  \
    --output go-template-file=xtask/src/demo/events.tmpl";

/// A watch that goes on behind the story, so that no Event is missed between two looks.
pub struct Follower {
    child: Child,
    lines: Receiver<String>,
    shown: bool,
}

/// One Event.
pub struct Told {
    /// Its reason.
    pub reason: String,
    /// `Kind/name`.
    pub object: String,
}

impl Follower {
    /// Begins to watch.
    pub fn start(stage: &Stage<'_>) -> Result<Self> {
        let mut child = stage
            .shell(&format!("exec {WATCH}"))
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start bash")?;
        let stdout = child.stdout.take().context("bash has no output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            shown: false,
        })
    }

    /// Shows Events until one is what is waited for.
    ///
    /// # Errors
    /// At once when the operator tells of a failure, when the watch ends, and when `deadline`
    /// passes.
    pub fn until(
        &mut self,
        stage: &Stage<'_>,
        what: &str,
        deadline: Duration,
        mut arrived: impl FnMut(&Told) -> bool,
    ) -> Result<()> {
        if self.shown {
            stage.tell("(The watch of Events goes on.)");
        } else {
            stage.print_command(WATCH);
            self.shown = true;
        }
        let ends = Instant::now() + deadline;
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no sign of {what} after {} s", deadline.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the watch of Events ended while waiting for {what}")
                }
            };
            stage.print_output(&line);
            let Some(told) = Told::parse(&line) else {
                bail!("the watch of Events complains: {line}");
            };
            if arrived(&told) {
                return Ok(());
            }
            if told.reason.ends_with("Failed") {
                bail!("the operator reports a failure: {line}");
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Told {
    /// Reads a line of `events.tmpl`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let time = words.next()?;
        let is_time = time.len() == 8 && time.bytes().filter(|byte| *byte == b':').count() == 2;
        Some(Self {
            reason: words.next().filter(|_| is_time)?.to_owned(),
            object: words.next()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_and_a_complaint_is_not_taken_for_one() {
        let told = Told::parse("07:41:06  BackupCompleted   Backup/a-1  Backup completed").unwrap();
        assert_eq!(told.reason, "BackupCompleted");
        assert_eq!(told.object, "Backup/a-1");
        assert!(Told::parse("error: the server is gone").is_none());
    }
}
