//! What the archive engine tells and is told, in the words of the protocol.

use tidelock_archive::{Change, Changes, Codec, Losses, Overwrite, Sample, Undone};
use tidelock_protocol::{self as protocol, Format, PathSample, TargetState, UndoReport};

pub(crate) fn codec(format: Format) -> Codec {
    match format {
        Format::TarGz => Codec::Gzip,
        Format::TarZst => Codec::Zstd,
    }
}

pub(crate) fn format(codec: Codec) -> Format {
    match codec {
        Codec::Gzip => Format::TarGz,
        Codec::Zstd => Format::TarZst,
    }
}

pub(crate) fn overwrite(overwrite: protocol::Overwrite) -> Overwrite {
    match overwrite {
        protocol::Overwrite::Never => Overwrite::Never,
        protocol::Overwrite::Merge => Overwrite::Merge,
        protocol::Overwrite::Replace => Overwrite::Replace,
    }
}

pub(crate) fn paths(sample: &Sample) -> PathSample {
    PathSample {
        total: sample.total,
        first: sample.first.clone(),
    }
}

pub(crate) fn losses(losses: &Losses) -> protocol::Losses {
    protocol::Losses {
        owners: losses.owners,
        modes: losses.modes,
        times: losses.times,
        xattrs: losses.xattrs,
        paths: paths(&losses.paths),
    }
}

pub(crate) fn changes(changes: &Changes) -> protocol::Changes {
    let change = |change: &Change| protocol::Change {
        bytes: change.bytes,
        paths: paths(&change.paths),
    };
    protocol::Changes {
        added: change(&changes.added),
        changed: change(&changes.changed),
        removed: change(&changes.removed),
        unchanged: changes.unchanged,
    }
}

pub(crate) fn undone(undone: Undone) -> UndoReport {
    let (target, put_back) = match undone {
        Undone::Untouched => (TargetState::Untouched, 0),
        Undone::Emptied => (TargetState::Emptied, 0),
        Undone::PutBack(names) => (TargetState::PutBack, names),
        Undone::PartlyMerged => (TargetState::PartlyMerged, 0),
        Undone::Restored => (TargetState::Restored, 0),
    };
    UndoReport { target, put_back }
}
