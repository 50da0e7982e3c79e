//! Who is measured: the mover, and what people use beside it.

use anyhow::Result;
use clap::ValueEnum;
use tidelock_benchmarks::{Contest, Format, MOVER, READING_BACK};
use tidelock_protocol::{Task, VerificationLevel};

use crate::place::Place;
use crate::trees::NEEDLE;

/// Who takes part.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// None for the mover itself, which always takes part.
    pub(crate) peer: Option<Peer>,
    pub(crate) run: Run,
    /// What it makes or reads.
    pub(crate) store: Store,
    /// Whether it makes its store.
    pub(crate) makes: bool,
    /// A script that runs before it makes its store, and is not measured.
    before: &'static str,
}

pub(crate) enum Run {
    /// The mover, in a process of its own.
    Mover(fn(&Place) -> Result<Task>),
    /// A script for bash; [`Place`] says which variables it has.
    Shell(&'static str),
}

/// A program beside the mover, or the mover in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// The mover, reading back what it wrote.
    ReadBack,
    Gzip,
    Pigz,
    Igzip,
    Zstd,
    /// zstd with a thread for each processor.
    ZstdT0,
    Restic,
    Kopia,
    /// rclone, which carries what `tar` and a compressor make to a bucket and back.
    Rclone,
}

/// What a backup makes, and other contests read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// The mover's archive, which also `tar` reads.
    Mover,
    /// A file below `$OUT`.
    File(&'static str),
    /// A repository in a folder below `$OUT`.
    Repository(&'static str),
    /// The mover's objects in the bucket.
    Bucket,
    /// An object in the bucket.
    Object(&'static str),
}

impl Store {
    /// Whether it is in the bucket.
    pub(crate) fn is_in_bucket(self) -> bool {
        matches!(self, Self::Bucket | Self::Object(_))
    }

    /// Whether the mover makes it.
    pub(crate) fn is_movers(self) -> bool {
        matches!(self, Self::Mover | Self::Bucket)
    }
}

impl Contestant {
    /// The script before it, which is empty for those that need none.
    pub(crate) fn before(&self) -> &'static str {
        if self.makes { self.before } else { "" }
    }
}

/// Who takes part in a contest, the mover first.
pub(crate) fn all(contest: Contest, format: Format) -> &'static [Contestant] {
    match (contest, format) {
        (Contest::Backup, Format::TarGz) => GZIP_BACKUPS,
        (Contest::Backup, Format::TarZst) => ZSTD_BACKUPS,
        (Contest::Restore, Format::TarGz) => GZIP_RESTORES,
        (Contest::Restore, Format::TarZst) => ZSTD_RESTORES,
        (Contest::OneFile, Format::TarGz) => GZIP_SINGLES,
        (Contest::OneFile, Format::TarZst) => ZSTD_SINGLES,
        (Contest::Upload, Format::TarGz) => GZIP_UPLOADS,
        (Contest::Upload, Format::TarZst) => ZSTD_UPLOADS,
        (Contest::Download, Format::TarGz) => GZIP_DOWNLOADS,
        (Contest::Download, Format::TarZst) => ZSTD_DOWNLOADS,
    }
}

const fn saving(name: &'static str, run: fn(&Place) -> Result<Task>) -> Contestant {
    Contestant {
        name,
        peer: None,
        run: Run::Mover(run),
        store: Store::Mover,
        makes: true,
        before: "",
    }
}

const fn restoring(run: fn(&Place) -> Result<Task>) -> Contestant {
    Contestant {
        makes: false,
        ..saving(MOVER, run)
    }
}

/// Reads the mover's archive.
const fn reading(name: &'static str, peer: Peer, script: &'static str) -> Contestant {
    Contestant {
        name,
        peer: Some(peer),
        run: Run::Shell(script),
        store: Store::Mover,
        makes: false,
        before: "",
    }
}

const fn making(
    name: &'static str,
    peer: Peer,
    script: &'static str,
    file: &'static str,
) -> Contestant {
    Contestant {
        store: Store::File(file),
        makes: true,
        ..reading(name, peer, script)
    }
}

