//! Alerts about the operator itself, and those that need limits, a clock or a lease of the story's
//! own: the operator that is scraped is the story's.

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tidelock_api::{Backup, BackupPolicy, Phase};
use tidelock_e2e::cluster::OPERATOR_NAMESPACE;
use tidelock_e2e::local_operator::{Clock, Launch, in_place_of_the_clusters};
use tidelock_e2e::nodes::LEFT;
use tidelock_e2e::prometheus::{Prometheus, free_address};
use tidelock_e2e::wait::DEADLINE;
use tidelock_e2e::workloads::Workload;
use tidelock_e2e::{Story, tell, tree};

use crate::{OPERATOR, YEARLY, fast, nightly};

/// Tells a story with an operator of its own, as `prepare` wants it, in place of the cluster's.
async fn with_own(
    name: &str,
    prepare: impl AsyncFnOnce(&Story, Launch) -> Result<Launch>,
    story: impl AsyncFnOnce(&Story, &Prometheus) -> Result<()>,
) -> Result<()> {
    let _alone = OPERATOR.write().await;
    let told = tell(name, async |setting: Story| {
        std::fs::create_dir_all(setting.volumes_folder()?)?;
        let address = free_address().await?;
        let launch = prepare(&setting, Launch::new(&setting)?.at(&address)).await?;
        let mut operator = launch.start(&setting, None).await?;
        let told = async {
            let prometheus = Prometheus::start_at(&setting, fast(), &address).await?;
            story(&setting, &prometheus).await
        };
        tokio::select! {
            ended = operator.killed() => ended.context("the operator was killed")?,
            told = told => told?,
        }
        launch.forget_log();
        Ok(())
    });
    in_place_of_the_clusters(told).await
}

#[tokio::test]
async fn a_backup_that_waits_long_for_its_turn_is_told_until_it_has_it() -> Result<()> {
    let one = async |_: &Story, launch: Launch| Ok(launch.with("MAX_MOVERS", "1"));
    with_own("alert-queued", one, async |story, prometheus| {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::long_read(&data, 400)?;
        story.policy("nightly", YEARLY, json!({})).await?;
        story.backup("first", json!({})).await?;
        let runs = |backup: &Backup| Some(backup.status.as_ref()?.phase == Some(Phase::Running));
        story.wait_for("first", "to run", runs).await?;
        let second = json!({"policyRef": "nightly"});
        story.backup("second", second).await?;
        let about = nightly(story);
        prometheus.fires("TidelockBackupQueued", &about).await?;
        for name in ["first", "second"] {
            let cancel = json!({"spec": {"cancel": true}});
            story.patch::<Backup>(name, cancel).await?;
            story.wait_backup(name).await?;
        }
        prometheus.clears("TidelockBackupQueued", &about).await
    })
    .await
}

fn leases(story: &Story) -> Api<Lease> {
    Api::namespaced(story.client.clone(), OPERATOR_NAMESPACE)
}

/// A lease of somebody who is gone, and who has it for an hour yet.
async fn held_by_another(story: &Story, launch: Launch) -> Result<Launch> {
    let held: Lease = serde_json::from_value(json!({
        "metadata": {"name": story.namespace},
        "spec": {
            "holderIdentity": "somebody-who-is-gone",
            "leaseDurationSeconds": 3600,
            "renewTime": format!("{:.6}", Timestamp::now()),
        },
    }))?;
    leases(story).create(&PostParams::default(), &held).await?;
    Ok(launch.with_lease(&story.namespace))
}

