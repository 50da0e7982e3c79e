//! Processes that outlive the command that starts them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::layout::{Cluster, Node};
use crate::run;

/// A process to run inside a node's network namespace.
pub struct Daemon<'a> {
    /// Name of its log and of its process file.
    pub name: String,
    /// Whose network it sees; `None` for the machine's own.
    pub network: Option<&'a Node>,
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// A killed process is gone at once, unless it hangs in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A daemon that was started: which process it is, and how to start it again.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Started {
    pid: u32,
    /// In clock ticks after boot, from `/proc/<pid>/stat`: a number is used again.
    start_time: u64,
    /// The node whose network it sees.
    node: Option<u8>,
    argv: Vec<String>,
}

/// Puts itself into the cluster's cgroup first, so that it can never be lost, then becomes the
/// daemon in a session of its own.
const LAUNCH: &str = r#"echo $$ > "$0" && exec setsid "$@""#;

impl Cluster {
    /// Starts a daemon; its end shows in [`Cluster::dead_daemons`].
    pub fn start(&self, daemon: &Daemon<'_>) -> Result<()> {
        let log_path = self.logs().join(format!("{}.log", daemon.name));
        fs::create_dir_all(self.logs())?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", LAUNCH])
            .arg(cgroup::daemon_procs(&self.group())?);
        if let Some(node) = daemon.network {
            command
                .arg("nsenter")
                .arg(format!("--net={}", node.network_file().display()));
        }
        let child = command
            .args(&daemon.argv)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", daemon.name))?;
        let pid = child.id();
        let started = Started {
            pid,
            start_time: start_time(pid)
                .with_context(|| format!("{} ended as it started", daemon.name))?,
            node: daemon.network.map(|node| node.number),
            argv: daemon.argv.clone(),
        };
        fs::create_dir_all(self.dir.join("run"))?;
        fs::write(
            self.process_file(&daemon.name),
            serde_json::to_vec(&started)?,
        )?;
        Ok(())
    }

    fn process_file(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(format!("{name}.json"))
    }

    /// Names of the daemons that were started and run no longer.
    pub fn dead_daemons(&self) -> Vec<String> {
        self.daemons()
            .into_iter()
            .filter(|name| !self.is_running(name))
            .collect()
    }

    /// Names of the daemons that were started.
    pub fn daemons(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.dir.join("run")) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some(name.strip_suffix(".json")?.to_owned())
            })
            .collect();
        names.sort();
        names
    }

    fn is_running(&self, name: &str) -> bool {
        self.started(name)
            .is_some_and(|started| start_time(started.pid) == Some(started.start_time))
    }

    fn started(&self, name: &str) -> Option<Started> {
        serde_json::from_slice(&fs::read(self.process_file(name)).ok()?).ok()
    }

    /// Starts a daemon that has ended once more, as it was started before.
    pub fn restart_daemon(&self, name: &str) -> Result<()> {
        let Some(started) = self.started(name) else {
            bail!("{name} was never started");
        };
        if self.is_running(name) {
            return Ok(());
        }
        self.start(&Daemon {
            name: name.to_owned(),
            network: started.node.map(|number| self.node(number)).as_ref(),
            argv: started.argv,
        })
    }

    /// Ends one daemon as a crash would, for tests of what follows.
    pub fn kill_daemon(&self, name: &str) -> Result<()> {
        let pid = self
            .started(name)
            .filter(|_| self.is_running(name))
            .and_then(|started| Pid::from_raw(started.pid.cast_signed()))
            .with_context(|| format!("{name} does not run"))?;
        kill_process(pid, Signal::KILL).with_context(|| format!("cannot end {name}"))?;
        run::wait_for(&format!("{name} to be gone"), KILL_DEADLINE, || {
            Ok(!self.is_running(name))
        })
    }

    /// Fails with the end of the log when a daemon has ended.
    pub fn require_daemons(&self) -> Result<()> {
        if let Some(name) = self.dead_daemons().first() {
            let log = self.logs().join(format!("{name}.log"));
            bail!(
                "{name} has ended; the end of {}:\n{}",
                log.display(),
                run::tail(&log, 20)
            );
        }
        Ok(())
    }
}

/// When a process started, or nothing when it is gone or only waits to be reaped.
fn start_time(pid: u32) -> Option<u64> {
    parse_start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field is the program's name in brackets and may hold anything.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // Field 22 of the whole line; the state is field 3.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_has_a_start_time() {
        assert!(start_time(std::process::id()).is_some());
    }

    #[test]
    fn a_zombie_does_not_run() {
        let stat = "7 (a) Z b) Z 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse_start_time(stat), None);
        assert_eq!(
            parse_start_time(&stat.replace(") Z 1", ") S 1")),
            Some(4242)
        );
    }
}
