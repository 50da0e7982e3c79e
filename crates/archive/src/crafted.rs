//! Archives made by hand, for tests.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::archive_writer::ArchiveWriter;
use crate::builder::{EntryEnd, Piece};
use crate::codec::{Codec, Squeezer};
use crate::digest::sha256;
use crate::entry::{Entry, EntryKind};
use crate::error::RestoreError;
use crate::index::IndexEntry;
use crate::manifest::{Counts, FORMAT_VERSION, Manifest, ObjectRef, Sample, Source};
use crate::meta::Time;
use crate::meter::Meter;
use crate::needed::Archive;
use crate::output::{Member, Output};
use crate::{Finished, Job, Overwrite, Selection, Survey, Target, Try, Unpacked, unpack};

pub(crate) fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.into(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        size: 0,
        stored: None,
        link: Vec::new(),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

pub(crate) fn link(path: &str, kind: EntryKind, target: &str) -> Entry {
    let mut link = entry(path, kind);
    link.link = target.into();
    link
}

pub(crate) fn file(path: &str) -> Entry {
    let mut file = entry(path, EntryKind::File);
    file.size = 4;
    file
}

/// Archive and index of the entries as they are, behind a root.
pub(crate) fn archive_of(codec: Codec, entries: &[Entry]) -> (Vec<u8>, Vec<u8>) {
    let (mut archive, mut index) = (Vec::new(), Vec::new());
    let mut writer = ArchiveWriter::new(codec, &mut archive, &mut index);
    for entry in [&[entry(".", EntryKind::Directory)], entries].concat() {
        writer.begin(&entry).unwrap();
        let mut end = EntryEnd::default();
        if entry.kind == EntryKind::File {
            writer.content(b"evil").unwrap();
            end.sha256 = Some(sha256(b"evil"));
        }
        writer.end(entry, end).unwrap();
    }
    writer.finish().unwrap();
    (archive, index)
}

/// An archive with one member that holds `tar`, and an index with what it is told.
pub(crate) fn raw_archive(codec: Codec, tar: &[u8], entries: &[IndexEntry]) -> (Vec<u8>, Vec<u8>) {
    let (mut archive, mut index) = (Vec::new(), Vec::new());
    let mut output = Output::new(&mut archive, &mut index);
    let piece = Piece {
        tar: tar.to_vec(),
        entries: entries.to_vec(),
    };
    let meter = Meter::default();
    let mut squeezer = Squeezer::for_members(codec).unwrap();
    let member = Member::of(piece, &mut squeezer, &meter).unwrap();
    output.write(member, &meter).unwrap();
    output.finish().unwrap();
    (archive, index)
}

/// What a manifest would say of an object.
pub(crate) fn object_of(bytes: &[u8]) -> ObjectRef {
    ObjectRef {
        key: "n/p/b.tar.gz".into(),
        bytes: bytes.len() as u64,
        sha256: sha256(bytes),
    }
}

/// A manifest of nothing in particular.
pub(crate) fn manifest() -> Manifest {
    let object = || ObjectRef {
        key: "k".into(),
        bytes: 1,
        sha256: "0".repeat(64),
    };
    Manifest {
        encryption: None,
        locked_until: None,
        format_version: FORMAT_VERSION,
        codec: Codec::Gzip,
        features: Vec::new(),
        archive: object(),
        index: object(),
        counts: Counts {
            entries: 10,
            members: 10,
            ..Counts::default()
        },
        logical_bytes: 100,
        tar_bytes: 1 << 20,
        source: Source {
            namespace: "n".into(),
            pvc: "p".into(),
            backup: "b".into(),
            uid: "u".into(),
            policy: None,
        },
        started_at: jiff::Timestamp::UNIX_EPOCH,
        finished_at: jiff::Timestamp::UNIX_EPOCH,
        duration_ms: 0,
        tool: "t".into(),
        torn: Sample::default(),
        skipped: Sample::default(),
    }
}

/// Restores everything into an empty directory.
pub(crate) fn unpack_all<I: Read + Send>(
    codec: Codec,
    target: &Path,
    archive: impl Archive + Send,
    indexes: [I; 3],
) -> Result<Unpacked, RestoreError> {
    let mut target = Target::open(target, "r-1")?;
    target.claim(Overwrite::Never)?;
    target.begin()?;
    let job = Job {
        codec,
        target: &target,
        overwrite: Overwrite::Never,
        nth: Try::First,
        selection: &Selection::new(&[]).unwrap(),
        survey: &Survey::default(),
        meter: &Meter::default(),
        stop: &AtomicBool::new(false),
    };
    let mut done = Finished::default();
    unpack(&job, archive, indexes, &mut done)?;
    target.finish(done.clone())?;
    Ok(done.unpacked)
}
