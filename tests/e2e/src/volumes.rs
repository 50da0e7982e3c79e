//! PersistentVolumes whose folders the test reads and writes directly: the cluster runs on this
//! machine, and its kubelet sees the same file system.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::Story;
use crate::cluster;

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
        let folder = self.volumes_folder()?.join(claim);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        let source = json!({"hostPath": {"path": folder, "type": "Directory"}});
        self.bind(claim, "Filesystem", source).await?;
        Ok(folder)
    }

    /// A claim that is bound to a volume without a file system.
    pub async fn block_volume(&self, claim: &str) -> Result<()> {
        // Only local volumes may be block devices; binding one never opens it.
        let source = json!({
            "local": {"path": "/dev/null"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{
                "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}],
            }]}},
        });
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
        if let (Value::Object(spec), Value::Object(source)) = (&mut volume["spec"], source) {
            spec.extend(source);
        }
        let volume: PersistentVolume = serde_json::from_value(volume)?;
        Api::all(self.client.clone())
            .create(&PostParams::default(), &volume)
            .await
            .with_context(|| format!("cannot make PersistentVolume {volume_name}"))?;
        self.create_claim(self.claim(claim, mode, "", Some(&volume_name)))
            .await?;
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
        let folder = self.volumes_folder()?.join(name);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {
                "name": format!("{}-{name}", self.namespace),
                "labels": {STORY_LABEL: self.namespace},
            },
            "spec": {
                "capacity": {"storage": NOMINAL_SIZE},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": self.namespace, "name": name},
                "hostPath": {"path": folder, "type": "Directory"},
            },
        }))?;
        Api::all(self.client.clone())
            .create(&PostParams::default(), &volume)
            .await
            .context("cannot make the PersistentVolume")?;
        Ok(folder)
    }
}
