//! Where it is measured: a tree, what is made of it, and how a contestant runs there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tidelock_benchmarks::{Cache, Contest, Format};
use tidelock_protocol::{
    BackupTask, Effect, ExpectedArchive, Household, Location, Overwrite, PROTOCOL_VERSION, Request,
    RestoreTask, RunId, StorageTarget, Task, VerificationLevel,
};

use crate::bucket::{Bucket, PREFIX};
use crate::contestants::{self, Contestant, Run, Store};
use crate::trees::NEEDLE;
use crate::{CHILD_ENV, PROFILE_ENV};

const UID: &str = "measured";

/// Folders of one tree and one format.
pub(crate) struct Place {
    pub(crate) source: PathBuf,
    /// `$OUT`: archives and repositories.
    pub(crate) out: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) format: Format,
    /// Where restic and kopia are, when they are.
    pub(crate) restic: Option<PathBuf>,
    pub(crate) kopia: Option<PathBuf>,
    /// The same of rclone.
    pub(crate) rclone: Option<PathBuf>,
    /// Where there is one.
    pub(crate) bucket: Option<Bucket>,
}

/// What one run took.
pub(crate) struct Used {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_memory_kib: u64,
    /// What it said.
    pub(crate) log: String,
}

impl Place {
    /// Empties the folders that runs write to.
    pub(crate) fn clear(&self) -> Result<()> {
        remove(&self.out)?;
        remove(&self.target)?;
        fs::create_dir_all(&self.out)?;
        Ok(())
    }

    pub(crate) fn backup(&self, verification: VerificationLevel) -> Result<Task> {
        Ok(Task::Backup(BackupTask {
            recipients: Vec::new(),
            lock: None,
            source_path: text(&self.source),
            location: location()?,
            format: match self.format {
                Format::TarGz => tidelock_protocol::Format::TarGz,
                Format::TarZst => tidelock_protocol::Format::TarZst,
            },
            pvc_name: "data".into(),
            policy_name: None,
            verification,
            household: Household::default(),
        }))
    }

    pub(crate) fn restore(&self, store: Store, paths: Vec<String>) -> Result<Task> {
        let report: (String, i64) = serde_json::from_slice(&fs::read(self.report(store))?)?;
        Ok(Task::Restore(RestoreTask {
            identities_path: None,
            target_path: text(&self.target),
            location: location()?,
            expected: ExpectedArchive {
                digest: report.0,
                stored_bytes: u64::try_from(report.1)?,
                backup_uid: UID.into(),
            },
            overwrite: Overwrite::Never,
            effect: Effect::Write,
            paths,
            read_back: false,
            allow_metadata_loss: false,
        }))
    }

    /// Makes what a contestant reads, unmeasured, unless it is there.
    pub(crate) fn ensure_store(&self, contestant: &Contestant) -> Result<()> {
        if contestant.makes || self.store(contestant.store).exists() {
            return Ok(());
        }
        let made_by = match contestant.store.is_in_bucket() {
            true => Contest::Upload,
            false => Contest::Backup,
        };
        let makers = contestants::all(made_by, self.format);
        let maker = makers.iter().find(|maker| maker.store == contestant.store);
        let maker =
            maker.with_context(|| format!("nobody makes what {} reads", contestant.name))?;
        eprintln!("once, not measured: {}", maker.name);
        self.clear_for(maker)?;
        self.run(maker, false).map(|_| ())
    }

    /// Removes what a run made before, and fills or empties the page cache.
    pub(crate) fn prepare(&self, contestant: &Contestant, cache: Cache) -> Result<()> {
        self.clear_for(contestant)?;
        rustix::fs::sync();
        if cache == Cache::Cold {
            return fs::write("/proc/sys/vm/drop_caches", "3")
                .context("the page cache cannot be emptied; that needs root");
        }
        // GNU tar reads no content when it sees that it writes to /dev/null.
        let read = match contestant.makes {
            true => "tar -C \"$SOURCE\" -cf - . | cat > /dev/null",
            false => "find \"$STORE\" -type f -exec cat {} + > /dev/null",
        };
        self.script(read, contestant.store)
    }