const fn restic(name: &'static str, makes: bool, script: &'static str) -> Contestant {
    Contestant {
        store: Store::Repository("restic"),
        makes,
        before: "rm -rf \"$RESTIC_CACHE_DIR\" && \"$RESTIC\" init --quiet",
        ..reading(name, Peer::Restic, script)
    }
}

const fn kopia(name: &'static str, makes: bool, script: &'static str) -> Contestant {
    Contestant {
        store: Store::Repository("kopia"),
        makes,
        before: "rm -rf \"$KOPIA_CACHE_DIRECTORY\" \"$KOPIA_CONFIG_PATH\" && \
            \"$KOPIA\" repository create filesystem --path=\"$OUT/kopia\" && \
            \"$KOPIA\" policy set --global --compression=zstd",
        ..reading(name, Peer::Kopia, script)
    }
}

/// `tar` ends with 1 when a file changed beneath it, as in a tree that is in use.
macro_rules! packed {
    ($by:literal, $file:literal) => {
        concat!(
            "{ tar -C \"$SOURCE\" -cf - . || [ $? -eq 1 ]; } | ",
            $by,
            " > \"$OUT/",
            $file,
            "\" && sync \"$OUT/",
            $file,
            "\""
        )
    };
}

macro_rules! sent {
    ($by:literal, $object:literal) => {
        concat!(
            "{ tar -C \"$SOURCE\" -cf - . || [ $? -eq 1 ]; } | ",
            $by,
            " | \"$RCLONE\" rcat \":s3:backups/",
            $object,
            "\""
        )
    };
}

macro_rules! fetched {
    ($by:literal) => {
        concat!(
            "\"$RCLONE\" cat \":s3:backups/$OBJECT\" | ",
            $by,
            " | tar -C \"$TARGET\" -xpf - && sync -f \"$TARGET\""
        )
    };
}

macro_rules! unpacked {
    ($by:literal) => {
        unpacked!($by, "")
    };
    ($by:literal, $file:literal) => {
        concat!(
            $by,
            " \"$ARCHIVE\" | tar -C \"$TARGET\" -xpf - ",
            $file,
            " && sync -f \"$TARGET\""
        )
    };
}

const SAVING: Contestant = saving(MOVER, |place| place.backup(VerificationLevel::None));
const SAVING_AND_READING_BACK: Contestant = Contestant {
    peer: Some(Peer::ReadBack),
    ..saving(READING_BACK, |place| place.backup(VerificationLevel::Full))
};
const RESTORING: Contestant = restoring(|place| place.restore(Store::Mover, Vec::new()));
const TAKING_ONE_FILE: Contestant =
    restoring(|place| place.restore(Store::Mover, vec![NEEDLE.into()]));
const UPLOADING: Contestant = Contestant {
    store: Store::Bucket,
    ..SAVING
};
const UPLOADING_AND_READING_BACK: Contestant = Contestant {
    store: Store::Bucket,
    ..SAVING_AND_READING_BACK
};
const DOWNLOADING: Contestant = Contestant {
    store: Store::Bucket,
    ..restoring(|place| place.restore(Store::Bucket, Vec::new()))
};

const GZIP_BACKUPS: &[Contestant] = &[
    SAVING,
    SAVING_AND_READING_BACK,
    making(
        "tar | gzip -6",
        Peer::Gzip,
        packed!("gzip -6", "gzip.tgz"),
        "gzip.tgz",
    ),
    making(
        "tar | pigz -6",
        Peer::Pigz,
        packed!("pigz -6", "pigz.tgz"),
        "pigz.tgz",
    ),
    making(
        "tar | igzip -3",
        Peer::Igzip,
        packed!("igzip -3", "igzip.tgz"),
        "igzip.tgz",
    ),
];

const fn sending(name: &'static str, script: &'static str, object: &'static str) -> Contestant {
    Contestant {
        store: Store::Object(object),
        makes: true,
        ..reading(name, Peer::Rclone, script)
    }
}

const fn fetching(name: &'static str, script: &'static str) -> Contestant {
    Contestant {
        store: Store::Bucket,
        ..reading(name, Peer::Rclone, script)
    }
}

