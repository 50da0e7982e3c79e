//! Backups in a bucket.

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tidelock_api::{Backup, BackupStorage, ClusterBackupStorage, Restore};
use tidelock_e2e::outcome::{backup_failure, completed, restored, says};
use tidelock_e2e::s3::{self, S3};
use tidelock_e2e::{tell, tree};

#[tokio::test]
async fn a_backup_in_a_bucket_is_proved_restored_and_removed() -> Result<()> {
    tell("bucket", |story| async move {
        let server = S3::start(&story).await?;
        s3::secret(&story, None).await?;
        let data = story.volume("data").await?;
        tree::write(&data, "docs/a.txt", b"first", 0o640)?;
        // Of several parts, and nothing that compresses.
        tree::write(&data, "large.bin", &tree::noise(30 << 20), 0o600)?;
        let spec = server.spec(json!({"prefix": "clusters/east"}));
        story.make::<BackupStorage>("offsite", spec).await?;
        let storage = json!({"storage": {"name": "offsite"}});
        story.backup("now", storage).await?;
        let backup = story.wait_backup("now").await?;
        completed(&backup)?;
        let status = backup.status.context("no status")?;
        ensure!(status.storage_pvc_name.is_none(), "{status:#?}");
        let used = status.storage.context("no storage")?;
        ensure!(used.name == "offsite", "{used:?}");
        let objects = server.objects()?;
        let folder = format!("clusters/east/{}/data/now", story.namespace);
        ensure!(objects.len() == 4, "{objects:?}");
        ensure!(
            objects.iter().all(|key| key.starts_with(&folder)),
            "{objects:?}"
        );

        let target = story.volume("target").await?;
        story.restore("back", "now", "target").await?;
        restored(&story.wait_restore("back").await?)?;
        tree::compare(&data, &target)?;

        let one = json!({"backupName": "now", "targetPVC": "single", "paths": ["docs/*"]});
        let single = story.volume("single").await?;
        story.make::<Restore>("one-file", one).await?;
        restored(&story.wait_restore("one-file").await?)?;
        ensure!(std::fs::read(single.join("docs/a.txt"))? == b"first");
        ensure!(!single.join("large.bin").exists());

        story.kubectl(&["delete", "backup/now"])?;
        story.wait_gone::<Backup>("now").await?;
        let left = server.objects()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_a_bucket_lacks_is_told_in_its_own_words() -> Result<()> {
    tell("bucket-words", |story| async move {
        let server = S3::start(&story).await?;
        story.volume("data").await?;
        // No Secret yet: the kubelet says so.
        story
            .make::<BackupStorage>("offsite", server.spec(json!({})))
            .await?;
        let storage = json!({"storage": {"name": "offsite"}, "startDeadlineSeconds": 15});
        story.backup("no-secret", storage.clone()).await?;
        let backup = story.wait_backup("no-secret").await?;
        let words = ["secret \"s3-credentials\" not found"];
        says(backup_failure(&backup)?, "StartDeadlineExceeded", &words)?;

        s3::secret(&story, Some("wrong")).await?;
        story.backup("wrong-key", storage).await?;
        let backup = story.wait_backup("wrong-key").await?;
        let words = ["SignatureDoesNotMatch"];
        says(backup_failure(&backup)?, "StorageDenied", &words)?;

        let spec = server.spec(json!({"bucket": "nowhere"}));
        story.make::<BackupStorage>("nowhere", spec).await?;
        let storage = json!({"storage": {"name": "nowhere"}});
        story.kubectl(&["delete", "secret/s3-credentials"])?;
        s3::secret(&story, None).await?;
        story.backup("no-bucket", storage).await?;
        let backup = story.wait_backup("no-bucket").await?;
        let words = ["NoSuchBucket: The specified bucket does not exist"];
        says(backup_failure(&backup)?, "StorageDenied", &words)?;

        let storage = json!({"storage": {"name": "forgotten"}, "startDeadlineSeconds": 3});
        story.backup("no-storage", storage).await?;
        let backup = story.wait_backup("no-storage").await?;
        let words = ["BackupStorage forgotten does not exist"];
        says(backup_failure(&backup)?, "StorageNotFound", &words)
    })
    .await
}

#[tokio::test]
async fn a_cluster_storage_takes_the_namespaces_that_it_says_and_no_other() -> Result<()> {
    tell("bucket-cluster", |story| async move {
        let server = S3::start(&story).await?;
        s3::secret(&story, None).await?;
        let data = story.volume("data").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let name = &story.namespace;
        let mut spec = server.spec(json!({}));
        spec["namespaceSelector"] = json!({"matchLabels": {"offsite": "yes"}});
        let object: ClusterBackupStorage = serde_json::from_value(json!({
            "apiVersion": "tidelock.dev/v1alpha1", "kind": "ClusterBackupStorage",
            "metadata": {"name": name}, "spec": spec,
        }))?;
        let api: kube::Api<ClusterBackupStorage> = kube::Api::all(story.client.clone());
        api.create(&Default::default(), &object).await?;
        let storage = json!({"storage": {"kind": "ClusterBackupStorage", "name": name}});
        let mut soon = storage.clone();
        soon["startDeadlineSeconds"] = json!(3);
        story.backup("too-soon", soon).await?;
        let backup = story.wait_backup("too-soon").await?;
        let words = ["is not for namespace", "namespaceSelector"];
        says(backup_failure(&backup)?, "StorageNotAllowed", &words)?;
        ensure!(server.objects()?.is_empty());

        let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
            kube::Api::all(story.client.clone());
        let label = Patch::Merge(json!({"metadata": {"labels": {"offsite": "yes"}}}));
        namespaces
            .patch(name, &PatchParams::default(), &label)
            .await?;
        story.backup("now", storage).await?;
        completed(&story.wait_backup("now").await?)?;
        let objects = server.objects()?;
        let own = format!("{name}/data/");
        ensure!(
            objects.iter().all(|key| key.starts_with(&own)),
            "{objects:?}"
        );
        api.delete(name, &Default::default()).await?;
        Ok(())
    })
    .await
}
