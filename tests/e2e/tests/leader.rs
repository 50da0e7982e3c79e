//! Two operators and one lease, on the real API server: one of them is killed, put to sleep or cut
//! off, and at no time do both write.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use kube::runtime::wait::await_condition;
use rustix::process::Signal;
use serde_json::json;
use tidelock_e2e::cluster::OPERATOR_NAMESPACE;
use tidelock_e2e::local_operator::{Launch, LocalOperator, in_place_of_the_clusters};
use tidelock_e2e::proxy::Write;
use tidelock_e2e::wait::DEADLINE;
use tidelock_e2e::{Story, outcome, tell, tree};
use tokio::sync::Mutex;

/// The cluster has one set of operators, so stories that put it aside take turns.
static OPERATOR: Mutex<()> = Mutex::const_new(());

/// The lease's fifteen seconds, one look more, and what a busy machine adds.
const MOST_AFTER_A_CRASH: Duration = Duration::from_secs(22);
/// Within which an operator that cannot renew has to be gone: before the lease is over.
const MOST_WHEN_CUT_OFF: Duration = Duration::from_secs(14);
/// Two looks of the one that stands by, and what a busy machine adds.
const MOST_AFTER_A_RELEASE: Duration = Duration::from_secs(6);

/// Two operators, the first of which leads.
struct Pair {
    lease: String,
    launch: Launch,
    first: LocalOperator,
    second: LocalOperator,
}

impl Pair {
    async fn start(story: &Story) -> Result<Self> {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::fill_sample(&data)?;
        let lease = format!("e2e-{}", story.namespace);
        let launch = Launch::new(story)?.with_lease(&lease);
        let first = launch.start_named(story, "first", None).await?;
        held_by(story, &lease, "first").await?;
        let second = launch.start_named(story, "second", None).await?;
        Ok(Self {
            lease,
            launch,
            first,
            second,
        })
    }

    /// The second one comes to lead; how long that took.
    async fn second_takes_over(&self, story: &Story, since: Instant) -> Result<Duration> {
        held_by(story, &self.lease, "second").await?;
        Ok(since.elapsed())
    }

    /// What was written beside the lease.
    fn writes(&self) -> Vec<Write> {
        let writes = self.launch.ledger.writes().into_iter();
        writes.filter(|write| !write.is_about_lease()).collect()
    }

    /// The writes of the first all came before those of the second, and there were some of both.
    fn one_writer_at_a_time(&self) -> Result<()> {
        let writers: Vec<String> = self.writes().into_iter().map(|w| w.operator).collect();
        let turn = writers.iter().position(|writer| writer == "second");
        let turn = turn.context("the second operator wrote nothing")?;
        ensure!(turn > 0, "the first operator wrote nothing");
        let mixed = writers[turn..].iter().any(|writer| writer == "first");
        ensure!(!mixed, "both wrote at once: {writers:?}");
        let made = self.launch.ledger.made();
        let twice: Vec<_> = made.iter().filter(|(_, times)| **times > 1).collect();
        ensure!(twice.is_empty(), "made more than once: {twice:?}");
        Ok(())
    }
}

fn leases(story: &Story) -> Api<Lease> {
    Api::namespaced(story.client.clone(), OPERATOR_NAMESPACE)
}

/// Waits until the lease is that of the operator `name`.
async fn held_by(story: &Story, lease: &str, name: &str) -> Result<()> {
    let prefix = format!("{name}_");
    let held = |lease: Option<&Lease>| {
        let spec = lease.and_then(|lease| lease.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.as_ref());
        holder.is_some_and(|holder| holder.starts_with(&prefix))
    };
    let waited = await_condition(leases(story), lease, held);
    tokio::time::timeout(DEADLINE, waited)
        .await
        .with_context(|| format!("{name} never leads"))??;
    Ok(())
}

/// Tells a story of two operators in place of the cluster's own.
async fn of_two(
    name: &str,
    story: impl AsyncFnOnce(&Story, &mut Pair) -> Result<()>,
) -> Result<()> {
    let _turn = OPERATOR.lock().await;
    let told = tell(name, async |setting: Story| {
        let mut pair = Pair::start(&setting).await?;
        let told = story(&setting, &mut pair).await;
        let params = DeleteParams::default();
        let _ = leases(&setting).delete(&pair.lease, &params).await;
        told?;
        pair.launch.forget_log();
        Ok(())
    });
    in_place_of_the_clusters(told).await
}

