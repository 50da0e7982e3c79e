//! The operator's clock is set forward and back by hours and days. That of the API server and of
//! the movers is not: what the operator compares with them must hold too.

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp, ToSpan};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, Phase, SLOT_ANNOTATION};
use tidelock_e2e::local_operator::{Clock, Launch, in_place_of_the_clusters};
use tidelock_e2e::{Story, tell, tree};
use tokio::sync::Mutex;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The cluster has one operator, so stories that put it aside take turns.
static OPERATOR: Mutex<()> = Mutex::const_new(());

/// Tells `story` with an operator whose clock can be set.
async fn with_clock(
    name: &str,
    story: impl AsyncFnOnce(&Story, &Clock) -> Result<()>,
) -> Result<()> {
    let _turn = OPERATOR.lock().await;
    let told = tell(name, async |setting| {
        let data = setting.volume("data").await?;
        setting.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let clock = Clock::of(&setting)?;
        clock.set(SignedDuration::ZERO)?;
        let launch = Launch::new(&setting)?.with_clock(&clock);
        let mut operator = launch.start(&setting, None).await?;
        tokio::select! {
            ended = operator.killed() => ended?,
            told = story(&setting, &clock) => told?,
        }
        launch.forget_log();
        Ok(())
    });
    in_place_of_the_clusters(told).await
}

/// A policy that is due once an hour, the next time in half an hour.
async fn hourly(story: &Story) -> Result<()> {
    let minute = (Timestamp::now().as_second() / 60 + 30).rem_euclid(60);
    let schedule = format!("{minute} * * * *");
    let more = json!({"retention": {"keepLast": 2}});
    story.policy("hourly", &schedule, more).await?;
    policy(story, "to be followed", |policy| {
        Some(policy.status.as_ref()?.next_scheduled_backup.is_some())
    })
    .await?;
    Ok(())
}

async fn policy(
    story: &Story,
    what: &str,
    condition: impl Fn(&BackupPolicy) -> Option<bool>,
) -> Result<BackupPolicy> {
    story.wait_for("hourly", what, condition).await
}

/// Makes the operator look at the policy now; by itself it does so within ten minutes.
async fn look(story: &Story, clock: &str) -> Result<()> {
    let note = json!({"metadata": {"annotations": {"example.com/clock": clock}}});
    story.patch::<BackupPolicy>("hourly", note).await?;
    Ok(())
}

async fn backups(story: &Story) -> Result<Vec<String>> {
    let list = story.api::<Backup>().list(&ListParams::default()).await?;
    Ok(list.items.iter().map(ResourceExt::name_any).collect())
}

async fn by_hand(story: &Story, name: &str) -> Result<()> {
    story.backup(name, json!({"policyRef": "hourly"})).await?;
    completed(story, name).await
}

async fn completed(story: &Story, name: &str) -> Result<()> {
    let backup = story.wait_backup(name).await?;
    let status = backup.status.context("no status")?;
    ensure!(
        status.phase == Some(Phase::Completed),
        "{name}: {status:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_step_forward_over_four_slots_brings_one_late_run() -> Result<()> {
    with_clock("clock-forward", async |story, clock| {
        hourly(story).await?;
        let ahead = SignedDuration::from_mins(30 + 3 * 60 + 10);
        clock.set(ahead)?;
        look(story, "ahead").await?;
        let followed = policy(story, "to have a good backup", |policy| {
            let last = policy.status.as_ref()?.last_backup.as_ref()?;
            Some(last.phase == Some(Phase::Completed))
        })
        .await?;
        let made = backups(story).await?;
        ensure!(made.len() == 1, "{made:?} for one step");
        let backup = story.api::<Backup>().get(&made[0]).await?;
        let slot: Timestamp = backup.annotations()[SLOT_ANNOTATION].parse()?;
        let late = (Timestamp::now() + ahead).duration_since(slot);
        ensure!(
            late < SignedDuration::from_hours(1),
            "{slot} is not the latest slot"
        );
        let status = serde_json::to_value(followed.status)?;
        ensure!(
            status["skippedSlots"] == 3,
            "three slots were passed over and are counted: {status:#}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_step_back_by_days_repeats_nothing_and_goes_on_and_keeps_the_newest() -> Result<()> {
    with_clock("clock-back", async |story, clock| {
        hourly(story).await?;
        by_hand(story, "one").await?;
        by_hand(story, "two").await?;
        clock.set(DAY * -3)?;
        look(story, "back").await?;
        let soon = Timestamp::now() - DAY * 3 + 61.minutes();
        policy(story, "to be due within the hour again", |policy| {
            Some(policy.status.as_ref()?.next_scheduled_backup.as_ref()?.0 <= soon)
        })
        .await?;
        ensure!(backups(story).await? == ["one", "two"]);

        clock.set(DAY * -3 + SignedDuration::from_mins(40))?;
        look(story, "back, and a slot later").await?;
        let named = |policy: &BackupPolicy| {
            let last = policy.status.as_ref()?.last_backup.as_ref()?;
            let good = last.phase == Some(Phase::Completed);
            (good && last.name.starts_with("hourly-")).then(|| last.name.clone())
        };
        let followed = policy(story, "to have run its slot", |policy| {
            Some(named(policy).is_some())
        });
        let newest = named(&followed.await?).context("no backup")?;

        // Its start lies before that of the others, by a clock that was wrong. Suspended, because
        // three days of slots have passed for this clock, and one of them would run late.
        let suspend = json!({"spec": {"suspend": true}});
        story.patch::<BackupPolicy>("hourly", suspend).await?;
        clock.set(SignedDuration::ZERO)?;
        look(story, "right").await?;
        story.wait_gone::<Backup>("one").await?;
        let left = backups(story).await?;
        ensure!(
            left == [newest.as_str(), "two"],
            "{left:?} instead of the two newest"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_is_not_disturbed_by_steps_of_days() -> Result<()> {
    with_clock("clock-running", async |story, clock| {
        let data = story.volumes_folder()?.join("data");
        tree::long_read(&data, 6)?;
        story.backup("now", json!({})).await?;
        story.wait_job_pod("now-backup").await?;
        for offset in [DAY * 2, DAY * -2, SignedDuration::ZERO] {
            clock.set(offset)?;
            let note = json!({"metadata": {"annotations": {
                "example.com/clock": offset.to_string(),
            }}});
            story.patch::<Backup>("now", note).await?;
        }
        clock.set(DAY * -2)?;
        completed(story, "now").await?;
        let backup = story.api::<Backup>().get("now").await?;
        let mut reasons = story.event_reasons(&backup).await?;
        // Their order is that of a clock that went back.
        reasons.sort();
        ensure!(
            reasons == ["BackupCompleted", "BackupStarted", "JobCreated"],
            "{reasons:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_backup_is_deleted_with_its_data_by_an_operator_days_behind() -> Result<()> {
    with_clock("clock-delete", async |story, clock| {
        story.backup("now", json!({})).await?;
        completed(story, "now").await?;
        clock.set(DAY * -2)?;
        let params = DeleteParams::default();
        story.api::<Backup>().delete("now", &params).await?;
        story.wait_gone::<Backup>("now").await?;
        let storage = story.volumes_folder()?.join("backup-storage");
        let left = tree::archives(&storage)?;
        ensure!(left.is_empty(), "{left:?} stayed behind");
        Ok(())
    })
    .await
}
