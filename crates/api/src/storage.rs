use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::ObjectName;

/// A place that Backups of its namespace are kept at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidelock.dev",
    version = "v1alpha1",
    kind = "BackupStorage",
    plural = "backupstorages",
    shortname = "bst",
    category = "tidelock",
    namespaced,
    status = "BackupStorageStatus",
    derive = "PartialEq",
    doc = "BackupStorage is a place that Backups of its namespace are kept at.",
    printcolumn(
        name = "Location",
        type_ = "string",
        json_path = ".status.location",
        description = "Where the archives are"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether archives can be written, read and removed"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why, or why not"
    ),
    printcolumn(
        name = "Backups",
        type_ = "integer",
        json_path = ".status.backups",
        description = "How many backups it holds"
    ),
    printcolumn(
        name = "Checked",
        type_ = "date",
        json_path = ".status.lastCheckTime",
        description = "How long ago it was looked at"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = exactly_one(),
    validation = fixed("pvc"),
    validation = fixed("s3")
)]
pub struct BackupStorageSpec {
    /// A PersistentVolumeClaim in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc: Option<PvcStorage>,
    /// A bucket of an S3-compatible object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Storage>,
    /// Encrypts every archive and index that is written here, before it leaves the mover; unset
    /// leaves them in clear. A change holds for new backups; the old ones open as they were
    /// written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// How fast one mover may write here, in bytes a second, over all that it writes; unset sets no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 65_536))]
    pub upload_bytes_per_second: Option<i64>,
    /// How fast one mover may read here, in bytes a second; unset sets no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 65_536))]
    pub download_bytes_per_second: Option<i64>,
    /// Whether nothing is written or removed here: restores and verification go on, new backups
    /// fail, and deleted Backups leave their data.
    #[serde(default)]
    pub read_only: bool,
    /// Whether nothing is done here at all: what needs it waits.
    #[serde(default)]
    pub suspend: bool,
    /// Whether archives in this namespace's part of it that no Backup stands for get one, so that they
    /// can be restored: with `spec.archive`, owned by no policy, never removed by retention, and
    /// without a say over the data. Off by default: whoever may write to the storage decides what
    /// such a Backup holds.
    #[serde(default)]
    pub discover: bool,
    /// How often it is looked at without a change, in seconds.
    #[serde(default = "default_check_interval")]
    #[schemars(range(min = 60, max = 604_800))]
    pub check_interval_seconds: u32,
}

/// A place that Backups of many namespaces are kept at, each in a part of its own. It has no status:
/// the credentials are those of each namespace, and what one can do there says nothing of another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidelock.dev",
    version = "v1alpha1",
    kind = "ClusterBackupStorage",
    plural = "clusterbackupstorages",
    shortname = "cbst",
    category = "tidelock",
    derive = "PartialEq",
    doc = "ClusterBackupStorage is a place that Backups of many namespaces are kept at, each in a part of its own.",
    printcolumn(
        name = "Bucket",
        type_ = "string",
        json_path = ".spec.s3.bucket",
        description = "The bucket"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = fixed("s3"))]
pub struct ClusterBackupStorageSpec {
    /// A bucket of an S3-compatible object store. The Secret with the credentials is looked for in
    /// the namespace of each Backup: credentials that are scoped to the part of one namespace keep
    /// the others' out of reach whoever reads them.
    pub s3: S3Storage,
    /// The namespaces that may use it, by their labels; unset means none, an empty selector all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Encrypts every archive and index that is written here, before it leaves the mover; unset
    /// leaves them in clear. A change holds for new backups; the old ones open as they were
    /// written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// How fast one mover may write here, in bytes a second, over all that it writes; unset sets no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 65_536))]
    pub upload_bytes_per_second: Option<i64>,
    /// How fast one mover may read here, in bytes a second; unset sets no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 65_536))]
    pub download_bytes_per_second: Option<i64>,
    /// Whether nothing is written or removed here.
    #[serde(default)]
    pub read_only: bool,
    /// Whether nothing is done here at all: what needs it waits.
    #[serde(default)]
    pub suspend: bool,
}

/// A PersistentVolumeClaim as storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PvcStorage {
    /// Name of the PersistentVolumeClaim.
    #[schemars(with = "ObjectName")]
    pub claim_name: String,
    /// Folder of the volume that holds the archives; unset means all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.split('/').all(part, part.matches('^[A-Za-z0-9_-][A-Za-z0-9._-]*$'))").message("subPath must be a relative path such as backups/shop: letters, digits, '-', '_' and '.', no part that starts with '.'"))]
    pub sub_path: Option<String>,
}

