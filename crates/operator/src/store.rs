//! Where the bytes of Backups live, and how a mover's pod gets at them.

mod told;

use std::fmt;

use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim};
use kube::core::{Selector, SelectorExt};
use kube::{Api, ResourceExt};
use tidelock_api::{
    Backup, BackupPolicy, BackupStatus, BackupStorage, ClusterBackupStorage, DEFAULT_STORAGE_PVC,
    Encryption, S3Storage, StorageKind, StorageRef, StorageUsed,
};
use tidelock_core::run::Readiness;
use tidelock_protocol::{
    CA_BUNDLE_PATH, CREDENTIALS_PATH, IDENTITIES_PATH, Limits, ObjectLock, STORAGE_PATH,
    StorageTarget,
};

use crate::context::Context;
use crate::error::{Error, is_status};
use crate::job::{Mount, Mounted};
use crate::placement::Volume;
use crate::store::told::{limits, target};
use crate::telemetry::reasons;
use crate::volume;

/// What a Backup names, or has recorded, as its storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreRef {
    /// A PersistentVolumeClaim of the namespace.
    Claim(String),
    /// A BackupStorage of the namespace.
    Storage(String),
    /// A ClusterBackupStorage.
    ClusterStorage(String),
}

impl StoreRef {
    /// What a spec names.
    pub fn named(storage: &StorageRef) -> Self {
        match (&storage.name, storage.kind.unwrap_or_default()) {
            (Some(name), StorageKind::BackupStorage) => Self::Storage(name.clone()),
            (Some(name), StorageKind::ClusterBackupStorage) => Self::ClusterStorage(name.clone()),
            (None, _) => Self::Claim(storage.pvc_name.clone().unwrap_or_default()),
        }
    }

    /// What a policy names, or the default.
    pub fn of_policy(policy: &BackupPolicy) -> Self {
        let storage = policy.spec.storage.as_ref();
        storage.map_or_else(Self::default, Self::named)
    }

    /// What is recorded of a Backup that has begun.
    pub fn recorded(backup: &Backup) -> Option<Self> {
        let status = backup.status.as_ref()?;
        match &status.storage {
            Some(used) => Some(match used.kind {
                StorageKind::BackupStorage => Self::Storage(used.name.clone()),
                StorageKind::ClusterBackupStorage => Self::ClusterStorage(used.name.clone()),
            }),
            None => status.storage_pvc_name.clone().map(Self::Claim),
        }
    }

    /// Keeps it in a status.
    pub fn record(&self, status: &mut BackupStatus) {
        let used = |kind, name: &String| {
            Some(StorageUsed {
                kind,
                name: name.clone(),
            })
        };
        match self {
            Self::Claim(name) => status.storage_pvc_name = Some(name.clone()),
            Self::Storage(name) => status.storage = used(StorageKind::BackupStorage, name),
            Self::ClusterStorage(name) => {
                status.storage = used(StorageKind::ClusterBackupStorage, name);
            }
        }
    }

    /// The claim that it is, where it is one.
    pub fn claim(&self) -> Option<&str> {
        match self {
            Self::Claim(name) => Some(name),
            Self::Storage(_) | Self::ClusterStorage(_) => None,
        }
    }

    /// Its name for a sentence that speaks of storage: a claim's alone, else with its kind.
    pub fn told(&self) -> String {
        match self {
            Self::Claim(name) => name.clone(),
            Self::Storage(_) | Self::ClusterStorage(_) => self.to_string(),
        }
    }

    /// What has that key.
    pub fn of_key(key: &str) -> Self {
        match key.split_once('/') {
            Some(("BackupStorage", name)) => Self::Storage(name.to_owned()),
            Some(("ClusterBackupStorage", name)) => Self::ClusterStorage(name.to_owned()),
            _ => Self::Claim(key.to_owned()),
        }
    }

    /// A text that no two storages of a namespace share: no name of an object has a slash.
    pub fn key(&self) -> String {
        match self {
            Self::Claim(name) => name.clone(),
            Self::Storage(name) => format!("BackupStorage/{name}"),
            Self::ClusterStorage(name) => format!("ClusterBackupStorage/{name}"),
        }
    }
}

/// The claim `backup-storage`.
impl Default for StoreRef {
    fn default() -> Self {
        Self::Claim(DEFAULT_STORAGE_PVC.to_owned())
    }
}

impl fmt::Display for StoreRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(name) => write!(f, "PersistentVolumeClaim {name}"),
            Self::Storage(name) => write!(f, "BackupStorage {name}"),
            Self::ClusterStorage(name) => write!(f, "ClusterBackupStorage {name}"),
        }
    }
}

/// A storage as a mover's pod gets at it.
#[derive(Debug, Clone)]
pub struct Store {
    /// What it was named by.
    pub reference: StoreRef,
    place: Place,
    read_only: bool,
    encryption: Option<Encryption>,
    limits: Limits,
}

#[derive(Debug, Clone)]
enum Place {
    Volume {
        name: String,
        sub_path: Option<String>,
        claim: Option<Box<PersistentVolumeClaim>>,
    },
    Bucket(Box<S3Storage>),
}

