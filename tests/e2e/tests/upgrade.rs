//! From an earlier revision's chart to this one's, with runs under way: nothing runs again, nothing is
//! lost, and what the earlier one stored is restored by this one.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tidelock_api::{Backup, BackupPolicy, Phase, Restore};
use tidelock_e2e::cluster::kubectl;
use tidelock_e2e::helm::{at_home, chart};
use tidelock_e2e::local_operator::in_place_of_the_clusters;
use tidelock_e2e::outcome::{completed, completed_once, restored, restored_once};
use tidelock_e2e::wait::Watched;
use tidelock_e2e::{Story, pods, tree};

/// A slot that never comes while the story is told.
const YEARLY: &str = "0 0 1 1 *";
const CRDS: [&str; 3] = [
    "backuppolicies.tidelock.dev",
    "backups.tidelock.dev",
    "restores.tidelock.dev",
];

/// Where the CRDs of this checkout are.
const OWN_CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds.yaml");

/// Takes the CRDs away, so that the earlier chart brings its own.
async fn without_crds(story: &Story) -> Result<()> {
    let all = ListParams::default();
    let policies = Api::<BackupPolicy>::all(story.client.clone())
        .list(&all)
        .await?;
    let backups = Api::<Backup>::all(story.client.clone()).list(&all).await?;
    let restores = Api::<Restore>::all(story.client.clone()).list(&all).await?;
    let there = policies.items.len() + backups.items.len() + restores.items.len();
    ensure!(
        there == 0,
        "{there} objects would go with the CRDs; delete them first"
    );
    kubectl(&[&["delete", "crd"], &CRDS[..]].concat())?;
    Ok(())
}

/// Puts this checkout's CRDs back, whoever had them.
fn with_own_crds() -> Result<()> {
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--filename",
        OWN_CRDS,
    ];
    kubectl(&apply).map(|_| ())
}

/// By kind and name: UID, and what it says if it has ended; pods and versions are left out.
async fn ended(story: &Story) -> Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for backup in story.api::<Backup>().list(&ListParams::default()).await? {
        let phase = backup.status.as_ref().and_then(|status| status.phase);
        remember(&mut all, &backup, phase)?;
    }
    for restore in story.api::<Restore>().list(&ListParams::default()).await? {
        let phase = restore.status.as_ref().and_then(|status| status.phase);
        remember(&mut all, &restore, phase)?;
    }
    Ok(all)
}

fn remember<K: Watched>(
    all: &mut BTreeMap<String, Value>,
    object: &K,
    phase: Option<Phase>,
) -> Result<()> {
    let has_ended = matches!(phase, Some(Phase::Completed | Phase::Failed));
    let name = format!("{} {}", K::kind(&()), object.name_any());
    let whole = serde_json::to_value(object)?;
    let status = if has_ended {
        &whole["status"]
    } else {
        &Value::Null
    };
    let known = json!({"uid": object.uid(), "spec": whole["spec"], "status": status});
    all.insert(name, known);
    Ok(())
}

/// Jobs by name and UID.
async fn jobs(story: &Story) -> Result<Vec<String>> {
    let jobs = story.api::<Job>().list(&ListParams::default()).await?;
    let named = |job: &Job| format!("{} {:?}", job.name_any(), job.uid());
    Ok(jobs.iter().map(named).collect())
}

/// Objects of every state; returns the pod of the backup that is under way, halted.
async fn before(story: &Story) -> Result<Pod> {
    let data = story.volume("data").await?;
    story.volume("backup-storage").await?;
    story.volume("restored").await?;
    tree::fill_sample(&data)?;
    let keep = json!({"retention": {"keepLast": 5}});
    story.policy("nightly", YEARLY, keep).await?;
    story.backup("old", json!({"policyRef": "nightly"})).await?;
    completed(&story.wait_backup("old").await?)?;
    let hopeless = json!({"target": {"pvcName": "missing"}, "startDeadlineSeconds": 1});
    story.make::<Backup>("failed", hopeless).await?;
    story.wait_backup("failed").await?;
    story.restore("done", "old", "restored").await?;
    restored(&story.wait_restore("done").await?)?;
    tree::compare(&data, &story.volumes_folder()?.join("restored"))?;

    let waits = json!({"target": {"pvcName": "late"}});
    story.make::<Backup>("waits", waits).await?;
    let waiting = |backup: &Backup| Some(backup.status.as_ref()?.phase == Some(Phase::Pending));
    story.wait_for("waits", "to wait", waiting).await?;
    let large = story.volume("large").await?;
    tree::long_read(&large, 8)?;
    let runs = json!({"target": {"pvcName": "large"}});
    story.make::<Backup>("runs", runs).await?;
    let pod = story.wait_job_pod("runs-backup").await?;
    pods::pause(&pod)?;
    Ok(pod)
}

/// What was under way ends, once; what was stored is restored; new backups are made.
async fn after(story: &Story, halted: &Pod) -> Result<()> {
    pods::resume(halted)?;
    completed_once(story, "runs").await?;
    let late = story.volume("late").await?;
    tree::write(&late, "file", b"there at last", 0o644)?;
    completed_once(story, "waits").await?;

    let again = story.volume("again").await?;
    story.restore("again", "old", "again").await?;
    restored_once(story, "again").await?;
    tree::compare(&story.volumes_folder()?.join("data"), &again)?;
    story.backup("new", json!({"policyRef": "nightly"})).await?;
    completed_once(story, "new").await?;
    story
        .wait_for("nightly", "to count both", |policy: &BackupPolicy| {
            Some(policy.status.as_ref()?.good_backups == 2)
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn nothing_runs_again_and_nothing_is_lost() -> Result<()> {
    let previous = env::var("TIDELOCK_E2E_PREVIOUS_CHART");
    let previous = previous.context("no chart to upgrade from; run `make e2e SUITE=upgrade`")?;
    let told = at_home("upgrade", async |story, home| {
        without_crds(story).await?;
        let install = ["install"];
        home.release(&install, &PathBuf::from(previous), &["image.tag=previous"])?;
        // On the heap: together they are too large for a test's stack.
        let halted = Box::pin(before(story)).await?;
        let (objects, made) = (ended(story).await?, jobs(story).await?);

        home.release(&["upgrade"], &PathBuf::from(chart()), &["image.tag=dev"])?;
        let upgraded = ended(story).await?;
        ensure!(
            objects == upgraded,
            "changed by the upgrade: {objects:#?} became {upgraded:#?}"
        );
        let now_made = jobs(story).await?;
        ensure!(made == now_made, "Jobs were {made:?} and are {now_made:?}");
        let policy = story.api::<BackupPolicy>().get("nightly").await?;
        let good = policy.status.context("no status")?.good_backups;
        ensure!(good == 1, "{good} good backups");
        Box::pin(after(story, &halted)).await?;
        let still = ended(story).await?;
        let lost = objects.keys().filter(|name| {
            let same = still.get(*name).map(|now| &now["uid"]) == Some(&objects[*name]["uid"]);
            !same
        });
        let lost: Vec<_> = lost.collect();
        ensure!(lost.is_empty(), "lost: {lost:?}");
        Ok(())
    });
    let told = Box::pin(told);
    let told = in_place_of_the_clusters(async {
        let told = told.await;
        with_own_crds()?;
        told
    });
    told.await
}
