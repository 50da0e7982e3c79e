//! What a tenant, a mover and the operator itself cannot reach; docs/threat-model.md quotes these.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use kube::api::PostParams;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use tidelock_api::{Backup, RUN_UID_LABEL};
use tidelock_e2e::cluster::{OPERATOR_NAMESPACE, TOOLBOX_IMAGE, run};
use tidelock_e2e::outcome::pods_of_job;
use tidelock_e2e::{Story, pods, tell, tree, wait};
use tidelock_operator::job::CONTAINER;

use crate::support::completed;

/// A person who has `edit` in the story's namespace and nothing else.
struct Tenant<'a> {
    story: &'a Story,
    name: String,
}

impl<'a> Tenant<'a> {
    async fn of(story: &'a Story) -> Result<Self> {
        let name = format!("tenant-of-{}", story.namespace);
        let group = "rbac.authorization.k8s.io";
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": "tenant"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": name}],
        }))?;
        story.api().create(&PostParams::default(), &binding).await?;
        let tenant = Self { story, name };
        // The API server takes a moment to know of a binding.
        wait::until("the tenant's rights", || {
            let asked = tenant.kubectl(&["auth", "can-i", "create", "backups.tidelock.dev"]);
            Ok(asked.is_ok())
        })
        .await?;
        Ok(tenant)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let user = format!("--as={}", self.name);
        self.story.kubectl(&[&[&*user], arguments].concat())
    }

    fn is_forbidden(&self, arguments: &[&str]) -> Result<()> {
        match self.kubectl(arguments) {
            Ok(answer) => bail!("{arguments:?} is allowed: {answer}"),
            Err(error) if error.to_string().contains("(Forbidden)") => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn digest(backup: &Backup) -> Result<String> {
    let status = backup.status.as_ref();
    let digest = status.and_then(|status| status.digest.clone());
    digest.context("no digest")
}

#[tokio::test]
async fn a_tenant_with_edit_makes_and_deletes_backups_and_never_writes_a_status() -> Result<()> {
    tell("tenant", |story| async move {
        let data = story.volume("data").await?;
        story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        let tenant = Tenant::of(&story).await?;

        let object = |kind: &str, name: &str, spec: Value| {
            json!({
                "apiVersion": "tidelock.dev/v1alpha1", "kind": kind,
                "metadata": {"name": name}, "spec": spec,
            })
        };
        let target = json!({"pvcName": "data"});
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            object("BackupPolicy", "yearly", json!({"schedule": "0 0 1 1 *", "target": target})),
            object("Backup", "now", json!({"target": target})),
            object("Restore", "back", json!({"backupName": "nobody", "targetPVC": "data"})),
        ]});
        let file = story.volumes_folder()?.with_extension("tenant.json");
        fs::write(&file, objects.to_string())?;
        tenant.kubectl(&["create", "--filename", &file.to_string_lossy()])?;
        let before = story.wait_backup("now").await?;
        completed(&before)?;

        let forged = r#"--patch={"status":{"phase":"Failed","digest":"sha256:0"}}"#;
        for own in ["backuppolicy/yearly", "backup/now", "restore/back"] {
            let patch = ["patch", own, "--type=merge", forged];
            tenant.is_forbidden(&[&patch[..], &["--subresource=status"]].concat())?;
        }
        // Written into the object itself, the API server drops it.
        tenant.kubectl(&["patch", "backup/now", "--type=merge", forged])?;
        let after = story.api::<Backup>().get("now").await?;
        ensure!(digest(&after)? == digest(&before)?);
        completed(&after)?;

        tenant.is_forbidden(&["get", "backups", "--namespace=default"])?;
        tenant.kubectl(&["delete", "backup/now", "restore/back", "--wait=false"])?;
        story.wait_gone::<Backup>("now").await
    })
    .await
}

