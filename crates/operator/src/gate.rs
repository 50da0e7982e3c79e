//! Load limits: which run starts its mover now, and which waits for its turn.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tidelock_api::{RUN_KIND_LABEL, RUN_UID_LABEL};
use tidelock_core::queue::{self, Admission, Limits, Mover, Waiting};

use crate::context::Caches;
use crate::job::{RunKind, STORAGE_ANNOTATION};
use crate::run::observe::is_finished;
use crate::store::StoreRef;

/// How often the place of a waiting run is told anew; a long queue that moves must not become a
/// storm of writes.
pub const RETELL: SignedDuration = SignedDuration::from_secs(15);
/// How long a run that was admitted keeps its place without its Job being seen.
const ADMITTED_FOR: SignedDuration = SignedDuration::from_mins(2);

/// Lets at most so many movers run at once.
///
/// # Guarantees
/// One operator never passes the limits in all and of a storage: a run that is admitted holds its
/// place until its Job is seen. The limit of a node holds for runs that are bound to it; others are
/// kept off a full one by preference.
///
/// # Assumptions
/// One operator works: two on the same runs would each keep a list, and pass the limits together.
pub struct Gate {
    limits: Limits,
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    /// Runs that are ready but for a place, by UID.
    waiting: HashMap<String, Entry>,
    /// Runs that were admitted and whose Job may not be in the cache yet, by UID.
    admitted: HashMap<String, (Mover, Timestamp)>,
}

struct Entry {
    run: Waiting,
    told: Option<(usize, Timestamp)>,
    /// When it last asked; one that asks no more has gone or cannot start.
    asked: Timestamp,
}

impl Entry {
    /// A waiting run asks every [`RETELL`] at the latest.
    fn still_asks(&self, now: Timestamp) -> bool {
        now.duration_since(self.asked) < RETELL * 4
    }
}

/// What becomes of a run at the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It starts now, on any node but these.
    Now {
        /// Nodes that have as many movers as they may.
        full_nodes: Vec<String>,
    },
    /// It waits.
    Later(Wait),
}

/// A run that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Its place, counted from 1, where that is to be told.
    pub tell: Option<String>,
}

impl Gate {
    /// A gate with these limits.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lists: Mutex::default(),
        }
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a run that waits still has to; none for one that never asked. Reads memory only.
    pub fn must_wait(&self, caches: &Caches, uid: &str, now: Timestamp) -> Option<Wait> {
        let mut lists = self.lists();
        lists.tidy(caches, now);
        lists.waiting.get_mut(uid)?.asked = now;
        let admission = lists.ask(caches, self.limits, uid, now);
        match admission {
            Admission::Admitted { .. } => None,
            Admission::Queued { place, why } => {
                let words = why.words(self.limits);
                Some(lists.later(uid, place, &words, now))
            }
        }
    }

    /// Lets `run` through, or notes that it waits.
    pub fn ask(&self, caches: &Caches, run: Waiting, now: Timestamp) -> Turn {
        let mut lists = self.lists();
        lists.tidy(caches, now);
        let uid = run.key.clone();
        let told = lists.waiting.get(&uid).and_then(|entry| entry.told);
        let mover = Mover {
            node: run.node.clone(),
            storage: run.storage.clone(),
        };
        let entry = Entry {
            run,
            told,
            asked: now,
        };
        lists.waiting.insert(uid.clone(), entry);
        match lists.ask(caches, self.limits, &uid, now) {
            Admission::Admitted { full_nodes } => {
                lists.waiting.remove(&uid);
                lists.admitted.insert(uid, (mover, now));
                Turn::Now { full_nodes }
            }
            Admission::Queued { place, why } => {
                let words = why.words(self.limits);
                Turn::Later(lists.later(&uid, place, &words, now))
            }
        }
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How many runs wait for their turn, by what they do.
    pub fn queued(&self, now: Timestamp) -> Vec<(&'static str, usize)> {
        let lists = self.lists();
        let of_kind = |kind| {
            let waiting = lists.waiting.values();
            let asking = waiting.filter(|entry| entry.run.kind == kind && entry.still_asks(now));
            asking.count()
        };
        vec![
            ("Restore", of_kind(queue::Kind::Restore)),
            ("Backup", of_kind(queue::Kind::Backup)),
            ("Verify", of_kind(queue::Kind::Verify)),
        ]
    }

    /// How many movers run, as far as `caches` know.
    pub fn running(&self, caches: &Caches) -> usize {
        running(caches).len()
    }

    /// Forgets a run that does not start now for another reason, or has ended.
    pub fn leave(&self, uid: &str) {
        let mut lists = self.lists();
        lists.waiting.remove(uid);
        lists.admitted.remove(uid);
    }
}

impl Lists {
    /// Forgets those whose Job is seen by now, and those that ask no more.
    fn tidy(&mut self, caches: &Caches, now: Timestamp) {
        let jobs = caches.jobs.state();
        let seen = |uid: &str| {
            jobs.iter().any(|job| {
                let labels = job.labels();
                labels.get(RUN_UID_LABEL).is_some_and(|own| own == uid)
            })
        };
        self.admitted
            .retain(|uid, (_, since)| now.duration_since(*since) < ADMITTED_FOR && !seen(uid));
        self.waiting.retain(|_, entry| entry.still_asks(now));
    }

    fn ask(&self, caches: &Caches, limits: Limits, uid: &str, now: Timestamp) -> Admission {
        let mut running = running(caches);
        // One that was admitted and asks again, as after an error, is not in its own way.
        let others = self.admitted.iter().filter(|(other, _)| *other != uid);
        running.extend(others.map(|(_, (mover, _))| mover.clone()));
        let waiting: Vec<Waiting> = self.waiting.values().map(|e| e.run.clone()).collect();
        queue::admit(&running, &waiting, limits, uid, now)
    }

