//! Which hard-linked files were archived already, and under which name.

use std::collections::HashMap;
use std::rc::Rc;

use crate::meta::{Meta, Time};

/// Memory for first names; beyond it further hard-linked files are archived once per name.
const BUDGET_BYTES: usize = 16 << 20;
/// What one remembered file costs beside its name: key, pointers, hash table, allocator.
const ENTRY_OVERHEAD_BYTES: usize = 112;

/// First names of files that have more than one.
///
/// # Guarantees
/// A file is forgotten once all its names were seen, and the memory has a fixed bound.
#[derive(Default)]
pub(crate) struct HardLinks {
    files: HashMap<Key, FirstName>,
    bytes: usize,
    last_dir: Option<Rc<[u8]>>,
}

/// Inode numbers are used again after a deletion; the creation time tells the files apart.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    dev: (u32, u32),
    ino: u64,
    created: (i64, u32),
}

struct FirstName {
    dir: Rc<[u8]>,
    name: Box<[u8]>,
    names_left: u32,
}

/// What the table says of a name.
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
        let key = Key::of(meta);
        let Some(first) = self.files.get_mut(&key) else {
            return self.remember(key, meta.nlink, path);
        };
        let mut target = first.dir.to_vec();
        target.extend_from_slice(&first.name);
        first.names_left -= 1;
        if first.names_left == 0 {
            self.forget(&key);
        }
        Seen::Before(target)
    }

    /// Forgets a first name whose file could not be archived after all.
    pub(crate) fn forget_first(&mut self, meta: &Meta) {
        self.forget(&Key::of(meta));
    }

    fn remember(&mut self, key: Key, names: u32, path: &[u8]) -> Seen {
        let split = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        let (dir, name) = path.split_at(split);
        let shared = self.last_dir.take().filter(|last| &**last == dir);
        let dir_is_new = shared.is_none();
        let dir = shared.unwrap_or_else(|| Rc::from(dir));
        self.last_dir = Some(Rc::clone(&dir));
        let cost = ENTRY_OVERHEAD_BYTES + name.len() + if dir_is_new { dir.len() } else { 0 };
        if self.bytes + cost > BUDGET_BYTES {
            return Seen::FirstNotKept;
        }
        self.bytes += cost;
        let first = FirstName {
            dir,
            name: Box::from(name),
            names_left: names.saturating_sub(1).max(1),
        };
        self.files.insert(key, first);
        Seen::First
    }

    fn forget(&mut self, key: &Key) {
        if let Some(first) = self.files.remove(key) {
            let shared_by = Rc::strong_count(&first.dir);
            let dir = if shared_by == 1 { first.dir.len() } else { 0 };
            self.bytes = self
                .bytes
                .saturating_sub(ENTRY_OVERHEAD_BYTES + first.name.len() + dir);
        }
        if self.files.is_empty() {
            self.bytes = 0;
        }
    }
}

impl Key {
    fn of(meta: &Meta) -> Self {
        let Time {
            seconds,
            nanoseconds,
        } = meta.btime;
        Self {
            dev: meta.dev,
            ino: meta.ino,
            created: (seconds, nanoseconds),
        }
    }
}
