//! Malformed manifests, refused by the real API server with a message that names the field and says
//! what is right.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use anyhow::{Result, bail};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, Request};
use serde_json::{Value, json};
use tidelock_api::{Backup, BackupPolicy, Restore};
use tidelock_e2e::{Story, tell};

/// A manifest that is wrong in one way: the kind, a JSON pointer to what is put wrong and the
/// wrong value (null takes it away), then what the answer must name and must say.
///
/// The tables are kept in rows, past the width of other code.
type Wrong = (
    &'static str,
    &'static str,
    Value,
    &'static str,
    &'static str,
);

const A_NAME: &str = "must be the name of an object: lower-case letters, digits, '-' and '.'";
const A_SCHEDULE: &str = "must be five cron fields such as \"0 2 * * *\", or one of @hourly";
const A_QUANTITY: &str = "must be a quantity such as 500m, 2 or 1Gi";
const ONE_TARGET: &str = "exactly one of targetPVC (an existing PersistentVolumeClaim) and targetTemplate (one to be made) is required";
const ONE_SOURCE: &str =
    "exactly one of backupName (a Backup) and from (the latest Backup of a policy) is required";
const A_GLOB: &str = "must be a glob relative to the volume's root, such as etc/*.conf";

#[rustfmt::skip]
fn policies() -> Vec<Wrong> {
    let p = "BackupPolicy";
    let long = |length: usize| json!("a".repeat(length));
    vec![
        (p, "/spec", Value::Null, "spec", "Required value"),
        (p, "/spec", json!("nightly"), "spec", "must be of type object"),
        (p, "/spec/schedule", Value::Null, "spec.schedule", "Required value"),
        (p, "/spec/schedule", json!(""), "spec.schedule", A_SCHEDULE),
        (p, "/spec/schedule", json!(5), "spec.schedule", "must be of type string"),
        (p, "/spec/schedule", json!("0 2 * *"), "spec.schedule", A_SCHEDULE),
        (p, "/spec/schedule", json!("0 0 2 * * *"), "spec.schedule", A_SCHEDULE),
        (p, "/spec/schedule", json!("@reboot"), "spec.schedule", A_SCHEDULE),
        (p, "/spec/schedule", json!("@every 5m"), "spec.schedule", A_SCHEDULE),
        (p, "/spec/schedule", json!("@DAILY"), "spec.schedule", A_SCHEDULE),
        (p, "/spec/schedule", json!("nightly"), "spec.schedule", A_SCHEDULE),
        (p, "/spec/schedule", json!(format!("{} * * * *", "0,".repeat(80))), "spec.schedule", "may not be more than 128"),
        (p, "/spec/timeZone", json!(""), "spec.timeZone", "at least 1 chars long"),
        (p, "/spec/timeZone", json!(2), "spec.timeZone", "must be of type string"),
        (p, "/spec/timeZone", long(65), "spec.timeZone", "may not be more than 64"),
        (p, "/spec/target", Value::Null, "spec.target", "Required value"),
        (p, "/spec/target", json!("data"), "spec.target", "must be of type object"),
        (p, "/spec/target/pvcName", Value::Null, "spec.target.pvcName", "Required value"),
        (p, "/spec/target/pvcName", json!("Data_1"), "spec.target.pvcName", A_NAME),
        (p, "/spec/target/pvcName", json!("data/"), "spec.target.pvcName", A_NAME),
        (p, "/spec/target/pvcName", json!("a..b"), "spec.target.pvcName", A_NAME),
        (p, "/spec/target/pvcName", long(254), "spec.target.pvcName", "may not be more than 253"),
        (p, "/spec/target/pvcName", json!("backup-storage"), "target.pvcName", "must not be the PersistentVolumeClaim that storage names"),
        (p, "/spec/target/claim", json!("data"), "spec.target.claim", "unknown field"),
        (p, "/spec/retention/keepLast", json!(0), "spec.retention.keepLast", "should be greater than or equal to 1"),
        (p, "/spec/retention/keepLast", json!(-3), "spec.retention.keepLast", "should be greater than or equal to 1"),
        (p, "/spec/retention/keepLast", json!(100_001), "spec.retention.keepLast", "should be less than or equal to 100000"),
        (p, "/spec/retention/keepLast", json!("3"), "spec.retention.keepLast", "must be of type integer"),
        (p, "/spec/retention/keepLast", json!(2.5), "spec.retention.keepLast", "must be of type integer"),
        (p, "/spec/retention/keepLast", Value::Null, "spec.retention.keepLast", "Required value"),
        (p, "/spec/retention/keepDaily", json!(7), "spec.retention.keepDaily", "unknown field"),
        (p, "/spec/retentoin", json!({"keepLast": 3}), "spec.retentoin", "unknown field"),
        (p, "/spec/suspend", json!("yes"), "spec.suspend", "must be of type boolean"),
        (p, "/spec/concurrencyPolicy", json!("Never"), "spec.concurrencyPolicy", "supported values: \"Forbid\", \"Allow\", \"Replace\""),
        (p, "/spec/verification/onBackup", json!("Half"), "spec.verification.onBackup", "supported values: \"Full\", \"Digest\", \"None\""),
        (p, "/spec/verification/schedule", json!("weekly"), "spec.verification.schedule", A_SCHEDULE),
        (p, "/spec/guard/maxShrinkPercent", json!(101), "spec.guard.maxShrinkPercent", "should be less than or equal to 100"),
        (p, "/spec/guard/maxShrinkPercent", json!(-1), "spec.guard.maxShrinkPercent", "should be greater than or equal to 0"),
        (p, "/spec/format", json!("Zip"), "spec.format", "supported values: \"TarGz\", \"TarZst\""),
        (p, "/spec/deletionPolicy", json!("delete"), "spec.deletionPolicy", "supported values: \"Delete\", \"Retain\""),
        (p, "/spec/startingDeadlineSeconds", json!(0), "spec.startingDeadlineSeconds", "should be greater than or equal to 1"),
        (p, "/spec/startDeadlineSeconds", json!(604_801), "spec.startDeadlineSeconds", "should be less than or equal to 604800"),
        (p, "/spec/storage/pvcName", json!("-x"), "spec.storage.pvcName", A_NAME),
        (p, "/spec/storage/bucket", json!("b"), "spec.storage.bucket", "unknown field"),
        (p, "/metadata/name", json!("Nightly"), "metadata.name", "lowercase RFC 1123 subdomain"),
        (p, "/metadata/name", long(254), "metadata.name", "must be no more than 253"),
    ]
}

