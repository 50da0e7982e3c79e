//! Who is measured: the mover, and what people use beside it.

use anyhow::Result;
use clap::ValueEnum;
use tidelock_protocol::{Format, Task, VerificationLevel};

use crate::Place;
use crate::trees::NEEDLE;

/// Who takes part: a name, and what runs, with `$SOURCE`, `$OUT`, `$ARCHIVE` and `$TARGET`.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) run: Run,
    /// The archive, below `$OUT`, that it makes or reads; the mover's where none is said.
    pub(crate) archive: Option<&'static str>,
    /// Whether it is the mover that makes its archive.
    pub(crate) makes_archive: bool,
}

pub(crate) enum Run {
    /// The mover, in a process of its own.
    Mover(fn(&Place) -> Result<Task>),
    Shell(&'static str),
}

/// The form of the mover's archives, and of those that others make.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Form {
    TarGz,
    TarZst,
}

impl From<Form> for Format {
    fn from(form: Form) -> Self {
        match form {
            Form::TarGz => Self::TarGz,
            Form::TarZst => Self::TarZst,
        }
    }
}

impl Form {
    /// The mover's archive, below `$OUT`.
    pub(crate) fn own(self) -> &'static str {
        match self {
            Self::TarGz => "bench/data/speed.tar.gz",
            Self::TarZst => "bench/data/speed.tar.zst",
        }
    }

    pub(crate) fn backups(self) -> &'static [Contestant] {
        match self {
            Self::TarGz => GZIP_BACKUPS,
            Self::TarZst => ZSTD_BACKUPS,
        }
    }

    pub(crate) fn restores(self) -> &'static [Contestant] {
        match self {
            Self::TarGz => GZIP_RESTORES,
            Self::TarZst => ZSTD_RESTORES,
        }
    }

    /// One small file out of the archive, by the name that every tree has.
    pub(crate) fn singles(self) -> &'static [Contestant] {
        match self {
            Self::TarGz => GZIP_SINGLES,
            Self::TarZst => ZSTD_SINGLES,
        }
    }
}

const fn saving(name: &'static str, run: fn(&Place) -> Result<Task>) -> Contestant {
    Contestant {
        name,
        run: Run::Mover(run),
        archive: None,
        makes_archive: true,
    }
}

const fn restoring(name: &'static str, run: fn(&Place) -> Result<Task>) -> Contestant {
    Contestant {
        makes_archive: false,
        ..saving(name, run)
    }
}

const fn making(name: &'static str, script: &'static str, archive: &'static str) -> Contestant {
    Contestant {
        archive: Some(archive),
        ..reading(name, script)
    }
}

const fn reading(name: &'static str, script: &'static str) -> Contestant {
    Contestant {
        name,
        run: Run::Shell(script),
        archive: None,
        makes_archive: false,
    }
}

const MOVER: Contestant = saving("mover", |place| place.backup(VerificationLevel::None));
const MOVER_READING_BACK: Contestant = saving("mover, read back", |place| {
    place.backup(VerificationLevel::Full)
});
const MOVER_RESTORING: Contestant =
    restoring("mover, restoring", |place| place.restore(Vec::new()));
const MOVER_ONE_FILE: Contestant = restoring("mover, one file", |place| {
    place.restore(vec![NEEDLE.into()])
});

const GZIP_BACKUPS: &[Contestant] = &[
    MOVER,
    MOVER_READING_BACK,
    making(
        "tar | gzip -6",
        "tar -C $SOURCE -cf - . | gzip -6 > $OUT/gzip.tgz && sync $OUT/gzip.tgz",
        "gzip.tgz",
    ),
    making(
        "tar | pigz -6",
        "tar -C $SOURCE -cf - . | pigz -6 > $OUT/pigz.tgz && sync $OUT/pigz.tgz",
        "pigz.tgz",
    ),
    making(
        "tar | igzip -3",
        "tar -C $SOURCE -cf - . | igzip -3 > $OUT/igzip.tgz && sync $OUT/igzip.tgz",
        "igzip.tgz",
    ),
];

const GZIP_RESTORES: &[Contestant] = &[
    MOVER_RESTORING,
    reading(
        "gzip -d | tar",
        "gzip -dc $ARCHIVE | tar -C $TARGET -xpf - && sync -f $TARGET",
    ),
    reading(
        "unpigz | tar",
        "unpigz -c $ARCHIVE | tar -C $TARGET -xpf - && sync -f $TARGET",
    ),
    reading(
        "igzip -d | tar",
        "igzip -dc $ARCHIVE | tar -C $TARGET -xpf - && sync -f $TARGET",
    ),
];

const GZIP_SINGLES: &[Contestant] = &[
    MOVER_ONE_FILE,
    reading(
        "gzip -d | tar -x FILE",
        "gzip -dc $ARCHIVE | tar -C $TARGET -xpf - ./$NEEDLE && sync -f $TARGET",
    ),
    reading(
        "igzip -d | tar -x FILE",
        "igzip -dc $ARCHIVE | tar -C $TARGET -xpf - ./$NEEDLE && sync -f $TARGET",
    ),
];

const ZSTD_BACKUPS: &[Contestant] = &[
    MOVER,
    MOVER_READING_BACK,
    making(
        "tar | zstd -3",
        "tar -C $SOURCE -cf - . | zstd -q -3 > $OUT/zstd.tzst && sync $OUT/zstd.tzst",
        "zstd.tzst",
    ),
    making(
        "tar | zstd -T0 -3",
        "tar -C $SOURCE -cf - . | zstd -q -T0 -3 > $OUT/zstdmt.tzst && sync $OUT/zstdmt.tzst",
        "zstdmt.tzst",
    ),
];

const ZSTD_RESTORES: &[Contestant] = &[
    MOVER_RESTORING,
    reading(
        "zstd -d | tar",
        "zstd -q -dc $ARCHIVE | tar -C $TARGET -xpf - && sync -f $TARGET",
    ),
];

const ZSTD_SINGLES: &[Contestant] = &[
    MOVER_ONE_FILE,
    reading(
        "zstd -d | tar -x FILE",
        "zstd -q -dc $ARCHIVE | tar -C $TARGET -xpf - ./$NEEDLE && sync -f $TARGET",
    ),
];