    fn clear_for(&self, contestant: &Contestant) -> Result<()> {
        remove(&self.target)?;
        fs::create_dir_all(&self.target)?;
        if contestant.makes {
            remove(&self.store(contestant.store))?;
            self.script(contestant.before(), contestant.store)?;
        }
        Ok(())
    }

    /// Runs a contestant and measures it.
    pub(crate) fn run(&self, contestant: &Contestant, profile: bool) -> Result<Used> {
        self.run_at(contestant, profile, self.endpoint())
    }

    /// What is asked of the bucket by a run that is not measured.
    pub(crate) fn requests(&self, contestant: &Contestant) -> Result<BTreeMap<String, u64>> {
        let Some(bucket) = self
            .bucket
            .as_ref()
            .filter(|_| contestant.store.is_in_bucket())
        else {
            return Ok(BTreeMap::new());
        };
        self.clear_for(contestant)?;
        let counter = bucket.counter();
        self.run_at(contestant, false, &counter.endpoint())?;
        Ok(counter.counted())
    }

    fn endpoint(&self) -> &str {
        self.bucket.as_ref().map_or("", Bucket::endpoint)
    }

    fn run_at(&self, contestant: &Contestant, profile: bool, endpoint: &str) -> Result<Used> {
        let costs = self.out.join("costs");
        // Its own process lies between this one, whose memory a child would begin with, and theirs.
        let mut command = Command::new("time");
        command.args(["--format=%U %S %M", "--output"]).arg(&costs);
        match &contestant.run {
            Run::Shell(script) => {
                command.args(["bash", "-o", "pipefail", "-c", script]);
                self.variables(&mut command, contestant.store, endpoint);
            }
            Run::Mover(task) => {
                command.arg(std::env::current_exe()?);
                let request = self.request(task(self)?, contestant.store, endpoint)?;
                command.env(CHILD_ENV, request);
                if profile {
                    command.env(PROFILE_ENV, "1");
                }
            }
        }
        let start = Instant::now();
        let output = command
            .output()
            .context("GNU time cannot be started; it is Debian's package `time`")?;
        let seconds = start.elapsed().as_secs_f64();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{}: {log}", contestant.name);
        if contestant.makes && contestant.store.is_movers() {
            fs::write(self.report(contestant.store), &output.stdout)?;
        }
        let (cpu_seconds, peak_memory_kib) = costs_of(&fs::read_to_string(&costs)?)?;
        Ok(Used {
            seconds,
            cpu_seconds,
            peak_memory_kib,
            log,
        })
    }

    /// How many bytes a store has.
    pub(crate) fn stored(&self, store: Store) -> Result<u64> {
        content_bytes(&self.store(store))
    }

    /// How many of them are the mover's archive, where it is the mover's store.
    pub(crate) fn archived(&self, store: Store) -> Result<Option<u64>> {
        match store {
            Store::Mover | Store::Bucket => {
                content_bytes(&self.root_of(store).join(self.archive())).map(Some)
            }
            Store::File(_) | Store::Repository(_) | Store::Object(_) => Ok(None),
        }
    }

