use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names a PersistentVolumeClaim in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Name of the PersistentVolumeClaim to back up.
    #[schemars(with = "ObjectName")]
    pub pvc_name: String,
}

/// Where backups are kept: at a PersistentVolumeClaim, or at a BackupStorage or
/// ClusterBackupStorage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.pvcName) != has(self.name)").message("exactly one of pvcName and name is required"),
    validation = Rule::new("!has(self.kind) || has(self.name)").message("kind says what name is the name of")
)]
pub struct StorageRef {
    /// Name of a PersistentVolumeClaim in the same namespace that holds the archives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub pvc_name: Option<String>,
    /// Name of a BackupStorage in the same namespace, or of a ClusterBackupStorage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub name: Option<String>,
    /// What `name` is the name of; unset means a BackupStorage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<StorageKind>,
}

/// What a storage is the name of; unset means a BackupStorage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StorageKind {
    /// A place for one namespace.
    #[default]
    BackupStorage,
    /// A place for many namespaces.
    ClusterBackupStorage,
}

/// The storage that a Backup was kept at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageUsed {
    /// Its kind.
    pub kind: StorageKind,
    /// Its name.
    pub name: String,
}

/// What happens to the stored archive when its Backup object is deleted; unset in the spec of a
/// Backup means as its policy says when the run begins, or `Delete`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The archive is removed from storage before the object goes.
    #[default]
    Delete,
    /// The archive stays in storage; what a run that never completed has half written goes.
    Retain,
}

/// What a due slot does while an earlier run of the same policy is still active.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// It waits for the earlier run; of the slots that pass meanwhile only the latest runs.
    #[default]
    Forbid,
    /// It runs beside the earlier one.
    Allow,
    /// The earlier run is cancelled, and the new one starts when that has ended.
    Replace,
}

/// How much of a backup is read back from storage and compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerificationLevel {
    /// Archive and index are read, every entry is decoded, and all of it compared.
    #[default]
    Full,
    /// Archive and index are read, and their sizes and digests compared.
    Digest,
    /// Nothing is read back; such a backup is never called verified.
    None,
}

/// What is read back of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupVerification {
    /// How much is read back before the backup is called Completed.
    #[serde(default)]
    pub on_backup: VerificationLevel,
}

/// What makes a backup suspicious: it completes, says so, and never takes the place of a good one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// By how much, in percent, files or bytes may shrink against the last good backup of the
    /// policy; 100 allows anything.
    #[serde(default = "default_max_shrink")]
    #[schemars(range(min = 0, max = 100))]
    pub max_shrink_percent: u32,
    /// Whether an empty volume is as it should be.
    #[serde(default)]
    pub allow_empty: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            max_shrink_percent: default_max_shrink(),
            allow_empty: false,
        }
    }
}

fn default_max_shrink() -> u32 {
    crate::DEFAULT_MAX_SHRINK_PERCENT
}

/// As whom the mover runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Privilege {
    /// `Unprivileged` where the namespace enforces the restricted Pod Security Standard, else
    /// `Root`.
    #[default]
    Auto,
    /// As root, with only the capabilities that reading or restoring takes.
    Root,
    /// As an ordinary user without any capability: the one given here, or else the one that the
    /// pods that use the volume run as.
    Unprivileged,
}

/// The form of an archive; unset in the spec of a Backup means as its policy says when the run
/// begins, or `TarGz`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// A gzip-compressed POSIX tar archive.
    #[default]
    TarGz,
    /// A zstd-compressed POSIX tar archive: made and read faster, and often smaller; `tar` needs
    /// `zstd` to read it.
    TarZst,
}

/// Where a run stands. `Completed` and `Failed` are final.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Phase {
    /// Not started: checks are under way, or something it needs is not there yet.
    Pending,
    /// Its Job exists.
    Running,
    /// Done, and what was done was checked.
    Completed,
    /// Ended without success; the failure says why.
    Failed,
}

