//! Input from outside, mutated: nothing makes a reader panic, and what is taken reads back.
//!
//! Each target runs for a short fixed time over the corpus in `tests/corpus`, with the same
//! mutations every time. `TIDELOCK_FUZZ_SECONDS=3600 TIDELOCK_FUZZ_SEED=7 cargo test --release -p
//! tidelock-mover --test fuzz` runs longer and elsewhere. An input that fails is left in the
//! temporary directory; it belongs into the corpus.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use common::list;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidelock_archive::{
    Codec, Finished, Job, Manifest, Meter, ObjectRef, Overwrite, RestoreError, Selection, Survey,
    Target, Try, unpack, verify_content, verify_index,
};
use tidelock_protocol::{MAX_REPORT_BYTES, Report, Request};

/// Time of one target in an everyday run.
const SECONDS: u64 = 4;
/// Mutated inputs grow no further.
const MAX_INPUT_BYTES: usize = 64 << 10;

/// Numbers that fit the edges of what readers count in.
const EDGES: [&[u8]; 8] = [
    b"0",
    b"-1",
    b"4294967295",
    b"18446744073709551615",
    b"1e400",
    b"\0",
    b"../",
    b"\xff\xfe",
];

/// A row of numbers that is the same for the same seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when there is none.
    fn below(&mut self, end: usize) -> usize {
        let end = end.max(1) as u64;
        usize::try_from(self.next() % end).unwrap()
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length);
        from..(from + self.below(16)).min(length)
    }

    /// A few changes to `input`, with stretches of `other` among them.
    fn mutate(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            let range = self.range(bytes.len());
            let at = range.start;
            match self.below(7) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                2 => drop(bytes.drain(range)),
                3 => {
                    let again = bytes[range].to_vec();
                    bytes.splice(at..at, again);
                }
                4 => {
                    let edge = EDGES[self.below(EDGES.len())];
                    bytes.splice(range, edge.iter().copied());
                }
                5 => {
                    let piece = other[self.range(other.len())].to_vec();
                    bytes.splice(range, piece);
                }
                _ => bytes.truncate(self.below(bytes.len() + 1)),
            }
        }
        bytes.truncate(MAX_INPUT_BYTES);
        bytes
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Gives the corpus, then mutations of it, to `check` until the time is over.
fn fuzz(target: &str, check: impl Fn(&[u8], &mut Numbers)) {
    let corpus = corpus(target);
    let seed = from_env("TIDELOCK_FUZZ_SEED").unwrap_or(1);
    let seconds = from_env("TIDELOCK_FUZZ_SECONDS").unwrap_or(SECONDS);
    let (clock, limit) = (Instant::now(), Duration::from_secs(seconds));
    let mut numbers = Numbers(seed);
    let mut tried = 0_u64;
    while clock.elapsed() < limit || tried < corpus.len() as u64 {
        let input = match corpus.get(usize::try_from(tried).unwrap()) {
            Some(seed) => seed.clone(),
            None => {
                let [one, other] = [(); 2].map(|()| numbers.below(corpus.len()));
                numbers.mutate(&corpus[one], &corpus[other])
            }
        };
        let checked = catch_unwind(AssertUnwindSafe(|| check(&input, &mut numbers)));
        if checked.is_err() {
            let path = std::env::temp_dir().join(format!("tidelock-fuzz-{target}-{tried}"));
            fs::write(&path, &input).unwrap();
            panic!("{target} with seed {seed} fails on {}", path.display());
        }
        tried += 1;
    }
    println!("{target}: {tried} inputs");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// One member that holds `bytes`.
fn squeezed(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Gzip => gzip(bytes),
        Codec::Zstd => zstd::bulk::compress(bytes, 1).unwrap(),
    }
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    MultiGzDecoder::new(bytes)
        .read_to_end(&mut content)
        .unwrap();
    content
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// What the backup of the corpus is made of.
struct Sound {
    manifest: Manifest,
    /// Lines of the index.
    lines: Vec<u8>,
}

fn sound() -> Sound {
    Sound {
        manifest: Manifest::from_json(&corpus("manifest")[0]).unwrap(),
        lines: corpus("index")[0].clone(),
    }
}

/// The lines of an index with one member, as whoever made this tar stream would write them.
fn sealed_index(lines: &[u8], archive: &[u8], tar: &[u8]) -> Vec<u8> {
    let entries: Vec<Value> = lines
        .split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .filter(|line: &Value| line.get("entry").is_some())
        .collect();
    let member = json!({"member": {
        "offset": 0, "size": archive.len(), "tarOffset": 0, "tarSize": tar.len(),
        "sha256": sha256(archive),
    }});
    let end = json!({"end": {
        "entries": entries.len(), "members": 1, "tarBytes": tar.len(), "archiveBytes": archive.len(),
    }});
    let mut text = Vec::new();
    for line in entries.iter().chain([&member, &end]) {
        text.extend(serde_json::to_vec(line).unwrap());
        text.push(b'\n');
    }
    gzip(&text)
}

/// A target, and beside it what no restore may touch.
struct Cell(tempfile::TempDir);

impl Cell {
    fn new() -> Self {
        // In memory where there is such a file system: what a restore syncs takes long on a disk.
        let shm = Path::new("/dev/shm");
        let dir = match shm.is_dir() {
            true => tempfile::tempdir_in(shm).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        fs::create_dir(dir.path().join("target")).unwrap();
        fs::create_dir_all(dir.path().join("outside/dir")).unwrap();
        fs::write(dir.path().join("outside/secret"), b"secret").unwrap();
        Self(dir)
    }

    /// Names that lead out of the target: by themselves, or by way of a link.
    fn ways_out(&self) -> Vec<String> {
        let outside = self.0.path().join("outside");
        let outside = outside.to_str().unwrap();
        let mut ways = vec![outside.to_owned(), format!("{outside}/secret")];
        let fixed = [
            "..",
            "../outside",
            "../outside/secret",
            "dir",
            "dir/../../outside/new",
            "link",
            "link/secret",
            "link/dir/new",
        ];
        ways.extend(fixed.map(str::to_owned));
        ways
    }

    fn restore(&self, codec: Codec, archive: &[u8], index: &[u8]) -> Result<(), RestoreError> {
        let outside = self.0.path().join("outside");
        let before = list(&outside);
        let done = unpack_into(codec, &self.0.path().join("target"), archive, index);
        assert_eq!(list(&outside), before, "what is outside has changed");
        let names = fs::read_dir(self.0.path()).unwrap().count();
        assert_eq!(names, 2, "something came beside the target");
        done
    }
}

fn unpack_into(
    codec: Codec,
    target: &Path,
    archive: &[u8],
    index: &[u8],
) -> Result<(), RestoreError> {
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
    unpack(&job, archive, [index; 3], &mut done)?;
    target.finish(done)
}

/// Gives some entries of the corpus' tar stream other names, links or types, and lets the lines of
/// its index say the same, so that nothing but what guards the target is left to refuse them.
fn disguised(
    tar: &[u8],
    lines: &[u8],
    ways: &[String],
    numbers: &mut Numbers,
) -> (Vec<u8>, Vec<u8>) {
    let mut tar = tar.to_vec();
    let lines = lines.split(|b| *b == b'\n');
    let mut told: Vec<Value> = lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let headers: Vec<usize> = (0..tar.len() / 512)
        .map(|block| block * 512)
        .filter(|at| tar[at + 257..].starts_with(b"ustar") && tar[at + 156] != b'x')
        .collect();
    for _ in 0..=numbers.below(3) {
        // The root stays what it is.
        let nth = 1 + numbers.below(headers.len() - 1);
        let way = &ways[numbers.below(ways.len())];
        let (Some(at), Some(line)) = (headers.get(nth), told.get_mut(nth)) else {
            continue;
        };
        let header = &mut tar[*at..at + 512];
        let entry = &mut line["entry"];
        match numbers.below(3) {
            0 => {
                set_field(&mut header[..100], &format!("./{way}"));
                entry["path"] = json!(way);
                entry.as_object_mut().unwrap().remove("pathBase64");
            }
            kind if kind == 1 || entry["size"] == 0 => {
                let (flag, name, before) = match kind {
                    1 if header[156] == b'1' => (b'1', "hardLink", "./"),
                    1 => (b'2', "symlink", ""),
                    _ => [(b'1', "hardLink", "./"), (b'2', "symlink", "")][numbers.below(2)],
                };
                header[156] = flag;
                set_field(&mut header[157..257], &format!("{before}{way}"));
                entry["type"] = json!(name);
                entry["link"] = json!(way);
                entry.as_object_mut().unwrap().remove("sha256");
            }
            _ => {}
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let mut text = Vec::new();
    for line in &told {
        text.extend(serde_json::to_vec(line).unwrap());
        text.push(b'\n');
    }
    (tar, text)
}

fn set_field(field: &mut [u8], text: &str) {
    field.fill(0);
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}

#[test]
fn no_archive_makes_a_check_or_a_restore_panic_or_write_outside_its_target() {
    let sound = sound();
    let stop = AtomicBool::new(false);
    let sound_tar = &corpus("archive")[0];
    fuzz("archive", |input, numbers| {
        let cell = Cell::new();
        let (tar, lines) = match numbers.below(3) {
            0 => (input.to_vec(), sound.lines.clone()),
            1 => (input.to_vec(), numbers.mutate(&sound.lines, input)),
            _ => disguised(sound_tar, &sound.lines, &cell.ways_out(), numbers),
        };
        let tar = &tar[..];
        let codec = Codec::ALL[numbers.below(2)];
        // Sealed again, so that the damage gets past the digests to what decodes.
        let mut archive = squeezed(codec, tar);
        if numbers.below(4) == 0 {
            archive = numbers.mutate(&archive, input);
        }
        let index = sealed_index(&lines, &archive, tar);
        let expected = ObjectRef {
            key: "n/p/b.tar.gz".into(),
            bytes: archive.len() as u64,
            sha256: sha256(&archive),
        };
        let meter = Meter::default();
        let indexes = [&index[..]; 2];
        let checked = verify_content(codec, &archive[..], indexes, &expected, &meter, &stop);
        if let Err(error) = checked {
            assert!(!error.to_string().chars().any(char::is_control), "{error}");
        }
        let _ = verify_content(codec, tar, indexes, &expected, &meter, &stop);
        if let Err(error) = cell.restore(codec, &archive, &index) {
            assert!(!error.to_string().chars().any(char::is_control), "{error}");
        }
    });
}

#[test]
fn no_index_makes_its_check_panic() {
    let sound = sound();
    let stop = AtomicBool::new(false);
    fuzz("index", |lines, _| {
        let checked = verify_index(&gzip(lines)[..], &sound.manifest, &stop);
        if let Err(error) = checked {
            assert!(!error.to_string().chars().any(char::is_control), "{error}");
        }
        let _ = verify_index(lines, &sound.manifest, &stop);
    });
}

#[test]
fn a_manifest_is_taken_only_as_it_was_sealed_and_reads_back() {
    let known = corpus("manifest");
    fuzz("manifest", |text, _| {
        if !known.iter().any(|sound| sound == text) {
            let taken = Manifest::from_json(text);
            assert!(taken.is_err(), "{taken:?}");
        }
        match Manifest::from_json(&sealed_as(text)) {
            Ok(manifest) => {
                let again = manifest.to_json().unwrap();
                assert_eq!(Manifest::from_json(again.as_bytes()).unwrap(), manifest);
            }
            Err(error) => assert!(!error.to_string().chars().any(char::is_control), "{error}"),
        }
    });
}

/// The text with the digest of itself that it must have.
fn sealed_as(text: &[u8]) -> Vec<u8> {
    let Some(end) = rfind(text, b"  \"manifestSha256\"") else {
        return text.to_vec();
    };
    let body = &text[..end];
    let seal = format!("  \"manifestSha256\": \"{}\"\n}}\n", sha256(body));
    [body, seal.as_bytes()].concat()
}

fn rfind(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).rposition(|window| window == what)
}

#[test]
fn a_request_that_is_taken_reads_back() {
    fuzz("request", |bytes, _| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(request) = Request::from_json(&text) {
            let json = request.to_json().unwrap();
            assert_eq!(Request::from_json(&json).unwrap(), request);
        }
    });
}

#[test]
fn a_report_that_is_believed_is_of_the_run_and_can_be_told_again() {
    fuzz("report", |bytes, _| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(report) = Report::from_termination_message(&text, "u-1") {
            assert_eq!(report.run_uid, "u-1");
            let told = report.to_termination_message().unwrap();
            assert!(told.len() <= MAX_REPORT_BYTES);
            assert!(Report::from_termination_message(&told, "u-1").is_ok());
        }
    });
}

#[test]
fn the_corpus_holds_what_is_taken() {
    let sound = sound();
    let stop = AtomicBool::new(false);
    let tar = &corpus("archive")[0];
    for codec in Codec::ALL {
        let archive = squeezed(codec, tar);
        let index = sealed_index(&sound.lines, &archive, tar);
        let expected = ObjectRef {
            key: "k".into(),
            bytes: archive.len() as u64,
            sha256: sha256(&archive),
        };
        let (archive, index) = (&archive[..], &index[..]);
        verify_content(
            codec,
            archive,
            [index; 2],
            &expected,
            &Meter::default(),
            &stop,
        )
        .unwrap();
        Cell::new().restore(codec, archive, index).unwrap();
    }
    verify_index(&gzip(&sound.lines)[..], &sound.manifest, &stop).unwrap();
    assert_eq!(gunzip(&gzip(tar)), *tar);
    for request in corpus("request") {
        Request::from_json(&String::from_utf8(request).unwrap()).unwrap();
    }
    for report in corpus("report") {
        let text = String::from_utf8(report).unwrap();
        Report::from_termination_message(&text, "u-1").unwrap();
    }
}