#[rustfmt::skip]
fn movers() -> Vec<Wrong> {
    let p = "BackupPolicy";
    let resources = "/spec/mover/resources";
    let mover = "spec.mover";
    vec![
        (p, resources, json!({"limits": {"memory": "1GB"}}), "spec.mover.resources.limits[memory]", A_QUANTITY),
        (p, resources, json!({"limits": {"memory": "-1Gi"}}), "spec.mover.resources.limits[memory]", A_QUANTITY),
        (p, resources, json!({"requests": {"cpu": 1}}), "spec.mover.resources.requests.cpu", "must be of type string"),
        (p, resources, json!({"requests": {"gpu": "1"}}), "spec.mover.resources.requests", "requests must name cpu, memory or ephemeral-storage"),
        (p, resources, json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "2"}}), "spec.mover.resources", "requests must not be larger than limits"),
        (p, "/spec/mover/timeoutSeconds", json!(0), "spec.mover.timeoutSeconds", "should be greater than or equal to 1"),
        (p, "/spec/mover/priorityClassName", json!("High!"), "spec.mover.priorityClassName", A_NAME),
        (p, "/spec/mover/nodeSelector", json!({"disk": true}), "spec.mover.nodeSelector.disk", "must be of type string"),
        (p, "/spec/mover/tolerations", json!([{"operator": "Equal"}]), "spec.mover.tolerations[0]", "operator must be Exists where key is empty"),
        (p, "/spec/mover/tolerations", json!([{"key": "a", "operator": "Exists", "value": "b"}]), "spec.mover.tolerations[0]", "value is only allowed with operator Equal"),
        (p, "/spec/mover/tolerations", json!([{"key": "a", "effect": "Never"}]), "spec.mover.tolerations[0].effect", "supported values: \"NoSchedule\""),
        (p, "/spec/mover/stallTimeoutSeconds", json!(0), "spec.mover.stallTimeoutSeconds", "should be greater than or equal to 1"),
        (p, "/spec/mover/privilege", json!("Privileged"), "spec.mover.privilege", "supported values: \"Auto\", \"Root\", \"Unprivileged\""),
        (p, "/spec/mover/runAsUser", json!(0), "spec.mover.runAsUser", "should be greater than or equal to 1"),
        (p, "/spec/mover/image", json!("evil:latest"), mover, "unknown field"),
    ]
}

