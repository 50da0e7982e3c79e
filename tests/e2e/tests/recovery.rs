//! A cluster is lost, and another one gets its backups from a bucket. `cargo xtask e2e` with
//! `SUITE=recovery` tells the two halves one after the other, each on a cluster of its own.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, BackupStorage};
use tidelock_e2e::age::{self, Key};
use tidelock_e2e::outcome::{completed, restored};
use tidelock_e2e::s3::{self, S3};
use tidelock_e2e::{Story, cluster, tree};

/// The namespace that both clusters have.
const NAMESPACE: &str = "shop";

/// What neither cluster has.
fn survives(name: &str) -> Result<PathBuf> {
    let folder = env::var_os("TIDELOCK_E2E_SURVIVES");
    let folder =
        folder.context("TIDELOCK_E2E_SURVIVES is not set; run `make e2e SUITE=recovery`")?;
    Ok(PathBuf::from(folder).join(name))
}

async fn shop() -> Result<Story> {
    let client = cluster::client().await?;
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &object).await?;
    Ok(Story::in_namespace(client, NAMESPACE))
}

#[tokio::test]
async fn before_the_cluster_is_lost() -> Result<()> {
    let story = shop().await?;
    let server = S3::start_at(&story, survives("s3")?).await?;
    s3::secret(&story, None).await?;
    let data = story.volume("data").await?;
    tree::fill_sample(&data)?;
    let keys = [
        Key::at(&survives("cluster.key")?)?,
        Key::at(&survives("offline.key")?)?,
    ];
    let mut spec = server.spec(json!({"prefix": "clusters/east"}));
    spec["encryption"] = json!({"recipients": keys.each_ref().map(|key| &key.recipient)});
    story.make::<BackupStorage>("offsite", spec).await?;
    let storage = json!({"storage": {"name": "offsite"}, "retention": {"keepLast": 2}});
    story.policy("nightly", "0 0 1 1 *", storage).await?;
    for name in ["nightly-a", "nightly-b", "nightly-c"] {
        tree::write(&data, "newest", name.as_bytes(), 0o644)?;
        story.backup(name, json!({"policyRef": "nightly"})).await?;
        completed(&story.wait_backup(name).await?)?;
    }
    story.wait_gone::<Backup>("nightly-a").await?;
    let copied = Command::new("cp")
        .args(["--archive", "--sparse=always"])
        .arg(&data)
        .arg(survives("data")?)
        .status()?;
    ensure!(copied.success(), "cp: {copied}");
    Ok(())
}

#[tokio::test]
async fn after_the_cluster_was_lost() -> Result<()> {
    let story = shop().await?;
    let none = story.api::<Backup>().list(&ListParams::default()).await?;
    ensure!(none.items.is_empty(), "this is the cluster that was lost");
    let server = S3::start_at(&story, survives("s3")?).await?;
    s3::secret(&story, None).await?;
    let mut spec = server.spec(json!({"prefix": "clusters/east"}));
    spec["discover"] = json!(true);
    // What the safe held.
    let offline = Key::at(&survives("offline.key")?)?;
    age::secret(&story, "identities", &[&offline]).await?;
    spec["encryption"] = json!({
        "recipients": [offline.recipient], "identitySecretRef": {"name": "identities"},
    });
    // Nothing is to be written to the only copy.
    spec["readOnly"] = json!(true);
    story.make::<BackupStorage>("offsite", spec).await?;
    let all = |storage: &BackupStorage| {
        let status = storage.status.as_ref()?;
        Some(status.backups == Some(2) && status.unknown_archives == Some(0))
    };
    story
        .wait_for("offsite", "to find all backups", all)
        .await?;
    completed(&story.wait_backup("nightly-b").await?)?;
    let objects = server.objects()?;

    let target = story.volume("data").await?;
    story.restore("back", "nightly-c", "data").await?;
    restored(&story.wait_restore("back").await?)?;
    tree::compare(&survives("data")?, &target)?;

    // A policy of the same name neither takes them over nor removes them.
    let storage = json!({"storage": {"name": "offsite"}, "retention": {"keepLast": 1}});
    story.policy("nightly", "0 0 1 1 *", storage).await?;
    let scheduled =
        |policy: &BackupPolicy| Some(policy.status.as_ref()?.next_scheduled_backup.is_some());
    story
        .wait_for("nightly", "to be scheduled", scheduled)
        .await?;
    story.kubectl(&["delete", "backup/nightly-b"])?;
    story.wait_gone::<Backup>("nightly-b").await?;
    ensure!(server.objects()? == objects, "{:?}", server.objects()?);
    Ok(())
}
