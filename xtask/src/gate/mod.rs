//! What a regression of the mover costs, measured so that a busy machine says the same as a quiet one.
//!
//! Nothing here is a stopwatch: processor time is compared with that of other people's tools in the
//! same minute, and memory with a limit that the kernel enforces.

mod cost;
mod lab;
mod memory;

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::image;
use crate::place::Place;
use crate::run;
use lab::Lab;

/// Measures `mover`, or the one that the image is made of.
///
/// # Errors
/// Says which bound was passed, by how much, and where to look.
pub fn check(place: &Place, mover: Option<&Path>) -> Result<()> {
    let mover = match mover {
        Some(mover) => mover.to_path_buf(),
        None => {
            image::build_programs(place)?;
            image::program(place, image::MOVER)
        }
    };
    let started = Instant::now();
    let lab = Lab::new(place, mover)?;
    cost::check(&lab)?;
    memory::check(&lab)?;
    let seconds = started.elapsed().as_secs();
    run::say(format!("gate: all good ({seconds} s)"));
    Ok(())
}