#[rustfmt::skip]
fn backups() -> Vec<Wrong> {
    let b = "Backup";
    vec![
        (b, "/spec/target", Value::Null, "spec", "target or policyRef is required"),
        (b, "/spec/target/pvcName", json!("DATA"), "spec.target.pvcName", A_NAME),
        (b, "/spec/target", json!({}), "spec.target.pvcName", "Required value"),
        (b, "/spec/policyRef", json!("no spaces"), "spec.policyRef", A_NAME),
        (b, "/spec/policyRef", json!(7), "spec.policyRef", "must be of type string"),
        (b, "/spec/storage/pvcName", json!("data"), "target.pvcName", "must not be the PersistentVolumeClaim that storage names"),
        (b, "/spec/schedule", json!("@daily"), "spec.schedule", "unknown field"),
        (b, "/spec/format", json!("TarXz"), "spec.format", "supported values: \"TarGz\", \"TarZst\""),
        (b, "/spec/startDeadlineSeconds", json!(0), "spec.startDeadlineSeconds", "should be greater than or equal to 1"),
    ]
}

/// Every field that names an object, with what would be one of another namespace.
#[rustfmt::skip]
fn names_of_another_namespace() -> Vec<Wrong> {
    let (p, b, r) = ("BackupPolicy", "Backup", "Restore");
    let other = || json!("other/data");
    vec![
        (p, "/spec/target/pvcName", other(), "spec.target.pvcName", A_NAME),
        (p, "/spec/storage/pvcName", other(), "spec.storage.pvcName", A_NAME),
        (b, "/spec/target/pvcName", other(), "spec.target.pvcName", A_NAME),
        (b, "/spec/storage/pvcName", other(), "spec.storage.pvcName", A_NAME),
        (b, "/spec/policyRef", other(), "spec.policyRef", A_NAME),
        (r, "/spec/backupName", other(), "spec.backupName", A_NAME),
        (r, "/spec/from", json!({"policyName": "other/data"}), "spec.from.policyName", A_NAME),
        (r, "/spec/targetPVC", other(), "spec.targetPVC", A_NAME),
        (b, "/spec/namespace", json!("other"), "spec.namespace", "unknown field"),
        (r, "/spec/namespace", json!("other"), "spec.namespace", "unknown field"),
    ]
}

#[rustfmt::skip]
fn restores() -> Vec<Wrong> {
    let r = "Restore";
    let requests = "spec.targetTemplate.spec.resources.requests";
    let template = |spec: Value| json!({"metadata": {"name": "new"}, "spec": spec});
    let asking = |modes: Value| {
        template(json!({"accessModes": modes, "resources": {"requests": {"storage": "1Gi"}}}))
    };
    let sized = |requests: Value| template(json!({"resources": {"requests": requests}}));
    vec![
        (r, "/spec/backupName", Value::Null, "spec", ONE_SOURCE),
        (r, "/spec/from", json!({"policyName": "nightly"}), "spec", ONE_SOURCE),
        (r, "/spec/from", json!({}), "spec.from.policyName", "Required value"),
        (r, "/spec/from", json!({"policyName": "nightly", "asOf": "yesterday"}), "spec.from.asOf", "must be of type date-time"),
        (r, "/spec/paths", json!(["/etc"]), "spec.paths[0]", A_GLOB),
        (r, "/spec/paths", json!(["etc/../../x"]), "spec.paths[0]", A_GLOB),
        (r, "/spec/paths", json!([""]), "spec.paths[0]", "at least 1 chars long"),
        (r, "/spec/dryRun", json!(true), "spec", "dryRun needs overwrite Merge or Replace"),
        (r, "/spec/backupName", json!("shop/nightly"), "spec.backupName", A_NAME),
        (r, "/spec/targetPVC", Value::Null, "spec", ONE_TARGET),
        (r, "/spec/targetTemplate", sized(json!({"storage": "1Gi"})), "spec", ONE_TARGET),
        (r, "/spec/targetPVC", json!("New_1"), "spec.targetPVC", A_NAME),
        (r, "/spec/targetPvc", json!("new"), "spec.targetPvc", "unknown field"),
        (r, "/spec/overwrite", json!("Always"), "spec.overwrite", "supported values: \"Never\", \"Merge\", \"Replace\""),
        (r, "/spec/targetTemplate", json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}}), "spec.targetTemplate.metadata", "Required value"),
        (r, "/spec/targetTemplate", template(json!({})), "spec.targetTemplate.spec.resources", "Required value"),
        (r, "/spec/targetTemplate", sized(json!({})), "spec.targetTemplate.spec.resources", "resources.requests.storage is required, such as 10Gi"),
        (r, "/spec/targetTemplate", sized(json!({"storage": "ten"})), requests, A_QUANTITY),
        (r, "/spec/targetTemplate", asking(json!(["ReadOnlyMany"])), "spec.targetTemplate.spec.accessModes", "must be ReadWriteOnce, ReadWriteMany or ReadWriteOncePod: a restore writes"),
        (r, "/spec/targetTemplate", asking(json!([])), "spec.targetTemplate.spec.accessModes", "should have at least 1 items"),
    ]
}

