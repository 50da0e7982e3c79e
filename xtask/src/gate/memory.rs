//! Memory of the mover on a tree of many files, under a limit that the kernel enforces.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use anyhow::{Context, Result, ensure};

use super::lab::{Done, Lab};
use crate::cluster::cgroup;
use crate::run;

const FILES: usize = 200_000;
const FILES_OF_A_FOLDER: usize = 200;
/// Threads that make them: each waits for the disk now and then.
const MAKERS: usize = 4;
/// Paths of some 140 bytes, so that keeping all of them passes the limit.
const FOLDER_NAME: &str = "statements-of-account-of-all-customers-and-what-was-written-to-them";
const FILE_NAME: &str = "statement-of-account-with-all-its-attachments-for-the-customer";
const LIMIT_MIB: u64 = 48;
const LIMIT_BYTES: u64 = LIMIT_MIB << 20;

/// Backs up and restores under the limit.
pub fn check(lab: &Lab) -> Result<()> {
    make(&lab.clear("source")?)?;
    let limit = Limit::new();
    let backup = judge("backup", lab.backup(|mover| limit.run(mover)))?.backed_up()?;
    judge("restore", lab.restore(&backup, |mover| limit.run(mover)))?;
    Ok(())
}

fn judge(what: &str, done: Result<Done>) -> Result<Done> {
    let look = || {
        format!(
            "a {what} of {FILES} files does not get by with {LIMIT_MIB} MiB: memory grows with the \
             tree, or the threads hold more at once; see what is kept for each file or folder, and \
             how many pieces there are (crates/archive: walk.rs, links.rs, pack/, ahead.rs, \
             unpack/), and `cargo run --profile dist -p tidelock-mover --example memory`"
        )
    };
    let done = done.with_context(look)?;
    let peak = done.peak_kib as f64 / 1024.0;
    ensure!(
        done.peak_kib * 1024 <= LIMIT_BYTES,
        "{}; its peak was {peak:.1} MiB",
        look()
    );
    run::say(format!(
        "memory of a {what} of {FILES} files: {peak:.1} MiB (at most {LIMIT_MIB})"
    ));
    Ok(done)
}

/// A cgroup with little memory; none where it cannot be made.
struct Limit {
    group: String,
    is_set: bool,
}

impl Limit {
    fn new() -> Self {
        let group = format!("tidelock-gate-{}", std::process::id());
        let set = cgroup::limit_memory(&group, LIMIT_BYTES);
        match &set {
            Ok(()) => run::say(format!(
                "the kernel ends what takes over {LIMIT_MIB} MiB, page cache and all"
            )),
            Err(error) => run::say(format!(
                "no cgroup can be made ({error:#}), so only the peak of resident memory is compared"
            )),
        }
        let is_set = set.is_ok();
        Self { group, is_set }
    }

    fn run(&self, command: Command) -> Result<Output> {
        let mut command = match self.is_set {
            true => cgroup::with_memory_of(&self.group, &command),
            false => command,
        };
        command
            .output()
            .with_context(|| format!("cannot start `{}`", run::line(&command)))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Err(error) = cgroup::remove(&self.group) {
            run::say(format!("{error:#}"));
        }
    }
}

/// Makes many small files with long names.
fn make(dir: &Path) -> Result<()> {
    let folders = FILES / FILES_OF_A_FOLDER;
    let of_maker = |maker: usize| {
        for folder in (maker..folders).step_by(MAKERS) {
            let path = dir.join(format!("{FOLDER_NAME}-{folder:04}"));
            fs::create_dir(&path)?;
            for file in 0..FILES_OF_A_FOLDER {
                let content = format!("{folder:048}{file:052}");
                fs::write(path.join(format!("{FILE_NAME}-{file:04}")), content)?;
            }
        }
        Ok::<(), std::io::Error>(())
    };
    thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS)
            .map(|maker| scope.spawn(move || of_maker(maker)))
            .collect();
        for maker in makers {
            let made = maker.join();
            made.map_err(|_| anyhow::anyhow!("a thread that makes files has died"))?
                .with_context(|| format!("cannot fill {}", dir.display()))?;
        }
        Ok(())
    })
}
