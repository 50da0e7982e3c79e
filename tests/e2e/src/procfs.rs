//! What the kernel knows of a process on this machine.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Pid;

/// `USER_HZ`, the same on all that the cluster runs on.
const TICKS_PER_SECOND: u64 = 100;

/// A process's pages in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Most there have been so far (`VmHWM`), in bytes.
    pub peak: u64,
    /// How many there are (`VmRSS`), in bytes.
    pub resident: u64,
}

impl Memory {
    /// Of `process`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(process: Pid) -> Result<Self> {
        let status = read(process, "status")?;
        let bytes = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|text| text.trim().strip_suffix(" kB"));
            let kib: u64 = kib
                .with_context(|| format!("no {name} {status}"))?
                .parse()?;
            Ok(kib * 1024)
        };
        Ok(Self {
            peak: bytes("VmHWM:")?,
            resident: bytes("VmRSS:")?,
        })
    }
}

/// `bytes` in MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// How long `process` has been on a processor so far, to the hundredth of a second.
///
/// # Errors
/// When the process is gone.
pub fn cpu_time(process: Pid) -> Result<Duration> {
    parse_cpu_time(&read(process, "stat")?).context("/proc/…/stat is not as proc(5) says")
}

/// User and system time, the 14th and 15th fields; the second one, the name, may hold anything.
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * 1000 / TICKS_PER_SECOND,
    ))
}

fn read(process: Pid, file: &str) -> Result<String> {
    let path = format!("/proc/{}/{file}", process.as_raw_nonzero());
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_blanks_and_brackets() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 1 0 77 1 2";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_cpu_time("42 (a"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let own = Memory::of(rustix::process::getpid()).unwrap();
        assert!(own.peak >= own.resident && own.resident > 0, "{own:?}");
    }
}
