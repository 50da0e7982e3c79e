//! Processor time of the mover beside that of `tar` and `gzip`, on the same tree in the same minute.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use super::lab::Lab;
use crate::run;

/// Runs of each contestant, in turn. The least of them counts: what else runs on the machine only
/// ever adds.
const TURNS: usize = 5;
/// Files of 1 to 32 KiB, and large ones.
const SMALL_FILES: u64 = 500;
const LARGE_FILES: u64 = 2;
const LARGE_BYTES: usize = 12 << 20;
/// What the mover may take of the processor time of `tar | gzip -6`, in percent: well above
/// what it takes (docs/benchmarks.md), and well below what a slower level takes.
const MOST_OF_BACKUP: f64 = 90.0;
/// What the mover may take of the processor time of `gzip -d | tar`, in percent: also
/// well above. It checks the archive first, and digests each file.
const MOST_OF_RESTORE: f64 = 130.0;

/// Compares a backup and a restore, each with its peer.
pub fn check(lab: &Lab) -> Result<()> {
    let bytes = make(&lab.clear("source")?)?;
    let mut backup = Contest::new("backup", "tar | gzip -6", MOST_OF_BACKUP);
    let mut restore = Contest::new("restore", "gzip -d | tar", MOST_OF_RESTORE);
    for _ in 0..TURNS {
        let mut own = 0.0;
        let done = lab.backup(|mover| timed(mover, &mut own))?.backed_up()?;
        let mut peer = 0.0;
        let source = lab.path("source");
        let pack = "tar -C \"$0\" -cf - . | gzip -6 > \"$1\"";
        timed(shell(pack, [&source, &lab.path("peer.tgz")]), &mut peer)?;
        backup.turn(own, peer);
        lab.restore(&done, |mover| timed(mover, &mut own))?;
        let target = lab.clear("target")?;
        let unpack = "gzip -dc \"$1\" | tar -C \"$0\" -xpf -";
        timed(shell(unpack, [&target, &lab.path("peer.tgz")]), &mut peer)?;
        restore.turn(own, peer);
    }
    lab.clear("target")?;
    backup.judge(bytes)?;
    restore.judge(bytes)
}

/// The mover and another tool at the same work.
struct Contest {
    what: &'static str,
    peer: &'static str,
    most_percent: f64,
    own_seconds: f64,
    peer_seconds: f64,
}

impl Contest {
    fn new(what: &'static str, peer: &'static str, most_percent: f64) -> Self {
        Self {
            what,
            peer,
            most_percent,
            own_seconds: f64::INFINITY,
            peer_seconds: f64::INFINITY,
        }
    }

    fn turn(&mut self, own_seconds: f64, peer_seconds: f64) {
        self.own_seconds = self.own_seconds.min(own_seconds);
        self.peer_seconds = self.peer_seconds.min(peer_seconds);
    }

    /// Says what it came to.
    ///
    /// # Errors
    /// When the mover took more than it may.
    fn judge(&self, bytes: u64) -> Result<()> {
        let Self {
            what,
            peer,
            most_percent,
            own_seconds,
            peer_seconds,
        } = self;
        let percent = 100.0 * own_seconds / peer_seconds;
        let per_gb = |seconds: &f64| seconds * 1e9 / bytes as f64;
        let told = format!(
            "processor time of a {what}: {:.1} s for each GB, {percent:.0} % of `{peer}` with {:.1} s",
            per_gb(own_seconds),
            per_gb(peer_seconds)
        );
        if percent <= *most_percent {
            run::say(format!("{told} (at most {most_percent} %)"));
            return Ok(());
        }
        bail!(
            "{told}; at most {most_percent} % are allowed. See what changed in how members are \
             compressed, digested or copied (crates/archive), and what `tidelock-mover --profile` \
             tells of a {what} (docs/benchmarks.md)"
        )
    }
}

fn shell(script: &str, arguments: [&Path; 2]) -> Command {
    let mut shell = run::command("bash", ["-o", "pipefail", "-c", script]);
    shell.args(arguments);
    shell
}

