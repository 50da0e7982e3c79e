//! Many policies that are due in the same minute.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use tidelock_api::{Backup, Phase};
use tidelock_e2e::local_operator::{Launch, in_place_of_the_clusters};
use tidelock_e2e::outcome::completed;
use tidelock_e2e::{Story, tell, tree};

const POLICIES: usize = 200;
const MOVERS: usize = 4;
/// How long all of them may take; some movers start each second.
const DEADLINE: Duration = Duration::from_secs(900);
/// Between two looks at the namespace.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What was seen on the way.
#[derive(Default)]
struct Seen {
    most_movers: usize,
    most_queued: usize,
    last_place: usize,
}

/// A minute that begins when all policies are made.
fn next_minute() -> String {
    let soon = Timestamp::now().as_second() + 75;
    format!("{} {} * * *", soon / 60 % 60, soon / 3600 % 24)
}

/// The place in the queue that a waiting Backup tells.
fn place(backup: &Backup) -> Option<usize> {
    let conditions = &backup.status.as_ref()?.conditions;
    let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
    if ready.reason != "Queued" {
        return None;
    }
    let (place, _) = ready.message.strip_prefix("Place ")?.split_once(' ')?;
    place.parse().ok()
}

fn phase(backup: &Backup) -> Option<Phase> {
    backup.status.as_ref()?.phase
}

/// Looks until every Backup has ended.
async fn watch(story: &Story) -> Result<(Vec<Backup>, Seen)> {
    let everything = ListParams::default();
    let deadline = Instant::now() + DEADLINE;
    let mut seen = Seen::default();
    let mut told = 0;
    while Instant::now() < deadline {
        let backups = story.api::<Backup>().list(&everything).await?.items;
        let pods = story.api::<Pod>().list(&everything).await?.items;
        let at_work = |pod: &&Pod| {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
            matches!(phase, Some("Pending" | "Running"))
        };
        let places: Vec<usize> = backups.iter().filter_map(place).collect();
        seen.most_movers = seen.most_movers.max(pods.iter().filter(at_work).count());
        seen.most_queued = seen.most_queued.max(places.len());
        seen.last_place = seen.last_place.max(places.into_iter().max().unwrap_or(0));
        let ended = backups
            .iter()
            .filter(|backup| {
                phase(backup).is_some_and(|p| matches!(p, Phase::Completed | Phase::Failed))
            })
            .count();
        if ended >= told + 20 {
            told = ended;
            println!("{ended} of {POLICIES} have ended");
        }
        if backups.len() >= POLICIES && ended == backups.len() {
            return Ok((backups, seen));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    bail!("not all backups ended within {} s", DEADLINE.as_secs())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_policies_of_one_minute_all_complete_four_at_a_time() -> Result<()> {
    let told = tell("wave", async |story| {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let launch = Launch::new(&story)?.with("MAX_MOVERS", MOVERS.to_string());
        let mut operator = launch.start(&story, None).await?;
        let wave = async {
            let schedule = next_minute();
            stream::iter(0..POLICIES)
                .map(Ok)
                .try_for_each_concurrent(8, async |number| {
                    let name = format!("p{number:03}");
                    story.policy(&name, &schedule, json!({})).await.map(|_| ())
                })
                .await?;
            let started = Instant::now();
            let ended = watch(&story).await?;
            println!(
                "all have ended {} s after they were made",
                started.elapsed().as_secs()
            );
            anyhow::Ok(ended)
        };
        let (backups, seen) = tokio::select! {
            ended = operator.killed() => { ended?; bail!("the operator was killed") }
            watched = wave => watched?,
        };
        judge(&story, &backups, &seen).await?;
        launch.forget_log();
        Ok(())
    });
    in_place_of_the_clusters(told).await
}

/// Each ran once, and no more of them at once than may.
async fn judge(story: &Story, backups: &[Backup], seen: &Seen) -> Result<()> {
    println!(
        "at most {} movers at once, {} in the queue, the last one at place {}",
        seen.most_movers, seen.most_queued, seen.last_place
    );
    let mut of_policy: BTreeMap<&str, usize> = BTreeMap::new();
    for backup in backups {
        completed(backup)?;
        let policy = backup.spec.policy_ref.as_deref().context("no policy")?;
        *of_policy.entry(policy).or_default() += 1;
    }
    ensure!(
        of_policy.len() == POLICIES,
        "{} policies ran",
        of_policy.len()
    );
    let twice: Vec<_> = of_policy.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(twice.is_empty(), "ran more than once: {twice:?}");
    let jobs = story.api::<Job>().list(&ListParams::default()).await?.items;
    ensure!(jobs.len() == POLICIES, "{} Jobs", jobs.len());
    let failed: Vec<_> = jobs
        .iter()
        .filter(|job| {
            job.status
                .as_ref()
                .is_some_and(|s| s.failed.unwrap_or(0) > 0)
        })
        .map(ResourceExt::name_any)
        .collect();
    ensure!(failed.is_empty(), "movers failed: {failed:?}");
    ensure!(
        seen.most_movers <= MOVERS,
        "{} movers at once",
        seen.most_movers
    );
    ensure!(
        seen.last_place > POLICIES / 2 && seen.most_queued > POLICIES / 2,
        "the queue was not to be seen"
    );
    Ok(())
}
