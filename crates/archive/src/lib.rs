//! The archive engine: walk, tar, compression, index, verification.
//!
//! [`pack`] writes a directory tree as an archive and its index; [`verify_object`],
//! [`verify_index`] and [`verify_archive`] check what is stored against a [`Manifest`];
//! [`unpack`] writes an archive into a [`Target`]. The format is described in `docs/format.md`.
//! Nothing here knows of Kubernetes or of where the bytes live.

mod archive_writer;
mod beneath;
mod digest;
mod entry;
mod error;
mod index;
mod links;
mod manifest;
mod member;
mod meta;
mod pack;
mod pax;
mod place;
mod target;
mod unpack;
mod verify;
mod walk;
mod xattr;

pub use error::{Corrupt, RestoreError};
pub use manifest::{
    Counts, FORMAT_VERSION, MAX_MANIFEST_BYTES, Manifest, ManifestError, ObjectRef, Sample, Source,
};
pub use pack::{Notice, PackError, Packed, pack};
pub use target::{Content, Target};
pub use unpack::{Unpacked, unpack};
pub use verify::{verify_archive, verify_index, verify_object};

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod place_tests;
