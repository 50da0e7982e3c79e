//! Keeps two checkouts that share a build folder from running each other's programs.
//!
//! Cargo knows a workspace member by its path below the workspace, and compares modification
//! times. With a build folder that several checkouts share, a build of a newer checkout looks up
//! to date to an older one.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::run;

/// Set in the second attempt, so that there is no third.
const SECOND_ATTEMPT: &str = "TIDELOCK_XTASK_REBUILT";
/// Where a checkout's Rust sources are.
const SOURCES: [&str; 3] = ["crates", "tests", "xtask"];

/// Starts over with a program of this checkout when this one is another checkout's.
///
/// # Guarantees
/// Returns only in a program that was built from the checkout it was called in.
/// All members are built anew then, since this program was built last among them.
pub fn ensure_own_build() -> Result<()> {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Cargo tells a program it runs where its package is now.
    let Some(called_in) = env::var_os("CARGO_MANIFEST_DIR").filter(|path| {
        let path = Path::new(path);
        path.ends_with("xtask") && path != built_from
    }) else {
        return Ok(());
    };
    let called_in = Path::new(&called_in);
    if env::var_os(SECOND_ATTEMPT).is_some() {
        bail!(
            "the build folder holds programs of {}; set CARGO_TARGET_DIR to another folder \
             for {}",
            built_from.display(),
            called_in.display()
        );
    }
    run::say("the build folder was last used by another checkout; building anew");
    let checkout = called_in.parent().context("xtask lies in a checkout")?;
    for folder in SOURCES {
        touch(&checkout.join(folder))?;
    }
    let error = Command::new("cargo")
        .args(["run", "--quiet", "--package", "xtask", "--"])
        .args(env::args_os().skip(1))
        .current_dir(checkout)
        .env(SECOND_ATTEMPT, "1")
        .exec();
    Err(error).context("cannot start cargo")
}

/// Gives every Rust source below the folder the time of now.
fn touch(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            touch(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            File::options()
                .append(true)
                .open(&path)
                .and_then(|file| file.set_modified(SystemTime::now()))
                .with_context(|| format!("cannot touch {}", path.display()))?;
        }
    }
    Ok(())
}
