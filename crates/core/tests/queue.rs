//! Who runs when there is not room for all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use tidelock_core::queue::{Admission, Full, Kind, Limits, Mover, PATIENCE, Waiting, admit};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn limits(total: u32, per_node: u32, per_storage: u32) -> Limits {
    Limits {
        total,
        per_node,
        per_storage,
    }
}

fn waits(kind: Kind, created: i64, key: &str) -> Waiting {
    Waiting {
        kind,
        created: at(created),
        key: key.to_owned(),
        node: None,
        storage: format!("storage-of-{key}"),
    }
}

fn runs(node: Option<&str>, storage: &str) -> Mover {
    Mover {
        node: node.map(str::to_owned),
        storage: storage.to_owned(),
    }
}

fn anywhere() -> Admission {
    Admission::Admitted { full_nodes: vec![] }
}

fn queued(place: usize, why: Full) -> Admission {
    Admission::Queued { place, why }
}

#[test]
fn restores_go_first_then_backups_by_age_and_verification_last() {
    let waiting = [
        waits(Kind::Verify, 1, "verify"),
        waits(Kind::Backup, 3, "b-late"),
        waits(Kind::Backup, 2, "b-early"),
        waits(Kind::Restore, 9, "restore"),
    ];
    let ask = |total, key| admit(&[], &waiting, limits(total, 99, 99), key, at(10));
    assert_eq!(ask(1, "restore"), anywhere());
    assert_eq!(ask(1, "b-early"), queued(1, Full::Total));
    assert_eq!(ask(1, "b-late"), queued(2, Full::Total));
    assert_eq!(ask(1, "verify"), queued(3, Full::Total));
    assert_eq!(ask(3, "b-late"), anywhere());
    assert_eq!(ask(3, "verify"), queued(1, Full::Total));
}

#[test]
fn runs_of_one_moment_go_by_their_keys() {
    let waiting = [waits(Kind::Backup, 1, "b"), waits(Kind::Backup, 1, "a")];
    let ask = |key| admit(&[], &waiting, limits(1, 9, 9), key, at(2));
    assert_eq!((ask("a"), ask("b")), (anywhere(), queued(1, Full::Total)));
}

#[test]
fn a_full_storage_holds_up_only_those_that_need_it() {
    let running = [runs(Some("n1"), "busy")];
    let mut blocked = waits(Kind::Restore, 1, "blocked");
    blocked.storage = "busy".to_owned();
    let waiting = [blocked, waits(Kind::Backup, 2, "free")];
    let ask = |key| admit(&running, &waiting, limits(4, 4, 1), key, at(3));
    assert_eq!(ask("blocked"), queued(1, Full::Storage));
    assert_eq!(ask("free"), anywhere());
}

#[test]
fn a_full_node_is_avoided_by_those_that_may_run_elsewhere() {
    let running = [runs(Some("n1"), "s1"), runs(Some("n2"), "s2")];
    let mut bound = waits(Kind::Backup, 1, "bound");
    bound.node = Some("n1".to_owned());
    let waiting = [bound, waits(Kind::Backup, 2, "free")];
    let ask = |key| admit(&running, &waiting, limits(9, 1, 9), key, at(3));
    assert_eq!(ask("bound"), queued(1, Full::Node(Some("n1".to_owned()))));
    let full_nodes = vec!["n1".to_owned(), "n2".to_owned()];
    assert_eq!(ask("free"), Admission::Admitted { full_nodes });
}

#[test]
fn a_mover_without_a_node_counts_for_every_node_until_it_has_one() {
    let waiting = [waits(Kind::Backup, 1, "next")];
    let ask = |running: &[Mover]| admit(running, &waiting, limits(9, 1, 9), "next", at(2));
    assert_eq!(ask(&[runs(None, "s")]), queued(1, Full::Node(None)));
    let full_nodes = vec!["n1".to_owned()];
    assert_eq!(
        ask(&[runs(Some("n1"), "s")]),
        Admission::Admitted { full_nodes }
    );
}

#[test]
fn a_limit_of_zero_lets_one_run() {
    let waiting = [waits(Kind::Backup, 1, "one")];
    assert_eq!(
        admit(&[], &waiting, limits(0, 0, 0), "one", at(2)),
        anywhere()
    );
}

