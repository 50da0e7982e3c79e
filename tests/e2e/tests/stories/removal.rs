//! Backups that are deleted, and their data.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use tidelock_api::Backup;
use tidelock_e2e::{tell, tree};

use crate::support::{completed, long_read};

#[tokio::test]
async fn deleting_a_backup_removes_its_data_unless_told_to_retain() -> Result<()> {
    tell("delete", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        story.backup("goes", json!({})).await?;
        story
            .backup("stays", json!({"deletionPolicy": "Retain"}))
            .await?;
        for name in ["goes", "stays"] {
            completed(&story.wait_backup(name).await?)?;
            story
                .api::<Backup>()
                .delete(name, &DeleteParams::default())
                .await?;
        }
        for name in ["goes", "stays"] {
            story.wait_gone::<Backup>(name).await?;
        }
        let left = tree::archives(&storage)?;
        ensure!(
            left.len() == 1 && left[0].ends_with("stays.tar.gz"),
            "{left:?}"
        );
        ensure!(tree::stored(&storage, "goes.manifest.json")?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn deleting_a_running_backup_stops_it_and_leaves_nothing_half_written() -> Result<()> {
    tell("delete-running", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        long_read(&data, 40)?;
        story.backup("now", json!({})).await?;
        story.wait_job_pod("now-backup").await?;
        story
            .api::<Backup>()
            .delete("now", &DeleteParams::default())
            .await?;
        story.wait_gone::<Backup>("now").await?;
        let left = tree::stored(&storage, "")?;
        ensure!(left.is_empty(), "{left:?} stayed behind");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_namespace_with_backups_can_be_deleted() -> Result<()> {
    tell("namespace-gone", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        story.policy("nightly", "0 0 1 1 *", json!({})).await?;
        for name in ["one", "two"] {
            story.backup(name, json!({"policyRef": "nightly"})).await?;
            completed(&story.wait_backup(name).await?)?;
        }
        let namespaces: Api<Namespace> = Api::all(story.client.clone());
        namespaces
            .delete(&story.namespace, &DeleteParams::default())
            .await?;
        let ended = kube::runtime::wait::await_condition(
            namespaces,
            &story.namespace,
            |namespace: Option<&Namespace>| namespace.is_none(),
        );
        tokio::time::timeout(tidelock_e2e::wait::DEADLINE, ended).await??;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn data_that_cannot_be_removed_holds_the_object_and_is_told() -> Result<()> {
    tell("undeletable", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        story.backup("now", json!({})).await?;
        let backup = story.wait_backup("now").await?;
        completed(&backup)?;
        let manifest = storage.join(&tree::stored(&storage, ".manifest.json")?[0]);
        let whole = std::fs::read(&manifest)?;
        std::fs::write(&manifest, b"{")?;
        story
            .api::<Backup>()
            .delete("now", &DeleteParams::default())
            .await?;
        let note = story.wait_event("CleanupFailed").await?;
        ensure!(note.contains("damaged"), "{note}");
        story.api::<Backup>().get("now").await?;
        ensure!(tree::archives(&storage)?.len() == 1);

        std::fs::write(&manifest, whole)?;
        story.wait_gone::<Backup>("now").await?;
        ensure!(tree::stored(&storage, "")?.is_empty());
        Ok(())
    })
    .await
}
