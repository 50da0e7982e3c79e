//! PersistentVolumes whose folders the test reads and writes directly: the cluster runs on this
//! machine, and its kubelet sees the same file system.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::Story;
use crate::cluster;
use crate::wait::DEADLINE;

/// Marks namespaces and volumes with the story they belong to.
pub const STORY_LABEL: &str = "tidelock.dev/story";
/// Nothing enforces it: a hostPath has what the disk has.
const NOMINAL_SIZE: &str = "1Gi";

impl Story {
    /// Where the story's volumes lie.
    pub fn volumes_folder(&self) -> Result<PathBuf> {
        Ok(cluster::state()?.join("volumes").join(&self.namespace))
    }

    /// A claim that is bound to a volume; the folder behind it, empty and writable to everyone.
    pub async fn volume(&self, claim: &str) -> Result<PathBuf> {
        let folder = self.open_folder(claim)?;
        self.volume_at(claim, &folder).await?;
        Ok(folder)
    }

    /// A claim that is bound to a volume whose files lie in `folder`.
    pub async fn volume_at(&self, claim: &str, folder: &Path) -> Result<()> {
        let source = json!({"hostPath": {"path": folder, "type": "Directory"}});
        self.bind(claim, "Filesystem", source).await
    }

    /// As [`Story::volume`], with another access mode than ReadWriteOnce.
    pub async fn volume_with_mode(&self, claim: &str, mode: &str) -> Result<PathBuf> {
        let folder = self.open_folder(claim)?;
        let source = json!({
            "hostPath": {"path": folder, "type": "Directory"},
            "accessModes": [mode],
        });
        self.bind(claim, "Filesystem", source).await?;
        Ok(folder)
    }

    /// A volume that one node alone can have, and a claim bound to it; its folder.
    pub async fn volume_on_node(&self, claim: &str, node: &str) -> Result<PathBuf> {
        let folder = self.open_folder(claim)?;
        self.local_volume_at(claim, &folder, node).await?;
        Ok(folder)
    }

    /// A claim that is bound to a volume of `node` whose files lie in `folder`.
    pub async fn local_volume_at(&self, claim: &str, folder: &Path, node: &str) -> Result<()> {
        let mut source = on_node("In", json!([node]));
        source["local"] = json!({"path": folder});
        self.bind(claim, "Filesystem", source).await
    }

    /// A claim that is bound when a pod first uses it; the folder that is for it then.
    pub async fn volume_for_first_consumer(&self, claim: &str) -> Result<PathBuf> {
        let folder = self.open_folder(claim)?;
        let class = self.namespace.as_str();
        let object: StorageClass = serde_json::from_value(json!({
            "metadata": {"name": class, "labels": {STORY_LABEL: class}},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }))?;
        Api::all(self.client.clone())
            .create(&PostParams::default(), &object)
            .await
            .context("cannot make the StorageClass")?;
        let mut volume = json!({
            "metadata": {
                "name": format!("{class}-{claim}"),
                "labels": {STORY_LABEL: class},
            },
            "spec": on_node("Exists", Value::Null),
        });
        let spec = json!({
            "capacity": {"storage": NOMINAL_SIZE},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": class,
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": folder},
        });
        merge(&mut volume["spec"], spec);
        self.create_volume(&format!("{class}-{claim}"), volume)
            .await?;
        let claim = self.claim(claim, "Filesystem", class, None);
        self.create_claim(claim).await?;
        Ok(folder)
    }

