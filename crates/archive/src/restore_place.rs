//! A source, a target and every step of a restore between them, for tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rustix::io::Errno;

use crate::tree::{Node, Seen, build, snapshot};
use crate::{
    Changes, Codec, Comparison, Finished, Job, Losses, Meter, Overwrite, Plan, Reading,
    RestoreError, Selection, Stage, Survey, Target, Try, Undone, compare, pack, plan, undo,
};

pub(crate) static GO: AtomicBool = AtomicBool::new(false);

pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    codec: Codec,
    pub(crate) archive: Vec<u8>,
    pub(crate) index: Vec<u8>,
    selection: Selection,
    pub(crate) survey: Survey,
}

impl Place {
    /// A source, packed, and an empty target.
    pub(crate) fn new(make: impl FnOnce(&Path)) -> Self {
        Self::with(Codec::Gzip, make)
    }

    pub(crate) fn with(codec: Codec, make: impl FnOnce(&Path)) -> Self {
        Self::written(codec, make, |source| {
            let source = fs::File::open(source).unwrap();
            let (mut archive, mut index) = (Vec::new(), Vec::new());
            pack(
                source.into(),
                codec,
                &mut archive,
                &mut index,
                &mut |_, _| {},
                &Meter::default(),
                &GO,
            )
            .unwrap();
            (archive, index)
        })
    }

    /// A source, of which `write` gives the archive and its index, and an empty target.
    pub(crate) fn written(
        codec: Codec,
        make: impl FnOnce(&Path),
        write: impl FnOnce(&Path) -> (Vec<u8>, Vec<u8>),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["source", "target"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        make(&dir.path().join("source"));
        let (archive, index) = write(&dir.path().join("source"));
        let mut place = Self {
            dir,
            codec,
            archive,
            index,
            selection: Selection::new(&[]).unwrap(),
            survey: Survey::default(),
        };
        place.select(&[]);
        place
    }

    pub(crate) fn of(source: &[Node], target: &[Node]) -> Self {
        let place = Self::new(|path| build(path, source));
        build(&place.target(), target);
        place
    }

    pub(crate) fn select(&mut self, globs: &[&str]) {
        let globs: Vec<_> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        self.selection = Selection::new(&globs).unwrap();
        self.survey = self.selection.survey([&self.index[..]; 2], &GO).unwrap();
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub(crate) fn open(&self) -> Target {
        Target::open(&self.target(), "r-1").unwrap()
    }

    pub(crate) fn plan(&self, overwrite: Overwrite) -> Plan {
        let what = (&self.selection, &self.survey);
        plan(&self.open(), overwrite, what, [&self.index[..]; 2], &GO).unwrap()
    }

    pub(crate) fn compare(
        &self,
        overwrite: Overwrite,
        reading: Reading,
    ) -> Result<Changes, RestoreError> {
        let comparison = Comparison {
            codec: self.codec,
            target: &self.open(),
            overwrite,
            selection: &self.selection,
            survey: &self.survey,
            refused: &Losses::default(),
            reading,
            meter: &Meter::default(),
            stop: &GO,
        };
        compare(&comparison, &self.archive[..], [&self.index[..]; 3])
    }

    pub(crate) fn restore(&self, overwrite: Overwrite) -> Result<Finished, RestoreError> {
        unrivalled(|| self.try_restore(overwrite))
    }

    /// One try of a restore, as the mover makes it.
    fn try_restore(&self, overwrite: Overwrite) -> Result<Finished, RestoreError> {
        let mut target = self.open();
        let stage = target.claim(overwrite)?;
        if stage == Stage::Finished {
            return target.complete();
        }
        if stage == Stage::Preparing {
            target.begin()?;
        }
        let job = Job {
            codec: self.codec,
            target: &target,
            overwrite,
            nth: match stage {
                Stage::Preparing => Try::First,
                _ => Try::Further,
            },
            selection: &self.selection,
            survey: &self.survey,
            meter: &Meter::default(),
            stop: &GO,
        };
        let mut done = Finished::default();
        crate::unpack(&job, &self.archive[..], [&self.index[..]; 3], &mut done)?;
        let changes = self.compare(overwrite, Reading::Stored)?;
        let unchanged = changes.unchanged;
        assert_eq!(
            changes,
            Changes {
                unchanged,
                ..Changes::default()
            }
        );
        target.finish(done.clone())?;
        Ok(done)
    }

    pub(crate) fn undo(&self) -> Result<Undone, RestoreError> {
        unrivalled(|| undo(&mut self.open()))
    }
}

/// Runs `act` until no other process holds the marker's lock: one that another test of this
/// process starts has its files open for a moment.
fn unrivalled<T>(act: impl Fn() -> Result<T, RestoreError>) -> Result<T, RestoreError> {
    loop {
        match act() {
            Err(RestoreError::Target { source, .. })
                if Errno::from_io_error(&source) == Some(Errno::AGAIN) =>
            {
                std::thread::yield_now();
            }
            other => return other,
        }
    }
}

pub(crate) type Tree = BTreeMap<PathBuf, Seen>;

impl Place {
    /// The target, but for the root's time: it is lost when the very first marker is half made.
    pub(crate) fn look(&self) -> Tree {
        let mut tree = snapshot(&self.target());
        if let Some(root) = tree.get_mut(Path::new("")) {
            root.mtime = (0, 0);
        }
        tree
    }
}
