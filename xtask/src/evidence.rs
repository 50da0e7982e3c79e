//! Collects what a person needs to understand a failure on the test cluster.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::cluster::Running;
use crate::deploy::NAMESPACE;
use crate::run;

/// What is written down: file name, kubectl's arguments.
const VIEWS: &[(&str, &[&str])] = &[
    ("nodes.txt", &["describe", "nodes"]),
    (
        "overview.txt",
        &[
            "get",
            "pods,jobs,persistentvolumeclaims,persistentvolumes",
            "-A",
            "-o",
            "wide",
        ],
    ),
    ("tidelock.txt", &["get", "tidelock", "-A"]),
    ("tidelock.yaml", &["get", "tidelock", "-A", "-o", "yaml"]),
    ("jobs.yaml", &["get", "jobs", "-A", "-o", "yaml"]),
    ("pods.yaml", &["get", "pods", "-A", "-o", "yaml"]),
    (
        "volumes.yaml",
        &[
            "get",
            "persistentvolumeclaims,persistentvolumes",
            "-A",
            "-o",
            "yaml",
        ],
    ),
    (
        "events.txt",
        &["get", "events", "-A", "--sort-by=.lastTimestamp"],
    ),
    (
        "operator.log",
        &[
            "logs",
            "-n",
            NAMESPACE,
            "deployment/tidelock",
            "--all-pods",
            "--tail=-1",
        ],
    ),
    (
        "operator-previous.log",
        &[
            "logs",
            "-n",
            NAMESPACE,
            "deployment/tidelock",
            "--all-pods",
            "--previous",
            "--tail=-1",
        ],
    ),
];

/// Writes objects, events and logs into a new folder and returns it.
///
/// # Guarantees
/// Takes what it can get: a part that cannot be had leaves its error in its file.
pub fn collect(running: &Running) -> Result<PathBuf> {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let folder = running.cluster.evidence().join(seconds.to_string());
    fs::create_dir_all(&folder)?;
    for (name, arguments) in VIEWS {
        save(running.kubectl()?.args(*arguments), &folder.join(name))?;
    }
    copy_tree(&running.cluster.logs(), &folder.join("cluster"))?;
    copy_tree(
        &running.cluster.dir.join("evidence"),
        &folder.join("stories"),
    )?;
    for node in running.cluster.started_nodes() {
        copy_tree(&node.dir.join("pod-logs"), &folder.join("pod-logs"))?;
    }
    run::say(format!("evidence is in {}", folder.display()));
    Ok(folder)
}

fn save(command: &mut Command, path: &Path) -> Result<()> {
    let file = File::create(path)?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()?;
    Ok(())
}

/// Copies plain files; a file that goes away meanwhile is left out.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let Ok(entries) = fs::read_dir(from) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy_tree(&entry.path(), &target)?,
            Ok(kind) if kind.is_file() => {
                let _ = fs::copy(entry.path(), target);
            }
            _ => {}
        }
    }
    Ok(())
}
