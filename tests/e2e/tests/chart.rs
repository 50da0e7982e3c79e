//! The chart, with the real Helm on the real API server: what it renders is accepted, and it is
//! installed, upgraded and taken away without a loss.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy};
use tidelock_e2e::cluster::kubectl;
use tidelock_e2e::helm::{RELEASE, at_home, chart, helm, with};
use tidelock_e2e::local_operator::in_place_of_the_clusters;
use tidelock_e2e::{Story, outcome, tell, tree};

/// Values that are accepted, beside those that a test of the checkout renders: what needs kinds of
/// other projects is not asked of this cluster.
const MATRIX: &[&[&str]] = &[
    &[],
    &[
        "replicas=1",
        "leaderElection.enabled=false",
        "podDisruptionBudget.enabled=false",
    ],
    &["image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],
    &[
        "networkPolicy.egress.enabled=true",
        "networkPolicy.egress.apiServerCidrs={10.0.0.1/32}",
    ],
    &["networkPolicy.ingressFrom=null"],
    &[
        "crds.keep=false",
        "commonLabels.team=storage",
        "commonAnnotations.owner=platform",
    ],
    &[
        "priorityClassName=system-cluster-critical",
        "nodeSelector.pool=infra",
        "podLabels.tier=ops",
    ],
    &[
        "podDisruptionBudget.maxUnavailable=50%",
        "log.format=text",
        "log.level=debug",
    ],
    &[
        "serviceAccount.create=false",
        "serviceAccount.name=mine",
        "dashboards.enabled=true",
    ],
    &[
        "serviceAccount.annotations.role=backup",
        "podAnnotations.note=x",
    ],
    &[
        "affinity.nodeAffinity=null",
        "tolerations=null",
        "topologySpreadConstraints=null",
    ],
];

#[tokio::test]
async fn what_the_chart_renders_is_accepted_whatever_it_is_told() -> Result<()> {
    at_home("chart-rendered", async |story, home| {
        let watched = format!("rbac.watchNamespaces={{{}}}", story.namespace);
        let namespaced = ["rbac.scope=Namespace", &watched];
        let sets = MATRIX.iter().copied().chain([&namespaced[..]]);
        let file = story.volumes_folder()?.with_extension("chart.yaml");
        let (chart, path) = (chart(), file.display().to_string());
        for values in sets {
            let render = ["template", RELEASE, &chart, "--namespace", &home.name];
            std::fs::write(&file, helm(&with(&render, values))?)?;
            // Nothing is changed; the CRDs have another manager.
            let apply = [
                "apply",
                "--server-side",
                "--dry-run=server",
                "--force-conflicts",
            ];
            // The manifests name their namespaces themselves.
            let answer = kubectl(&[&apply[..], &["--filename", &path]].concat());
            let answer = answer.with_context(|| format!("with {values:?}"))?;
            ensure!(!answer.contains("Warning"), "with {values:?}: {answer}");
        }
        std::fs::remove_file(&file)?;
        Ok(())
    })
    .await
}

/// All Backups and Jobs of the story, by name and UID.
async fn made(story: &Story) -> Result<Vec<String>> {
    let all = ListParams::default();
    let backups = story.api::<Backup>().list(&all).await?.items;
    let jobs = story.api::<Job>().list(&all).await?.items;
    let backups = backups
        .iter()
        .map(|b| format!("{:?} {:?}", b.name_any(), b.uid()));
    let jobs = jobs
        .iter()
        .map(|j| format!("{:?} {:?}", j.name_any(), j.uid()));
    Ok(backups.chain(jobs).collect())
}

async fn backed_up(story: &Story, name: &str) -> Result<()> {
    story.backup(name, json!({"policyRef": "nightly"})).await?;
    outcome::completed_once(story, name).await.map(|_| ())
}

#[tokio::test]
async fn it_is_installed_upgraded_and_taken_away_and_what_users_made_stays() -> Result<()> {
    let told = at_home("chart-life", async |story, home| {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::fill_sample(&data)?;
        let chart = PathBuf::from(chart());
        let watched = format!("rbac.watchNamespaces={{{}}}", story.namespace);
        let values = ["image.tag=dev", "rbac.scope=Namespace", &watched];

        // The CRDs are there: those of the cluster's own operator, which stands aside.
        home.release(&["install", "--take-ownership"], &chart, &values)?;
        story.policy("nightly", "0 0 1 1 *", json!({})).await?;
        backed_up(story, "one").await?;
        let before = made(story).await?;

        let more = [&values[..], &["replicas=1", "log.level=debug"]].concat();
        home.release(&["upgrade"], &chart, &more)?;
        let deployments: Api<Deployment> = Api::namespaced(story.client.clone(), &home.name);
        let name = format!("{RELEASE}-{}", story.namespace);
        let upgraded = deployments.get(&name).await?;
        ensure!(upgraded.spec.and_then(|spec| spec.replicas) == Some(1));
        backed_up(story, "two").await?;
        let after = made(story).await?;
        let lost: Vec<_> = before.iter().filter(|one| !after.contains(one)).collect();
        ensure!(lost.is_empty(), "lost in the upgrade: {lost:?}");
        let new = after.len() - before.len();
        ensure!(new == 2, "{new} objects came, not one Backup and its Job");

        home.uninstall()?;
        let left = deployments.list(&ListParams::default()).await?.items;
        ensure!(left.is_empty(), "{left:?} stayed");
        let crds: Api<CustomResourceDefinition> = Api::all(story.client.clone());
        for kind in ["backuppolicies", "backups", "restores"] {
            crds.get(&format!("{kind}.tidelock.dev")).await?;
        }
        story.api::<BackupPolicy>().get("nightly").await?;
        ensure!(made(story).await? == after, "objects went with the chart");
        ensure!(
            tree::archives(&storage)?.len() == 2,
            "data went with the chart"
        );
        Ok(())
    });
    in_place_of_the_clusters(told).await
}

#[tokio::test]
async fn the_examples_are_accepted_as_they_stand() -> Result<()> {
    tell("examples", |story| async move {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"));
        let folder = folder.display().to_string();
        let answer = story.kubectl(&["apply", "--dry-run=server", "--filename", &folder])?;
        ensure!(!answer.contains("Warning"), "{answer}");
        Ok(())
    })
    .await
}
