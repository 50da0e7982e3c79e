//! The main job, told as stories on a real cluster. Each has a namespace of its own, so they run
//! side by side.

mod backups;
mod buckets;
mod cancel;
mod checks;
mod formats;
mod guard;
mod locked;
mod names;
mod overwrite;
mod pinned;
mod policies;
mod privilege;
mod progress;
mod removal;
mod restores;
mod sealed;
mod storage_words;
mod storages;
mod support;
mod tenants;
mod verification;
