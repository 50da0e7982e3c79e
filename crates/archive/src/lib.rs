//! The archive engine: walk, tar, compression, index, verification.
//!
//! [`pack`] writes a directory tree as an archive and its index; [`verify_object`],
//! [`verify_index`], [`verify_members`] and [`verify_content`] check what is stored against a
//! [`Manifest`]; [`unpack`] writes an archive into a [`Target`], after [`plan`] has looked whether
//! it can; [`compare`] tells how the two differ, and [`undo`] takes back what was not finished. The
//! format is described in `docs/format.md`. Nothing here knows of Kubernetes or of where the bytes
//! live.

mod acl;
mod ahead;
#[cfg(test)]
mod archive_writer;
mod beneath;
mod builder;
mod codec;
mod compare;
mod content;
mod digest;
mod entries;
mod entry;
mod error;
mod follow;
mod index;
mod leading;
mod links;
mod loss;
mod manifest;
mod marker;
mod member;
mod meta;
mod meter;
mod names;
mod needed;
mod output;
mod pack;
mod pax;
mod pax_xattr;
mod place;
mod plan;
mod profile;
mod remove;
mod replace;
mod select;
mod sparse;
mod steps;
mod target;
mod threads;
mod undo;
mod unpack;
mod verify;
mod walk;
mod xattr;

pub use codec::Codec;
pub use compare::{Change, Changes, Comparison, Reading, compare};
pub use content::{VerifiedContent, verify_content};
pub use error::{Corrupt, RestoreError};
pub use loss::Losses;
pub use manifest::{
    Counts, ENCRYPTED, Encryption, FORMAT_VERSION, MAX_MANIFEST_BYTES, Manifest, ManifestError,
    ObjectRef, Sample, Source,
};
pub use marker::{Finished, Overwrite, Stage};
pub use meta::Time;
pub use meter::Meter;
pub use needed::Archive;
pub use pack::{Notice, Notify, PackError, Packed, pack};
pub use plan::{Plan, Room, plan};
pub use profile::{Phase, Spent, ThreadKind, Timed};
pub use select::{InvalidGlob, Selection, Survey};
pub use target::{Content, Target};
pub use undo::{Undone, undo};
pub use unpack::{Job, Try, Unpacked, unpack};
pub use verify::{locate_damage, verify_index, verify_members, verify_object};

#[cfg(test)]
mod content_tests;
#[cfg(test)]
mod crafted;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod foreign_refusals;
#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod place_tests;
#[cfg(test)]
mod restore_place;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod tree;
