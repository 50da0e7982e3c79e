use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup::{FailureStatus, ProgressStatus, SecurityContextStatus};
use crate::common::{AnnotationValue, LabelValue, MoverSpec, ObjectName, Phase, QuantitySchema};
use crate::immutable;
use crate::policy::default_start_deadline;

/// Fields of the spec that stay as they are.
const RESTORE_FIELDS: &[&str] = &[
    "backupName",
    "from",
    "targetPVC",
    "targetTemplate",
    "overwrite",
    "dryRun",
    "paths",
    "verify",
    "allowMetadataLoss",
    "allowUnverified",
    "allowInUse",
    "startDeadlineSeconds",
    "mover",
];

/// Puts the content of one completed Backup into a PersistentVolumeClaim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidelock.dev",
    version = "v1alpha1",
    kind = "Restore",
    plural = "restores",
    shortname = "rst",
    category = "tidelock",
    namespaced,
    status = "RestoreStatus",
    derive = "PartialEq",
    doc = "Restore puts the content of one completed Backup into a PersistentVolumeClaim.",
    printcolumn(name = "Backup", type_ = "string", json_path = ".status.backupName", description = "The Backup that is restored"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.targetPVC", description = "The PersistentVolumeClaim that is filled"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where it stands"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why it stands there"),
    printcolumn(name = "Restored", type_ = "string", json_path = ".status.restored", description = "How much was written"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.restoredFiles", description = "Regular files written"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration", description = "How long it took"),
    printcolumn(name = "Overwrite", type_ = "string", json_path = ".spec.overwrite", priority = "1", description = "What may happen to what the target holds"),
    printcolumn(name = "Recovery Point", type_ = "string", json_path = ".status.recoveryPoint", priority = "1", description = "The moment whose state the target has"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress.summary", priority = "1", description = "How far it is while it runs"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = "1", description = "The whole story"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = immutable::rule(RESTORE_FIELDS, "spec is immutable but for cancel: a Restore is one run; make another Restore")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.backupName) != has(self.from)").message("exactly one of backupName (a Backup) and from (the latest Backup of a policy) is required"),
    validation = Rule::new("has(self.targetPVC) != has(self.targetTemplate)").message("exactly one of targetPVC (an existing PersistentVolumeClaim) and targetTemplate (one to be made) is required"),
    validation = Rule::new("self.overwrite == 'Never' || has(self.targetPVC)").message("overwrite Merge and Replace need targetPVC: what targetTemplate makes is empty"),
    validation = Rule::new("self.overwrite != 'Replace' || !has(self.paths)").message("paths cannot be used with overwrite Replace, which makes the target equal to the whole backup; use Merge"),
    validation = Rule::new("!self.dryRun || self.overwrite != 'Never'").message("dryRun needs overwrite Merge or Replace: a restore with Never changes nothing that is there"),
    validation = Rule::new("!self.dryRun || !self.verify").message("verify reads back what was written, and a dryRun writes nothing; leave one out")
)]
pub struct RestoreSpec {
    /// Name of a Completed Backup in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub backup_name: Option<String>,
    /// Takes the latest verified Backup of a policy instead of a named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RestoreFrom>,
    /// Name of an existing PersistentVolumeClaim; see `overwrite` for one that holds files.
    #[serde(rename = "targetPVC", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub target_pvc: Option<String>,
    /// A PersistentVolumeClaim to make; it stays when this Restore is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_template: Option<TargetTemplate>,
    /// What may happen to what the target holds.
    #[serde(default)]
    pub overwrite: Overwrite,
    /// Only tells what would be added, changed and removed, and writes nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Globs over paths in the backup, relative to the volume's root, such as `etc/*.conf` or
    /// `photos/2026/**`; a folder stands for all below it. Each must match something. Unset takes
    /// everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<PathGlob>", length(max = 64))]
    pub paths: Vec<String>,
    /// Reads the target back once it is written, and compares it with the backup.
    #[serde(default)]
    pub verify: bool,
    /// Completes though the target refuses owners, modes, times or attributes; they are counted in
    /// the status.
    #[serde(default)]
    pub allow_metadata_loss: bool,
    /// Restores a Backup that is not verified, or was found damaged.
    #[serde(default)]
    pub allow_unverified: bool,
    /// Restores into a claim that a running pod mounts.
    #[serde(default)]
    pub allow_in_use: bool,
    /// How long it may wait for its pod to start before it fails, in seconds.
    #[serde(default = "default_start_deadline")]
    #[schemars(range(min = 1, max = 604_800))]
    pub start_deadline_seconds: u32,
    /// How the mover pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mover: Option<MoverSpec>,
    /// Ends the run if it has not ended: its pod is stopped, and the target is put back as it was
    /// where `overwrite` is Never or Replace.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self || !oldSelf").message("cancel cannot be taken back: make another Restore"))]
    pub cancel: bool,
}

/// Which Backup of a policy to restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreFrom {
    /// Name of the BackupPolicy; it need not exist any more.
    #[schemars(with = "ObjectName")]
    pub policy_name: String,
    /// The latest one completed at or before this moment; unset means now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
}

