//! Schedules and retention.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy};
use tidelock_e2e::{Story, tell, tell_on_each_storage, tree};

use crate::support::{completed, jobs_by_kind, next_success};

async fn backups(story: &Story) -> Result<Vec<Backup>> {
    Ok(story
        .api::<Backup>()
        .list(&ListParams::default())
        .await?
        .items)
}

#[tokio::test]
async fn a_policy_fires_at_its_minute_and_keeps_the_newest() -> Result<()> {
    tell_on_each_storage("each-minute", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.backup_storage().await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let made = story
            .policy(
                "minutely",
                "* * * * *",
                json!({"retention": {"keepLast": 1}}),
            )
            .await?;
        let first = next_success(&story, None).await?;
        let second = next_success(&story, Some(&first)).await?;

        // The slot is a whole minute after the policy was made, the name says which, and the run
        // began within it.
        let last = story.api::<BackupPolicy>().get("minutely").await?;
        let status = last.status.clone().context("no status")?;
        let slot = status.last_schedule_time.context("no slot")?.0;
        ensure!(slot.as_second() % 60 == 0, "{slot}");
        ensure!(made.creation_timestamp().is_some_and(|made| made.0 < slot));
        let next = status.next_scheduled_backup.context("no next slot")?.0;
        ensure!(next.as_second() - slot.as_second() >= 60);

        // The older one goes with its data; what retention does is told on the policy.
        story.wait_gone::<Backup>(&first).await?;
        let left = tree::archives(&storage)?;
        ensure!(
            left.iter()
                .all(|path| !path.to_string_lossy().contains(&first)),
            "{left:?}"
        );
        ensure!(
            left.iter()
                .any(|path| path.to_string_lossy().contains(&second)),
            "{left:?}"
        );
        let described = story.kubectl(&["describe", "backuppolicy", "minutely"])?;
        ensure!(
            described.contains("Deleted 1 old backup (keepLast=1)"),
            "{described}"
        );
        let backup = story.api::<Backup>().get(&second).await?;
        let owner = backup.owner_references().first().context("no owner")?;
        ensure!(owner.kind == "BackupPolicy" && owner.controller == Some(true));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn retention_removes_a_batch_with_one_job_and_never_a_backup_that_stands_alone() -> Result<()>
{
    tell_on_each_storage("retention", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.backup_storage().await?;
        tree::write(&data, "file", b"content", 0o644)?;
        story.backup("alone", json!({})).await?;
        story.policy("nightly", "0 0 1 1 *", json!({})).await?;
        for name in ["one", "two", "three", "four"] {
            story.backup(name, json!({"policyRef": "nightly"})).await?;
            completed(&story.wait_backup(name).await?)?;
        }
        completed(&story.wait_backup("alone").await?)?;
        // A failed one neither counts nor goes.
        story.kubectl(&["delete", "pvc", "data", "--wait=false"])?;
        let failing = json!({"policyRef": "nightly", "startDeadlineSeconds": 1});
        story.backup("failed", failing).await?;
        story.wait_backup("failed").await?;
        ensure!(backups(&story).await?.len() == 6);

        let trim = json!({"spec": {"retention": {"keepLast": 2}}});
        story.patch::<BackupPolicy>("nightly", trim).await?;
        for name in ["one", "two"] {
            story.wait_gone::<Backup>(name).await?;
        }
        let mut left: Vec<String> = backups(&story)
            .await?
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        left.sort();
        ensure!(left == ["alone", "failed", "four", "three"], "{left:?}");
        let mut data_left = tree::archives(&storage)?;
        data_left.retain(|path| path.ends_with("one.tar.gz") || path.ends_with("two.tar.gz"));
        ensure!(data_left.is_empty(), "{data_left:?} stayed behind");
        ensure!(tree::archives(&storage)?.len() == 3);
        let manifests = tree::stored(&storage, ".manifest.json")?;
        ensure!(manifests.len() == 3, "{manifests:?}");

        let policy = story.api::<BackupPolicy>().get("nightly").await?;
        let events = story.events(&policy).await?;
        let notes: Vec<_> = events
            .iter()
            .filter_map(|event| event.note.as_deref())
            .collect();
        ensure!(
            notes
                .iter()
                .any(|note| note.contains("Deleted 2 old backups (keepLast=2)")),
            "{notes:?}"
        );
        let jobs = jobs_by_kind(&story).await?;
        ensure!(
            jobs.get("Delete").copied().unwrap_or(0) <= 1,
            "{jobs:?} for one batch"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deleted_policy_leaves_its_backups_and_their_data() -> Result<()> {
    tell("policy-gone", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        for (policy, propagation) in [
            ("calm", DeleteParams::background()),
            ("harsh", DeleteParams::foreground()),
        ] {
            story
                .policy(policy, "0 0 1 1 *", json!({"retention": {"keepLast": 1}}))
                .await?;
            let backup = format!("of-{policy}");
            story.backup(&backup, json!({"policyRef": policy})).await?;
            completed(&story.wait_backup(&backup).await?)?;
            story
                .api::<BackupPolicy>()
                .delete(policy, &propagation)
                .await?;
            story.wait_gone::<BackupPolicy>(policy).await?;
        }
        // A plain delete keeps the objects. One in the foreground takes them, and still no data.
        let calm: Backup = story.api().get("of-calm").await?;
        ensure!(calm.owner_references().is_empty(), "still owned");
        ensure!(calm.metadata.deletion_timestamp.is_none());
        ensure!(tree::archives(&storage)?.len() == 2, "data is gone");

        // A new policy of the same name does not inherit, and so does not trim.
        story
            .policy("calm", "0 0 1 1 *", json!({"retention": {"keepLast": 1}}))
            .await?;
        story.backup("newer", json!({"policyRef": "calm"})).await?;
        completed(&story.wait_backup("newer").await?)?;
        story
            .wait_for("calm", "to count one", |policy: &BackupPolicy| {
                Some(policy.status.as_ref()?.completed_backups == 1)
            })
            .await?;
        story.api::<Backup>().get("of-calm").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_suspended_policy_starts_nothing_and_resuming_brings_no_surprise() -> Result<()> {
    tell("suspended", |story| async move {
        story.volume("data").await?;
        story.volume("backup-storage").await?;
        story
            .policy("nightly", "* * * * *", json!({"suspend": true}))
            .await?;
        let held = story
            .wait_for("nightly", "to be suspended", |policy: &BackupPolicy| {
                let status = policy.status.as_ref()?;
                Some(status.conditions.iter().any(|c| c.reason == "Suspended"))
            })
            .await?;
        ensure!(
            held.status
                .is_some_and(|status| status.next_scheduled_backup.is_none())
        );
        let resumed_at = jiff::Timestamp::now();
        story
            .patch::<BackupPolicy>("nightly", json!({"spec": {"suspend": false}}))
            .await?;
        let resumed = story
            .wait_for("nightly", "to be scheduled", |policy: &BackupPolicy| {
                Some(policy.status.as_ref()?.next_scheduled_backup.is_some())
            })
            .await?;
        let status = resumed.status.context("no status")?;
        ensure!(
            status
                .next_scheduled_backup
                .as_ref()
                .is_some_and(|next| next.0 > resumed_at)
        );
        ensure!(status.last_backup.is_none(), "{status:#?}");
        Ok(())
    })
    .await
}

/// What `Ready` of the policy `nightly` says while its Backups are refused, once that is not `known`.
async fn refused_with(story: &Story, known: &str) -> Result<String> {
    let words = |policy: &BackupPolicy| {
        let conditions = &policy.status.as_ref()?.conditions;
        let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
        let is_new = ready.reason == "BackupRefused" && ready.message != known;
        is_new.then(|| ready.message.clone())
    };
    let says = |policy: &BackupPolicy| words(policy).map(|_| true);
    let policy = story.wait_for("nightly", "to be refused", says).await?;
    words(&policy).context("no words")
}

#[tokio::test]
async fn slots_that_the_api_server_refuses_one_after_the_other_are_one_event() -> Result<()> {
    tell("refused-slots", |story| async move {
        story.volume("data").await?;
        story.volume("backup-storage").await?;
        let hard = "--hard=count/backups.tidelock.dev=0";
        story.kubectl(&["create", "quota", "full", hard])?;
        let in_force = |quota: &ResourceQuota| {
            let hard = quota.status.as_ref()?.hard.as_ref()?;
            Some(hard.contains_key("count/backups.tidelock.dev"))
        };
        story.wait_for("full", "to be in force", in_force).await?;
        story.policy("nightly", "* * * * *", json!({})).await?;
        let first = refused_with(&story, "").await?;
        ensure!(first.contains("exceeded quota"), "{first}");
        // The condition follows the slots, by whose names the words differ.
        refused_with(&story, &first).await?;
        let policy = story.api::<BackupPolicy>().get("nightly").await?;
        let told = story.event_reasons(&policy).await?;
        let refusals = told.iter().filter(|reason| *reason == "BackupRefused");
        ensure!(refusals.count() == 1, "{told:?}");
        Ok(())
    })
    .await
}
