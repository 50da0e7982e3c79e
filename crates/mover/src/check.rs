//! Looking at a storage: what can be done there, and what stands there of one namespace.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use tidelock_archive::Manifest;
use tidelock_protocol::{
    CheckReport, CheckTask, DescribedBackup, Failure, FailureReason, KnownSet, Location, RunId,
    Step,
};
use tidelock_storage::{Storage, StorageError};

use crate::Control;
use crate::failure::{corrupt, failure, of_storage, of_storage_write, of_stored_io, stopped};
use crate::progress::Total;
use crate::sealing::Sealing;
use crate::stored::{check_size, manifest_bytes, parse_manifest};
use crate::words;

/// Starts and ends the name of the object that is written to see whether that can be done.
const PROBE: (&str, &str) = ("tidelock-check-", ".probe");
/// An object that an earlier look left is removed when it is older than this, in seconds.
const PROBE_AGE: i64 = 3600;
/// Unknown backups that are held at once, however many there are.
const HELD: usize = 64;
/// Longest name of an object (source: RFC 1123, DNS subdomain); a report has no room for more.
const MAX_NAME_BYTES: usize = 253;
/// Backups that a report has room to describe.
const MOST_DESCRIBED: usize = 12;

/// Writes, reads, lists and removes an object, and then counts what stands there.
///
/// # Guarantees
/// Objects of backups are read and never changed. Memory is bounded, however many there are.
///
/// # Errors
/// The first thing that cannot be done, in the store's own words.
///
/// # Crash window
/// A look that dies leaves its object, which a later one removes.
pub(crate) fn check(
    storage: &dyn Storage,
    run: &RunId,
    task: &CheckTask,
    control: &Control<'_>,
) -> Result<CheckReport, Failure> {
    let clock = Instant::now();
    control.progress.begin(Step::Checking, Total::default());
    if Location::new(&task.namespace, "pvc", "backup").is_err() {
        let text = format!("task.namespace {:?} is not the name of one", task.namespace);
        return Err(failure(FailureReason::InvalidRequest, text));
    }
    // A key that is none is told now, and not by the first backup.
    Sealing::begin(storage, &task.recipients)?;
    if task.writes {
        probe(storage, run, &task.namespace, Timestamp::now().as_second())?;
    }
    let known = task.known.as_ref().map(|known| known.to_set());
    let look = Look {
        storage,
        namespace: &task.namespace,
        known: known.as_ref(),
        stop: control.stop,
    };
    let mut report = look.count()?;
    if task.describe && known.is_some() {
        look.describe(&mut report)?;
    }
    report.free_bytes = storage.free_bytes().map_err(|e| of_storage(&e))?;
    report.duration_ms = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// Does to an object of its own what movers do to theirs.
fn probe(storage: &dyn Storage, run: &RunId, namespace: &str, now: i64) -> Result<(), Failure> {
    clear_old_probes(storage, run, namespace, now)?;
    let (start, end) = PROBE;
    let key = format!("{namespace}/{start}{now}-{}{end}", run.uid);
    storage.sweep(&key, &run.uid).map_err(|e| of_storage(&e))?;
    let content = format!("Tidelock looks whether it can write here.\n{key}\n");
    let mut upload = storage
        .put(&key, &run.uid)
        .map_err(|e| of_storage_write(&e))?;
    upload
        .write_all(content.as_bytes())
        .map_err(|e| of_stored_io("write an object", &e))?;
    upload.commit().map_err(|e| of_storage_write(&e))?;
    let read = read_back(storage, &key, content.as_bytes());
    let removed = storage.delete(&key).map_err(|e| of_storage(&e));
    read?;
    if removed? {
        return Ok(());
    }
    Err(corrupt(&format!(
        "{key:?} was written and read, but was not there when it was removed; something else removes objects here, or the store forgets them"
    )))
}

fn read_back(storage: &dyn Storage, key: &str, written: &[u8]) -> Result<(), Failure> {
    let mut found = Vec::new();
    let object = storage.get_fresh(key).map_err(|e| of_storage(&e))?;
    object
        .take(written.len() as u64 + 1)
        .read_to_end(&mut found)
        .map_err(|e| of_stored_io("read an object", &e))?;
    if found != written {
        let text = format!("{key:?} reads back other than it was written");
        return Err(corrupt(&text));
    }
    let mut is_listed = false;
    let listed = storage.list(key, &mut |other, _| {
        is_listed |= other == key;
        Ok(())
    });
    listed.map_err(|e| of_storage(&e))?;
    if is_listed {
        return Ok(());
    }
    Err(corrupt(&format!("{key:?} was written, but is not listed")))
}

/// Removes what earlier looks left that died.
fn clear_old_probes(
    storage: &dyn Storage,
    run: &RunId,
    namespace: &str,
    now: i64,
) -> Result<(), Failure> {
    let (start, end) = PROBE;
    let start = format!("{namespace}/{start}");
    let mut old = Vec::new();
    let listed = storage.list(&start, &mut |key, _| {
        let name = key.strip_prefix(&start).and_then(|k| k.strip_suffix(end));
        let parts = name.and_then(|name| name.split_once('-'));
        let made = parts.and_then(|(made, uid)| Some((made.parse::<i64>().ok()?, uid)));
        if let Some((made, uid)) = made
            && (uid == run.uid || made < now - PROBE_AGE)
            && old.len() < HELD
        {
            old.push(key.to_owned());
        }
        Ok(())
    });
    listed.map_err(|e| of_storage(&e))?;
    for key in &old {
        storage.delete(key).map_err(|e| of_storage(&e))?;
    }
    Ok(())
}

/// One look at what stands in a storage.
struct Look<'l> {
    storage: &'l dyn Storage,
    namespace: &'l str,
    /// None where it cannot be told what is unknown.
    known: Option<&'l KnownSet<'l>>,
    stop: &'l AtomicBool,
}

