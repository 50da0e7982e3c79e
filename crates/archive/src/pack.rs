//! From a directory to an archive.
//!
//! One thread walks, some read what it finds, and as many as there are processors compress; what
//! they make is written in the order of the walk.

mod conveyor;
mod reader;
#[cfg(test)]
mod tests;
mod walker;

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::thread;

use self::conveyor::{Conveyor, Halted};
use self::reader::{Reader, Shared};
use self::walker::Walker;
use crate::codec::{Codec, Squeezer};
use crate::entry::{Entry, EntryKind};
use crate::manifest::{Counts, SPARSE};
use crate::meta::Meta;
use crate::meter::Meter;
use crate::output::{Member, Output};
use crate::profile::{Phase, ThreadKind};
use crate::threads::{OnPanic, at_most};
use crate::walk::Walk;
use crate::xattr::Xattrs;

/// Threads that read: a disk is faster when it is asked for several files at once.
const READERS: usize = 4;

/// Threads that compress, and pieces that exist at once: these bound the memory of a pack.
struct Room {
    compressors: usize,
    places: usize,
}

impl Room {
    fn of(codec: Codec) -> Self {
        match codec {
            // Each thread takes some 3 MiB, each piece 1.5 MiB.
            Codec::Gzip => {
                let compressors = at_most(4);
                Self {
                    compressors,
                    places: READERS + compressors + 2,
                }
            }
            // Each thread takes some 5 MiB, each piece 5 MiB; two threads are as fast as disks.
            Codec::Zstd => Self {
                compressors: at_most(2),
                places: 5,
            },
        }
    }
}

/// Something about a path that a backup tells.
#[derive(Debug)]
pub enum Notice {
    /// It cannot be read; the backup fails.
    Unreadable(io::Error),
    /// It changed while it was read, in every try; what was read last is kept.
    Torn,
    /// A socket, which no archive holds.
    Socket,
    /// Another file system is mounted there; its content is not archived.
    OtherMount,
    /// It was listed, and gone when it was to be read.
    Vanished,
    /// So many of its extended attributes are not kept.
    XattrsLeftOut(u64),
    /// A name of a hard-linked file that is archived as a file of its own.
    HardLinkSplit,
}

/// Who is told of paths, in the order of the walk.
pub type Notify<'n> = &'n mut (dyn FnMut(&[u8], Notice) + Send);

/// What a finished pack wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Size and digest of the archive.
    pub archive: (u64, String),
    /// Size and digest of the index.
    pub index: (u64, String),
    /// Counts of the content.
    pub counts: Counts,
    /// Sum of the sizes of the regular files.
    pub logical_bytes: u64,
    /// Length of the tar stream.
    pub tar_bytes: u64,
    /// What a reader must know beyond the format's version.
    pub features: Vec<String>,
}

/// Why a pack wrote nothing that counts.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Something in the source cannot be read; each was told as [`Notice::Unreadable`].
    #[error("{0} paths in the source cannot be read")]
    Unreadable(u64),
    /// The archive or the index could not be written.
    #[error("the archive cannot be written")]
    Output(#[source] io::Error),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// Archives the tree below `source`.
///
/// # Guarantees
/// - Memory is bounded whatever the tree.
/// - It ends well only when everything was read; it walks on after the first unreadable path to
///   name them all.
/// - A file that changes while it is read is read again; what is still torn is told.
/// - The archive of a tree is the same whatever the threads do.
pub fn pack(
    source: OwnedFd,
    codec: Codec,
    archive: impl Write + Send,
    index: impl Write + Send,
    notify: Notify<'_>,
    meter: &Meter,
    stop: &AtomicBool,
) -> Result<Packed, PackError> {
    let room = Room::of(codec);
    let shared = Shared {
        conveyor: Conveyor::new(room.places, meter),
        piece_size: codec.piece_size(),
        unreadable: AtomicU64::new(0),
        logical_bytes: AtomicU64::new(0),
        xattrs_left_out: AtomicU64::new(0),
        has_holes: AtomicBool::new(false),
        meter,
        stop,
    };
    let output = Mutex::new((Output::new(archive, index), notify));
    let walked = thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| guarded(&shared, || Reader::new(&shared).run()));
        }
        for _ in 0..room.compressors {
            scope.spawn(|| guarded(&shared, || compress(&shared, codec, &output)));
        }
        let mut counts = None;
        guarded(&shared, || {
            let _timed = meter.time(Phase::Walk);
            let mut walker = Walker::new(&shared);
            walker.walk(Walk::new(source))?;
            counts = Some(walker.counts);
            Ok(())
        });
        counts
    });
    let unreadable = shared.unreadable.into_inner();
    let has_holes = shared.has_holes.into_inner();
    let whole = shared.conveyor.end().map_err(PackError::Output)?;
    let counts = walked.filter(|_| whole).ok_or(PackError::Stopped)?;
    if unreadable > 0 {
        return Err(PackError::Unreadable(unreadable));
    }
    let (output, _) = output.into_inner().unwrap_or_else(PoisonError::into_inner);
    let finished = output.finish().map_err(PackError::Output)?;
    Ok(Packed {
        archive: finished.archive,
        index: finished.index,
        counts: Counts {
            entries: finished.end.entries,
            members: finished.end.members,
            xattrs_left_out: counts.xattrs_left_out + shared.xattrs_left_out.into_inner(),
            ..counts
        },
        logical_bytes: shared.logical_bytes.into_inner(),
        tar_bytes: finished.end.tar_bytes,
        features: has_holes.then(|| SPARSE.to_owned()).into_iter().collect(),
    })
}

/// Does one thread's `work`; when that ends early or panics, the others stop as well.
fn guarded(shared: &Shared<'_>, work: impl FnOnce() -> Result<(), Halted>) {
    let _halting = OnPanic(|| shared.conveyor.halt());
    if work().is_err() {
        shared.conveyor.halt();
    }
}

/// Compresses pieces, and writes those whose turn it is.
fn compress<A: Write, I: Write>(
    shared: &Shared<'_>,
    codec: Codec,
    output: &Mutex<(Output<A, I>, Notify<'_>)>,
) -> Result<(), Halted> {
    let meter = shared.meter;
    let _timed = meter.time_thread(ThreadKind::Compressors, Phase::Compress);
    let fail = |error| {
        shared.conveyor.fail(error);
        Halted
    };
    let mut squeezer = Squeezer::for_members(codec).map_err(fail)?;
    while let Some((place, (piece, notices))) = shared.conveyor.raw()? {
        let member = Member::of(piece, &mut squeezer, meter).map_err(fail)?;
        let write = |place: conveyor::Place, (member, notices): (Member, reader::Notices)| {
            let _timed = meter.time(Phase::Index);
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            for (path, notice) in notices {
                (output.1)(&path, notice);
            }
            if place.piece == 0 {
                output.0.begin_run();
            }
            if shared.is_broken() {
                return Ok(Vec::new());
            }
            output.0.write(member, meter)
        };
        shared.conveyor.finished(place, (member, notices), write)?;
    }
    Ok(())
}

fn entry_of(path: Vec<u8>, kind: EntryKind, meta: &Meta, xattrs: Xattrs) -> Entry {
    Entry {
        path,
        kind,
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime: meta.mtime,
        size: if kind == EntryKind::File {
            meta.size
        } else {
            0
        },
        stored: None,
        link: Vec::new(),
        device: (0, 0),
        xattrs,
    }
}