/// What may happen to what the target of a restore holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Overwrite {
    /// Nothing: a target that holds files is refused.
    #[default]
    Never,
    /// Names in the backup are added or replaced; all others stay.
    Merge,
    /// The target becomes equal to the backup. What it held is kept in it until that is done, and
    /// put back when it fails or is cancelled, so both must fit.
    Replace,
}

/// One glob over paths.
#[derive(JsonSchema)]
#[schemars(transparent)]
struct PathGlob(
    #[schemars(
        length(min = 1, max = 1024),
        extend("x-kubernetes-validations" = [{
            "rule": "!self.startsWith('/') && !self.split('/').exists(part, part == '..')",
            "message": "must be a glob relative to the volume's root, such as etc/*.conf: without a leading / and without ..",
        }])
    )]
    #[allow(dead_code, reason = "only its schema is used")]
    String,
);

/// A PersistentVolumeClaim to make, as in a StatefulSet's volumeClaimTemplates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetTemplate {
    /// Its name, labels and annotations.
    pub metadata: TargetTemplateMetadata,
    /// What it asks for.
    pub spec: TargetTemplateSpec,
}

/// Name, labels and annotations of a PersistentVolumeClaim to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetTemplateMetadata {
    /// Name of the PersistentVolumeClaim.
    #[schemars(with = "ObjectName")]
    pub name: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, AnnotationValue>", extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// What a PersistentVolumeClaim to make asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetTemplateSpec {
    /// How it may be mounted.
    #[serde(default = "read_write_once")]
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(validation = Rule::new("self.all(m, m in ['ReadWriteOnce','ReadWriteMany','ReadWriteOncePod'])").message("accessModes must be ReadWriteOnce, ReadWriteMany or ReadWriteOncePod: a restore writes"))]
    pub access_modes: Vec<String>,
    /// Its StorageClass; unset means the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// How much space it asks for.
    pub resources: TargetTemplateResources,
}

fn read_write_once() -> Vec<String> {
    vec!["ReadWriteOnce".to_owned()]
}

/// How much space a PersistentVolumeClaim to make asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("'storage' in self.requests").message("resources.requests.storage is required, such as 10Gi"))]
pub struct TargetTemplateResources {
    /// `storage: 10Gi`.
    #[schemars(with = "BTreeMap<String, QuantitySchema>", extend("maxProperties" = 1))]
    pub requests: BTreeMap<String, Quantity>,
}

/// What the operator knows of a restore.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// Where it stands; `Completed` and `Failed` are final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The generation of the spec that this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When its Job was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// How long it took, such as `1m6s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The Backup that is restored; fixed once it is chosen, whatever backups come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_name: Option<String>,
    /// The PersistentVolumeClaim that is filled.
    #[serde(rename = "targetPVC", default, skip_serializing_if = "Option::is_none")]
    pub target_pvc: Option<String>,
    /// User and groups that the mover ran as; unset where it was root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Box<SecurityContextStatus>>,
    /// The Job that does the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// The moment whose state the target has now: when the restored backup was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point: Option<Time>,
    /// How much was written, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_bytes: Option<i64>,
    /// How much was written, for a person, such as `12.3 MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<String>,
    /// Regular files written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_files: Option<i64>,
    /// Whether anything of the backup was written into the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_touched: Option<bool>,
    /// Whether the target was read back and compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// What a dry run found that a restore would change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<ChangesStatus>,
    /// What metadata the target refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_loss: Option<MetadataLossStatus>,
    /// Since when it is being brought to its end: its pod is stopped, and what it half wrote is
    /// taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending_since: Option<Time>,
    /// The Job that takes back what it half wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_job_name: Option<String>,
    /// Whether the target may still hold what it half wrote, because that could not be taken back.
    /// Deleting this Restore leaves the target as it is, unless it is annotated with
    /// `tidelock.dev/put-back: "true"`: then it tries again, and the target loses all that was put into
    /// it since the restore began.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undo_pending: bool,
    /// How far it is while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Box<ProgressStatus>>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Box<FailureStatus>>,
    /// `Ready`: True once completed, False with the reason otherwise. `Queued`: whether it waits for
    /// its turn, and since when, once it ever did. `Stalled`: there once it has failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What a restore would change in its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangesStatus {
    /// Names that are not in the target yet.
    pub added: ChangeStatus,
    /// Names in the target whose content or metadata differs.
    pub changed: ChangeStatus,
    /// Names that only the target has, where those go.
    pub removed: ChangeStatus,
    /// How many names are alike.
    pub unchanged: i64,
}

/// One kind of change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeStatus {
    /// How many names.
    pub count: i64,
    /// Sum of the sizes of their files, in bytes.
    pub bytes: i64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<String>,
}

/// Metadata that the target refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetadataLossStatus {
    /// Entries without their owner.
    pub owners: i64,
    /// Entries without their mode.
    pub modes: i64,
    /// Entries without their time.
    pub times: i64,
    /// Extended attributes (ACLs and capabilities too) that are missing.
    pub xattrs: i64,
    /// The first entries it happened to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<String>,
}