#[test]
fn who_waited_long_for_two_places_is_not_overtaken_at_either() {
    let running = [runs(Some("n2"), "s1")];
    let mut first = waits(Kind::Backup, 0, "first");
    (first.node, first.storage) = (Some("n1".to_owned()), "s1".to_owned());
    let mut second = waits(Kind::Backup, 1, "second");
    second.node = Some("n1".to_owned());
    let waiting = [first, second];
    let ask = |now| admit(&running, &waiting, limits(9, 1, 1), "second", now);
    assert_eq!(ask(at(0) + PATIENCE), anywhere());
    let later = at(1) + PATIENCE;
    assert_eq!(ask(later), queued(2, Full::Node(Some("n1".to_owned()))));
}

prop_compose! {
    fn run()(
        kind in prop::sample::select(vec![Kind::Restore, Kind::Backup, Kind::Verify]),
        created in 0i64..100,
        node in prop::option::of(0u8..3),
        storage in 0u8..4,
        minutes in 1i64..30,
    ) -> (Waiting, i64) {
        let waiting = Waiting {
            kind,
            created: at(created),
            key: String::new(),
            node: node.map(|node| format!("n{node}")),
            storage: format!("s{storage}"),
        };
        (waiting, minutes)
    }
}

fn numbered(runs: Vec<(Waiting, i64)>) -> Vec<(Waiting, i64)> {
    let number = |(index, (run, minutes)): (usize, (Waiting, i64))| {
        let key = format!("{index:03}");
        (Waiting { key, ..run }, minutes)
    };
    runs.into_iter().enumerate().map(number).collect()
}

fn most<K: Ord>(keys: impl Iterator<Item = K>) -> u32 {
    let mut counts = BTreeMap::new();
    keys.for_each(|key| *counts.entry(key).or_insert(0) += 1);
    counts.into_values().max().unwrap_or(0)
}

/// A wave of runs as the operator takes it: each waiting run asks in turn, one that is admitted
/// starts, and the scheduler gives it a node that is not among the full ones.
struct Wave {
    limits: Limits,
    now: Timestamp,
    waiting: Vec<(Waiting, i64)>,
    running: Vec<(Mover, String, Timestamp)>,
    started: Vec<String>,
}

impl Wave {
    fn new(waiting: Vec<(Waiting, i64)>, limits: Limits) -> Self {
        Self {
            limits,
            now: at(100),
            waiting,
            running: vec![],
            started: vec![],
        }
    }

    fn movers(&self) -> Vec<Mover> {
        self.running
            .iter()
            .map(|(mover, ..)| mover.clone())
            .collect()
    }

    /// Lets each waiting run ask once, in the order of the list; how many started.
    fn ask_all(&mut self) -> usize {
        let before = self.started.len();
        for (run, minutes) in self.waiting.clone() {
            let all: Vec<Waiting> = self.waiting.iter().map(|(run, _)| run.clone()).collect();
            let answer = admit(&self.movers(), &all, self.limits, &run.key, self.now);
            if let Admission::Admitted { full_nodes } = answer {
                let mover = Mover {
                    node: run.node.clone().or_else(|| self.schedule(&full_nodes)),
                    storage: run.storage.clone(),
                };
                let ends = self.now + SignedDuration::from_mins(minutes);
                self.running.push((mover, run.key.clone(), ends));
                self.started.push(run.key.clone());
                self.waiting.retain(|(other, _)| other.key != run.key);
                self.assert_within_limits();
            }
        }
        self.started.len() - before
    }

    /// Some node of five that is not full; the scheduler may be late, and gives none.
    fn schedule(&self, full_nodes: &[String]) -> Option<String> {
        if self.started.len().is_multiple_of(3) {
            return None;
        }
        let nodes = (0..5).map(|n| format!("n{n}"));
        nodes.into_iter().find(|node| !full_nodes.contains(node))
    }

    /// Lets a mover that has no node yet have one, where there is room for it.
    fn settle_nodes(&mut self) {
        let taken = self.movers();
        for (mover, ..) in &mut self.running {
            let load = |node: &str| {
                let there = taken.iter().filter(|m| m.node.as_deref() == Some(node));
                u32::try_from(there.count()).unwrap()
            };
            if mover.node.is_none() {
                let nodes = (0..5).map(|n| format!("n{n}"));
                mover.node = nodes.into_iter().find(|n| load(n) < self.limits.per_node);
                return;
            }
        }
    }