/// A bucket as storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Storage {
    /// Name of the bucket.
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9.-]*[a-z0-9]$')").message("bucket must be the name of a bucket: lower-case letters, digits, '.' and '-', with a letter or digit at both ends"))]
    pub bucket: String,
    /// What every key starts with, such as `clusters/east`; unset means the whole bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.split('/').all(part, part.matches('^[A-Za-z0-9_-][A-Za-z0-9._-]*$'))").message("prefix must be a path such as clusters/east: letters, digits, '-', '_' and '.', no part that starts with '.', no slash at either end"))]
    pub prefix: Option<String>,
    /// Address of the store, such as `https://s3.example.com:9000`; unset means AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$') || self.matches('^https?://[[][0-9A-Fa-f:.]+[]](:[0-9]{1,5})?$')").message("endpoint must be http:// or https://, a host and perhaps a port, and nothing behind it"))]
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    #[serde(default = "default_region")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9-]+$')").message("region must be letters, digits and '-', such as eu-central-1"))]
    pub region: String,
    /// Whether the bucket is named in the path and not in the host; unset means where `endpoint` is
    /// set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// The Secret that says who asks.
    pub credentials_secret_ref: CredentialsRef,
    /// Certificates to trust beside those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// Storage class of new objects, such as `STANDARD_IA`; unset means the bucket's own. One whose
    /// objects must be brought back before they can be read fails verification and restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub storage_class: Option<String>,
    /// Encryption by the store; unset means as the bucket says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<ServerSideEncryption>,
    /// Locks every backup that is proved, so that nobody removes it before its days are over: not
    /// retention, which waits, and not who has stolen the key. The bucket must have been made with
    /// Object Lock. A change holds for new backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_lock: Option<ObjectLock>,
}

/// How long a backup is locked (S3 Object Lock, retention).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectLock {
    /// Who may take a lock off: with `Governance` who has the right
    /// `s3:BypassGovernanceRetention`, with `Compliance` nobody, not even who owns the account.
    pub mode: LockMode,
    /// For how many days, from the end of the backup on.
    #[schemars(range(min = 1, max = 36_500))]
    pub days: u32,
}

/// Who may take a lock off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum LockMode {
    /// Who has a right of its own to.
    Governance,
    /// Nobody.
    Compliance,
}

/// A Secret with the keys `accessKeyID` and `secretAccessKey`, and perhaps `sessionToken`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsRef {
    /// Name of the Secret, in the namespace of the Backups.
    #[schemars(with = "ObjectName")]
    pub name: String,
}

/// A ConfigMap with certificates, in the namespace of the Backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// Name of the ConfigMap.
    #[schemars(with = "ObjectName")]
    pub config_map_name: String,
    /// Key that holds the certificates, PEM.
    #[serde(default = "default_ca_key")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$')").message("key must be a key of a ConfigMap: letters, digits, '-', '_' and '.'"))]
    pub key: String,
}

/// Encryption by the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerSideEncryption {
    /// Id of a key of the store's key management; unset means keys of the store itself (`AES256`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub kms_key_id: Option<String>,
}

/// Encryption in age's format: the tool `age` opens what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// Whom backups are encrypted to (`age1…`, as `age-keygen -y` prints it); each of them can open
    /// them alone. Backups need nothing else.
    #[schemars(length(min = 1, max = 16), inner(length(min = 62, max = 62)))]
    #[x_kube(validation = Rule::new("self.all(recipient, recipient.matches('^age1[a-z0-9]{58}$'))").message("recipients must be X25519 recipients of age: age1 and 58 lower-case letters and digits"))]
    pub recipients: Vec<String>,
    /// The Secret with identities (`AGE-SECRET-KEY-1…`), for restores and for reading backups again in
    /// full; all its keys are read. Unset: nothing here can be restored, and reading again compares
    /// the digests of what is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_secret_ref: Option<IdentityRef>,
}

/// A Secret whose values are identities of age, one on each line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityRef {
    /// Name of the Secret, in the namespace of the Backups.
    #[schemars(with = "ObjectName")]
    pub name: String,
}

/// What the operator knows of a place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStorageStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the archives are, such as `s3://bucket/prefix` or `pvc://claim`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// How many backups it holds in the part of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<i64>,
    /// How many bytes all that is there takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<i64>,
    /// How many of them no Backup stands for; missing where there are too many Backups to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_archives: Option<i64>,
    /// Free space of a volume, in bytes; a bucket tells none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<i64>,
    /// When it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_check_time: Option<Time>,
    /// Whether there are archives that are yet to get a Backup.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discovering: bool,
    /// Name of the Job that looks at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_job: Option<String>,
    /// `Ready`: whether archives can be written, read and removed, as a look has shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn exactly_one() -> Rule {
    Rule::new("has(self.pvc) != has(self.s3)").message("exactly one of pvc and s3 is required")
}

/// What a Backup has recorded is found again under the same name only.
fn fixed(part: &str) -> Rule {
    let same = |field: &str| {
        format!(
            "(has(self.{part}.{field}) ? has(oldSelf.{part}.{field}) && self.{part}.{field} == oldSelf.{part}.{field} : !has(oldSelf.{part}.{field}))"
        )
    };
    let (fields, words): (&[&str], _) = match part {
        "pvc" => (
            &["claimName", "subPath"],
            "claimName and subPath of pvc are immutable: Backups are found there again; make another BackupStorage",
        ),
        _ => (
            &["bucket", "prefix"],
            "bucket and prefix of s3 are immutable: Backups are found there again; make another BackupStorage",
        ),
    };
    let all: Vec<String> = fields.iter().map(|field| same(field)).collect();
    Rule::new(format!(
        "has(self.{part}) == has(oldSelf.{part}) && (!has(self.{part}) || ({}))",
        all.join(" && ")
    ))
    .message(words)
}

fn default_check_interval() -> u32 {
    3600
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_ca_key() -> String {
    "ca.crt".to_owned()
}