    /// A folder for a volume, empty and writable to everyone.
    fn open_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.volumes_folder()?.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        Ok(folder)
    }

    /// A claim that is bound to a volume without a file system.
    pub async fn block_volume(&self, claim: &str) -> Result<()> {
        // Only local volumes may be block devices; binding one never opens it.
        let mut source = on_node("Exists", Value::Null);
        source["local"] = json!({"path": "/dev/null"});
        self.bind(claim, "Block", source).await
    }

    /// A claim that nothing will ever bind.
    pub async fn unbound_claim(&self, claim: &str) -> Result<()> {
        let claim = self.claim(claim, "Filesystem", "no-such-class", None);
        self.create_claim(claim).await
    }

    /// The whole volume and claim, waited for until they are bound.
    async fn bind(&self, claim: &str, mode: &str, source: Value) -> Result<()> {
        let volume_name = format!("{}-{claim}", self.namespace);
        let mut volume = json!({
            "metadata": {"name": volume_name, "labels": {STORY_LABEL: self.namespace}},
            "spec": {
                "capacity": {"storage": NOMINAL_SIZE},
                "accessModes": ["ReadWriteOnce"],
                "volumeMode": mode,
                "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": self.namespace, "name": claim},
            },
        });
        merge(&mut volume["spec"], source);
        let modes = volume["spec"]["accessModes"].clone();
        self.create_volume(&volume_name, volume).await?;
        let mut object = self.claim(claim, mode, "", Some(&volume_name));
        object["spec"]["accessModes"] = modes;
        self.create_claim(object).await?;
        self.wait_for::<PersistentVolumeClaim>(claim, "to be bound", |claim| {
            claim
                .status
                .as_ref()?
                .phase
                .as_deref()
                .map(|phase| phase == "Bound")
        })
        .await?;
        Ok(())
    }

    fn claim(&self, name: &str, mode: &str, class: &str, volume: Option<&str>) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "volumeMode": mode,
                "storageClassName": class,
                "volumeName": volume,
                "resources": {"requests": {"storage": NOMINAL_SIZE}},
            },
        })
    }

    async fn create_claim(&self, claim: Value) -> Result<()> {
        let claim: PersistentVolumeClaim = serde_json::from_value(claim)?;
        self.api()
            .create(&PostParams::default(), &claim)
            .await
            .context("cannot make the PersistentVolumeClaim")?;
        Ok(())
    }

    /// A volume that waits for the claim `name`, which someone else will make: what a restore into
    /// a `targetTemplate` binds to; its folder.
    pub async fn volume_for_later(&self, name: &str) -> Result<PathBuf> {
        self.volume_of_class_for_later(name, "").await
    }

    /// As [`Self::volume_for_later`], for a claim that asks for the storage class `class`.
    pub async fn volume_of_class_for_later(&self, name: &str, class: &str) -> Result<PathBuf> {
        let folder = self.open_folder(name)?;
        let volume_name = format!("{}-{name}", self.namespace);
        let volume = json!({
            "metadata": {
                "name": volume_name,
                "labels": {STORY_LABEL: self.namespace},
            },
            "spec": {
                "capacity": {"storage": NOMINAL_SIZE},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": class,
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": self.namespace, "name": name},
                "hostPath": {"path": folder, "type": "Directory"},
            },
        });
        self.create_volume(&volume_name, volume).await?;
        Ok(folder)
    }

    /// Makes a volume and waits until the cluster has taken note of it: a claim that comes at the
    /// same moment is bound a quarter of a minute later only.
    async fn create_volume(&self, name: &str, volume: Value) -> Result<()> {
        let volume: PersistentVolume = serde_json::from_value(volume)?;
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &volume)
            .await
            .with_context(|| format!("cannot make PersistentVolume {name}"))?;
        let is_available = |volume: Option<&PersistentVolume>| {
            let status = volume.and_then(|volume| volume.status.as_ref());
            status.is_some_and(|status| status.phase.as_deref() == Some("Available"))
        };
        let noted = kube::runtime::wait::await_condition(api, name, is_available);
        tokio::time::timeout(DEADLINE, noted)
            .await
            .with_context(|| format!("PersistentVolume {name} does not become Available"))??;
        Ok(())
    }
}

/// The part of a volume's spec that says which nodes can have it, by their host names.
fn on_node(operator: &str, values: Value) -> Value {
    json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{
        "matchExpressions": [{
            "key": "kubernetes.io/hostname", "operator": operator, "values": values,
        }],
    }]}}})
}

/// Lays `more` over the fields of `spec`.
fn merge(spec: &mut Value, more: Value) {
    if let (Value::Object(spec), Value::Object(more)) = (spec, more) {
        spec.extend(more);
    }
}
