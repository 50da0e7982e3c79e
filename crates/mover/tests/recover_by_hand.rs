//! `docs/recover-by-hand.md`, followed to the letter: its commands are run as they stand there, in one
//! shell, with nothing changed but the values that its reader has to put in.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use common::{Place, list, noise};
use tidelock_mover::run;
use tidelock_protocol::{Format, Location, Outcome, Task};
use tidelock_storage::{Bucket, Directory, Storage};
use tidelock_test_s3 as s3;

const PAGE: &str = include_str!("../../../docs/recover-by-hand.md");
const NAMES: [&str; 3] = ["shop", "data", "nightly-20261123-020000"];

/// The commands below the heading `heading`.
fn commands(heading: &str) -> String {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut blocks = section.split("```sh\n").skip(1);
    let mut all = String::new();
    for block in &mut blocks {
        all.push_str(block.split("```").next().unwrap());
    }
    assert!(!all.is_empty(), "{heading}");
    all
}

/// A reader of the page with a shell in an empty folder.
struct Reader {
    folder: tempfile::TempDir,
    /// What they know.
    known: String,
}

impl Reader {
    fn new(server: &s3::Server, prefix: &str, identity: &Path) -> Self {
        let own = [
            ("ENDPOINT", format!("http://{}", server.address)),
            ("PREFIX", format!("{prefix}/")),
            (
                "KEY_ID",
                fs::read_to_string(server.secret.path().join("accessKeyID")).unwrap(),
            ),
            (
                "SECRET_KEY",
                fs::read_to_string(server.secret.path().join("secretAccessKey")).unwrap(),
            ),
            ("IDENTITY", identity.display().to_string()),
        ];
        let of_page = commands("What you have");
        let line = |line: &str| {
            let (name, value) = line.split_once('=').unwrap();
            let own = own.iter().find(|(own, _)| *own == name);
            own.map_or_else(
                || format!("{name}={value}\n"),
                |(_, value)| format!("{name}={value}\n"),
            )
        };
        Self {
            folder: tempfile::tempdir().unwrap(),
            known: of_page.lines().map(line).collect(),
        }
    }

    fn follows(&self, sections: &[&str], more: &str) -> Output {
        // What is cut off behind one file ends what comes before it in the pipe.
        let strict = if sections.is_empty() {
            "-eu"
        } else {
            "-euo pipefail"
        };
        let mut script = format!("set {strict}\n{}", self.known);
        for section in sections {
            script.push_str(&commands(section));
        }
        script.push_str(more);
        let mut shell = Command::new("bash");
        let shell = shell.current_dir(self.folder.path()).args(["-c", &script]);
        shell.output().unwrap()
    }

