//! One backup, from its making to its end.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use tidelock_api::{Backup, Phase};
use tidelock_e2e::{tell, tree};

use crate::support::{backup_failure, completed, jobs_by_kind, long_read, says, unpack_by_hand};

#[tokio::test]
async fn a_backup_by_hand_saves_the_volume_in_a_plain_archive() -> Result<()> {
    tell("by-hand", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::fill_sample(&data)?;
        story.backup("now", json!({})).await?;
        let backup = story.wait_backup("now").await?;
        completed(&backup)?;

        let status = backup.status.clone().context("no status")?;
        let location = status.backup_location.context("no location")?;
        ensure!(location == format!("{}/data/now.tar.gz", story.namespace));
        let stored = std::fs::metadata(storage.join(&location))?.len();
        let size = status.size.context("no size")?;
        ensure!(
            u64::try_from(size.stored_bytes)? == stored,
            "{size:?} is not {stored}"
        );
        let listed = tidelock_e2e::cluster::run(
            "sh",
            &["-ec", &format!("find '{}' -type f | wc -l", data.display())],
        )?;
        let names_with_newline = 1;
        let files: i64 = listed.trim().parse()?;
        ensure!(
            size.files == files - names_with_newline,
            "{size:?}, find says {files}"
        );

        let by_hand = story.volumes_folder()?.join("by-hand");
        unpack_by_hand(&storage, &location, &by_hand)?;
        tree::compare(&data, &by_hand)?;

        let reasons = story.event_reasons(&backup).await?;
        for reason in ["BackupStarted", "JobCreated", "BackupCompleted"] {
            let told = reasons.iter().filter(|told| *told == reason).count();
            ensure!(told == 1, "{reason} was told {told} times: {reasons:?}");
        }
        let described = story.kubectl(&["describe", "backup", "now"])?;
        ensure!(
            described.contains("Backup completed successfully in "),
            "{described}"
        );
        let line = story.kubectl(&["get", "backup", "now", "--no-headers"])?;
        ensure!(line.contains("Completed"), "{line}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deleted_mover_pod_is_replaced_and_leaves_one_whole_archive() -> Result<()> {
    tell("pod-deleted", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::write(&data, "small", b"content", 0o644)?;
        long_read(&data, 6)?;
        story.backup("now", json!({})).await?;
        let pod = story.wait_job_pod("now-backup").await?;
        let pods: Api<Pod> = story.api();
        pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
            .await?;
        ensure!(
            tree::archives(&storage)?.is_empty(),
            "an archive before its time"
        );
        let manifests = tree::stored(&storage, ".manifest.json")?;
        ensure!(
            manifests.is_empty(),
            "{manifests:?} before the backup has ended"
        );

        let backup = story.wait_backup("now").await?;
        completed(&backup)?;
        ensure!(jobs_by_kind(&story).await?.get("Backup") == Some(&1));
        ensure!(tree::archives(&storage)?.len() == 1);
        let location = backup.status.and_then(|status| status.backup_location);
        let location = location.context("no location")?;
        let folder = storage.join(&location);
        let folder = folder.parent().context("no folder")?;
        let check = format!("cd '{}' && sha256sum -c ./*.sha256", folder.display());
        tidelock_e2e::cluster::run("sh", &["-ec", &check])?;
        let temporary = tree::stored(&storage, ".tmp")?;
        ensure!(temporary.is_empty(), "{temporary:?} stayed behind");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_job_of_the_same_name_that_is_not_ours_is_left_alone_and_reported() -> Result<()> {
    tell("foreign-job", |story| async move {
        story.volume("data").await?;
        story.volume("backup-storage").await?;
        let foreign = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "now-backup"},
            "spec": {"suspend": true, "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "other", "image": "tidelock.dev/toolbox:dev"}],
            }}},
        });
        let foreign: k8s_openapi::api::batch::v1::Job = serde_json::from_value(foreign)?;
        let jobs = story.api::<k8s_openapi::api::batch::v1::Job>();
        let before = jobs
            .create(&kube::api::PostParams::default(), &foreign)
            .await?;
        story.backup("now", json!({})).await?;
        let backup = story.wait_backup("now").await?;
        says(
            backup_failure(&backup)?,
            "JobConflict",
            &["now-backup", "left alone", "under a new name"],
        )?;
        let after = jobs.get("now-backup").await?;
        ensure!(
            after.uid() == before.uid() && after.spec == before.spec,
            "it was touched"
        );
        let warned = story.events(&backup).await?;
        ensure!(
            warned
                .iter()
                .any(|event| event.type_.as_deref() == Some("Warning"))
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_job_that_is_deleted_mid_run_ends_the_backup_instead_of_running_twice() -> Result<()> {
    tell("job-deleted", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        long_read(&data, 20)?;
        story.backup("now", json!({})).await?;
        story.wait_job_pod("now-backup").await?;
        let jobs = story.api::<k8s_openapi::api::batch::v1::Job>();
        jobs.delete("now-backup", &DeleteParams::background())
            .await?;
        let backup = story.wait_backup("now").await?;
        says(
            backup_failure(&backup)?,
            "JobLost",
            &["now-backup", "under a new name"],
        )?;
        ensure!(tree::stored(&storage, ".manifest.json")?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_terminal_backup_never_changes_again() -> Result<()> {
    tell("absorbing", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "a", b"1", 0o644)?;
        story.backup("now", json!({})).await?;
        let ended = story.wait_backup("now").await?;
        completed(&ended)?;
        let jobs = story.api::<k8s_openapi::api::batch::v1::Job>();
        jobs.delete("now-backup", &DeleteParams::background())
            .await?;
        story
            .wait_gone::<k8s_openapi::api::batch::v1::Job>("now-backup")
            .await?;
        // A second backup passes through the operator after the deletion did.
        story.backup("later", json!({})).await?;
        completed(&story.wait_backup("later").await?)?;
        let still: Backup = story.api().get("now").await?;
        ensure!(still.status == ended.status, "{:#?}", still.status);
        ensure!(still.status.and_then(|status| status.phase) == Some(Phase::Completed));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_hundred_thousand_files_fit_through_a_mover_of_64_mebibytes() -> Result<()> {
    tell("many-files", |story| async move {
        let data = story.volume("data").await?;
        let target = story.volume("target").await?;
        story.volume("backup-storage").await?;
        tree::fill_many(&data, 100_000)?;
        let small = json!({"resources": {"limits": {"memory": "64Mi"}}});
        story.backup("now", json!({"mover": small})).await?;
        let backup = story.wait_backup("now").await?;
        completed(&backup)?;
        ensure!(
            backup
                .status
                .and_then(|s| s.size)
                .is_some_and(|size| size.files == 100_000)
        );
        let spec = json!({"backupName": "now", "targetPVC": "target", "mover": small});
        story.make::<tidelock_api::Restore>("back", spec).await?;
        crate::support::restored(&story.wait_restore("back").await?)?;
        let count = format!("find '{}' -type f | wc -l", target.display());
        let count = tidelock_e2e::cluster::run("sh", &["-ec", &count])?;
        ensure!(count.trim() == "100000", "{count} files came back");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_backup_that_is_deleted_and_made_again_at_once_runs_again() -> Result<()> {
    tell("again", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        for _ in 0..3 {
            story.backup("now", json!({})).await?;
            completed(&story.wait_backup("now").await?)?;
            story
                .api::<Backup>()
                .delete("now", &DeleteParams::default())
                .await?;
            story.wait_gone::<Backup>("now").await?;
        }
        Ok(())
    })
    .await
}
