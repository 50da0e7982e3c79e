//! The operator over 2,000 policies and 20,000 Backups: what it needs, what it asks, and how soon it
//! notices what is due.

mod figures;
mod operator;
mod world;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use tidelock_api::Backup;
use tidelock_e2e::local_operator::in_place_of_the_clusters;
use tidelock_e2e::metrics::parse;
use tidelock_e2e::outcome::completed;
use tidelock_e2e::procfs::mib;
use tidelock_e2e::{Story, audit, deployment, tell, tree};
use tidelock_operator::telemetry::metrics::table;

use crate::figures::{Figures, between, by_kind, in_words, latency, reconciles};
use crate::operator::Operator;
use crate::world::{BACKUPS, POLICIES, World};

/// How long the operator is watched at rest: each watch is renewed in it.
const WATCHED: Duration = Duration::from_secs(330);
/// How long without a write the operator must be before it is measured.
const SETTLED: Duration = Duration::from_secs(10);
/// How long it may go on writing until then.
const SETTLES_WITHIN: Duration = Duration::from_secs(300);
/// Most memory that it may ever have used: half of what the chart lets it have.
const MOST_MEMORY_BYTES: u64 = 128 << 20;
/// How soon after its start it must be ready, and lead and reconcile.
const STARTED_WITHIN: Duration = Duration::from_secs(10);
/// How often the Backups of a namespace may be listed for one that is too many: what goes is judged
/// over a fresh list, and a second look may come before the cache knows of the first.
const LISTS_TO_TRIM: usize = 2;
/// How late a due slot may be noticed, at the very most: a timer that never woke would take minutes.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks for the Backup of a slot.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_policies_and_twenty_thousand_backups_take_little() -> Result<()> {
    let told = tell("scale", async |story| {
        let world = World::new(&story);
        let measured = measure(&story, &world).await;
        // With nobody there who acts on what goes.
        let away = deployment::scale(&story.client, 0).await;
        let cleared = world.clear().await;
        // What failed first is what a person needs to read.
        measured.and(away).and(cleared)
    });
    in_place_of_the_clusters(told).await
}

async fn measure(story: &Story, world: &World) -> Result<()> {
    world.fill().await?;
    // What a first operator has to write is no part of what one at rest does.
    let first = Operator::start(&story.client).await?;
    world.is_counted().await?;
    audit::until_nothing_is_written(SETTLED, SETTLES_WITHIN).await?;
    first.stop().await?;
    println!("everything is settled; the measured operator starts");

    let operator = Operator::start(&story.client).await?;
    let mut figures = Figures::default();
    let measured = async {
        start(&operator, &mut figures).await?;
        rest(&operator, &mut figures).await?;
        by_hand(story, &mut figures).await?;
        due_slot(story, &mut figures).await?;
        one_too_many(story, &mut figures).await?;
        whole(&operator, &mut figures).await
    };
    let measured = measured.await;
    // What was measured before something failed is worth reading too.
    figures.print();
    measured
}

/// From its first moment until everything is reconciled once, and what it tells then.
async fn start(operator: &Operator, figures: &mut Figures) -> Result<()> {
    let Operator {
        started,
        filled,
        leads,
        rests,
        ..
    } = *operator;
    figures.add_time(
        "from start to filled caches and ready",
        between(started, filled),
    );
    figures.add_time(
        "from start to leading and reconciling",
        between(started, leads),
    );
    figures.add_time(
        "from start until everything is reconciled once",
        between(started, rests),
    );
    for (what, at) in [("is ready", filled), ("works", leads)] {
        let took = between(started, at);
        ensure!(took <= STARTED_WITHIN, "it {what} after {took:?}");
    }
    let memory = operator.memory().await?;
    figures.add(
        "memory then, before any scrape",
        format!("{:.1} MiB", mib(memory.resident)),
    );
    figures.add(
        "peak memory until then",
        format!("{:.1} MiB", mib(memory.peak)),
    );
    let asked = audit::of_operator(started)?;
    let asked = asked.iter().filter(|request| !request.is_about_lease());
    figures.add("requests at the start", in_words(&by_kind(asked)));

    let scrape = operator.scrape().await?;
    figures.add_time(
        "a scrape of `/metrics`, through the API server",
        scrape.took,
    );
    let (bytes, lines) = (scrape.text.len() as u64, scrape.text.lines());
    let series = lines.filter(|line| !line.starts_with('#')).count();
    figures.add(
        "its size",
        format!("{:.1} MiB, {series} series", mib(bytes)),
    );
    let again = operator.scrape().await?;
    figures.add_time("the scrape after it", again.took);
    for kind in ["BackupPolicy", "Backup"] {
        let what = format!("reconciles of a {kind} at the start: half within, 99 % within");
        figures.add(what, latency(&scrape.text, kind)?);
    }
    let left_out = parse(&scrape.text, table::LEFT_OUT.name);
    let left_out: f64 = left_out.iter().map(|sample| sample.value).sum();
    figures.add("objects without series", format!("{left_out}"));
    ensure!(left_out == 0.0, "{left_out} objects have no series");
    for (kind, count) in [("BackupPolicy", POLICIES), ("Backup", BACKUPS)] {
        let done = reconciles(&scrape.text, kind);
        ensure!(
            done >= count,
            "at rest after {done} of {count} reconciles of a {kind}"
        );
    }
    Ok(())
}

