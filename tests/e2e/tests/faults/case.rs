//! One run of a scenario, with or without a kill.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, Restore};
use tidelock_e2e::effect::Effect;
use tidelock_e2e::local_operator::Launch;
use tidelock_e2e::proxy::Fault;
use tidelock_e2e::snapshot::Snapshot;
use tidelock_e2e::wait::{DEADLINE, Watched};
use tidelock_e2e::{Story, tell};

use crate::scenario::Scenario;

/// How long nothing must have been written for a run to be at its end.
const QUIET: Duration = Duration::from_millis(1500);
/// Between two looks at a whole namespace, of which there is no watch.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// How long nothing must change for Kubernetes' own controllers to be done as well.
const SETTLED: Duration = Duration::from_secs(8);

/// How a scenario ends when nobody interferes.
pub struct Expected {
    /// What is left.
    pub snapshot: Snapshot,
    /// How often each object was made.
    pub made: BTreeMap<String, usize>,
    /// Every kind of write.
    pub effects: BTreeSet<Effect>,
}

/// How a disturbed run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The operator was killed, and the end is the same.
    AsExpected,
    /// The end is the same, and the write at which to kill did not come.
    NotReached,
}

/// Runs `scenario` to its end.
pub async fn undisturbed(scenario: Scenario) -> Result<Expected> {
    let mut expected = None;
    let name = format!("undisturbed-{}", scenario as u8);
    tell(&name, async |story| {
        let launch = launch(&story, scenario)?;
        Box::pin(prepare(&story, scenario, &launch)).await?;
        let launch = launch.with_new_ledger();
        let mut operator = launch.start(&story, None).await?;
        tokio::select! {
            ended = operator.killed() => ended?,
            ended = Box::pin(scenario.end(&story)) => ended?,
        }
        quiet(&launch, Instant::now()).await?;
        expected = Some(Expected {
            snapshot: settled(&story).await?,
            made: launch.ledger.made(),
            effects: effects(&launch),
        });
        operator.kill().await?;
        finish(&story, &launch).await
    })
    .await?;
    expected.ok_or_else(|| anyhow::anyhow!("the run told nothing"))
}

/// Runs `scenario`, kills the operator as `fault` says, starts it again, and compares the end.
pub async fn disturbed(
    number: usize,
    scenario: Scenario,
    fault: &Fault,
    expected: &Expected,
) -> Result<Ended> {
    let mut ended = Ended::NotReached;
    tell(&format!("fault-{number}"), async |story| {
        let launch = launch(&story, scenario)?;
        Box::pin(prepare(&story, scenario, &launch)).await?;
        let launch = launch.with_new_ledger();
        let restarted = Cell::new(None);
        let operators = async {
            let mut first = launch.start(&story, Some(fault.clone())).await?;
            first.killed().await?;
            restarted.set(Some(Instant::now()));
            let mut second = launch.start(&story, None).await?;
            second.killed().await
        };
        let judged = async {
            Box::pin(scenario.end(&story)).await?;
            same_end(&story, &launch, expected, &restarted).await
        };
        tokio::select! {
            ended = operators => ended?,
            judged = judged => judged?,
        }
        if restarted.get().is_some() {
            ended = Ended::AsExpected;
        }
        finish(&story, &launch).await
    })
    .await?;
    Ok(ended)
}

/// How the operators of `scenario` are started.
fn launch(story: &Story, scenario: Scenario) -> Result<Launch> {
    let launch = Launch::new(story)?;
    Ok(match scenario.environment() {
        Some((name, value)) => launch.with(name, value),
        None => launch,
    })
}

/// Brings the namespace to where the scenario begins; no operator runs afterwards.
async fn prepare(story: &Story, scenario: Scenario, launch: &Launch) -> Result<()> {
    let mut sound = launch.start(story, None).await?;
    let settled = async {
        // On the heap: all scenarios together are too much for the stack.
        if Box::pin(scenario.settle(story)).await? {
            quiet(launch, Instant::now()).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = sound.killed() => ended?,
        settled = settled => settled?,
    }
    sound.kill().await?;
    Box::pin(scenario.act(story)).await
}

fn effects(launch: &Launch) -> BTreeSet<Effect> {
    let writes = launch.ledger.writes().into_iter();
    writes.map(|write| write.effect).collect()
}

/// Waits until nothing was written for a while, by an operator that runs since `started` or
/// before.
async fn quiet(launch: &Launch, started: Instant) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        let silence = launch.ledger.quiet_for().unwrap_or(Duration::MAX);
        if silence.min(started.elapsed()) >= QUIET {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    bail!("the operator does not stop writing")
}

/// What is left once the garbage collector and the Job controller, too, are done.
async fn settled(story: &Story) -> Result<Snapshot> {
    let deadline = Instant::now() + DEADLINE;
    let mut last = Snapshot::take(story).await?;
    while Instant::now() < deadline {
        tokio::time::sleep(SETTLED).await;
        let now = Snapshot::take(story).await?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
    bail!("what is left goes on changing")
}

/// Waits until the end is that of the undisturbed run, and stays so.
async fn same_end(
    story: &Story,
    launch: &Launch,
    expected: &Expected,
    restarted: &Cell<Option<Instant>>,
) -> Result<()> {
    let deadline = Instant::now() + DEADLINE / 3;
    loop {
        let since = restarted.get();
        quiet(launch, since.unwrap_or_else(Instant::now)).await?;
        let mut found = Snapshot::take(story).await?.differences(&expected.snapshot);
        let made = launch.ledger.made();
        if made != expected.made {
            found.push(format!("made {made:?} instead of {:?}", expected.made));
        }
        // A kill in between leaves the second operator its time.
        if found.is_empty() && restarted.get() == since {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "the end differs from that of an undisturbed run (operator's output: {}):\n{}",
                launch.log().display(),
                found.join("\n")
            );
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Nobody is left to take the finalizers off, and the namespace shall go at once.
async fn finish(story: &Story, launch: &Launch) -> Result<()> {
    strip::<Backup>(story).await?;
    strip::<BackupPolicy>(story).await?;
    strip::<Restore>(story).await?;
    launch.forget_log();
    Ok(())
}

async fn strip<K: Watched>(story: &Story) -> Result<()> {
    use kube::ResourceExt;
    let objects = story.api::<K>().list(&Default::default()).await?;
    for object in objects {
        if !object.finalizers().is_empty() {
            let none = json!({"metadata": {"finalizers": null}});
            story.patch::<K>(&object.name_any(), none).await?;
        }
    }
    Ok(())
}