#[tokio::test]
async fn operators_of_which_none_leads_page_until_one_does() -> Result<()> {
    with_own(
        "alert-leader",
        held_by_another,
        async |story, prometheus| {
            let fired = prometheus.fires("TidelockNoLeader", &[]).await;
            let params = DeleteParams::default();
            leases(story).delete(&story.namespace, &params).await?;
            fired?;
            let led = prometheus.clears("TidelockNoLeader", &[]).await;
            // That which the operator made of it goes too.
            leases(story).delete(&story.namespace, &params).await?;
            led
        },
    )
    .await
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told_until_it_is_right() -> Result<()> {
    let clock = async |story: &Story, launch: Launch| {
        let clock = Clock::of(story)?;
        clock.set(SignedDuration::from_mins(10))?;
        Ok(launch.with_clock(&clock))
    };
    with_own("alert-clock", clock, async |story, prometheus| {
        prometheus.fires("TidelockClockSkew", &[]).await?;
        Clock::of(story)?.set(SignedDuration::ZERO)?;
        prometheus.clears("TidelockClockSkew", &[]).await
    })
    .await
}

/// Lets the API server refuse every write of a policy's status in the story's namespace, as a
/// webhook would that has gone wrong.
pub async fn refuse_statuses(story: &Story) -> Result<()> {
    let name = &story.namespace;
    let rule = json!({
        "apiGroups": ["tidelock.dev"], "apiVersions": ["*"],
        "operations": ["UPDATE"], "resources": ["backuppolicies/status"],
    });
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "message": "no"}],
        },
    }))?;
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {
                "matchLabels": {"kubernetes.io/metadata.name": name},
            }},
        },
    }))?;
    let params = PostParams::default();
    Api::all(story.client.clone())
        .create(&params, &policy)
        .await?;
    Api::all(story.client.clone())
        .create(&params, &binding)
        .await?;
    let in_force = async {
        let try_it =
            "patch backuppolicy nightly --subresource=status --type=merge --dry-run=server";
        let try_it: Vec<&str> = try_it
            .split(' ')
            .chain(["--patch={\"status\":{}}"])
            .collect();
        // Nothing tells when it is.
        while story.kubectl(&try_it).is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
    };
    tokio::time::timeout(DEADLINE, in_force)
        .await
        .context("statuses are not refused")
}

/// Takes back what [`refuse_statuses`] did.
pub async fn take_statuses(story: &Story) -> Result<()> {
    let params = DeleteParams::default();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(story.client.clone());
    bindings.delete(&story.namespace, &params).await?;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(story.client.clone());
    policies.delete(&story.namespace, &params).await?;
    Ok(())
}

#[tokio::test]
async fn errors_of_reconciling_are_told_until_it_succeeds() -> Result<()> {
    let plain = async |_: &Story, launch: Launch| Ok(launch);
    with_own("alert-errors", plain, async |story, prometheus| {
        story.policy("nightly", YEARLY, json!({})).await?;
        let followed = |policy: &BackupPolicy| policy.status.as_ref().map(|_| true);
        story
            .wait_for("nightly", "to be followed", followed)
            .await?;
        refuse_statuses(story).await?;
        let suspended = json!({"spec": {"suspend": true}});
        story.patch::<BackupPolicy>("nightly", suspended).await?;
        let about = [("kind", "BackupPolicy")];
        let fired = prometheus.fires("TidelockReconcileErrors", &about).await;
        take_statuses(story).await?;
        fired?;
        prometheus.clears("TidelockReconcileErrors", &about).await
    })
    .await
}

#[tokio::test]
async fn storage_that_is_nearly_full_is_told_until_there_is_space() -> Result<()> {
    let _there = OPERATOR.read().await;
    tell("alert-full", |story| async move {
        let prometheus = Prometheus::start(&story, fast()).await?;
        story.policy("nightly", YEARLY, json!({})).await?;
        let storage = story.small_local_volume("backup-storage", 64, LEFT).await?;
        let all = storage.free_blocks()?;
        storage.leave_free(all / 20)?;
        // The kubelet looks at volumes that a pod has.
        let user = Workload::on_node("user", "backup-storage", LEFT);
        story.start(&user).await?;
        let about = [
            ("namespace", &*story.namespace),
            ("storage_pvc", "backup-storage"),
        ];
        prometheus
            .fires("TidelockStorageNearlyFull", &about)
            .await?;
        storage.leave_free(all / 2)?;
        prometheus.clears("TidelockStorageNearlyFull", &about).await
    })
    .await
}

#[tokio::test]
async fn objects_that_are_too_many_for_series_are_told_until_they_are_fewer() -> Result<()> {
    let one = async |_: &Story, launch: Launch| Ok(launch.with("MAX_METRICS_OBJECTS", "1"));
    with_own("alert-left-out", one, async |story, prometheus| {
        for name in ["nightly", "weekly"] {
            story.policy(name, YEARLY, json!({})).await?;
        }
        let about = [("kind", "BackupPolicy")];
        prometheus.fires("TidelockSeriesLeftOut", &about).await?;
        // Its operator lets it go, and asks by way of this process.
        story.kubectl(&["delete", "backuppolicy", "weekly", "--wait=false"])?;
        prometheus.clears("TidelockSeriesLeftOut", &about).await
    })
    .await
}
