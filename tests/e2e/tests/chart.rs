//! The chart, with the real Helm on the real API server: what it renders is accepted, and it is
//! installed, upgraded and taken away without a loss.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy};
use tidelock_e2e::cluster::kubectl;
use tidelock_e2e::helm::{Home, RELEASE, at_home, chart, helm, with};
use tidelock_e2e::local_operator::in_place_of_the_clusters;
use tidelock_e2e::wait::DEADLINE;
use tidelock_e2e::{Story, outcome, tell, tree};
use tokio::sync::RwLock;

/// The cluster's own operator stands aside while one that Helm installed works, which other stories
/// would feel.
static OPERATOR: RwLock<()> = RwLock::const_new(());

/// Values that are accepted, beside those that a test of the checkout renders.
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
        "serviceMonitor.enabled=true",
        "serviceMonitor.labels.release=prometheus",
        "prometheusRule.enabled=true",
        "prometheusRule.labels.release=prometheus",
        "commonLabels.team=storage",
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

/// The kinds of the Prometheus operator that the chart knows, by plural.
const MONITORING: [(&str, &str); 2] = [
    ("servicemonitors", "ServiceMonitor"),
    ("prometheusrules", "PrometheusRule"),
];

/// Those kinds without their schemas: names and structure of what is rendered are shown to an API
/// server, its fields are not.
async fn monitoring_kinds(crds: &Api<CustomResourceDefinition>) -> Result<()> {
    for (plural, kind) in MONITORING {
        let name = format!("{plural}.monitoring.coreos.com");
        let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let version = json!({
            "name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": anything},
        });
        let crd: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "group": "monitoring.coreos.com",
                "scope": "Namespaced",
                "names": {
                    "plural": plural, "singular": kind.to_lowercase(),
                    "kind": kind, "listKind": format!("{kind}List"),
                },
                "versions": [version],
            },
        }))?;
        crds.create(&PostParams::default(), &crd).await?;
        let established = await_condition(crds.clone(), &name, is_crd_established());
        tokio::time::timeout(DEADLINE, established)
            .await
            .with_context(|| format!("{name} is not established"))??;
    }
    Ok(())
}

#[tokio::test]
async fn what_the_chart_renders_is_accepted_whatever_it_is_told() -> Result<()> {
    at_home("chart-rendered", async |story, home| {
        let crds: Api<CustomResourceDefinition> = Api::all(story.client.clone());
        let accepted = async {
            monitoring_kinds(&crds).await?;
            all_is_accepted(story, home)
        };
        let accepted = accepted.await;
        for (plural, _) in MONITORING {
            let name = format!("{plural}.monitoring.coreos.com");
            // One that could not be made is told of by what could not be accepted.
            let _ = crds.delete(&name, &DeleteParams::default()).await;
        }
        accepted
    })
    .await
}

fn all_is_accepted(story: &Story, home: &Home) -> Result<()> {
    let watched = format!("rbac.watchNamespaces={{{}}}", story.namespace);
    let namespaced = ["rbac.scope=Namespace", &watched];
    let monitored = [
        &namespaced[..],
        &["serviceMonitor.enabled=true", "prometheusRule.enabled=true"],
    ]
    .concat();
    let sets = MATRIX.iter().copied().chain([&namespaced[..], &monitored]);
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
    let _alone = OPERATOR.write().await;
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
async fn for_all_namespaces_one_release_does_what_the_clusters_own_operator_does() -> Result<()> {
    let _alone = OPERATOR.write().await;
    let told = at_home("chart-cluster", async |story, home| {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        story.volume("target").await?;
        tree::fill_sample(&data)?;
        let chart = PathBuf::from(chart());
        home.release(&["install", "--take-ownership"], &chart, &["image.tag=dev"])?;
        story.policy("nightly", "0 0 1 1 *", json!({})).await?;
        backed_up(story, "one").await?;
        story.restore("back", "one", "target").await?;
        outcome::restored(&story.wait_restore("back").await?)?;
        tree::compare(&data, &story.volumes_folder()?.join("target"))?;
        home.uninstall()
    });
    in_place_of_the_clusters(told).await
}

/// Where an example is.
fn example(name: &str) -> String {
    format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn the_examples_do_what_they_say_as_they_stand() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("examples", |story| async move {
        let answer = story.kubectl(&["apply", "--dry-run=server", "--filename", &example("")])?;
        ensure!(!answer.contains("Warning"), "{answer}");
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        let restored = story.volume_of_class_for_later("data-restored", "demo");
        let restored = restored.await?;
        tree::write(&data, "photos/2026/05/lake.jpg", &tree::noise(9_000), 0o644)?;
        tree::write(&data, "etc/shop.conf", b"open", 0o600)?;
        let apply = |name: &str| story.kubectl(&["apply", "--filename", &example(name)]);

        apply("backup.yaml")?;
        outcome::completed(&story.wait_backup("before-upgrade").await?)?;
        for (file, name) in [
            ("restore-files.yaml", "photos-of-may"),
            ("restore-in-place.yaml", "roll-back"),
            ("restore.yaml", "data-restored"),
        ] {
            apply(file)?;
            outcome::restored(&story.wait_restore(name).await?)?;
        }
        tree::compare(&data, &restored)?;

        for (file, name) in [
            ("nightly.yaml", "nightly"),
            ("reverification.yaml", "verified"),
            ("policy.yaml", "minutely"),
        ] {
            apply(file)?;
            let policy = format!("backuppolicy/{name}");
            story.kubectl(&["wait", &policy, "--for=condition=Ready", "--timeout=60s"])?;
        }
        let backed_up = |policy: &BackupPolicy| Some(policy.status.as_ref()?.good_backups > 0);
        story
            .wait_for("minutely", "to have a good backup", backed_up)
            .await?;

        // The moment that it names has passed before there was any backup.
        apply("restore-from-policy.yaml")?;
        let refused = story.wait_restore("before-the-incident").await?;
        let failure = outcome::restore_failure(&refused)?;
        outcome::says(failure, "BackupNotFound", &["nightly"])
    })
    .await
}