/// What a mover does to a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It looks, and opens nothing that is encrypted.
    Read,
    /// It reads what is stored, encrypted or not.
    Open,
    /// It writes or removes.
    Write,
}

impl Store {
    /// A claim that nobody has looked at.
    #[cfg(test)]
    pub fn of_claim(name: &str) -> Self {
        Self {
            reference: StoreRef::Claim(name.to_owned()),
            place: Place::Volume {
                name: name.to_owned(),
                sub_path: None,
                claim: None,
            },
            read_only: false,
            encryption: None,
            limits: Limits::default(),
        }
    }

    /// What the pod mounts to get at it.
    pub fn mounts(&self, wanted: Use) -> Vec<Mount<'_>> {
        let identities = self.identities().filter(|_| wanted == Use::Open);
        let identities = identities.map(|name| Mount {
            what: Mounted::Secret(name),
            path: IDENTITIES_PATH,
            read_only: true,
        });
        let mut mounts = self.mounts_of_place(wanted);
        mounts.extend(identities);
        mounts
    }

    /// How fast a mover may write and read there.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether what is written there is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encryption.is_some()
    }

    /// How long what is written there is locked.
    pub fn lock(&self) -> Option<ObjectLock> {
        match &self.place {
            Place::Volume { .. } => None,
            Place::Bucket(bucket) => told::lock(bucket),
        }
    }

    /// Whom what is written there is encrypted to.
    pub fn recipients(&self) -> Vec<String> {
        let encryption = self.encryption.as_ref();
        encryption.map_or_else(Vec::new, |encryption| encryption.recipients.clone())
    }

    /// The Secret with what opens it.
    fn identities(&self) -> Option<&str> {
        let secret = self.encryption.as_ref()?.identity_secret_ref.as_ref()?;
        Some(&secret.name)
    }

    /// Where a mover that may open what is there finds what does.
    pub fn identities_path(&self) -> Option<String> {
        self.identities().map(|_| IDENTITIES_PATH.to_owned())
    }

    fn mounts_of_place(&self, wanted: Use) -> Vec<Mount<'_>> {
        match &self.place {
            Place::Volume { name, sub_path, .. } => vec![Mount {
                what: Mounted::Claim {
                    name,
                    sub_path: sub_path.as_deref(),
                },
                path: STORAGE_PATH,
                read_only: wanted != Use::Write,
            }],
            Place::Bucket(bucket) => {
                let credentials = Mount {
                    what: Mounted::Secret(&bucket.credentials_secret_ref.name),
                    path: CREDENTIALS_PATH,
                    read_only: true,
                };
                let trusted = bucket.ca_bundle.as_ref().map(|bundle| Mount {
                    what: Mounted::ConfigMap(&bundle.config_map_name),
                    path: CA_BUNDLE_PATH,
                    read_only: true,
                });
                [credentials].into_iter().chain(trusted).collect()
            }
        }
    }

    /// What a mover is told of it that uses it so.
    pub fn target(&self, wanted: Use) -> StorageTarget {
        match &self.place {
            Place::Volume { .. } => StorageTarget::Directory {
                path: STORAGE_PATH.to_owned(),
            },
            Place::Bucket(bucket) => StorageTarget::Bucket(target(bucket, wanted)),
        }
    }

    /// The claim that it takes up, for placing.
    pub fn volume(&self) -> Option<Volume<'_>> {
        match &self.place {
            Place::Volume { name, claim, .. } => Some(Volume::of(name, claim.as_deref())),
            Place::Bucket(_) => None,
        }
    }

    /// What of it is not there, in words, where something is not.
    pub fn missing(&self) -> Option<String> {
        match &self.place {
            Place::Volume {
                name, claim: None, ..
            } => Some(format!("PersistentVolumeClaim {name} does not exist")),
            Place::Volume { .. } | Place::Bucket(_) => None,
        }
    }

    /// Whether it is there and can be used so.
    pub fn readiness(&self, wanted: Use) -> Readiness {
        if self.read_only && wanted == Use::Write {
            return volume::refused(
                reasons::STORAGE_READ_ONLY,
                format!(
                    "{} is readOnly; set that to false, or name another storage.",
                    self.reference
                ),
            );
        }
        match &self.place {
            Place::Volume { name, claim, .. } => volume::storage(name, claim.as_deref()),
            Place::Bucket(_) => Readiness::Ready,
        }
    }
}

/// Why nothing of a storage can be had or removed any more, where that is so: it is gone, or it is
/// kept from being written to.
pub async fn gone(
    ctx: &Context,
    namespace: &str,
    reference: &StoreRef,
) -> Result<Option<String>, Error> {
    let store = match find(ctx, namespace, reference).await? {
        Ok(store) => store,
        Err(not_ready) if not_ready.reason() == Some(reasons::STORAGE_NOT_FOUND) => {
            return Ok(Some(format!("its {reference} does not exist any more")));
        }
        Err(_) => return Ok(None),
    };
    if store.read_only {
        return Ok(Some(format!("its {reference} is readOnly")));
    }
    let gone = |what| format!("its storage {what} any more");
    Ok(store.missing().map(gone))
}

