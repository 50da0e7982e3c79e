//! One story: a namespace of its own, made for it and deleted after it.

use std::env;
use std::fs;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::archives::{Archives, Kind};
use crate::volumes::STORY_LABEL;
use crate::{cluster, evidence, loop_mounts};

/// A story under way.
#[derive(Clone)]
pub struct Story {
    /// A client with all rights.
    pub client: Client,
    /// The story's own namespace.
    pub namespace: String,
    /// Where its backups go, once it has a place for them.
    pub archives: Archives,
}

/// Tells the story `name`: makes a namespace, does `story` in it, and deletes it and the volumes.
///
/// # Guarantees
/// A story that fails or panics leaves its objects, Events and logs in a file whose path is
/// printed; its namespace is deleted as well unless `TIDELOCK_E2E_KEEP` is set.
pub async fn tell<Told>(name: &str, story: impl FnOnce(Story) -> Told) -> Result<()>
where
    Told: Future<Output = Result<()>>,
{
    tell_with(name, Kind::chosen()?, story).await
}

/// Tells the story `name` twice, side by side: with its backups on a volume, and in a bucket. It asks for
/// their place by [`Story::backup_storage`].
///
/// # Guarantees
/// As [`tell`]; the error says which of both it is of.
pub async fn tell_on_each_storage<Told>(name: &str, story: impl Fn(Story) -> Told) -> Result<()>
where
    Told: Future<Output = Result<()>>,
{
    let bucket = format!("{name}-s3");
    let (volume, bucket) = futures::join!(
        tell_with(name, Kind::Volume, &story),
        tell_with(&bucket, Kind::Bucket, &story),
    );
    volume.context("with the backups on a volume")?;
    bucket.context("with the backups in a bucket")
}

/// As [`tell`], with the backups of the story in a bucket.
pub async fn tell_in_a_bucket<Told>(name: &str, story: impl FnOnce(Story) -> Told) -> Result<()>
where
    Told: Future<Output = Result<()>>,
{
    tell_with(name, Kind::Bucket, story).await
}

async fn tell_with<Told>(name: &str, kind: Kind, story: impl FnOnce(Story) -> Told) -> Result<()>
where
    Told: Future<Output = Result<()>>,
{
    let setting = Story::begin(name, kind).await?;
    let told = AssertUnwindSafe(story(setting.clone()))
        .catch_unwind()
        .await;
    let failed = !matches!(told, Ok(Ok(())));
    if failed {
        evidence::keep(&setting.namespace);
    }
    if !failed || env::var_os("TIDELOCK_E2E_KEEP").is_none() {
        setting.end().await;
    }
    match told {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    }
}

impl Story {
    /// What is told in a namespace that is there.
    pub fn in_namespace(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            archives: Archives::of(Kind::Volume),
        }
    }

    async fn begin(name: &str, kind: Kind) -> Result<Self> {
        let client = cluster::client().await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        // Unique among stories and among runs on one cluster.
        let namespace = format!("{name}-{:x}", now.as_millis() & 0xffff_ffff);
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {
                "name": namespace,
                "labels": {
                    STORY_LABEL: namespace,
                    "pod-security.kubernetes.io/enforce": "baseline",
                },
            },
        }))?;
        Api::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("cannot make namespace {namespace}"))?;
        Ok(Self {
            client,
            namespace,
            archives: Archives::of(kind),
        })
    }

    /// The story's objects of one kind.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What `kubectl --namespace <the story's> <arguments>` prints.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", &self.namespace];
        all.extend(arguments);
        cluster::kubectl(&all)
    }

    /// Best effort: what cannot be deleted goes with the cluster.
    async fn end(&self) {
        let background = DeleteParams::background();
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let _ = namespaces.delete(&self.namespace, &background).await;
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let own = ListParams::default().labels(&format!("{STORY_LABEL}={}", self.namespace));
        let _ = volumes.delete_collection(&background, &own).await;
        let classes: Api<StorageClass> = Api::all(self.client.clone());
        let _ = classes.delete_collection(&background, &own).await;
        if let Ok(folder) = self.volumes_folder() {
            loop_mounts::unmount_below(&folder);
            let _ = fs::remove_dir_all(folder);
        }
    }
}
