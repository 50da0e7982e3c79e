//! No byte of a stored backup can be other than it was written without a restore and a check
//! saying so, and where.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::storage::Memory;
use common::{Place, list, location, noise};
use flate2::read::MultiGzDecoder;
use proptest::prelude::*;
use serde_json::Value;
use tidelock_mover::run;
use tidelock_protocol::{
    ExpectedArchive, Failure, FailureReason, Format, Household, Outcome, Task, VerifyItem,
    VerifyTask,
};

/// Ends the key of an archive of either format.
const ARCHIVES: [&str; 2] = [".tar.gz", ".tar.zst"];
const OTHERS: [&str; 2] = [".index.jsonl.gz", ".manifest.json"];

/// A real backup, in memory.
struct Stored {
    place: Place,
    restore: Task,
    verify: Task,
    sound: Memory,
}

impl Stored {
    fn new(format: Format) -> Self {
        Self::of(format, |source| {
            fs::create_dir(source.join("dir")).unwrap();
            fs::write(source.join("dir/file"), b"what is in it").unwrap();
            fs::write(source.join("empty"), b"").unwrap();
            let sparse = fs::File::create(source.join("sparse")).unwrap();
            sparse.set_len(3 << 20).unwrap();
            sparse.write_all_at(b"data", 1 << 20).unwrap();
            symlink("dir/file", source.join("link")).unwrap();
        })
    }

    /// Of a source that is filled by `fill`.
    fn of(format: Format, fill: impl FnOnce(&Path)) -> Self {
        let place = Place::of(format);
        fill(&place.source());
        let report = place.backup();
        let verify = Task::Verify(VerifyTask {
            identities_path: None,
            items: vec![VerifyItem {
                location: location(),
                expected: ExpectedArchive {
                    digest: report.digest.clone(),
                    stored_bytes: report.stored_bytes,
                    backup_uid: "u-1".into(),
                },
            }],
            household: Household::default(),
        });
        Self {
            restore: place.restore_task(&report),
            verify,
            sound: Memory::of(&place),
            place,
        }
    }

    /// Endings of the archive and of all that are checked beside it.
    fn objects(&self) -> [&'static str; 3] {
        let [index, manifest] = OTHERS;
        [self.place.format.ending(), index, manifest]
    }

    fn key(ending: &str) -> String {
        format!("{}{ending}", location())
    }

    fn bytes(&self, ending: &str) -> &Vec<u8> {
        &self.sound.0[&Self::key(ending)]
    }

    fn carry_out(&self, uid: &str, task: &Task, storage: &Memory) -> Outcome {
        let request = self.place.request(uid, task.clone());
        run(&request, storage, &AtomicBool::new(false))
    }

    /// Checks that neither a restore nor a check takes an object with these bytes, and that both
    /// name it; gives what they say.
    fn refuses(&self, ending: &str, bytes: Vec<u8>, how: &str) -> [String; 2] {
        let mut damaged = Memory(self.sound.0.clone());
        damaged.0.insert(Self::key(ending), bytes);
        let at_restore = match self.carry_out("r-1", &self.restore, &damaged) {
            Outcome::Failed(Failure {
                reason: FailureReason::ArchiveCorrupt,
                message,
                target_touched: Some(false),
                ..
            }) => message,
            other => panic!("{ending} {how}: the restore ended as {other:?}"),
        };
        let report = match self.carry_out("v-1", &self.verify, &damaged) {
            Outcome::Verified(report) => report,
            other => panic!("{ending} {how}: the check ended as {other:?}"),
        };
        assert_eq!(report.verdicts, "b", "{ending} {how}");
        let said = [at_restore, report.faults[0].message.clone()];
        for said in &said {
            assert!(said.contains(&ending[1..]), "{ending} {how}: {said}");
        }
        said
    }

    /// Checks that an archive with another byte at `at` is refused with the member that holds it.
    fn refuses_at(&self, at: usize, mask: u8) {
        let archive = self.place.format.ending();
        let mut bytes = self.bytes(archive).clone();
        bytes[at] ^= mask;
        for said in self.refuses(archive, bytes, &format!("with byte {at} ^ {mask:#x}")) {
            let member = member_in(&said).unwrap_or_else(|| panic!("no member in {said}"));
            assert!(member.contains(&at), "byte {at}: {said}");
        }
    }

