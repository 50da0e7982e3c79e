//! Which hard-linked files were archived already, and under which name.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::meta::Meta;

/// Memory for first names; beyond it further hard-linked files are archived once for each name.
const BUDGET_BYTES: usize = 16 << 20;
/// One place of the hash table: key, value and a byte of its own.
const PLACE_BYTES: usize = size_of::<Key>() + size_of::<FirstName>() + 1;
/// Names are appended in steps, as doubling would take the memory twice.
const NAMES_STEP_BYTES: usize = 1 << 20;

/// First names of files that have more than one.
///
/// # Guarantees
/// A file is forgotten once all its names were seen, and memory stays within a fixed bound.
#[derive(Default)]
pub(crate) struct HardLinks {
    files: HashMap<Key, FirstName>,
    names: Names,
    dirs: Dirs,
    identities: RandomState,
}

/// Inode number, and 32 bits of device and time of creation: these tell a file from one that had
/// the same inode number on another device, or before it was deleted.
type Key = [u32; 3];

/// Indexes into the two other tables; 12 bytes instead of two pointers with lengths.
struct FirstName {
    dir: u32,
    name: u32,
    names_left: u32,
}

/// What the table says of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The content is in the archive under this path.
    Before(Vec<u8>),
    /// It is the first name.
    First,
    /// It is a first name, and there was no memory left to remember it.
    FirstNotKept,
}

impl HardLinks {
    /// Looks up a file with several names.
    pub(crate) fn see(&mut self, meta: &Meta, path: &[u8]) -> Seen {
        let key = self.key_of(meta);
        let Some(first) = self.files.get_mut(&key) else {
            return self.remember(key, meta.nlink, path);
        };
        let mut target = self.dirs.path(first.dir).to_vec();
        target.extend_from_slice(self.names.get(first.name));
        first.names_left = first.names_left.saturating_sub(1);
        if first.names_left == 0 {
            self.forget(key);
        }
        Seen::Before(target)
    }

    /// Forgets a first name whose file could not be archived after all.
    pub(crate) fn forget_first(&mut self, meta: &Meta) {
        self.forget(self.key_of(meta));
    }

    fn remember(&mut self, key: Key, names: u32, path: &[u8]) -> Seen {
        let split = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        let (dir, name) = path.split_at(split);
        if self.bytes_with_one_more(dir, name) > BUDGET_BYTES {
            return Seen::FirstNotKept;
        }
        let Some(name) = self.names.add(name) else {
            return Seen::FirstNotKept;
        };
        let dir = self.dirs.take(dir);
        let first = FirstName {
            dir,
            name,
            names_left: names.saturating_sub(1).max(1),
        };
        self.files.insert(key, first);
        Seen::First
    }

    /// The memory it takes to remember one file more, while the tables grow.
    fn bytes_with_one_more(&self, dir: &[u8], name: &[u8]) -> usize {
        let places = |files: usize| (files * 8 / 7).next_power_of_two() * PLACE_BYTES;
        let mut files = places(self.files.capacity());
        if self.files.len() == self.files.capacity() {
            // The old table stays until the new one, twice its size, is filled.
            files += 2 * files;
        }
        files + self.names.bytes_with(name) + self.dirs.bytes_with(dir)
    }

    fn forget(&mut self, key: Key) {
        let Some(first) = self.files.remove(&key) else {
            return;
        };
        self.dirs.give_back(first.dir);
        self.names.remove(first.name);
        if self.names.is_mostly_dead() {
            let mut kept = Names::default();
            for file in self.files.values_mut() {
                // What fitted before fits again.
                file.name = kept.add(self.names.get(file.name)).unwrap_or(file.name);
            }
            self.names = kept;
        }
    }

    fn key_of(&self, meta: &Meta) -> Key {
        let created = (meta.btime.seconds, meta.btime.nanoseconds);
        let identity = self.identities.hash_one((meta.dev, created));
        let [low, high] = [meta.ino, meta.ino >> 32].map(|half| (half & 0xffff_ffff) as u32);
        [low, high, (identity & 0xffff_ffff) as u32]
    }
}

/// File names one after the other, each behind a byte with its length.
#[derive(Default)]
struct Names {
    bytes: Vec<u8>,
    dead: usize,
}

impl Names {
    /// Where the name stands; none when there is no room for more.
    fn add(&mut self, name: &[u8]) -> Option<u32> {
        let start = u32::try_from(self.bytes.len()).ok()?;
        let length = u8::try_from(name.len()).ok()?;
        if self.bytes.capacity() - self.bytes.len() <= name.len() {
            self.bytes.reserve_exact(NAMES_STEP_BYTES);
        }
        self.bytes.push(length);
        self.bytes.extend_from_slice(name);
        Some(start)
    }

    fn get(&self, start: u32) -> &[u8] {
        let start = start as usize;
        &self.bytes[start + 1..=start + usize::from(self.bytes[start])]
    }

    fn remove(&mut self, start: u32) {
        self.dead += 1 + self.get(start).len();
    }

    fn is_mostly_dead(&self) -> bool {
        self.dead > NAMES_STEP_BYTES && self.dead > self.bytes.len() / 2
    }