    /// A step that is not measured.
    fn script(&self, script: &str, store: Store) -> Result<()> {
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c", script]);
        self.variables(&mut shell, store, self.endpoint());
        let output = shell.output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{script}`: {error}");
        Ok(())
    }

    fn variables(&self, command: &mut Command, store: Store, endpoint: &str) {
        if let Some(bucket) = &self.bucket {
            bucket.variables(command, endpoint);
        }
        let absent = PathBuf::new();
        command
            .env("SOURCE", &self.source)
            .env("OUT", &self.out)
            .env("TARGET", &self.target)
            .env("NEEDLE", NEEDLE)
            .env("ARCHIVE", self.out.join(self.archive()))
            .env("OBJECT", Path::new(PREFIX).join(self.archive()))
            .env("RCLONE", self.rclone.as_ref().unwrap_or(&absent))
            .env("STORE", self.store(store))
            .env("RESTIC", self.restic.as_ref().unwrap_or(&absent))
            .env("RESTIC_REPOSITORY", self.out.join("restic"))
            .env("RESTIC_CACHE_DIR", self.out.join("restic-cache"))
            .env("RESTIC_PASSWORD", "measured")
            .env("KOPIA", self.kopia.as_ref().unwrap_or(&absent))
            .env("KOPIA_CONFIG_PATH", self.out.join("kopia.config"))
            .env("KOPIA_CACHE_DIRECTORY", self.out.join("kopia-cache"))
            .env("KOPIA_LOG_DIR", self.out.join("kopia-log"))
            .env("KOPIA_PASSWORD", "measured")
            .env("KOPIA_CHECK_FOR_UPDATES", "false");
    }

    fn store(&self, store: Store) -> PathBuf {
        self.root_of(store).join(match store {
            Store::Mover | Store::Bucket => "bench",
            Store::File(name) | Store::Repository(name) | Store::Object(name) => name,
        })
    }

    /// The folder that the names of a store are in.
    fn root_of(&self, store: Store) -> PathBuf {
        match (store, &self.bucket) {
            (Store::Bucket, Some(bucket)) => bucket.folder().join(PREFIX),
            (Store::Object(_), Some(bucket)) => bucket.folder(),
            _ => self.out.clone(),
        }
    }

    /// The mover's archive, below the root of its store.
    fn archive(&self) -> &'static str {
        match self.format {
            Format::TarGz => "bench/data/speed.tar.gz",
            Format::TarZst => "bench/data/speed.tar.zst",
        }
    }

    /// What the mover said of the archive that it made last.
    fn report(&self, store: Store) -> PathBuf {
        self.out.join(match store {
            Store::Bucket => "report-of-bucket.json",
            _ => "report.json",
        })
    }

    fn request(&self, task: Task, store: Store, endpoint: &str) -> Result<String> {
        let storage = match (&self.bucket, store) {
            (Some(bucket), Store::Bucket) => bucket.target(endpoint),
            _ => StorageTarget::Directory {
                path: text(&self.out),
            },
        };
        let request = Request {
            version: PROTOCOL_VERSION,
            run: RunId {
                namespace: "bench".into(),
                name: "speed".into(),
                uid: UID.into(),
            },
            storage,
            limits: Default::default(),
            stall_timeout_seconds: None,
            task,
        };
        Ok(request.to_json()?)
    }
}

/// Processor seconds and the peak of memory, from what GNU time wrote.
fn costs_of(written: &str) -> Result<(f64, u64)> {
    let fields = || {
        let mut fields = written.split_whitespace();
        let user: f64 = fields.next()?.parse().ok()?;
        let system: f64 = fields.next()?.parse().ok()?;
        Some((user + system, fields.next()?.parse().ok()?))
    };
    fields().with_context(|| format!("GNU time said {written:?}"))
}

/// Sum of the sizes of a file, or of all files below a folder, each counted once for its names.
pub(crate) fn content_bytes(path: &Path) -> Result<u64> {
    let (mut folders, mut bytes) = (vec![path.to_owned()], 0);
    let mut linked = std::collections::HashSet::new();
    while let Some(path) = folders.pop() {
        let found = fs::symlink_metadata(&path)?;
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                folders.push(entry?.path());
            }
        } else if found.is_file()
            && (found.nlink() == 1 || linked.insert((found.dev(), found.ino())))
        {
            bytes += found.len();
        }
    }
    Ok(bytes)
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    ensure!(Command::new("rm").arg("-rf").arg(path).status()?.success());
    Ok(())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn location() -> Result<Location> {
    Ok(Location::new("bench", "data", "speed")?)
}