    fn assert_within_limits(&self) {
        let movers = self.movers();
        let total = u32::try_from(movers.len()).unwrap();
        assert!(total <= self.limits.total);
        assert!(most(movers.iter().map(|m| &m.storage)) <= self.limits.per_storage);
        assert!(most(movers.iter().filter_map(|m| m.node.as_ref())) <= self.limits.per_node);
    }

    fn run(&mut self) {
        while !self.waiting.is_empty() {
            let started = self.ask_all();
            assert!(
                started > 0 || !self.running.is_empty(),
                "nothing runs and nothing may start"
            );
            self.settle_nodes();
            let next_end = self.running.iter().map(|(.., ends)| *ends).min();
            self.now = next_end.unwrap_or(self.now);
            self.running.retain(|(.., ends)| *ends > self.now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn no_limit_is_ever_passed_and_every_run_has_its_turn(
        runs in prop::collection::vec(run(), 0..60),
        (total, per_node, per_storage) in (1u32..6, 1u32..4, 1u32..4),
    ) {
        let runs = numbered(runs);
        let mut wave = Wave::new(runs.clone(), limits(total, per_node, per_storage));
        wave.run();
        let mut started = wave.started.clone();
        started.sort();
        let all: Vec<String> = runs.into_iter().map(|(run, _)| run.key).collect();
        prop_assert_eq!(started, all);
    }

    #[test]
    fn places_are_counted_without_a_gap(
        runs in prop::collection::vec(run(), 1..40),
        total in 1u32..6,
    ) {
        let waiting: Vec<Waiting> = numbered(runs).into_iter().map(|(run, _)| run).collect();
        let limits = limits(total, 2, 2);
        let mut places: Vec<usize> = waiting.iter()
            .filter_map(|run| match admit(&[], &waiting, limits, &run.key, at(200)) {
                Admission::Queued { place, .. } => Some(place),
                Admission::Admitted { .. } => None,
            })
            .collect();
        places.sort_unstable();
        let admitted = waiting.len() - places.len();
        prop_assert!(admitted >= 1 && admitted <= total as usize);
        prop_assert_eq!(places, (1..=waiting.len() - admitted).collect::<Vec<_>>());
    }
}

#[test]
fn a_midnight_wave_of_200_policies_runs_in_order_with_4_movers() {
    let wave: Vec<(Waiting, i64)> = (0..200)
        .map(|n| (waits(Kind::Backup, n / 50, &format!("{n:03}")), 1 + n % 7))
        .collect();
    let keys: Vec<String> = wave.iter().map(|(run, _)| run.key.clone()).collect();
    let mut shuffled = wave;
    shuffled.reverse();
    let mut wave = Wave::new(shuffled, limits(4, 4, 4));
    let mut order = vec![];
    while !wave.waiting.is_empty() {
        let before = wave.started.len();
        wave.ask_all();
        let mut batch = wave.started[before..].to_vec();
        batch.sort();
        order.extend(batch);
        let next_end = wave.running.iter().map(|(.., ends)| *ends).min();
        wave.now = next_end.unwrap();
        wave.running.retain(|(.., ends)| *ends > wave.now);
    }
    assert_eq!(order, keys);
}

/// Others keep coming that need only one of the two places that the first needs.
#[test]
fn a_run_that_needs_two_places_is_not_starved_by_a_stream_of_others() {
    let mut first = waits(Kind::Backup, 100, "first");
    (first.node, first.storage) = (Some("n1".to_owned()), "s1".to_owned());
    let mut wave = Wave::new(vec![], limits(4, 1, 1));
    for minute in 0..300 {
        let mut on_node = waits(Kind::Backup, 0, &format!("node-{minute:03}"));
        on_node.node = Some("n1".to_owned());
        let mut on_storage = waits(Kind::Backup, 0, &format!("storage-{minute:03}"));
        (on_storage.node, on_storage.storage) = (Some("n2".to_owned()), "s1".to_owned());
        (on_node.created, on_storage.created) = (wave.now, wave.now);
        // One takes the node in even minutes, one the storage in odd ones, each for two minutes.
        let other = if minute % 2 == 0 { on_node } else { on_storage };
        wave.waiting.push((other, 2));
        if minute == 1 {
            wave.waiting.push((first.clone(), 1));
        }
        wave.ask_all();
        wave.now += SignedDuration::from_mins(1);
        wave.running.retain(|(.., ends)| *ends > wave.now);
        if wave.started.contains(&first.key) {
            assert!(minute < 80, "started only after {minute} minutes");
            return;
        }
    }
    panic!("it never started");
}