    fn succeeds(&self, sections: &[&str], more: &str) -> String {
        let output = self.follows(sections, more);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn holds(&self, folder: &str, source: &Path) {
        let restored = self.folder.path().join(folder);
        assert_eq!(list(&restored), list(source), "{folder}");
    }
}

/// A volume with what is easily lost.
fn volume(place: &Place) {
    let root = place.source();
    fs::create_dir(root.join("docs")).unwrap();
    fs::write(root.join("docs/a.txt"), b"the one file").unwrap();
    fs::write(root.join("docs/with space"), b"x").unwrap();
    fs::write(root.join("large"), noise(7, 6_000_000)).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    symlink("docs/a.txt", root.join("link")).unwrap();
    fs::hard_link(root.join("large"), root.join("same")).unwrap();
    std::os::unix::fs::chown(root.join("docs/a.txt"), Some(1234), Some(4321)).unwrap();
    rustix::fs::setxattr(
        root.join("large"),
        "user.origin",
        b"sensor",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
}

fn back_up(place: &Place, storage: &dyn Storage, recipients: Vec<String>) {
    let Task::Backup(mut task) = place.backup_task() else {
        panic!("no backup");
    };
    let [namespace, pvc, backup] = NAMES;
    task.location = Location::new(namespace, pvc, backup).unwrap();
    task.recipients = recipients;
    let request = place.request("u-1", Task::Backup(task));
    let done = run(&request, storage, &AtomicBool::new(false));
    assert!(matches!(done, Outcome::BackedUp(_)), "{done:?}");
}

const TO_THE_END: [&str; 3] = ["Which backups there are", "Fetch and check", "Open"];

#[test]
fn the_page_brings_back_a_backup_of_either_form() {
    for format in Format::ALL {
        let place = Place::of(format);
        volume(&place);
        let server = s3::server();
        let prefix = s3::fresh_prefix();
        let bucket = Bucket::open(&server.config(&prefix)).unwrap();
        back_up(&place, &bucket, Vec::new());
        let reader = Reader::new(&server, &prefix, Path::new("none"));
        let told = reader.succeeds(&TO_THE_END, "");
        assert!(
            told.contains(&format!("{prefix}/shop/data/{}.manifest.json", NAMES[2])),
            "{told}"
        );
        assert_eq!(told.matches(": OK").count(), 2, "{told}");
        reader.holds("restored", &place.source());
        let sparse = fs::metadata(reader.folder.path().join("restored/sparse")).unwrap();
        assert_eq!(sparse.blocks(), 0);
        let one = fs::read(reader.folder.path().join("one/docs/a.txt")).unwrap();
        assert_eq!(one, b"the one file");
    }
}

#[test]
fn the_page_opens_an_encrypted_backup() {
    let place = Place::new();
    volume(&place);
    let keys = tempfile::tempdir().unwrap();
    let identity = keys.path().join("identity.txt");
    let made = Command::new("age-keygen")
        .arg("-o")
        .arg(&identity)
        .output()
        .unwrap();
    assert!(made.status.success());
    let told = Command::new("age-keygen")
        .arg("-y")
        .arg(&identity)
        .output()
        .unwrap();
    let recipient = String::from_utf8(told.stdout).unwrap().trim().to_owned();
    let server = s3::server();
    let prefix = s3::fresh_prefix();
    let bucket = Bucket::open(&server.config(&prefix)).unwrap();
    back_up(&place, &bucket, vec![recipient.clone()]);
    let reader = Reader::new(&server, &prefix, &identity);
    let told = reader.succeeds(&TO_THE_END, "");
    assert!(told.contains(&recipient), "{told}");
    reader.holds("restored", &place.source());
}

#[test]
fn the_page_fetches_one_file_alone() {
    let place = Place::new();
    volume(&place);
    let server = s3::server();
    let prefix = s3::fresh_prefix();
    let bucket = Bucket::open(&server.config(&prefix)).unwrap();
    back_up(&place, &bucket, Vec::new());
    let mut reader = Reader::new(&server, &prefix, Path::new("none"));
    for file in ["docs/a.txt", "large"] {
        reader.known.push_str(&format!("FILE={file}\n"));
        let head = commands("Which backups there are") + "ARCHIVE=$BACKUP.tar.gz\n";
        let alone = reader.folder.path().join("alone");
        let _ = fs::remove_dir_all(&alone);
        let rest = commands("One file out of a large archive");
        reader.succeeds(&[], &(head + &rest));
        let found = fs::read(alone.join(file)).unwrap();
        assert!(
            found == fs::read(place.source().join(file)).unwrap(),
            "{file}"
        );
    }
}

#[test]
fn the_page_takes_backups_from_a_volume() {
    let place = Place::new();
    volume(&place);
    back_up(
        &place,
        &Directory::open(&place.storage()).unwrap(),
        Vec::new(),
    );
    let server = s3::server();
    let reader = Reader::new(&server, "none", Path::new("none"));
    let copied = format!(
        "{}copy_from '{}'\n",
        commands("From a volume"),
        place.storage().display()
    );
    // What is there needs no fetching.
    let check = commands("Fetch and check").replace(
        "  s3 --continue-at - --remote-name \"$AT/$object\"\n",
        "  :\n",
    );
    reader.succeeds(&[], &(copied + &check + &commands("Open")));
    reader.holds("restored", &place.source());
}

#[test]
fn the_page_says_that_and_where_an_archive_is_damaged() {
    let place = Place::new();
    volume(&place);
    let storage = Directory::open(&place.storage()).unwrap();
    back_up(&place, &storage, Vec::new());
    let server = s3::server();
    let reader = Reader::new(&server, "none", Path::new("none"));
    let [namespace, pvc, backup] = NAMES;
    let archive = place
        .storage()
        .join(format!("{namespace}/{pvc}/{backup}.tar.gz"));
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    let copied = format!(
        "{}copy_from '{}'\n",
        commands("From a volume"),
        place.storage().display()
    );
    let check = commands("Fetch and check").replace(
        "  s3 --continue-at - --remote-name \"$AT/$object\"\n",
        "  :\n",
    );
    let failed = reader.follows(&[], &(copied.clone() + &check));
    assert!(!failed.status.success());
    let told = String::from_utf8_lossy(&failed.stdout).into_owned();
    assert!(told.contains(&format!("{backup}.tar.gz: FAILED")), "{told}");
    let which = format!(
        "{copied}ARCHIVE=$BACKUP.tar.gz\n{}damaged\n",
        commands("When the digest does not match")
    );
    let told = reader.succeeds(&[], &which);
    let places: Vec<u64> = told
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    let &[offset, size] = &places[..] else {
        panic!("{told}");
    };
    assert!((offset..offset + size).contains(&(middle as u64)), "{told}");
}