/// While nothing happens.
async fn rest(operator: &Operator, figures: &mut Figures) -> Result<()> {
    let (since, used) = (Timestamp::now(), operator.cpu_time().await?);
    println!("nothing happens for {} s", WATCHED.as_secs());
    // The time is the measurement.
    tokio::time::sleep(WATCHED).await;
    let used = operator.cpu_time().await?.saturating_sub(used);
    let requests = audit::of_operator(since)?;
    let minutes = WATCHED.as_secs_f64() / 60.0;
    let (of_lease, requests): (Vec<_>, Vec<_>) = requests
        .into_iter()
        .partition(audit::Request::is_about_lease);
    let counts = by_kind(&requests);
    let a_minute = |count: usize| format!("{:.1}", count as f64 / minutes);
    let writes: Vec<_> = requests
        .iter()
        .filter(|request| request.is_write())
        .collect();
    figures.add("requests a minute at rest", a_minute(requests.len()));
    figures.add(
        format!("all of them in {} s", WATCHED.as_secs()),
        in_words(&counts),
    );
    figures.add("of these writes", writes.len().to_string());
    figures.add(
        "requests a minute about the Lease",
        a_minute(of_lease.len()),
    );
    figures.add_time("processor time a minute at rest", used.div_f64(minutes));
    ensure!(writes.is_empty(), "writes at rest: {writes:#?}");
    let lists: Vec<_> = counts
        .keys()
        .filter(|what| what.starts_with("list "))
        .collect();
    ensure!(lists.is_empty(), "asked for anew at rest: {lists:?}");
    Ok(())
}

/// One Backup by hand: how soon it has its Job.
async fn by_hand(story: &Story, figures: &mut Figures) -> Result<()> {
    let data = story.volume("data").await?;
    story.volume("backup-storage").await?;
    tree::write(&data, "file", b"content", 0o644)?;
    let asked = Timestamp::now();
    story.backup("by-hand", json!({})).await?;
    completed(&story.wait_backup("by-hand").await?)?;
    let job = asked_for(story, "jobs", asked)?;
    figures.add_time("from a Backup by hand to its Job", between(asked, job));
    Ok(())
}

/// One policy more: how soon its slot is noticed.
async fn due_slot(story: &Story, figures: &mut Figures) -> Result<()> {
    let minute = (Timestamp::now().as_second() + 15) / 60 + 1;
    let schedule = format!("{} {} * * *", minute % 60, minute / 60 % 24);
    let slot = Timestamp::from_second(minute * 60)?;
    story.policy("due", &schedule, json!({})).await?;
    let name = loop {
        let all = story
            .api::<Backup>()
            .list(&ListParams::default())
            .await?
            .items;
        let of_policy = |backup: &&Backup| backup.spec.policy_ref.as_deref() == Some("due");
        if let Some(backup) = all.iter().find(of_policy) {
            break backup.name_any();
        }
        ensure!(
            Timestamp::now() < slot + 2 * NOTICED_WITHIN,
            "{slot} passes without a Backup"
        );
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    completed(&story.wait_backup(&name).await?)?;
    let noticed = between(slot, asked_for(story, "backups", slot)?);
    figures.add_time("from a slot to its Backup", noticed);
    figures.add_time(
        "from a slot to its Job",
        between(slot, asked_for(story, "jobs", slot)?),
    );
    ensure!(
        noticed <= NOTICED_WITHIN,
        "the slot is noticed after {noticed:?}"
    );
    Ok(())
}

/// A policy that keeps one backup gets a second: the first goes, and little is read for it.
async fn one_too_many(story: &Story, figures: &mut Figures) -> Result<()> {
    let keep = json!({"retention": {"keepLast": 1}});
    story.policy("brief", "0 0 1 1 *", keep).await?;
    let since = Timestamp::now();
    for name in ["goes", "stays"] {
        story.backup(name, json!({"policyRef": "brief"})).await?;
        completed(&story.wait_backup(name).await?)?;
    }
    story.wait_gone::<Backup>("goes").await?;
    let requests = audit::of_operator(since)?;
    let lists: Vec<_> = requests
        .iter()
        .filter(|request| request.verb == "list")
        .collect();
    let of_backups = |request: &&&audit::Request| request.is_about("backups", &story.namespace);
    let count = lists.iter().filter(of_backups).count();
    figures.add(
        "LISTs of a namespace's Backups for one that is too many",
        count.to_string(),
    );
    ensure!(count > 0, "what went was judged by a cache");
    ensure!(
        count <= LISTS_TO_TRIM,
        "{count} lists for one Backup: {lists:#?}"
    );
    Ok(())
}

/// When the operator first asked for an object of the story to be made, at `since` or later.
fn asked_for(story: &Story, resource: &str, since: Timestamp) -> Result<Timestamp> {
    let requests = audit::of_operator(since)?;
    let mut own = requests
        .iter()
        .filter(|request| request.makes(resource, &story.namespace));
    let first = own
        .next()
        .with_context(|| format!("the operator made no {resource}"))?;
    Ok(first.received)
}

/// What holds from its start to the end.
async fn whole(operator: &Operator, figures: &mut Figures) -> Result<()> {
    let memory = operator.memory().await?;
    figures.add(
        "memory at the end, after two scrapes and four backups",
        format!("{:.1} MiB", mib(memory.resident)),
    );
    figures.add("peak memory in all", format!("{:.1} MiB", mib(memory.peak)));
    // A run lists the pods of its namespace, to see who uses its volumes; retention the Backups of
    // its own.
    let lists = audit::of_operator(operator.rests)?;
    let lists = by_kind(lists.iter().filter(|request| request.verb == "list"));
    figures.add(
        "LISTs since it is at rest, four backups and one that is too many among it",
        in_words(&lists),
    );
    let meant = ["list pods", "list backups"];
    let others: Vec<_> = lists
        .keys()
        .filter(|what| !meant.contains(&what.as_str()))
        .collect();
    ensure!(others.is_empty(), "asked for anew: {others:?}");
    ensure!(
        memory.peak <= MOST_MEMORY_BYTES,
        "{:.1} MiB at the most",
        mib(memory.peak)
    );
    Ok(())
}