/// The smallest right manifest of a kind.
fn right(kind: &str) -> Value {
    let spec = match kind {
        "BackupPolicy" => json!({"schedule": "0 2 * * *", "target": {"pvcName": "data"}}),
        "Backup" => json!({"target": {"pvcName": "data"}}),
        _ => json!({"backupName": "nightly-1", "targetPVC": "data-restored"}),
    };
    json!({
        "apiVersion": "tidelock.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "one"},
        "spec": spec,
    })
}

/// Puts `value` where `pointer` leads, making the objects on the way; null takes it away.
fn put(manifest: &mut Value, pointer: &str, value: Value) {
    let (parents, last) = pointer.rsplit_once('/').unwrap();
    let mut place = manifest;
    for step in parents.split('/').skip(1) {
        let children = place.as_object_mut().unwrap();
        place = children.entry(step).or_insert_with(|| json!({}));
    }
    let place = place.as_object_mut().unwrap();
    if value.is_null() {
        place.remove(last);
    } else {
        place.insert(last.to_owned(), value);
    }
}

fn dynamic(story: &Story, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("tidelock.dev", "v1alpha1", kind);
    let plural = match kind.kind.as_str() {
        "BackupPolicy" => "backuppolicies".to_owned(),
        other => format!("{}s", other.to_lowercase()),
    };
    let resource = ApiResource::from_gvk_with_plural(&kind, &plural);
    Api::namespaced_with(Client::clone(&story.client), &story.namespace, &resource)
}

/// What the API server answers to a strict dry run; none where it takes the manifest.
async fn answer(story: &Story, manifest: Value) -> Result<Option<String>> {
    let kind = manifest["kind"].as_str().unwrap().to_owned();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let url = dynamic(story, &kind).resource_url().to_owned();
    let mut request = Request::new(url).create(&dry, serde_json::to_vec(&manifest)?)?;
    let strict = format!("{}&fieldValidation=Strict", request.uri());
    *request.uri_mut() = strict.parse()?;
    match story.client.request::<Value>(request).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => Ok(Some(status.message)),
        Err(other) => Err(other.into()),
    }
}

