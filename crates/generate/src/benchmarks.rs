//! What was measured of the mover's speed, in docs/benchmarks.md and as a picture.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tidelock_benchmarks::{Results, page, picture};

use crate::Generated;

const PAGE: &str = "docs/benchmarks.md";

/// The page with its generated part made anew, and the picture in it.
pub fn files(checkout: &Path) -> Result<Vec<Generated>> {
    let results = Results::read(&checkout.join("docs/benchmarks.json"))?;
    let before =
        fs::read_to_string(checkout.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    Ok(vec![
        Generated::new(PAGE, page(&before, &results)?),
        Generated::new("docs/benchmarks.svg", picture(&results)),
    ])
}
