//! How many movers run at once, and which waiting run is next.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// A run that waited longer than this for its node and its storage to be free at the same time
/// keeps those behind it from taking the last place there.
pub const PATIENCE: SignedDuration = SignedDuration::from_mins(60);

/// What a mover does, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Somebody waits for the data.
    Restore,
    /// A slot is due.
    Backup,
    /// What is stored is read again.
    Verify,
}

/// A mover whose Job exists and is not at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mover {
    /// The node it runs on or is bound to; none while the scheduler has not chosen.
    pub node: Option<String>,
    /// Its storage, as a key that no two storages share.
    pub storage: String,
}

/// A run that is ready but for a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What it is.
    pub kind: Kind,
    /// When it was made.
    pub created: Timestamp,
    /// What tells it from all others, such as its UID; orders those of one moment.
    pub key: String,
    /// The only node it can run on, where there is one.
    pub node: Option<String>,
    /// Its storage, as a key that no two storages share.
    pub storage: String,
}

/// How many movers may run at once. Zero is taken as one: a limit that lets nothing run is a
/// mistake, and `suspend` is the way to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In the whole cluster.
    pub total: u32,
    /// On one node.
    pub per_node: u32,
    /// On one storage.
    pub per_storage: u32,
}

/// Whether a run may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may, on any node but these, which are full (empty where it is bound to one).
    Admitted {
        /// In order.
        full_nodes: Vec<String>,
    },
    /// It waits.
    Queued {
        /// Its place, counted from 1.
        place: usize,
        /// What is full.
        why: Full,
    },
}

/// What keeps a run waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Full {
    /// The cluster.
    Total,
    /// Its node, or every node a mover that is not scheduled yet may still land on.
    Node(Option<String>),
    /// Its storage.
    Storage,
}

impl Full {
    /// The reason in words.
    pub fn words(&self, limits: Limits) -> String {
        match self {
            Self::Total => format!("at most {} movers run at once", limits.total),
            Self::Node(Some(node)) => {
                format!(
                    "at most {} movers run at once on node {node}",
                    limits.per_node
                )
            }
            Self::Node(None) => format!(
                "at most {} movers run at once on a node, and earlier ones have no node yet",
                limits.per_node
            ),
            Self::Storage => format!(
                "at most {} movers use this storage at once",
                limits.per_storage
            ),
        }
    }
}

/// Whether the waiting run `key` may start at `now`; one that is not among `waiting` is admitted
/// to nothing and told as last.
///
/// Restores go first, then Backups, then re-verifications, each by age.
///
/// # Guarantees
/// - If each run that is admitted starts before the next is asked for, no limit is ever passed.
/// - A run that waits for its own node or storage holds nobody up who needs neither.
/// - Of those that need the same, the first is served first; none starves: see [`PATIENCE`].
///   Restores alone may hold up everything else for as long as new ones come.
///
/// # Assumptions
/// Every one of `waiting` starts when it is admitted. A run that waits for anything else is not in
/// the list: it would keep a place free that it does not take.
pub fn admit(
    running: &[Mover],
    waiting: &[Waiting],
    limits: Limits,
    key: &str,
    now: Timestamp,
) -> Admission {
    let mut order: Vec<&Waiting> = waiting.iter().collect();
    order.sort_by_key(|run| (run.kind, run.created, &run.key));
    let mut load = Load::of(running, limits);
    let mut queued = 0;
    for run in order {
        let blocked = load.blocks(run);
        if run.key == key {
            return match blocked {
                Some(why) => Admission::Queued {
                    place: queued + 1,
                    why,
                },
                None => Admission::Admitted {
                    full_nodes: load.full_nodes(run),
                },
            };
        }
        match blocked {
            None => load.add(run.node.as_deref(), &run.storage),
            Some(why) => {
                queued += 1;
                if why != Full::Total && now.duration_since(run.created) > PATIENCE {
                    load.reserve(run);
                }
            }
        }
    }
    Admission::Queued {
        place: queued + 1,
        why: Full::Total,
    }
}

/// What the movers take up that run, or come first.
struct Load<'a> {
    limits: Limits,
    total: u32,
    on_node: BTreeMap<&'a str, u32>,
    on_storage: BTreeMap<&'a str, u32>,
    /// Those without a node yet: each may land on any.
    anywhere: u32,
}

impl<'a> Load<'a> {
    fn of(running: &'a [Mover], limits: Limits) -> Self {
        let mut load = Self {
            limits: Limits {
                total: limits.total.max(1),
                per_node: limits.per_node.max(1),
                per_storage: limits.per_storage.max(1),
            },
            total: 0,
            on_node: BTreeMap::new(),
            on_storage: BTreeMap::new(),
            anywhere: 0,
        };
        for mover in running {
            load.add(mover.node.as_deref(), &mover.storage);
        }
        load
    }

    fn add(&mut self, node: Option<&'a str>, storage: &'a str) {
        self.total += 1;
        self.occupy(node, storage);
    }

    /// Keeps a place on the run's node and storage from those behind it.
    fn reserve(&mut self, run: &'a Waiting) {
        // One that may run anywhere needs no place on a certain node.
        match run.node.as_deref() {
            Some(node) => self.occupy(Some(node), &run.storage),
            None => *self.on_storage.entry(&run.storage).or_default() += 1,
        }
    }

    fn occupy(&mut self, node: Option<&'a str>, storage: &'a str) {
        match node {
            Some(node) => *self.on_node.entry(node).or_default() += 1,
            None => self.anywhere += 1,
        }
        *self.on_storage.entry(storage).or_default() += 1;
    }

    fn blocks(&self, run: &Waiting) -> Option<Full> {
        let on_storage = self.on_storage.get(run.storage.as_str());
        let on_node = run.node.as_deref().and_then(|node| self.on_node.get(node));
        let node_load = on_node.copied().unwrap_or(0) + self.anywhere;
        if self.total >= self.limits.total {
            Some(Full::Total)
        } else if node_load >= self.limits.per_node {
            Some(Full::Node(run.node.clone()))
        } else if on_storage.is_some_and(|count| *count >= self.limits.per_storage) {
            Some(Full::Storage)
        } else {
            None
        }
    }

    fn full_nodes(&self, run: &Waiting) -> Vec<String> {
        if run.node.is_some() {
            return Vec::new();
        }
        let full = |count: &u32| *count + self.anywhere >= self.limits.per_node;
        let nodes = self.on_node.iter().filter(|(_, count)| full(count));
        nodes.map(|(node, _)| (*node).to_owned()).collect()
    }
}