    fn bytes_with(&self, name: &[u8]) -> usize {
        let full = self.bytes.capacity() - self.bytes.len() <= name.len();
        // Growing may copy.
        if full {
            2 * self.bytes.capacity() + NAMES_STEP_BYTES
        } else {
            self.bytes.capacity()
        }
    }
}

/// Paths of directories, each held once for a run of files in it.
#[derive(Default)]
struct Dirs {
    dirs: Vec<Dir>,
    free: Vec<u32>,
    /// The one used last: files of a directory come one after the other.
    last: Option<u32>,
    path_bytes: usize,
}

struct Dir {
    path: Box<[u8]>,
    uses: u32,
}

impl Dirs {
    fn path(&self, dir: u32) -> &[u8] {
        &self.dirs[dir as usize].path
    }

    fn is_last(&self, path: &[u8]) -> Option<u32> {
        self.last.filter(|last| self.path(*last) == path)
    }

    /// Takes one use of the directory.
    fn take(&mut self, path: &[u8]) -> u32 {
        let dir = match self.is_last(path) {
            Some(last) => last,
            None => self.add(path),
        };
        self.dirs[dir as usize].uses += 1;
        self.last = Some(dir);
        dir
    }

    fn add(&mut self, path: &[u8]) -> u32 {
        self.path_bytes += path.len();
        let new = Dir {
            path: Box::from(path),
            uses: 0,
        };
        if let Some(free) = self.free.pop() {
            self.dirs[free as usize] = new;
            return free;
        }
        self.dirs.push(new);
        // The budget ends long before 2^32 directories.
        (self.dirs.len() - 1) as u32
    }

    /// Gives one use back; the path goes with the last.
    fn give_back(&mut self, dir: u32) {
        let at = &mut self.dirs[dir as usize];
        at.uses -= 1;
        if at.uses == 0 {
            self.path_bytes -= at.path.len();
            at.path = Box::default();
            self.free.push(dir);
            self.last = self.last.filter(|last| *last != dir);
        }
    }

    fn bytes_with(&self, path: &[u8]) -> usize {
        let table = self.dirs.capacity() * size_of::<Dir>() + self.free.capacity() * 4;
        let grown = if self.dirs.len() == self.dirs.capacity() {
            3 * table
        } else {
            table
        };
        let new = if self.is_last(path).is_some() {
            0
        } else {
            path.len() + 16
        };
        grown + self.path_bytes + 16 * self.dirs.len() + new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::meta::{FileKind, Time};

    fn meta(ino: u64, nlink: u32) -> Meta {
        Meta {
            kind: FileKind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            ctime: Time::default(),
            btime: Time::default(),
            nlink,
            dev: (8, 1),
            ino,
            rdev: (0, 0),
            mount: 0,
        }
    }

    #[test]
    fn a_new_file_with_an_old_inode_number_is_another_file() {
        let mut links = HardLinks::default();
        assert_eq!(links.see(&meta(7, 2), b"a"), Seen::First);
        let mut later = meta(7, 2);
        later.btime.seconds = 1;
        assert_eq!(links.see(&later, b"b"), Seen::First);
        assert_eq!(links.see(&meta(7, 2), b"c"), Seen::Before(b"a".to_vec()));
    }

    #[test]
    fn memory_ends_at_the_budget_and_comes_back() {
        let mut links = HardLinks::default();
        let mut kept = 0;
        for ino in 0..1_000_000_u64 {
            let path = format!("some/directory/{}/file-{ino:07}.txt", ino / 100);
            if links.see(&meta(ino, 2), path.as_bytes()) == Seen::FirstNotKept {
                break;
            }
            kept += 1;
        }
        assert!((150_000..500_000).contains(&kept), "{kept}");
        let held = links.files.capacity() * 8 / 7 * PLACE_BYTES
            + links.names.bytes.capacity()
            + links.dirs.path_bytes
            + links.dirs.dirs.capacity() * size_of::<Dir>();
        assert!(held < BUDGET_BYTES, "{held}");
        for ino in 0..kept {
            let path = format!("some/directory/{}/file-{ino:07}.txt", ino / 100);
            assert_eq!(
                links.see(&meta(ino, 2), b"twin"),
                Seen::Before(path.into_bytes())
            );
        }
        assert!(links.files.is_empty());
        assert_eq!(links.dirs.path_bytes, 0);
        assert!(links.names.bytes.len() <= 2 * NAMES_STEP_BYTES);
    }

    proptest! {
        #[test]
        fn every_further_name_leads_to_the_first(
            names in proptest::collection::vec((0..40_u64, "[a-c]{0,2}(/[a-c]{1,3}){1,3}"), 1..300),
        ) {
            let mut links = HardLinks::default();
            let mut count = BTreeMap::new();
            names.iter().for_each(|(ino, _)| *count.entry(*ino).or_insert(0) += 1);
            let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
            for (ino, path) in &names {
                let seen = links.see(&meta(*ino, count[ino]), path.as_bytes());
                match first.get(ino) {
                    None => prop_assert_eq!(seen, Seen::First),
                    Some(first) => prop_assert_eq!(seen, Seen::Before(first.clone())),
                }
                first.entry(*ino).or_insert(path.clone().into_bytes());
            }
            let open = count.values().filter(|count| **count == 1).count();
            prop_assert_eq!(links.files.len(), open);
        }
    }
}
