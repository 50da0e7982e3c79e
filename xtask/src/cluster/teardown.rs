//! Ends a cluster in whatever state it is, and tells what is left of one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};

use super::cgroup;
use super::layout::Cluster;
use super::network::names_in;
use crate::run;

/// Where the kubelet links container logs, whatever it is told.
const LEGACY_LOGS: &str = "/var/log/containers";
/// Where containerd's CNI library caches results, whatever it is told.
const CNI_RESULTS: &str = "/var/lib/cni/results";
/// Where containerd's shims make their sockets, whatever it is told.
const SHIM_SOCKETS: &str = "/run/containerd/s";

/// The kernel detaches a loop device within milliseconds of its last use.
const DETACH_DEADLINE: Duration = Duration::from_secs(20);

/// Of a process's command line: enough to know it by.
const SHOWN_CHARACTERS: usize = 100;

impl Cluster {
    /// Ends all processes and removes everything the cluster made.
    ///
    /// # Guarantees
    /// Safe to repeat, and does not need the processes' cooperation: a cluster that was killed
    /// half way up or half way down is removed like a healthy one.
    ///
    /// # Errors
    /// Lists what is left when something resists.
    pub fn remove(&self) -> Result<()> {
        cgroup::kill_all(&self.group())?;
        // The shims' socket names are known only as long as the state folder tells them.
        self.remove_shim_sockets();
        self.unmount_all()?;
        self.detach_loop_devices()?;
        self.remove_networks()?;
        cgroup::remove(&self.group())?;
        self.remove_strays();
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir)
                .with_context(|| format!("cannot remove {}", self.dir.display()))?;
        }
        let left = self.leftovers()?;
        if !left.is_empty() {
            bail!(
                "the cluster left something behind:\n  {}",
                left.join("\n  ")
            );
        }
        Ok(())
    }

    /// Everything on this machine that belongs to the cluster, in words.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let group = self.group();
        let mut left = Vec::new();
        let members = cgroup::processes(&group)?;
        let strangers = self.processes_that_name_us();
        for pid in members
            .into_iter()
            .chain(strangers)
            .collect::<BTreeSet<_>>()
        {
            let line: String = command_line(pid).chars().take(SHOWN_CHARACTERS).collect();
            left.push(format!("process {pid}: {line}"));
        }
        for path in cgroup::leftovers(&group)? {
            left.push(format!("cgroup {}", path.display()));
        }
        for path in self.mounts()? {
            left.push(format!("mount {}", path.display()));
        }
        for name in self.loop_devices() {
            left.push(format!("loop device {name}"));
        }
        for name in self.network_leftovers() {
            left.push(format!("network namespace {name}"));
        }
        for path in self.strays() {
            left.push(format!("file {}", path.display()));
        }
        if self.dir.exists() {
            left.push(format!("folder {}", self.dir.display()));
        }
        Ok(left)
    }

    /// Mount points below the state folder, deepest and latest first.
    fn mounts(&self) -> Result<Vec<PathBuf>> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(mounts_below(&table, &self.dir))
    }

    fn unmount_all(&self) -> Result<()> {
        for path in self.mounts()? {
            unmount(&path, UnmountFlags::DETACH)
                .with_context(|| format!("cannot unmount {}", path.display()))?;
        }
        Ok(())
    }

    /// Loop devices over files below the state folder.
    fn loop_devices(&self) -> Vec<String> {
        let devices = names_in("/sys/block", "loop");
        let ours = |name: &String| {
            fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"))
                .is_ok_and(|file| Path::new(file.trim_end()).starts_with(&self.dir))
        };
        devices.into_iter().filter(ours).collect()
    }

    /// A device whose file system was unmounted detaches by itself, a moment later; one that was
    /// never mounted does not.
    fn detach_loop_devices(&self) -> Result<()> {
        for name in self.loop_devices() {
            let device = format!("/dev/{name}");
            run::succeeds(&mut run::command("losetup", ["--detach", &device]));
        }
        if self.loop_devices().is_empty() {
            return Ok(());
        }
        run::wait_for("the loop devices to detach", DETACH_DEADLINE, || {
            Ok(self.loop_devices().is_empty())
        })
    }

    fn remove_shim_sockets(&self) {
        for node in self.started_nodes() {
            let tasks = node
                .dir
                .join("containerd-run/io.containerd.runtime.v2.task/k8s.io");
            for task in names_in(&tasks, "") {
                let address = fs::read_to_string(tasks.join(task).join("address"));
                let socket = address
                    .ok()
                    .and_then(|text| text.strip_prefix("unix://").map(PathBuf::from));
                if let Some(socket) = socket.filter(|path| path.starts_with(SHIM_SOCKETS)) {
                    let _ = fs::remove_file(socket);
                }
            }
        }
    }

    /// Files of ours in folders that the programs do not let us choose.
    fn strays(&self) -> Vec<PathBuf> {
        let logs = Path::new(LEGACY_LOGS);
        let links = names_in(logs, "")
            .into_iter()
            .map(|name| logs.join(name))
            .filter(|path| fs::read_link(path).is_ok_and(|to| to.starts_with(&self.dir)));
        let results = names_in(CNI_RESULTS, &format!("{}-", self.group()))
            .into_iter()
            .map(|name| Path::new(CNI_RESULTS).join(name));
        links.chain(results).collect()
    }

    fn remove_strays(&self) {
        for path in self.strays() {
            let _ = fs::remove_file(path);
        }
        // Only goes when it is empty.
        let _ = fs::remove_dir(LEGACY_LOGS);
    }

    /// Processes outside our cgroup whose command line holds the state folder.
    fn processes_that_name_us(&self) -> Vec<i32> {
        let own = std::process::id();
        let folder = format!("{}/", self.dir.display());
        names_in("/proc", "")
            .into_iter()
            .filter_map(|name| name.parse::<i32>().ok())
            .filter(|pid| u32::try_from(*pid) != Ok(own))
            .filter(|pid| {
                let line = command_line(*pid);
                let program = line.split(' ').next().unwrap_or_default();
                ["containerd-shim", "kubelet", "etcd", "kube-"]
                    .iter()
                    .any(|ours| program.contains(ours))
                    && line.contains(&folder)
            })
            .collect()
    }
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim_end().to_owned()
}

/// Reads `/proc/<pid>/mountinfo`, whose fifth field is the mount point.
fn mounts_below(table: &str, folder: &Path) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|path| path.starts_with(folder))
        .rev()
        .collect()
}

/// The kernel writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(field: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(field.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_our_folder_are_ours_and_later_ones_go_first() {
        let table = "\
            1 0 8:1 / / rw - ext4 /dev/a rw\n\
            2 1 0:5 / /state/ab/node-1/x rw - tmpfs tmpfs rw\n\
            3 1 0:5 / /state/abc/y rw - tmpfs tmpfs rw\n\
            4 2 0:5 / /state/ab/node-1/x/with\\040blank rw - tmpfs tmpfs rw\n";
        assert_eq!(
            mounts_below(table, Path::new("/state/ab")),
            [
                PathBuf::from("/state/ab/node-1/x/with blank"),
                PathBuf::from("/state/ab/node-1/x")
            ]
        );
    }
}