#[tokio::test]
async fn malformed_manifests_are_refused_by_field() -> Result<()> {
    tell("rejections", async |story| {
        for kind in ["BackupPolicy", "Backup", "Restore"] {
            assert_eq!(
                answer(&story, right(kind)).await?,
                None,
                "the right {kind} is taken"
            );
        }
        let table = [
            policies(),
            movers(),
            backups(),
            restores(),
            names_of_another_namespace(),
        ]
        .concat();
        let mut faults = Vec::new();
        for (kind, pointer, value, names, says) in table {
            let mut manifest = right(kind);
            // A template is wrong by itself, not by standing beside a targetPVC.
            if pointer == "/spec/targetTemplate" && says != ONE_TARGET {
                put(&mut manifest, "/spec/targetPVC", Value::Null);
            }
            put(&mut manifest, pointer, value.clone());
            match answer(&story, manifest).await? {
                Some(message) if message.contains(names) && message.contains(says) => {}
                Some(message) => faults.push(format!("{kind} {pointer} = {value}: {message}")),
                None => faults.push(format!("{kind} {pointer} = {value}: was taken")),
            }
        }
        if !faults.is_empty() {
            bail!("{} manifests: {}", faults.len(), faults.join("\n"));
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_cannot_be_changed_into_another() -> Result<()> {
    tell("immutable", async |story| {
        // Nothing here has what it needs, so nothing runs.
        story
            .make::<Backup>("one", right("Backup")["spec"].clone())
            .await?;
        story
            .make::<Restore>("one", right("Restore")["spec"].clone())
            .await?;
        let mut policy = right("BackupPolicy")["spec"].clone();
        policy["suspend"] = json!(true);
        story.make::<BackupPolicy>("one", policy).await?;
        let one_run = "spec is immutable but for cancel: a Backup is one run; make another Backup";
        let one_restore =
            "spec is immutable but for cancel: a Restore is one run; make another Restore";
        let fixed = "target is immutable: make another BackupPolicy";
        let table = [
            (
                "Backup",
                json!({"target": {"pvcName": "other"}}),
                "spec",
                one_run,
            ),
            ("Backup", json!({"policyRef": "nightly"}), "spec", one_run),
            (
                "Backup",
                json!({"deletionPolicy": "Retain"}),
                "spec",
                one_run,
            ),
            (
                "Restore",
                json!({"backupName": "other"}),
                "spec",
                one_restore,
            ),
            (
                "Restore",
                json!({"targetPVC": "other"}),
                "spec",
                one_restore,
            ),
            (
                "BackupPolicy",
                json!({"target": {"pvcName": "other"}}),
                "spec.target",
                fixed,
            ),
        ];
        for (kind, change, names, says) in table {
            let patch = Patch::Merge(json!({"spec": change}));
            let objects = dynamic(&story, kind);
            let patched = objects.patch("one", &PatchParams::default(), &patch).await;
            let Err(kube::Error::Api(status)) = patched else {
                bail!("{kind} {change}: was taken");
            };
            assert!(
                status.message.contains(names),
                "{kind} {change}: {}",
                status.message
            );
            assert!(
                status.message.contains(says),
                "{kind} {change}: {}",
                status.message
            );
        }
        let later = json!({"spec": {"schedule": "@hourly", "retention": {"keepLast": 9}}});
        story.patch::<BackupPolicy>("one", later).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_resources_are_found_under_their_names() -> Result<()> {
    tell("names", async |story| {
        for kind in ["Backup", "Restore", "BackupPolicy"] {
            let mut spec = right(kind)["spec"].clone();
            if kind == "BackupPolicy" {
                spec["suspend"] = json!(true);
            }
            let manifest = json!({"metadata": {"name": "one"}, "spec": spec});
            let mut object: DynamicObject = serde_json::from_value(manifest)?;
            object.types = Some(kube::core::TypeMeta {
                api_version: "tidelock.dev/v1alpha1".to_owned(),
                kind: kind.to_owned(),
            });
            dynamic(&story, kind)
                .create(&PostParams::default(), &object)
                .await?;
        }
        let listed = story.kubectl(&["get", "tidelock", "--output=name"])?;
        let mut lines: Vec<&str> = listed.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "backup.tidelock.dev/one",
                "backuppolicy.tidelock.dev/one",
                "restore.tidelock.dev/one"
            ]
        );
        let columns = [
            (
                "bpol",
                "PVC Schedule Last Last-Success Next Kept Status Age",
            ),
            ("bkp", "PVC Phase Status Verified Size Files Duration Age"),
            (
                "rst",
                "Backup Target Phase Status Restored Files Duration Age",
            ),
        ];
        for (short, names) in columns {
            let table = story.kubectl(&["get", short])?;
            let header = table
                .lines()
                .next()
                .unwrap()
                .replace("LAST SUCCESS", "LAST-SUCCESS");
            let shown: Vec<&str> = header.split_whitespace().skip(1).collect();
            assert_eq!(shown.join(" "), names.to_uppercase());
        }
        let explained = story.kubectl(&["explain", "backuppolicy.spec.retention.keepLast"])?;
        assert!(explained.contains("How many of the newest completed backups stay"));
        Ok(())
    })
    .await
}
