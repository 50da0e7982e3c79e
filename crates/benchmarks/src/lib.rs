//! What the measurements of the mover's speed found: the mover's example `speed` writes it into
//! `docs/benchmarks.json`, and `cargo xtask generate` makes tables and a picture of that file.

mod figures;
mod goals;
mod markdown;
mod picture;
mod results;

pub use markdown::{page, table};
pub use picture::picture;
pub use results::{Cache, Contest, Format, MOVER, Machine, READING_BACK, Record, Results, Turn};
