//! The main job, told as stories on a real cluster. Each has a namespace of its own, so they run
//! side by side.

mod backups;
mod checks;
mod names;
mod policies;
mod removal;
mod restores;
mod support;
