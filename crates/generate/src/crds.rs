//! The custom resource definitions.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use tidelock_api::{Backup, BackupPolicy, BackupStorage, ClusterBackupStorage, Restore};

/// What every object of Tidelock carries.
fn part_of() -> BTreeMap<String, String> {
    BTreeMap::from([(
        "app.kubernetes.io/part-of".to_owned(),
        "tidelock".to_owned(),
    )])
}

/// Every CRD, in the order a reader meets them.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        BackupPolicy::crd(),
        Backup::crd(),
        Restore::crd(),
        BackupStorage::crd(),
        ClusterBackupStorage::crd(),
    ];
    for crd in &mut crds {
        crd.metadata.labels = Some(part_of());
        for version in &mut crd.spec.versions {
            let schema = version.schema.as_mut();
            if let Some(root) = schema.and_then(|schema| schema.open_api_v3_schema.as_mut()) {
                tidy(root);
            }
        }
    }
    crds
}

/// Unfolds descriptions from the width of source code, and drops formats that the API server would
/// warn of on each apply; the bounds say the same.
fn tidy(schema: &mut JSONSchemaProps) {
    if let Some(description) = &mut schema.description {
        *description = description.replace('\n', " ");
    }
    if schema.format.as_deref() == Some("uint32") {
        schema.format = None;
    }
    let properties = schema.properties.iter_mut().flat_map(BTreeMap::values_mut);
    properties.for_each(tidy);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
}
