use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::backup::FailureStatus;
use crate::common::{AnnotationValue, LabelValue, MoverSpec, ObjectName, Phase, QuantitySchema};
use crate::policy::default_start_deadline;

/// Puts the content of one completed Backup into an empty PersistentVolumeClaim.
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
    doc = "Restore puts the content of one completed Backup into an empty PersistentVolumeClaim.",
    printcolumn(name = "Backup", type_ = "string", json_path = ".spec.backupName", description = "The Backup that is restored"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.targetPVC", description = "The PersistentVolumeClaim that is filled"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where it stands"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why it stands there"),
    printcolumn(name = "Restored", type_ = "string", json_path = ".status.restored", description = "How much was written"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.restoredFiles", description = "Regular files written"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration", description = "How long it took"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = "1", description = "The whole story"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec").message("spec is immutable: a Restore is one run; make another Restore").field_path(".spec")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.targetPVC) != has(self.targetTemplate)").message("exactly one of targetPVC (an existing, empty PersistentVolumeClaim) and targetTemplate (one to be made) is required")
)]
pub struct RestoreSpec {
    /// Name of a Completed Backup in the same namespace.
    #[schemars(with = "ObjectName")]
    pub backup_name: String,
    /// Name of an existing PersistentVolumeClaim; one that holds files is refused.
    #[serde(rename = "targetPVC", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub target_pvc: Option<String>,
    /// A PersistentVolumeClaim to make; it stays when this Restore is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_template: Option<TargetTemplate>,
    /// How long it may wait for its pod to start before it fails, in seconds.
    #[serde(default = "default_start_deadline")]
    #[schemars(range(min = 1, max = 604_800))]
    pub start_deadline_seconds: u32,
    /// How the mover pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mover: Option<MoverSpec>,
}

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
    /// The PersistentVolumeClaim that is filled.
    #[serde(rename = "targetPVC", default, skip_serializing_if = "Option::is_none")]
    pub target_pvc: Option<String>,
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
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureStatus>,
    /// `Ready`: True once completed, False with the reason otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