const GZIP_UPLOADS: &[Contestant] = &[
    UPLOADING,
    UPLOADING_AND_READING_BACK,
    sending(
        "tar | pigz -6 | rclone rcat",
        sent!("pigz -6", "pigz.tgz"),
        "pigz.tgz",
    ),
    sending(
        "tar | igzip -3 | rclone rcat",
        sent!("igzip -3", "igzip.tgz"),
        "igzip.tgz",
    ),
];

const GZIP_DOWNLOADS: &[Contestant] = &[
    DOWNLOADING,
    fetching("rclone cat | unpigz | tar", fetched!("unpigz -c")),
    fetching("rclone cat | igzip -d | tar", fetched!("igzip -dc")),
];

const ZSTD_UPLOADS: &[Contestant] = &[
    UPLOADING,
    UPLOADING_AND_READING_BACK,
    sending(
        "tar | zstd -T0 -3 | rclone rcat",
        sent!("zstd -q -T0 -3", "zstd.tzst"),
        "zstd.tzst",
    ),
];

const ZSTD_DOWNLOADS: &[Contestant] = &[
    DOWNLOADING,
    fetching("rclone cat | zstd -d | tar", fetched!("zstd -q -dc")),
];

const GZIP_RESTORES: &[Contestant] = &[
    RESTORING,
    reading("gzip -d | tar", Peer::Gzip, unpacked!("gzip -dc")),
    reading("unpigz | tar", Peer::Pigz, unpacked!("unpigz -c")),
    reading("igzip -d | tar", Peer::Igzip, unpacked!("igzip -dc")),
];

const GZIP_SINGLES: &[Contestant] = &[
    TAKING_ONE_FILE,
    reading(
        "gzip -d | tar -x FILE",
        Peer::Gzip,
        unpacked!("gzip -dc", "\"./$NEEDLE\""),
    ),
    reading(
        "igzip -d | tar -x FILE",
        Peer::Igzip,
        unpacked!("igzip -dc", "\"./$NEEDLE\""),
    ),
];

const ZSTD_BACKUPS: &[Contestant] = &[
    SAVING,
    SAVING_AND_READING_BACK,
    making(
        "tar | zstd -3",
        Peer::Zstd,
        packed!("zstd -q -3", "zstd.tzst"),
        "zstd.tzst",
    ),
    making(
        "tar | zstd -T0 -3",
        Peer::ZstdT0,
        packed!("zstd -q -T0 -3", "zstdmt.tzst"),
        "zstdmt.tzst",
    ),
    restic(
        "restic backup",
        true,
        "cd \"$SOURCE\" && \"$RESTIC\" backup --quiet . && sync -f \"$OUT\"",
    ),
    kopia(
        "kopia snapshot create",
        true,
        "\"$KOPIA\" snapshot create \"$SOURCE\" && sync -f \"$OUT\"",
    ),
];

const ZSTD_RESTORES: &[Contestant] = &[
    RESTORING,
    reading("zstd -d | tar", Peer::Zstd, unpacked!("zstd -q -dc")),
    restic(
        "restic restore",
        false,
        "\"$RESTIC\" restore latest --quiet --target \"$TARGET\" && sync -f \"$TARGET\"",
    ),
    kopia(
        "kopia restore",
        false,
        "\"$KOPIA\" restore \"$SOURCE\" \"$TARGET\" && sync -f \"$TARGET\"",
    ),
];

const ZSTD_SINGLES: &[Contestant] = &[
    TAKING_ONE_FILE,
    reading(
        "zstd -d | tar -x FILE",
        Peer::Zstd,
        unpacked!("zstd -q -dc", "\"./$NEEDLE\""),
    ),
    restic(
        "restic restore, one file",
        false,
        "\"$RESTIC\" restore latest --quiet --target \"$TARGET\" --include \"/$NEEDLE\" && \
         sync -f \"$TARGET\"",
    ),
    kopia(
        "kopia restore, one file",
        false,
        "\"$KOPIA\" restore \"$SOURCE/$NEEDLE\" \"$TARGET/$NEEDLE\" && sync -f \"$TARGET\"",
    ),
];