/// A backup that takes long enough to be under way when its operator goes.
async fn long_backup(story: &Story) -> Result<()> {
    tree::long_read(&story.volumes_folder()?.join("data"), 6)?;
    story.backup("now", json!({})).await?;
    story.wait_job_pod("now-backup").await?;
    Ok(())
}

#[tokio::test]
async fn a_killed_leader_is_followed_and_its_run_ends_once() -> Result<()> {
    of_two("leader-killed", async |story, pair| {
        long_backup(story).await?;
        let since = Instant::now();
        pair.first.signal(Signal::KILL)?;
        let took = pair.second_takes_over(story, since).await?;
        println!("fail-over after SIGKILL: {:.1} s", took.as_secs_f64());
        ensure!(took <= MOST_AFTER_A_CRASH, "{took:?}");
        outcome::completed_once(story, "now").await?;
        pair.one_writer_at_a_time()
    })
    .await
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over_at_once() -> Result<()> {
    of_two("leader-stopped", async |story, pair| {
        long_backup(story).await?;
        let since = Instant::now();
        pair.first.signal(Signal::TERM)?;
        let took = pair.second_takes_over(story, since).await?;
        println!("fail-over after SIGTERM: {:.1} s", took.as_secs_f64());
        ensure!(took <= MOST_AFTER_A_RELEASE, "{took:?}");
        let ended = pair.first.ended().await?;
        ensure!(ended.success(), "it ended with {ended}");
        outcome::completed_once(story, "now").await?;
        pair.one_writer_at_a_time()
    })
    .await
}

#[tokio::test]
async fn a_leader_that_sleeps_past_its_lease_writes_nothing_when_it_wakes() -> Result<()> {
    of_two("leader-asleep", async |story, pair| {
        long_backup(story).await?;
        let since = Instant::now();
        pair.first.signal(Signal::STOP)?;
        let took = pair.second_takes_over(story, since).await?;
        println!("fail-over after SIGSTOP: {:.1} s", took.as_secs_f64());
        ensure!(took <= MOST_AFTER_A_CRASH, "{took:?}");
        // Something that the sleeper has not seen yet, and would do if it still led.
        story.backup("meanwhile", json!({})).await?;
        pair.first.signal(Signal::CONT)?;
        let ended = pair.first.ended().await?;
        ensure!(!ended.success(), "it ended as if all were well");
        for name in ["now", "meanwhile"] {
            outcome::completed_once(story, name).await?;
        }
        pair.one_writer_at_a_time()
    })
    .await
}

#[tokio::test]
async fn a_leader_that_is_cut_off_is_gone_before_another_one_leads() -> Result<()> {
    of_two("leader-cut-off", async |story, pair| {
        long_backup(story).await?;
        let since = Instant::now();
        pair.first.cut(true);
        let ended = pair.first.ended().await?;
        let gone = since.elapsed();
        ensure!(!ended.success(), "it ended as if all were well");
        ensure!(gone <= MOST_WHEN_CUT_OFF, "it was there for {gone:?}");
        let took = pair.second_takes_over(story, since).await?;
        println!(
            "cut off: the leader ended after {:.1} s, the other led after {:.1} s",
            gone.as_secs_f64(),
            took.as_secs_f64()
        );
        // It led only once this one was gone.
        ensure!(gone < took, "gone after {gone:?}, followed after {took:?}");
        outcome::completed_once(story, "now").await?;
        pair.one_writer_at_a_time()
    })
    .await
}

#[tokio::test]
async fn one_that_stands_by_writes_nothing_and_has_its_caches_filled() -> Result<()> {
    of_two("leader-standby", async |story, pair| {
        story.backup("now", json!({})).await?;
        outcome::completed_once(story, "now").await?;
        let by_second = pair.writes().into_iter().filter(|w| w.operator == "second");
        let by_second: Vec<_> = by_second.collect();
        ensure!(by_second.is_empty(), "it wrote {by_second:?}");
        // It goes as it came: nothing to hand over.
        pair.second.signal(Signal::TERM)?;
        let ended = pair.second.ended().await?;
        ensure!(ended.success(), "it ended with {ended}");
        held_by(story, &pair.lease, "first").await
    })
    .await
}
