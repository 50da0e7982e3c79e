//! Which Backups stand at a place.

use std::collections::BTreeSet;

use kube::{Api, ResourceExt};
use tidelock_api::{BackupStorage, ClusterBackupStorage, S3Storage};
use tidelock_protocol::KnownBackups;

use crate::backup::archived;
use crate::context::Context;
use crate::error::{Error, is_status};
use crate::store::StoreRef;

/// The locations of all Backups of the namespace that are recorded at the place of `storage`, by
/// whichever name; none where there are too many.
pub async fn backups(
    ctx: &Context,
    storage: &BackupStorage,
) -> Result<Option<KnownBackups>, Error> {
    let own = ctx
        .caches
        .backups
        .state_filter(|backup| backup.namespace() == storage.namespace());
    let recorded = own.iter().filter_map(|b| StoreRef::recorded(b));
    let clusters = recorded.filter_map(|store| match store {
        StoreRef::ClusterStorage(name) => Some(name),
        StoreRef::Claim(_) | StoreRef::Storage(_) => None,
    });
    let clusters: BTreeSet<String> = clusters.collect();
    let mut names = names_of(ctx, storage);
    for name in clusters {
        if is_cluster_storage(ctx, &name, storage).await? {
            names.push(StoreRef::ClusterStorage(name));
        }
    }
    let there = own
        .iter()
        .filter(|backup| StoreRef::recorded(backup).is_some_and(|store| names.contains(&store)));
    let locations: Vec<_> = there
        .filter_map(|backup| {
            let pvc = backup.status.as_ref()?.pvc_name.as_deref()?;
            archived::location(backup, pvc).ok()
        })
        .collect();
    Ok(KnownBackups::of(&locations))
}

/// Whether the ClusterBackupStorage of that name is the place of `storage`.
async fn is_cluster_storage(
    ctx: &Context,
    name: &str,
    storage: &BackupStorage,
) -> Result<bool, Error> {
    let api: Api<ClusterBackupStorage> = Api::all(ctx.client.clone());
    let found = match api.get_opt(name).await {
        // An operator for single namespaces uses none.
        Err(error) if is_status(&error, 403) => None,
        found => found.map_err(Error::api(format!("read ClusterBackupStorage {name}")))?,
    };
    let bucket = storage.spec.s3.as_ref().map(bucket);
    Ok(found.is_some_and(|found| Some(self::bucket(&found.spec.s3)) == bucket))
}

/// Everything that the place of `storage` can be named by in its namespace, but for
/// ClusterBackupStorages.
fn names_of(ctx: &Context, storage: &BackupStorage) -> Vec<StoreRef> {
    let same = ctx.caches.storages.state_filter(|other| {
        other.namespace() == storage.namespace() && is_same_place(other, storage)
    });
    let mut names: Vec<StoreRef> = same
        .iter()
        .map(|other| StoreRef::Storage(other.name_any()))
        .collect();
    names.push(StoreRef::Storage(storage.name_any()));
    let whole_claim = storage.spec.pvc.as_ref();
    let whole_claim = whole_claim.filter(|pvc| pvc.sub_path.is_none());
    names.extend(whole_claim.map(|pvc| StoreRef::Claim(pvc.claim_name.clone())));
    names
}

fn is_same_place(a: &BackupStorage, b: &BackupStorage) -> bool {
    let place = |storage: &BackupStorage| storage.spec.s3.as_ref().map(bucket);
    a.spec.pvc == b.spec.pvc && place(a) == place(b)
}

fn bucket(s3: &S3Storage) -> (Option<String>, String, Option<String>) {
    (s3.endpoint.clone(), s3.bucket.clone(), s3.prefix.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::context;

    fn storage(name: &str, spec: Value) -> BackupStorage {
        let metadata = json!({"name": name, "namespace": "shop"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn in_bucket(prefix: &str) -> Value {
        json!({"s3": {"bucket": "b", "prefix": prefix, "credentialsSecretRef": {"name": "s"}}})
    }

    #[tokio::test]
    async fn a_place_is_known_by_each_of_its_names() {
        let (ctx, _) = context(Vec::new(), Vec::new(), |_| None);
        let claim = storage("offsite", json!({"pvc": {"claimName": "store"}}));
        let names = names_of(&ctx, &claim);
        assert!(
            names.contains(&StoreRef::Claim("store".into())),
            "{names:?}"
        );
        let folder = json!({"pvc": {"claimName": "store", "subPath": "a"}});
        let names = names_of(&ctx, &storage("folder", folder.clone()));
        assert_eq!(names, [StoreRef::Storage("folder".into())]);
        assert!(!is_same_place(&claim, &storage("folder", folder)));
        assert!(is_same_place(
            &storage("a", in_bucket("x")),
            &storage("b", in_bucket("x"))
        ));
        assert!(!is_same_place(
            &storage("a", in_bucket("x")),
            &storage("b", in_bucket("y"))
        ));
    }
}