    /// The members of the archive, as its index has them.
    fn members(&self) -> Vec<Range<usize>> {
        let mut text = String::new();
        let mut index = MultiGzDecoder::new(&self.bytes(".index.jsonl.gz")[..]);
        index.read_to_string(&mut text).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        lines
            .filter(|line: &Value| line["member"].is_object())
            .map(|line| {
                let start = number(&line["member"]["offset"]);
                start..start + number(&line["member"]["size"])
            })
            .collect()
    }

    fn untouched(&self) {
        assert_eq!(
            list(&self.place.target()).len(),
            1,
            "the target was touched"
        );
    }
}

/// The place in a message that reads `archive bytes 12..34`.
fn member_in(message: &str) -> Option<Range<usize>> {
    let (_, place) = message.split_once("archive bytes ")?;
    let (start, rest) = place.split_once("..")?;
    let (end, _) = rest.split_once(' ')?;
    Some(start.parse().ok()?..end.parse().ok()?)
}

#[test]
fn the_backup_that_is_damaged_here_is_sound() {
    for format in Format::ALL {
        let stored = Stored::new(format);
        let checked = stored.carry_out("v-1", &stored.verify, &stored.sound);
        assert!(
            matches!(&checked, Outcome::Verified(report) if report.verdicts == "g"),
            "{checked:?}"
        );
        let restored = stored.carry_out("r-1", &stored.restore, &stored.sound);
        assert!(matches!(restored, Outcome::Restored(_)), "{restored:?}");
    }
}

#[test]
fn no_byte_of_any_object_can_be_another() {
    for format in Format::ALL {
        let stored = Stored::new(format);
        for ending in stored.objects() {
            let sound = stored.bytes(ending);
            for at in 0..sound.len() {
                for mask in [1 << (at % 8), 0xff] {
                    if ARCHIVES.contains(&ending) {
                        stored.refuses_at(at, mask);
                        continue;
                    }
                    let mut bytes = sound.clone();
                    bytes[at] ^= mask;
                    stored.refuses(ending, bytes, &format!("with byte {at} ^ {mask:#x}"));
                }
            }
        }
        stored.untouched();
    }
}

#[test]
fn of_many_members_the_damaged_one_is_told() {
    for format in Format::ALL {
        let stored = Stored::of(format, |source| {
            for name in ["first", "second", "third"] {
                fs::write(source.join(name), noise(name.len() as u64, 5 << 20)).unwrap();
            }
        });
        let members = stored.members();
        assert!(members.len() > 2, "{members:?}");
        for member in &members {
            for at in [
                member.start,
                member.start + member.len() / 2,
                member.end - 1,
            ] {
                stored.refuses_at(at, 1);
            }
        }
        stored.untouched();
    }
}

#[test]
fn no_object_can_end_early_or_go_on() {
    for format in Format::ALL {
        let stored = Stored::new(format);
        for ending in stored.objects() {
            let sound = stored.bytes(ending);
            for length in 0..sound.len() {
                let cut = sound[..length].to_vec();
                stored.refuses(ending, cut, &format!("cut to {length} bytes"));
            }
            for more in [&b"\0"[..], b"\n", &[0; 1024], sound] {
                let longer = [sound, more].concat();
                stored.refuses(ending, longer, &format!("with {} bytes more", more.len()));
            }
        }
        stored.untouched();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_stretch_of_an_object_can_be_replaced_moved_or_left_out(
        format in prop::sample::select(&Format::ALL[..]),
        object in 0..3_usize,
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        instead in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        thread_local! {
            static STORED: [Stored; 2] = Format::ALL.map(Stored::new);
        }
        STORED.with(|stored| {
            let stored = &stored[usize::from(format == Format::TarZst)];
            let ending = stored.objects()[object];
            let sound = stored.bytes(ending);
            let (from, to) = (from.index(sound.len()), to.index(sound.len()));
            let (from, to) = (from.min(to), from.max(to));
            let bytes = [&sound[..from], &instead, &sound[to..]].concat();
            if bytes != *sound {
                let how = format!("with {instead:?} at {from}..{to}");
                stored.refuses(ending, bytes, &how);
            }
        });
    }
}