/// How the mover pod runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MoverSpec {
    /// Requests and limits of the mover container; where neither is set: 50m CPU and 64Mi requested,
    /// 256Mi memory limit. Where one of the two is set, the other has no default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<MoverResources>,
    /// Node labels the mover pod needs, beyond what its volumes demand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints the mover pod tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// PriorityClass of the mover pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub priority_class_name: Option<String>,
    /// Longest time the run's Job may take, waiting for its pod included, in seconds; unset means
    /// no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub timeout_seconds: Option<u32>,
    /// After how many seconds without a moved byte the mover gives up and is tried again; unset
    /// means 1800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub stall_timeout_seconds: Option<u32>,
    /// As whom the mover runs.
    #[serde(default)]
    pub privilege: Privilege,
    /// User ID of an unprivileged mover; unset means that of the pods that use the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_294i64))]
    pub run_as_user: Option<i64>,
    /// Group ID of an unprivileged mover; unset means that of the pods that use the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_294i64))]
    pub run_as_group: Option<i64>,
    /// Group that owns the volumes of an unprivileged mover; unset means that of the pods that use
    /// the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_294i64))]
    pub fs_group: Option<i64>,
    /// Further groups of an unprivileged mover; unset means those of the pods that use the volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub supplemental_groups: Vec<i64>,
}

/// Requests and limits of the mover container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || !isQuantity(self.requests[name]) || !isQuantity(self.limits[name]) || quantity(self.requests[name]).compareTo(quantity(self.limits[name])) <= 0)").message("requests must not be larger than limits")
)]
pub struct MoverResources {
    /// Upper limits, such as `memory: 256Mi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, QuantitySchema>", extend("maxProperties" = 3))]
    #[x_kube(validation = Rule::new("self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])").message("limits must name cpu, memory or ephemeral-storage"))]
    pub limits: BTreeMap<String, Quantity>,
    /// What the scheduler sets aside, such as `cpu: 50m`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, QuantitySchema>", extend("maxProperties" = 3))]
    #[x_kube(validation = Rule::new("self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])").message("requests must name cpu, memory or ephemeral-storage"))]
    pub requests: BTreeMap<String, Quantity>,
}

/// The schema of an object's name; its message says what a name is, where a pattern would only be
/// quoted.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub(crate) struct ObjectName(
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
            "message": "must be the name of an object: lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
        }])
    )]
    #[allow(dead_code, reason = "only its schema is used")]
    String,
);

/// An amount such as `500m` or `1Gi`.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub(crate) struct QuantitySchema(
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$')",
            "message": "must be a quantity such as 500m, 2 or 1Gi",
        }])
    )]
    #[allow(dead_code, reason = "only its schema is used")]
    String,
);

/// The schema of a label's value.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub(crate) struct LabelValue(
    #[schemars(length(max = 63))]
    #[allow(dead_code, reason = "only its schema is used")]
    String,
);

/// The schema of an annotation's value; bounded, as the operator keeps it in memory.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub(crate) struct AnnotationValue(
    #[schemars(length(max = 4096))]
    #[allow(dead_code, reason = "only its schema is used")]
    String,
);

/// A taint that the mover pod tolerates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.key) || self.operator == 'Exists'").message("operator must be Exists where key is empty"),
    validation = Rule::new("!has(self.value) || self.operator == 'Equal'").message("value is only allowed with operator Equal")
)]
pub struct Toleration {
    /// Taint key; unset tolerates every key and needs operator `Exists`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub key: Option<String>,
    /// How the value is compared.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// Taint value, with operator `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Which effect is tolerated; unset means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TolerationEffect>,
}

/// How a toleration compares values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The taint's value is the one given.
    #[default]
    Equal,
    /// The taint's value does not matter.
    Exists,
}

/// The effect of a taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationEffect {
    /// New pods are kept away.
    NoSchedule,
    /// New pods are kept away where possible.
    PreferNoSchedule,
    /// Running pods are evicted as well.
    NoExecute,
}
