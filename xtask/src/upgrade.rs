//! An earlier revision's chart and image, to upgrade from.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::image::{self, Image};
use crate::place::Place;
use crate::run;

/// Name of the suite that needs it.
pub const SUITE: &str = "upgrade";
/// Says which revision, as git takes it.
const FROM: &str = "FROM";
/// The one before this.
const BEFORE: &str = "HEAD^";
const IMAGE: &str = "tidelock.dev/tidelock:previous";

/// What is upgraded from.
pub struct Previous {
    /// Its chart.
    pub chart: PathBuf,
    /// Its operator and mover.
    pub image: Image,
}

/// Builds the revision that `FROM` names, by default the one before the checkout's.
///
/// # Errors
/// When git does not know it, or it has no chart.
pub fn previous(place: &Place) -> Result<Previous> {
    let from = env::var(FROM).unwrap_or_default();
    let from = if from.is_empty() { BEFORE } else { &from };
    let mut git = git(place);
    let commit = run::output(git.args(["rev-parse", "--verify", &format!("{from}^{{commit}}")]))
        .with_context(|| format!("{FROM}={from} is not a revision of this checkout"))?;
    let commit = commit.trim();
    let checkout = sources(place, commit)?;
    let chart = checkout.join("deploy/chart");
    ensure!(
        chart.exists(),
        "{from} ({commit}) has no deploy/chart to upgrade from; say {FROM}=<revision>"
    );
    run::say(format!("upgrading from {from} ({commit})"));
    let then = Place {
        checkout,
        // Not this checkout's: each would build anew after the other.
        target: place.cache.join("target-previous"),
        ..place.clone()
    };
    let image = image::product(&then, IMAGE)?;
    Ok(Previous { chart, image })
}

/// The files of `commit`, in a folder of the cache.
fn sources(place: &Place, commit: &str) -> Result<PathBuf> {
    let all = place.cache.join("previous");
    let folder = all.join(commit);
    if folder.exists() {
        return Ok(folder);
    }
    let unpacked = all.join(format!("{commit}.new"));
    let _ = fs::remove_dir_all(&unpacked);
    fs::create_dir_all(&unpacked)?;
    let archive = all.join(format!("{commit}.tar"));
    run::output(
        git(place)
            .args(["archive", "--output"])
            .arg(&archive)
            .arg(commit),
    )?;
    let mut tar = Command::new("tar");
    run::output(tar.arg("-xf").arg(&archive).arg("-C").arg(&unpacked))?;
    fs::remove_file(&archive)?;
    fs::rename(&unpacked, &folder)?;
    Ok(folder)
}

fn git(place: &Place) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(&place.checkout);
    git
}