/// Runs a command, and tells the processor time that it and its children took.
fn timed(mut command: Command, seconds: &mut f64) -> Result<Output> {
    let before = of_children()?;
    let output = command
        .output()
        .with_context(|| format!("cannot start `{}`", run::line(&command)))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {error}", run::line(&command));
    }
    *seconds = of_children()? - before;
    Ok(output)
}

/// User and system time of all children that have ended.
fn of_children() -> Result<f64> {
    /// The unit of /proc, on every machine (source: proc_pid_stat(5), USER_HZ).
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold anything; field 3 follows it.
    let fields: Vec<&str> = match stat.rsplit_once(')') {
        Some((_, fields)) => fields.split_whitespace().collect(),
        None => Vec::new(),
    };
    let ticks = |number: usize| fields.get(number - 3).and_then(|field| field.parse().ok());
    let (user, system): (Option<f64>, Option<f64>) = (ticks(16), ticks(17));
    let sum = user.zip(system).map(|(user, system)| user + system);
    Ok(sum.context("the kernel tells no times of children")? / TICKS_PER_SECOND)
}

/// Makes a tree of text, the same each time; gives its size.
fn make(dir: &Path) -> Result<u64> {
    let mut lines = Lines::new();
    let mut bytes = 0;
    for n in 0..SMALL_FILES {
        let folder = dir.join(format!("folder-{:02}", n % 50));
        if n < 50 {
            fs::create_dir(&folder)?;
        }
        let content = lines.text(1024 + usize::try_from(n * 7919 % (31 << 10))?);
        fs::write(folder.join(format!("file-{n}.txt")), &content)?;
        bytes += content.len() as u64;
    }
    for n in 0..LARGE_FILES {
        let content = lines.text(LARGE_BYTES);
        fs::write(dir.join(format!("large-{n}.txt")), &content)?;
        bytes += content.len() as u64;
    }
    Ok(bytes)
}

/// Lines as a program logs them: what repeats is where a compressor can take its time.
struct Lines {
    state: u64,
    messages: Vec<String>,
}

impl Lines {
    fn new() -> Self {
        let mut lines = Self {
            state: 0x9e37_79b9_7f4a_7c15,
            messages: Vec::new(),
        };
        lines.messages = (0..60).map(|_| lines.message()).collect();
        lines
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 20) % limit
    }

    fn message(&mut self) -> String {
        let letters = b"  etaoinshrdlucm";
        let length = 20 + self.below(60);
        let mut letter = || char::from(letters[self.below(16) as usize]);
        (0..length).map(|_| letter()).collect()
    }

    fn text(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 256);
        while text.len() < bytes {
            let (day, hour, minute) = (self.below(30), self.below(24), self.below(60));
            let (micros, host, id) = (self.below(60_000_000), self.below(9), self.below(1 << 30));
            let message = self.below(self.messages.len() as u64) as usize;
            text += &format!(
                r#"{{"time":"2026-11-{day:02}T{hour:02}:{minute:02}:{micros:08}Z","level":"info","host":"node-{host}","message":"{}","id":{id}}}"#,
                self.messages[message]
            );
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(own_seconds: f64) -> Result<()> {
        let mut contest = Contest::new("backup", "tar | gzip -6", 75.0);
        contest.turn(9.0, 10.0);
        contest.turn(own_seconds, 2.0);
        contest.judge(1 << 30)
    }

    #[test]
    fn the_least_of_all_turns_counts() {
        judged(1.4).unwrap();
        let error = judged(1.6).unwrap_err().to_string();
        assert!(error.contains("80 % of `tar | gzip -6`"), "{error}");
    }

    #[test]
    fn time_of_children_grows_with_them() {
        let mut seconds = 0.0;
        let busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        timed(run::command("sh", ["-c", busy]), &mut seconds).unwrap();
        assert!(seconds > 0.0);
    }
}
