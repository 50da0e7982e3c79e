//! The cluster's cgroups: they say which processes are ours, whoever started them and however
//! that one ended.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const MOUNT: &str = "/sys/fs/cgroup";
/// Where the daemons run, below the cluster's group.
const DAEMONS: &str = "daemons";
/// Killing is a matter of milliseconds; a process that hangs in the kernel should be reported.
const KILL_DEADLINE: Duration = Duration::from_secs(20);

/// The roots of all hierarchies: a single one in cgroup v2; in v1 one for each controller, and
/// beside them often a v2 one without controllers, in which runc makes groups too.
fn roots() -> Result<Vec<PathBuf>> {
    let mount = Path::new(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return Ok(vec![mount.to_owned()]);
    }
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(mount).with_context(|| format!("cannot list {MOUNT}"))? {
        // `cpu` and `cpuacct` may be links to `cpu,cpuacct`.
        let path = fs::canonicalize(entry?.path())?;
        if path.join("cgroup.procs").exists() {
            found.insert(path);
        }
    }
    if found.is_empty() {
        bail!("no cgroups are mounted below {MOUNT}");
    }
    Ok(found.into_iter().collect())
}

/// Makes the group under every controller.
pub fn ensure(group: &str) -> Result<()> {
    let is_extra = |root: &PathBuf| {
        root.join("cgroup.controllers").exists() && root.as_path() != Path::new(MOUNT)
    };
    for root in roots()?.into_iter().filter(|root| !is_extra(root)) {
        let mut path = root.clone();
        for part in Path::new(group) {
            let parent = path.clone();
            path.push(part);
            if !path.exists() {
                fs::create_dir(&path)
                    .with_context(|| format!("cannot make the cgroup {}", path.display()))?;
            }
            // Version 1 starts a group with no processor and no memory node at all.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if parent.join(file).exists() && !root.join("cgroup.controllers").exists() {
                    fs::write(path.join(file), fs::read(parent.join(file))?)?;
                }
            }
            // Version 2 hands controllers down only when told to.
            let controllers = parent.join("cgroup.controllers");
            if controllers.exists() {
                for name in fs::read_to_string(&controllers)?.split_whitespace() {
                    fs::write(parent.join("cgroup.subtree_control"), format!("+{name}"))?;
                }
            }
        }
    }
    Ok(())
}

/// Makes a group whose processes are ended when together they take more than so many bytes of
/// memory, page cache and all, and cannot be swapped out.
pub fn limit_memory(group: &str, bytes: u64) -> Result<()> {
    ensure(group)?;
    let folder = memory_folder(group);
    let is_v2 = folder.join("memory.max").exists();
    let (limit, swap, swap_bytes) = match is_v2 {
        true => ("memory.max", "memory.swap.max", 0),
        // In version 1, the second limit is one of memory and swap together.
        false => (
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            bytes,
        ),
    };
    fs::write(folder.join(limit), bytes.to_string())
        .with_context(|| format!("cannot limit the memory of {}", folder.display()))?;
    // Kernels that do not count swap have no such file.
    if folder.join(swap).exists() {
        fs::write(folder.join(swap), swap_bytes.to_string())?;
    }
    Ok(())
}

/// The command, run as a member of the limited group.
pub fn with_memory_of(group: &str, command: &Command) -> Command {
    let mut inside = Command::new("/bin/sh");
    inside
        .args(["-c", r#"echo $$ > "$0" && exec "$@""#])
        .arg(memory_folder(group).join("cgroup.procs"))
        .arg(command.get_program())
        .args(command.get_args());
    inside
}

/// The group's folder in the hierarchy that counts memory.
fn memory_folder(group: &str) -> PathBuf {
    let mount = Path::new(MOUNT);
    let root = match mount.join("cgroup.controllers").exists() {
        true => mount.to_owned(),
        false => mount.join("memory"),
    };
    root.join(group)
}

/// The file that a daemon writes itself into before it starts.
pub fn daemon_procs(group: &str) -> Result<PathBuf> {
    let root = identifying_root()?;
    let path = root.join(group).join(DAEMONS);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path.join("cgroup.procs"))
}

/// The hierarchy that tells whose a daemon is; `pids` because no limit of ours depends on it.
fn identifying_root() -> Result<PathBuf> {
    let roots = roots()?;
    roots
        .iter()
        .find(|root| root.ends_with("pids"))
        .or(roots.first())
        .cloned()
        .context("a cgroup hierarchy exists")
}

/// All processes in the group and below, in any hierarchy.
pub fn processes(group: &str) -> Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for root in roots()? {
        for folder in folders(&root.join(group)) {
            if let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) {
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            }
        }
    }
    // Zero stands for a process outside our PID namespace.
    found.remove(&0);
    Ok(found)
}

/// Ends every process of the group, and returns how many there were.
///
/// # Guarantees
/// A process is only killed while it is a member: the handle is taken before membership is read,
/// so a reused process number cannot hit a stranger.
pub fn kill_all(group: &str) -> Result<usize> {
    let started = Instant::now();
    let mut killed = BTreeSet::new();
    loop {
        let members = processes(group)?;
        if members.is_empty() {
            return Ok(killed.len());
        }
        if started.elapsed() > KILL_DEADLINE {
            bail!("processes {members:?} of cgroup {group} do not end");
        }
        for number in members {
            if kill_member(number, group) {
                killed.insert(number);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill_member(number: i32, group: &str) -> bool {
    let Some(pid) = Pid::from_raw(number) else {
        return false;
    };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return false;
    };
    let membership = fs::read_to_string(format!("/proc/{number}/cgroup")).unwrap_or_default();
    is_member(&membership, group) && pidfd_send_signal(handle, Signal::KILL).is_ok()
}

/// Reads `/proc/<pid>/cgroup`: lines of `hierarchy:controllers:path`.
fn is_member(membership: &str, group: &str) -> bool {
    membership
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .any(|path| {
            path.trim_start_matches('/')
                .strip_prefix(group)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}

/// Removes the group and all below it; the kernel refuses while a process is inside.
pub fn remove(group: &str) -> Result<()> {
    for root in roots()? {
        let mut below = folders(&root.join(group));
        below.reverse();
        for folder in below {
            match fs::remove_dir(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("cannot remove {}", folder.display()));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The groups' folders that still exist.
pub fn leftovers(group: &str) -> Result<Vec<PathBuf>> {
    Ok(roots()?
        .into_iter()
        .map(|root| root.join(group))
        .filter(|path| path.exists())
        .collect())
}

/// A folder and all below it, parents first.
fn folders(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        waiting.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        found.push(folder);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_cluster_is_no_member() {
        let membership = "8:pids:/tidelock-aa11/daemons\n4:memory:/else\n0::/\n";
        assert!(is_member(membership, "tidelock-aa11"));
        assert!(!is_member(membership, "tidelock-aa1"));
        assert!(!is_member(membership, "tidelock-bb22"));
        assert!(!is_member("", "tidelock-aa11"));
    }
}
