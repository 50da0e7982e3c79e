//! What a failed story leaves behind for a person.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::cluster;

/// Writes the namespace's objects, Events and logs, and the operator's log, into a file, and prints
/// its path. What cannot be had is left out.
pub fn keep(namespace: &str) {
    match write(namespace) {
        Ok(path) => eprintln!("the story's objects, Events and logs: {}", path.display()),
        Err(error) => eprintln!("no evidence of {namespace} could be kept: {error:#}"),
    }
}

/// Where evidence is kept.
pub fn folder() -> Result<PathBuf> {
    let folder = cluster::state()?.join("evidence");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn write(namespace: &str) -> Result<PathBuf> {
    let path = folder()?.join(format!("{namespace}.txt"));
    let views: [&[&str]; 7] = [
        &["get", "tidelock", "--output=wide"],
        &["get", "jobs,pods,pvc", "--output=wide"],
        &["get", "events.events.k8s.io", "--output=wide"],
        &["get", "tidelock", "--output=yaml"],
        &["get", "jobs,pods,pvc", "--output=yaml"],
        &[
            "logs",
            "--selector=batch.kubernetes.io/job-name",
            "--prefix",
            "--tail=-1",
        ],
        &["logs", "deployment/tidelock", "--all-pods", "--tail=500"],
    ];
    let mut text = String::new();
    for view in views {
        let of_operator = view.contains(&"deployment/tidelock");
        let place = if of_operator {
            cluster::OPERATOR_NAMESPACE
        } else {
            namespace
        };
        let mut arguments = vec!["--namespace", place];
        arguments.extend(view);
        let shown = cluster::kubectl(&arguments).unwrap_or_else(|error| error.to_string());
        writeln!(text, "--- kubectl {}\n{shown}", arguments.join(" "))?;
    }
    fs::write(&path, text)?;
    Ok(path)
}