#[tokio::test]
async fn who_may_view_a_namespace_sees_backups_and_changes_nothing() -> Result<()> {
    tell("viewer", |story| async move {
        let roles: Api<ClusterRole> = Api::all(story.client.clone());
        let view = roles.get("view").await?;
        let is_ours = |groups: &Vec<String>| groups.iter().any(|group| group == "tidelock.dev");
        let ours = view.rules.into_iter().flatten();
        let ours = ours.filter(|rule| rule.api_groups.as_ref().is_some_and(is_ours));
        let verbs: Vec<String> = ours.flat_map(|rule| rule.verbs).collect();
        ensure!(!verbs.is_empty(), "who may view sees no backup");
        let reads = |verb: &String| matches!(verb.as_str(), "get" | "list" | "watch");
        ensure!(verbs.iter().all(reads), "{verbs:?}");
        Ok(())
    })
    .await
}

/// Verb, group, resource and subresource that a stolen token of the operator is no good for.
const DENIED: &[(&str, &str, &str, &str)] = &[
    ("get", "", "secrets", ""),
    ("list", "", "secrets", ""),
    ("get", "", "configmaps", ""),
    ("create", "", "pods", ""),
    ("patch", "", "pods", ""),
    ("delete", "", "pods", ""),
    ("create", "", "pods", "exec"),
    ("create", "", "pods", "attach"),
    ("create", "", "pods", "portforward"),
    ("get", "", "pods", "log"),
    ("patch", "", "pods", "ephemeralcontainers"),
    ("create", "", "serviceaccounts", "token"),
    ("impersonate", "", "users", ""),
    ("patch", "", "namespaces", ""),
    ("delete", "", "persistentvolumeclaims", ""),
    ("patch", "", "persistentvolumeclaims", ""),
    ("create", "rbac.authorization.k8s.io", "rolebindings", ""),
    ("bind", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("escalate", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("patch", "rbac.authorization.k8s.io", "roles", ""),
    ("create", "tidelock.dev", "restores", ""),
    ("create", "tidelock.dev", "backuppolicies", ""),
];

/// Whether the operator's account may do that in the story's namespace, in the API server's words.
async fn operator_may(
    story: &Story,
    (verb, group, resource, subresource): (&str, &str, &str, &str),
) -> Result<bool> {
    let account = format!("system:serviceaccount:{OPERATOR_NAMESPACE}");
    let groups = format!("system:serviceaccounts:{OPERATOR_NAMESPACE}");
    let review: SubjectAccessReview = serde_json::from_value(json!({
        "spec": {
            "user": format!("{account}:tidelock"),
            "groups": ["system:serviceaccounts", groups, "system:authenticated"],
            "resourceAttributes": {
                "namespace": story.namespace, "verb": verb, "group": group,
                "resource": resource, "subresource": subresource,
            },
        },
    }))?;
    let reviews: Api<SubjectAccessReview> = Api::all(story.client.clone());
    let review = reviews.create(&PostParams::default(), &review).await?;
    Ok(review.status.context("no answer")?.allowed)
}

#[tokio::test]
async fn the_operators_account_reads_no_secret_runs_nothing_in_pods_and_changes_no_role()
-> Result<()> {
    tell("account", |story| async move {
        let its_own = ("list", "", "pods", "");
        ensure!(operator_may(&story, its_own).await?, "asked for another");
        for question in DENIED {
            ensure!(!operator_may(&story, *question).await?, "{question:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_operator_runs_where_only_restricted_pods_may_and_behind_a_network_policy() -> Result<()>
{
    tell("operator-pod", |story| async move {
        let namespaces: Api<Namespace> = Api::all(story.client.clone());
        let home = namespaces.get(OPERATOR_NAMESPACE).await?;
        let level = home.labels().get("pod-security.kubernetes.io/enforce");
        ensure!(
            level.is_some_and(|level| level == "restricted"),
            "{level:?}"
        );
        let policies: Api<NetworkPolicy> =
            Api::namespaced(story.client.clone(), OPERATOR_NAMESPACE);
        let policy = policies.get("tidelock").await?.spec.context("no spec")?;
        let types = policy.policy_types.unwrap_or_default();
        ensure!(types.contains(&"Ingress".to_owned()), "{types:?}");
        let selector = policy.pod_selector.and_then(|pods| pods.match_labels);
        let selector = selector.context("it is for no pod")?;
        let operators = pods::operator_pods(&story.client).await?;
        ensure!(!operators.is_empty(), "no operator");
        for pod in &operators {
            let bears = |(name, value)| pod.labels().get(name) == Some(value);
            ensure!(selector.iter().all(bears), "{} is open", pod.name_any());
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            for own in containers.map(|container| container.security_context.as_ref()) {
                let read_only = own.and_then(|own| own.read_only_root_filesystem);
                ensure!(read_only == Some(true), "{own:?}");
            }
        }
        Ok(())
    })
    .await
}

/// The pod of a Job has no way to the API server, as admission left it.
fn has_no_token(pod: &Pod) -> Result<()> {
    let spec = pod.spec.as_ref().context("no spec")?;
    ensure!(spec.automount_service_account_token == Some(false));
    for volume in spec.volumes.iter().flatten() {
        let holds_none = volume.projected.is_none() && volume.secret.is_none();
        ensure!(holds_none, "{volume:?}");
    }
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    for mount in containers.flat_map(|container| container.volume_mounts.iter().flatten()) {
        ensure!(
            !mount.mount_path.starts_with("/var/run/secrets"),
            "{mount:?}"
        );
    }
    Ok(())
}

/// What the mover of an ended Job reported.
async fn report_of(story: &Story, job: &str) -> Result<Value> {
    let pod = pods_of_job(story, job).await?.pop().context("no pod")?;
    has_no_token(&pod)?;
    let statuses = pod.status.and_then(|status| status.container_statuses);
    let mut states = statuses.into_iter().flatten().filter_map(|own| own.state);
    let ended = states
        .find_map(|state| state.terminated)
        .context("not ended")?;
    Ok(serde_json::from_str(&ended.message.context("no report")?)?)
}

/// A pod that bears all labels of `mover`, is younger, and ends well with `report`. It belongs to an
/// object of the tenant, as the Job controller would take one that belongs to nobody.
async fn plant(story: &Story, mover: &Pod, report: &Value) -> Result<()> {
    // Pods are ordered by when they were made, to the second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let owner: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "owner"}}))?;
    let owner = story.api().create(&PostParams::default(), &owner).await?;
    let owner = owner.controller_owner_ref(&()).context("no owner")?;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": "planted",
            "labels": mover.labels(),
            "annotations": mover.annotations(),
            "ownerReferences": [owner],
        },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": CONTAINER,
                "image": TOOLBOX_IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-ec", r#"printf %s "$REPORT" > /dev/termination-log"#],
                "env": [{"name": "REPORT", "value": report.to_string()}],
            }],
        },
    }))?;
    story.api().create(&PostParams::default(), &pod).await?;
    story
        .wait_for("planted", "to end well", |pod: &Pod| {
            Some(pod.status.as_ref()?.phase.as_deref()? == "Succeeded")
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_pod_with_the_labels_of_a_mover_reports_nothing_and_movers_have_no_token() -> Result<()> {
    tell("planted", |story| async move {
        let data = story.volume("data").await?;
        let storage = story.volume("backup-storage").await?;
        tree::write(&data, "file", b"content", 0o644)?;
        story.backup("one", json!({})).await?;
        completed(&story.wait_backup("one").await?)?;
        let mut forged = report_of(&story, "one-backup").await?;

        tree::long_read(&data, 1)?;
        story.backup("two", json!({})).await?;
        wait::until_stored_begins(&storage).await?;
        let mover = story.wait_job_pod_made("two-backup").await?;
        pods::pause(&mover)?;
        let run_uid = mover.labels().get(RUN_UID_LABEL).context("no run")?;
        forged["runUid"] = json!(run_uid);
        let done = &mut forged["outcome"]["backedUp"];
        let place = done["location"].as_str().context("no location")?;
        done["location"] = json!(place.replace("/one", "/two"));
        let planted = plant(&story, &mover, &forged).await;
        pods::resume(&mover)?;
        planted?;

        let backup = story.wait_backup("two").await?;
        completed(&backup)?;
        let location = backup
            .status
            .as_ref()
            .and_then(|own| own.backup_location.clone());
        let archive = storage.join(location.context("no location")?);
        let sum = run("sha256sum", &[&archive.to_string_lossy()])?;
        let real = sum.split_whitespace().next().context("no digest")?;
        ensure!(
            digest(&backup)? == format!("sha256:{real}"),
            "believed another"
        );
        Ok(())
    })
    .await
}
