//! Who owns an object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

/// The controller reference of an object, if it has one.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// Whether the controller of an object is the object with this UID.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller(meta).is_some_and(|owner| owner.uid == uid)
}

/// Owners of the kind `K`.
pub fn owners_of_kind<K: Resource<DynamicType = ()>>(
    meta: &ObjectMeta,
) -> impl Iterator<Item = &OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .filter(|owner| owner.kind == K::kind(&()) && owner.api_version == K::api_version(&()))
}

/// The controller of an object in words: `CronJob nightly`, or `nobody`.
pub fn describe_controller(meta: &ObjectMeta) -> String {
    controller(meta).map_or_else(
        || "nobody that Tidelock knows".to_owned(),
        |owner| format!("{} {}", owner.kind, owner.name),
    )
}
