//! No byte of a stored backup can be other than it was written without a restore and a check
//! saying so, and where.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::AtomicBool;

use common::storage::Memory;
use common::{Place, list, location};
use proptest::prelude::*;
use tidelock_mover::run;
use tidelock_protocol::{
    ExpectedArchive, Failure, FailureReason, Household, Outcome, Task, VerifyItem, VerifyTask,
};

const OBJECTS: [&str; 3] = [".tar.gz", ".index.jsonl.gz", ".manifest.json"];

/// A small real backup, in memory.
struct Stored {
    place: Place,
    restore: Task,
    verify: Task,
    sound: Memory,
}

impl Stored {
    fn new() -> Self {
        let place = Place::new();
        fs::create_dir(place.source().join("dir")).unwrap();
        fs::write(place.source().join("dir/file"), b"what is in it").unwrap();
        fs::write(place.source().join("empty"), b"").unwrap();
        symlink("dir/file", place.source().join("link")).unwrap();
        let report = place.backup();
        let verify = Task::Verify(VerifyTask {
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
    /// name it.
    fn refuses(&self, ending: &str, bytes: Vec<u8>, how: &str) {
        let mut damaged = Memory(self.sound.0.clone());
        damaged.0.insert(Self::key(ending), bytes);
        let said = match self.carry_out("r-1", &self.restore, &damaged) {
            Outcome::Failed(Failure {
                reason: FailureReason::ArchiveCorrupt,
                message,
                target_touched: Some(false),
                ..
            }) => message,
            other => panic!("{ending} {how}: the restore ended as {other:?}"),
        };
        assert!(said.contains(&ending[1..]), "{ending} {how}: {said}");
        let report = match self.carry_out("v-1", &self.verify, &damaged) {
            Outcome::Verified(report) => report,
            other => panic!("{ending} {how}: the check ended as {other:?}"),
        };
        assert_eq!(report.verdicts, "b", "{ending} {how}");
        let said = &report.faults[0].message;
        assert!(said.contains(&ending[1..]), "{ending} {how}: {said}");
    }

    fn untouched(&self) {
        assert_eq!(
            list(&self.place.target()).len(),
            1,
            "the target was touched"
        );
    }
}

#[test]
fn the_backup_that_is_damaged_here_is_sound() {
    let stored = Stored::new();
    let checked = stored.carry_out("v-1", &stored.verify, &stored.sound);
    assert!(
        matches!(&checked, Outcome::Verified(report) if report.verdicts == "g"),
        "{checked:?}"
    );
    let restored = stored.carry_out("r-1", &stored.restore, &stored.sound);
    assert!(matches!(restored, Outcome::Restored(_)), "{restored:?}");
}

#[test]
fn no_byte_of_any_object_can_be_another() {
    let stored = Stored::new();
    for ending in OBJECTS {
        let sound = stored.bytes(ending);
        for at in 0..sound.len() {
            for mask in [1 << (at % 8), 0xff] {
                let mut bytes = sound.clone();
                bytes[at] ^= mask;
                stored.refuses(ending, bytes, &format!("with byte {at} ^ {mask:#x}"));
            }
        }
    }
    stored.untouched();
}

#[test]
fn no_object_can_end_early_or_go_on() {
    let stored = Stored::new();
    for ending in OBJECTS {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_stretch_of_an_object_can_be_replaced_moved_or_left_out(
        object in 0..OBJECTS.len(),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        instead in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        thread_local! {
            static STORED: Stored = Stored::new();
        }
        STORED.with(|stored| {
            let sound = stored.bytes(OBJECTS[object]);
            let (from, to) = (from.index(sound.len()), to.index(sound.len()));
            let (from, to) = (from.min(to), from.max(to));
            let bytes = [&sound[..from], &instead, &sound[to..]].concat();
            if bytes != *sound {
                let how = format!("with {instead:?} at {from}..{to}");
                stored.refuses(OBJECTS[object], bytes, &how);
            }
        });
    }
}
