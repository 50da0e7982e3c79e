//! What the operator asks of a cluster in which nothing happens, and what it needs itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde_json::json;
use tidelock_api::BackupPolicy;
use tidelock_e2e::pods::{operator_pods, processes};
use tidelock_e2e::procfs::{Memory, mib};
use tidelock_e2e::wait::DEADLINE;
use tidelock_e2e::{Story, audit, metrics, tell, tree};

/// How long the cluster is watched.
const WATCHED: Duration = Duration::from_secs(60);
/// How long without a write the operator must be before that.
const SETTLED: Duration = Duration::from_secs(5);
/// Most memory that an operator of this many objects may ever have used.
const MOST_MEMORY_BYTES: u64 = 64 << 20;

/// Twenty policies with a completed backup each.
async fn settle(story: &Story) -> Result<()> {
    let data = story.volume("data").await?;
    story.volume("backup-storage").await?;
    tree::fill_many(&data, 20)?;
    let names: Vec<String> = (0..20).map(|number| format!("policy-{number}")).collect();
    for name in &names {
        story
            .policy(name, "0 0 1 1 *", json!({"retention": {"keepLast": 3}}))
            .await?;
        story
            .backup(&format!("of-{name}"), json!({"policyRef": name}))
            .await?;
    }
    for name in &names {
        story
            .wait_for(name, "to count its backup", |policy: &BackupPolicy| {
                Some(policy.status.as_ref()?.completed_backups == 1)
            })
            .await?;
    }
    audit::until_nothing_is_written(SETTLED, DEADLINE).await
}

#[tokio::test]
async fn a_quiet_cluster_is_quiet() -> Result<()> {
    tell("quiet", |story| async move {
        settle(&story).await?;
        let ours = |sample: &metrics::Sample| sample.label("group") == "tidelock.dev";
        let before = metrics::requests(ours)?;
        let since = Timestamp::now();
        // The time is the measurement.
        tokio::time::sleep(WATCHED).await;
        let (of_lease, requests): (Vec<_>, Vec<_>) = audit::of_operator(since)?
            .into_iter()
            .partition(audit::Request::is_about_lease);
        let counted = metrics::requests(ours)? - before;

        let mut by_verb: BTreeMap<&str, usize> = BTreeMap::new();
        for request in &requests {
            *by_verb.entry(&request.verb).or_default() += 1;
        }
        println!(
            "in {} s with 20 settled policies the operators made {} requests {by_verb:?}, and {} \
             about their lease; the API server counted {counted} requests on tidelock.dev from \
             anybody",
            WATCHED.as_secs(),
            requests.len(),
            of_lease.len(),
        );
        let writes: Vec<_> = requests
            .iter()
            .filter(|request| request.is_write())
            .collect();
        ensure!(writes.is_empty(), "writes in a quiet cluster: {writes:#?}");
        let lists = by_verb.get("list").copied().unwrap_or(0);
        ensure!(lists == 0, "{lists} lists in a quiet cluster");

        let mut peak = 0;
        for pod in operator_pods(&story.client).await? {
            for process in processes(&pod)? {
                peak = peak.max(Memory::of(process)?.peak);
            }
        }
        println!("the operator's peak memory so far: {:.1} MiB", mib(peak));
        ensure!(peak > 0 && peak <= MOST_MEMORY_BYTES, "{peak} bytes");

        let denied: Vec<_> = audit::of_operator(Timestamp::UNIX_EPOCH)?
            .into_iter()
            .filter(audit::Request::is_denied)
            .collect();
        ensure!(
            denied.is_empty(),
            "the operator's own role denies it: {denied:#?}"
        );
        Ok(())
    })
    .await
}