/// Looks for the storage that Backups of `namespace` name so, as it is now.
///
/// # Errors
/// The inner error says why it cannot be used, or that it is not there.
pub async fn find(
    ctx: &Context,
    namespace: &str,
    reference: &StoreRef,
) -> Result<Result<Store, Readiness>, Error> {
    match reference {
        StoreRef::Claim(name) => {
            let place = volume_place(ctx, namespace, name, None).await?;
            Ok(Ok(Store {
                reference: reference.clone(),
                place,
                read_only: false,
                encryption: None,
                limits: Limits::default(),
            }))
        }
        StoreRef::Storage(name) => of_namespace(ctx, namespace, name, reference).await,
        StoreRef::ClusterStorage(name) => of_cluster(ctx, namespace, name, reference).await,
    }
}

async fn volume_place(
    ctx: &Context,
    namespace: &str,
    name: &str,
    sub_path: Option<String>,
) -> Result<Place, Error> {
    let claim = volume::get(ctx, namespace, name).await?;
    Ok(Place::Volume {
        name: name.to_owned(),
        sub_path,
        claim: claim.map(Box::new),
    })
}

async fn of_namespace(
    ctx: &Context,
    namespace: &str,
    name: &str,
    reference: &StoreRef,
) -> Result<Result<Store, Readiness>, Error> {
    let api: Api<BackupStorage> = Api::namespaced(ctx.client.clone(), namespace);
    let found = api
        .get_opt(name)
        .await
        .map_err(Error::api(format!("read BackupStorage {namespace}/{name}")))?;
    let Some(found) = found else {
        return Ok(Err(missing(reference)));
    };
    let spec = found.spec;
    if spec.suspend {
        return Ok(Err(suspended(reference)));
    }
    let place = match (spec.pvc, spec.s3) {
        (Some(pvc), _) => volume_place(ctx, namespace, &pvc.claim_name, pvc.sub_path).await?,
        (None, Some(s3)) => Place::Bucket(Box::new(s3)),
        (None, None) => return Ok(Err(missing(reference))),
    };
    Ok(Ok(Store {
        reference: reference.clone(),
        place,
        read_only: spec.read_only,
        encryption: spec.encryption,
        limits: limits(spec.upload_bytes_per_second, spec.download_bytes_per_second),
    }))
}

async fn of_cluster(
    ctx: &Context,
    namespace: &str,
    name: &str,
    reference: &StoreRef,
) -> Result<Result<Store, Readiness>, Error> {
    let api: Api<ClusterBackupStorage> = Api::all(ctx.client.clone());
    let found = match api.get_opt(name).await {
        // An operator for single namespaces has no right over what no namespace has.
        Err(error) if is_status(&error, 403) => {
            return Ok(Err(volume::refused(
                reasons::STORAGE_NOT_ALLOWED,
                format!(
                    "{reference} cannot be used here: this operator is installed for single namespaces (rbac.scope Namespace). Name a BackupStorage of this namespace."
                ),
            )));
        }
        found => found.map_err(Error::api(format!("read ClusterBackupStorage {name}")))?,
    };
    let Some(found) = found else {
        return Ok(Err(missing(reference)));
    };
    if !allows(ctx, &found, namespace).await? {
        return Ok(Err(volume::blocked(
            reasons::STORAGE_NOT_ALLOWED,
            format!(
                "{reference} is not for namespace {namespace}: its namespaceSelector does not take the namespace's labels."
            ),
        )));
    }
    if found.spec.suspend {
        return Ok(Err(suspended(reference)));
    }
    Ok(Ok(Store {
        reference: reference.clone(),
        place: Place::Bucket(Box::new(found.spec.s3)),
        read_only: found.spec.read_only,
        limits: limits(
            found.spec.upload_bytes_per_second,
            found.spec.download_bytes_per_second,
        ),
        encryption: found.spec.encryption,
    }))
}

/// Whether `namespace` may use `storage`, by its labels as they are now; no selector takes none.
async fn allows(
    ctx: &Context,
    storage: &ClusterBackupStorage,
    namespace: &str,
) -> Result<bool, Error> {
    let Some(selector) = &storage.spec.namespace_selector else {
        return Ok(false);
    };
    let Ok(selector) = Selector::try_from(selector.clone()) else {
        return Ok(false);
    };
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let metadata = api
        .get_metadata(namespace)
        .await
        .map_err(Error::api(format!("read Namespace {namespace}")))?;
    Ok(selector.matches(metadata.labels()))
}

fn missing(reference: &StoreRef) -> Readiness {
    let here = match reference {
        StoreRef::ClusterStorage(_) => "",
        StoreRef::Claim(_) | StoreRef::Storage(_) => " in this namespace",
    };
    volume::blocked(
        reasons::STORAGE_NOT_FOUND,
        format!("{reference} does not exist{here}; create it, or name another in storage.name."),
    )
}

fn suspended(reference: &StoreRef) -> Readiness {
    volume::blocked(
        reasons::STORAGE_SUSPENDED,
        format!("{reference} is suspended; set suspend to false to go on."),
    )
}
