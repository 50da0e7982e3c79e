//! The fault matrix: the operator is killed just before and just after every write it makes, and
//! the end must be that of a run in which nothing happened. With it goes what else takes an operator
//! with settings of its own.

mod case;
mod coverage;
mod scenario;
mod sites;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};
use futures::stream::{self, StreamExt};
use tidelock_e2e::local_operator::in_place_of_the_clusters;
use tidelock_e2e::proxy::{Fault, Side};
use tokio::sync::Mutex;

use case::{Ended, Expected};
use coverage::Struck;
use scenario::Scenario;

/// Cases wait for pods more than they compute.
const AT_ONCE: usize = 6;
/// How often a case is tried whose write does not come: what the operator sees of things that
/// pass quickly differs.
const TRIES: usize = 3;
/// Restricts the matrix to cases whose line holds this, to look at one again; `killed` holds for
/// every write of every scenario, also those that another scenario makes in the same words.
const ONLY: &str = "TIDELOCK_E2E_FAULTS";

struct Case {
    scenario: Scenario,
    fault: Fault,
}

impl Case {
    fn line(&self) -> String {
        format!("{:?}: killed {}", self.scenario, self.fault)
    }
}

/// A story with its own operator in one future takes more than a test thread has without
/// optimisation.
const STACK_BYTES: usize = 64 << 20;

/// Tells a story on a thread with room for it.
fn with_room<F: Future<Output = Result<()>> + 'static>(story: fn() -> F) -> Result<()> {
    let tell = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()?;
        runtime.block_on(story())
    };
    let thread = thread::Builder::new().stack_size(STACK_BYTES);
    match thread.spawn(tell)?.join() {
        Ok(ended) => ended,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[test]
fn an_operator_killed_around_any_write_ends_as_one_that_was_not() -> Result<()> {
    with_room(matrix)
}

/// Says how far it is, at once: what is printed is only shown when all is over.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The cluster has one operator, so tests that put it aside take turns.
static OPERATOR: Mutex<()> = Mutex::const_new(());

async fn matrix() -> Result<()> {
    let _turn = OPERATOR.lock().await;
    in_place_of_the_clusters(async {
        let only = env::var(ONLY).ok();
        let (expected, mut failed) = undisturbed().await;
        let mut cases = cases(&expected);
        match &only {
            Some(only) => cases.retain(|case| case.line().contains(only)),
            None => each_fault_once(&mut cases),
        }
        let (struck, more) = run(&cases, &expected).await;
        failed.extend(more);
        if !failed.is_empty() {
            bail!("{} cases failed:\n{}", failed.len(), failed.join("\n\n"));
        }
        match only {
            Some(only) => bail!("only cases with {only:?} ran, and all of them passed"),
            None => struck.covers_the_code(&expected),
        }
    })
    .await
}

/// Each scenario's end when nobody interferes, and what failed already then.
async fn undisturbed() -> (BTreeMap<Scenario, Expected>, Vec<String>) {
    let ends: Vec<(Scenario, Result<Expected>)> = stream::iter(Scenario::ALL)
        .map(async |scenario| {
            let started = Instant::now();
            let expected = Box::pin(case::undisturbed(scenario)).await;
            let outcome = match &expected {
                Ok(expected) => format!("{} kinds of write", expected.effects.len()),
                Err(_) => "FAILED".to_owned(),
            };
            let took = started.elapsed().as_secs_f32();
            say(&format!(
                "{scenario:?}, undisturbed: {outcome} ({took:.1} s)"
            ));
            (scenario, expected)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut expected = BTreeMap::new();
    let mut failed = Vec::new();
    for (scenario, end) in ends {
        match end {
            Ok(end) => {
                expected.insert(scenario, end);
            }
            Err(error) => failed.push(format!("{scenario:?}, undisturbed\n{error:#}")),
        }
    }
    (expected, failed)
}

fn cases(expected: &BTreeMap<Scenario, Expected>) -> Vec<Case> {
    let mut cases = Vec::new();
    for (&scenario, expected) in expected {
        for effect in &expected.effects {
            for side in [Side::Before, Side::After] {
                let effect = effect.clone();
                let fault = Fault { effect, side };
                cases.push(Case { scenario, fault });
            }
        }
    }
    cases
}

/// Leaves out a write that an earlier scenario makes in the same words.
fn each_fault_once(cases: &mut Vec<Case>) {
    let mut seen = BTreeSet::new();
    cases.retain(|case| seen.insert(case.fault.clone()));
}

/// Runs all cases; where the operator was killed, and what failed.
async fn run(cases: &[Case], expected: &BTreeMap<Scenario, Expected>) -> (Struck, Vec<String>) {
    let done = AtomicUsize::new(0);
    let ends: Vec<(&Case, Result<Ended>)> = stream::iter(cases.iter().enumerate())
        .map(async |(number, case)| {
            let started = Instant::now();
            let ended = tried(number, case, &expected[&case.scenario]).await;
            let verdict = match &ended {
                Ok(Ended::AsExpected) => "the same end",
                Ok(Ended::NotReached) => "the write did not come",
                Err(_) => "FAILED",
            };
            say(&format!(
                "[{:3}/{}] {}: {verdict} ({:.1} s)",
                done.fetch_add(1, Ordering::Relaxed) + 1,
                cases.len(),
                case.line(),
                started.elapsed().as_secs_f32()
            ));
            (case, ended)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut struck = Struck::default();
    let mut failed = Vec::new();
    for (case, ended) in ends {
        match ended {
            Ok(Ended::AsExpected) => struck.note(&case.fault),
            Ok(Ended::NotReached) => {}
            Err(error) => failed.push(format!("{}\n{error:#}", case.line())),
        }
    }
    (struck, failed)
}

async fn tried(number: usize, case: &Case, expected: &Expected) -> Result<Ended> {
    for _ in 0..TRIES {
        let disturbed = case::disturbed(number, case.scenario, &case.fault, expected);
        let ended = Box::pin(disturbed).await?;
        if ended == Ended::AsExpected {
            return Ok(ended);
        }
    }
    Ok(Ended::NotReached)
}
