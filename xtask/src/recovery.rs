//! A cluster that is lost, and another one that gets its backups from a bucket.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::e2e::{self, Options, Tools};
use crate::place::Place;
use crate::run;

/// Name of the suite.
pub const SUITE: &str = "recovery";

/// Backs up on one cluster, takes it down with all its state, and restores on another that never knew
/// of it. What outlives the first is what a bucket is for: a folder that neither cluster has.
pub fn run(place: &Place, options: &Options) -> Result<()> {
    let suite = Some(OsStr::new(SUITE));
    let tools = Tools::ready(place, suite)?;
    let survives = place
        .state
        .join(format!("recovery-{}", place.cluster_id(&options.name)));
    clear(&survives)?;
    fs::create_dir_all(&survives).with_context(|| format!("cannot make {}", survives.display()))?;
    let on = |name: &str, story: &str| {
        let cluster = Options {
            name: name.to_owned(),
            nodes: 1,
            keep: options.keep,
        };
        e2e::on_cluster(place, &cluster, |running| {
            let mut cargo = tools.stories(place, running, suite, name)?;
            cargo
                .args(["--", "--show-output", "--exact", story])
                .env("TIDELOCK_E2E_SURVIVES", &survives);
            run::visible(&mut cargo)
        })
    };
    run::say("recovery: a first cluster backs up, and is lost");
    on(
        &format!("{}first", options.name),
        "before_the_cluster_is_lost",
    )?;
    run::say("recovery: a second cluster starts empty");
    on(
        &format!("{}second", options.name),
        "after_the_cluster_was_lost",
    )?;
    clear(&survives)
}

fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