impl Look<'_> {
    /// Calls `visit` for each object of the namespace: its size, and the backup that it makes one.
    fn list(&self, visit: &mut dyn FnMut(u64, Option<Location>)) -> Result<(), Failure> {
        let prefix = format!("{}/", self.namespace);
        let listed = self.storage.list(&prefix, &mut |key, info| {
            if self.stop.load(Ordering::Relaxed) {
                let stopped = std::io::Error::from(std::io::ErrorKind::Interrupted);
                return Err(StorageError::of_os("list", &prefix, stopped));
            }
            let backup = key.strip_suffix(Location::MANIFEST_ENDING);
            let location = backup.and_then(|key| Location::try_from(key.to_owned()).ok());
            visit(info.bytes, location);
            Ok(())
        });
        listed.map_err(|error| match self.stop.load(Ordering::Relaxed) {
            true => stopped(),
            false => of_storage(&error),
        })
    }

    fn is_unknown(&self, location: &Location) -> bool {
        self.known.is_some_and(|known| !known.contains(location))
    }

    fn count(&self) -> Result<CheckReport, Failure> {
        let mut report = CheckReport {
            blind: self.known.is_none(),
            ..CheckReport::default()
        };
        self.list(&mut |bytes, backup| {
            report.stored_bytes = report.stored_bytes.saturating_add(bytes);
            let Some(location) = backup else { return };
            report.backups += 1;
            if self.is_unknown(&location) {
                report.unknown.push(self.shown(&location).as_bytes());
            }
        })?;
        Ok(report)
    }

    /// `<pvc>/<backup>`.
    fn shown<'n>(&self, location: &'n Location) -> &'n str {
        let at = self.namespace.len() + 1;
        location.as_str().get(at..).unwrap_or_default()
    }

    /// Describes unknown backups in the order of their locations; those that say nothing that could
    /// be relied on are counted, and passed over.
    fn describe(&self, report: &mut CheckReport) -> Result<(), Failure> {
        let mut last: Option<Location> = None;
        loop {
            let held = self.after(last.as_ref())?;
            let is_last = held.len() < HELD;
            for location in &held {
                if report.described.len() == MOST_DESCRIBED {
                    report.more = true;
                    return Ok(());
                }
                match described(self.storage, location) {
                    Ok(Some(backup)) => report.described.push(backup),
                    Ok(None) => {}
                    Err(failure) if says_nothing(&failure) => {
                        tracing::warn!(%location, error = failure.message, "not described");
                        report.unreadable.push(self.shown(location).as_bytes());
                    }
                    Err(failure) => return Err(failure),
                }
            }
            if is_last {
                return Ok(());
            }
            last = held.into_iter().next_back();
        }
    }

    /// The first unknown backups behind `last`, in order.
    fn after(&self, last: Option<&Location>) -> Result<BTreeSet<Location>, Failure> {
        let mut held = BTreeSet::new();
        self.list(&mut |_, backup| {
            let Some(location) = backup else { return };
            if self.is_unknown(&location) && last.is_none_or(|last| location > *last) {
                held.insert(location);
                if held.len() > HELD {
                    held.pop_last();
                }
            }
        })?;
        Ok(held)
    }
}

/// Whether a failure is one of this backup alone: it is damaged, not whole, or of a later version.
fn says_nothing(failure: &Failure) -> bool {
    use FailureReason::{ArchiveCorrupt, ArchiveNotFound, UnsupportedFormat};
    [ArchiveCorrupt, ArchiveNotFound, UnsupportedFormat].contains(&failure.reason)
}

/// The backup at `location` as its manifest describes it; none where it went meanwhile.
///
/// # Errors
/// One that [`says_nothing`] where the manifest cannot be relied on, or an object that it names is not
/// there in the size that it says.
fn described(
    storage: &dyn Storage,
    location: &Location,
) -> Result<Option<DescribedBackup>, Failure> {
    let Some(bytes) = manifest_bytes(storage, location)? else {
        return Ok(None);
    };
    let manifest = parse_manifest(&bytes, location)?;
    let source = &manifest.source;
    let names = [&source.uid, &source.pvc, &source.backup];
    if names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
        let key = location.manifest_key();
        return Err(corrupt(&format!("{key:?} has names that no object has")));
    }
    for object in [&manifest.archive, &manifest.index] {
        check_size(storage, object)?;
    }
    Ok(Some(of_manifest(location, manifest)))
}

fn of_manifest(location: &Location, manifest: Manifest) -> DescribedBackup {
    let mut parts = location.as_str().split('/').skip(1);
    let unless = |name: String, part: Option<&str>| (part != Some(name.as_str())).then_some(name);
    DescribedBackup {
        location: location.clone(),
        pvc: unless(manifest.source.pvc, parts.next()),
        backup: unless(manifest.source.backup, parts.next()),
        uid: manifest.source.uid,
        format: words::format(manifest.codec),
        encrypted: manifest.encryption.is_some(),
        digest: format!("sha256:{}", manifest.archive.sha256),
        stored_bytes: manifest.archive.bytes,
        logical_bytes: manifest.logical_bytes,
        files: manifest.counts.files,
        started_at: manifest.started_at.as_second(),
        finished_at: manifest.finished_at.as_second(),
        locked_until: manifest.locked_until.map(Timestamp::as_second),
    }
}
