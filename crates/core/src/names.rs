//! Names of what the operator makes: unique, valid, and fixed by what they stand for.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

/// Longest name of a custom resource (DNS subdomain, RFC 1123).
pub const MAX_OBJECT_NAME: usize = 253;
/// Longest label value and Job name (the Job's name is a label of its pods).
pub const MAX_LABEL: usize = 63;
/// Longest stem of a file in storage; leaves room for endings and temporary names in 255 bytes.
pub const MAX_STEM: usize = 200;

const HASH_CHARS: usize = 10;

/// Name of the Backup that `policy` makes for the slot at `slot`: `<policy>-<YYYYMMDD-HHMMSS>` in
/// UTC, so that one slot has one name whatever the time zone does.
pub fn slot_backup_name(policy: &str, slot: Timestamp) -> String {
    let stamp = slot.to_zoned(TimeZone::UTC).strftime("-%Y%m%d-%H%M%S");
    bounded(policy, &stamp.to_string(), MAX_OBJECT_NAME)
}

/// Name of the Job that runs the Backup `backup`.
pub fn backup_job_name(backup: &str) -> String {
    label_like(backup, "-backup")
}

/// Name of the Job that runs the Restore `restore`.
pub fn restore_job_name(restore: &str) -> String {
    label_like(restore, "-restore")
}

/// Name of the Job that takes back what the Job `job` half wrote.
pub fn undo_job_name(job: &str) -> String {
    label_like(job, "-undo")
}

/// Name of the Job that tries once more to take back what the Job `job` half wrote, before its
/// Restore goes.
pub fn last_undo_job_name(job: &str) -> String {
    label_like(job, "-undo-last")
}

/// Name of the Job that reads stored backups of `policy` again for the slot at `slot`.
pub fn verify_job_name(policy: &str, slot: Timestamp) -> String {
    label_like(&slot_backup_name(policy, slot), "-verify")
}

/// Name of the Job that removes the data of the Backups with these UIDs; `attempt` counts from 0.
///
/// The order of the UIDs does not matter.
pub fn delete_job_name(uids: &[&str], attempt: u32) -> String {
    let mut sorted = uids.to_vec();
    sorted.sort_unstable();
    let hash = short_hash(&format!("{}/{attempt}", sorted.join(",")));
    format!("tidelock-delete-{hash}")
}

/// Name of the Job that looks at the storage `storage` with this UID; `look` tells one look from
/// another.
pub fn check_job_name(storage: &str, uid: &str, look: &str) -> String {
    let hash = short_hash(&format!("{uid}/{look}"));
    label_like(storage, &format!("-check-{hash}"))
}

/// Name of the Backup that stands for an archive made by the Backup `backup` with this UID, where
/// another has that name.
pub fn other_backup_name(backup: &str, uid: &str) -> String {
    bounded(backup, &format!("-{}", short_hash(uid)), MAX_OBJECT_NAME)
}

/// Name of the Event that tells `story` about the object `uid`; the same story has one name, so
/// telling it twice makes one Event. Names of one object sort by `rank` (0 to 15).
pub fn event_name(object: &str, rank: u8, uid: &str, story: &str) -> String {
    let hash = short_hash(&format!("{uid}/{story}"));
    bounded(object, &format!(".{:x}{hash}", rank & 0xf), MAX_OBJECT_NAME)
}

/// `name` as a label value.
pub fn label_value(name: &str) -> String {
    bounded(name, "", MAX_LABEL)
}

/// `name` as the stem of a file in storage.
pub fn storage_stem(name: &str) -> String {
    bounded(name, "", MAX_STEM)
}

/// `base` + `suffix` without dots in at most [`MAX_LABEL`] bytes.
fn label_like(base: &str, suffix: &str) -> String {
    if base.contains('.') {
        let plain = base.replace('.', "-");
        hashed(&plain, base, suffix, MAX_LABEL)
    } else {
        bounded(base, suffix, MAX_LABEL)
    }
}

/// `base` + `suffix` where that fits `max` bytes, else the start of `base`, a hash of all of it,
/// and `suffix`.
fn bounded(base: &str, suffix: &str, max: usize) -> String {
    if base.len() + suffix.len() <= max {
        format!("{base}{suffix}")
    } else {
        hashed(base, base, suffix, max)
    }
}

fn hashed(base: &str, identity: &str, suffix: &str, max: usize) -> String {
    let room = max.saturating_sub(suffix.len() + HASH_CHARS + 1);
    let head = &base[..base.floor_char_boundary(room.min(base.len()))];
    let head = head.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{head}-{}{suffix}", short_hash(identity))
}

/// Forty bits of SHA-256 in hex: the chance that two of a namespace's thousand names collide is
/// below one in a million.
fn short_hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))[..HASH_CHARS].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OBJECT_NAME: &str =
        "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?){0,3}";

    fn is_label(name: &str) -> bool {
        let bytes = name.as_bytes();
        let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        name.len() <= MAX_LABEL
            && bytes.first().is_some_and(|b| alnum(*b))
            && bytes.last().is_some_and(|b| alnum(*b))
            && bytes.iter().all(|b| alnum(*b) || *b == b'-')
    }

    #[test]
    fn a_slot_has_a_readable_name() {
        let slot = "2026-11-23T02:00:00Z".parse().unwrap();
        assert_eq!(slot_backup_name("nightly", slot), "nightly-20261123-020000");
    }

    #[test]
    fn short_names_are_kept_and_long_ones_hashed() {
        assert_eq!(backup_job_name("nightly-1"), "nightly-1-backup");
        let long = "a".repeat(253);
        assert_eq!(backup_job_name(&long).len(), MAX_LABEL);
        assert_eq!(storage_stem(&long).len(), MAX_STEM);
        assert_ne!(backup_job_name("a.b"), backup_job_name("a-b"));
    }

    #[test]
    fn a_delete_batch_has_one_name_in_any_order() {
        assert_eq!(
            delete_job_name(&["a", "b"], 0),
            delete_job_name(&["b", "a"], 0)
        );
        assert_ne!(
            delete_job_name(&["a", "b"], 0),
            delete_job_name(&["a", "b"], 1)
        );
    }

    proptest! {
        #[test]
        fn every_job_name_is_a_label(name in OBJECT_NAME) {
            prop_assert!(is_label(&backup_job_name(&name)), "{}", backup_job_name(&name));
            prop_assert!(is_label(&restore_job_name(&name)));
            prop_assert!(is_label(&verify_job_name(&name, Timestamp::UNIX_EPOCH)));
        }

        #[test]
        fn distinct_names_stay_distinct(a in "[a-z.-]{50,80}", b in "[a-z.-]{50,80}") {
            prop_assume!(a != b);
            prop_assert_ne!(backup_job_name(&a), backup_job_name(&b));
            prop_assert_ne!(label_value(&a), label_value(&b));
        }

        #[test]
        fn distinct_slots_have_distinct_names(a in 0i64..4_000_000_000, b in 0i64..4_000_000_000, policy in "[a-z]{1,253}") {
            prop_assume!(a != b);
            let name = |s| slot_backup_name(&policy, Timestamp::from_second(s).unwrap());
            prop_assert_ne!(name(a), name(b));
            prop_assert!(name(a).len() <= MAX_OBJECT_NAME);
        }
    }
}