    fn later(&mut self, uid: &str, place: usize, why: &str, now: Timestamp) -> Wait {
        let Some(entry) = self.waiting.get_mut(uid) else {
            return Wait { tell: None };
        };
        let is_news = entry
            .told
            .is_none_or(|(told, at)| told != place && now.duration_since(at) >= RETELL);
        if !is_news {
            return Wait { tell: None };
        }
        entry.told = Some((place, now));
        Wait {
            tell: Some(format!("Place {place} in the queue: {why}.")),
        }
    }
}

/// The movers that the caches know of. One whose pod the scheduler cannot place uses nothing yet,
/// and must not keep others waiting.
fn running(caches: &Caches) -> Vec<Mover> {
    let pods = caches.pods.state();
    let jobs = caches
        .jobs
        .state_filter(|job| counts(job) && !is_finished(job));
    jobs.iter()
        .filter_map(|job| {
            let uid = job.uid()?;
            let own = pods
                .iter()
                .filter(|pod| pod.owner_references().iter().any(|owner| owner.uid == uid));
            let newest = own.max_by_key(|pod| crate::convert::created(&pod.metadata));
            if newest.is_some_and(|pod| cannot_be_placed(pod)) {
                return None;
            }
            let node = newest.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
            let storage = job.annotations().get(STORAGE_ANNOTATION);
            Some(Mover {
                node,
                storage: storage_key(&job.namespace().unwrap_or_default(), storage?),
            })
        })
        .collect()
}

/// Deleting and taking back are never held up, and count for nobody.
fn counts(job: &Job) -> bool {
    let kinds = [RunKind::Backup, RunKind::Restore, RunKind::Verify];
    let kind = job.labels().get(RUN_KIND_LABEL);
    kinds
        .iter()
        .any(|known| kind.is_some_and(|kind| kind == known.as_str()))
}

fn cannot_be_placed(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    conditions.flatten().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })
}

/// A key that no two storages share. What belongs to no namespace is one for all.
pub fn storage_key(namespace: &str, claim: &str) -> String {
    if matches!(StoreRef::of_key(claim), StoreRef::ClusterStorage(_)) {
        return claim.to_owned();
    }
    format!("{namespace}/{claim}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(key: &str, created: i64) -> Waiting {
        Waiting {
            kind: queue::Kind::Backup,
            created: at(created),
            key: key.to_owned(),
            node: None,
            storage: "shop/storage".to_owned(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn gate() -> Gate {
        Gate::new(Limits {
            total: 1,
            per_node: 5,
            per_storage: 5,
        })
    }

    #[test]
    fn an_admitted_run_holds_its_place_until_it_leaves() {
        let (gate, caches) = (gate(), Caches::empty());
        assert!(matches!(
            gate.ask(&caches, run("a", 1), at(10)),
            Turn::Now { .. }
        ));
        let Turn::Later(Wait { tell: Some(words) }) = gate.ask(&caches, run("b", 2), at(10)) else {
            panic!("both run, or the place is not told")
        };
        assert!(words.starts_with("Place 1 "), "{words}");
        assert!(gate.must_wait(&caches, "b", at(11)).is_some());
        gate.leave("a");
        assert_eq!(gate.must_wait(&caches, "b", at(12)), None);
        assert!(matches!(
            gate.ask(&caches, run("b", 2), at(12)),
            Turn::Now { .. }
        ));
    }

    #[test]
    fn a_run_that_was_admitted_and_asks_again_does_not_wait_for_itself() {
        let (gate, caches) = (gate(), Caches::empty());
        for second in [10, 11] {
            let turn = gate.ask(&caches, run("a", 1), at(second));
            assert!(matches!(turn, Turn::Now { .. }), "{turn:?}");
        }
        assert_eq!(gate.must_wait(&caches, "a", at(12)), None);
        let turn = gate.ask(&caches, run("b", 2), at(12));
        assert!(matches!(turn, Turn::Later(_)), "{turn:?}");
    }

    #[test]
    fn who_waits_is_counted_by_kind_until_it_asks_no_more() {
        let (gate, caches) = (gate(), Caches::empty());
        gate.ask(&caches, run("a", 1), at(10));
        gate.ask(&caches, run("b", 2), at(10));
        let waiting = |now| gate.queued(at(now))[1];
        assert_eq!(waiting(11), ("Backup", 1));
        assert_eq!(waiting(10 + 4 * RETELL.as_secs()), ("Backup", 0));
    }

    #[test]
    fn a_place_that_did_not_change_is_not_told_again() {
        let (gate, caches) = (gate(), Caches::empty());
        gate.ask(&caches, run("a", 1), at(10));
        gate.ask(&caches, run("b", 2), at(10));
        for now in [11, 30] {
            let turn = gate.must_wait(&caches, "b", at(now));
            assert_eq!(turn, Some(Wait { tell: None }));
        }
    }

    #[test]
    fn one_that_asks_no_more_keeps_no_place_free() {
        let (gate, caches) = (gate(), Caches::empty());
        gate.ask(&caches, run("a", 1), at(10));
        gate.ask(&caches, run("gone", 2), at(10));
        gate.leave("a");
        let late = at(10 + 4 * RETELL.as_secs());
        assert!(matches!(
            gate.ask(&caches, run("c", 3), late),
            Turn::Now { .. }
        ));
    }
}
