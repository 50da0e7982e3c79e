//! Finalizers of our objects.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::context::Context;
use crate::convert;
use crate::error::{Error, is_status};

/// Whether `object` has `finalizer`.
pub fn has<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.finalizers().iter().any(|own| own == finalizer)
}

/// Adds `finalizer` to `object` as it was read.
pub async fn add<K>(object: &K, ctx: &Context, finalizer: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned,
{
    let mut all = object.finalizers().to_vec();
    all.push(finalizer.to_owned());
    set(object, ctx, all).await
}

/// Takes `finalizer` off `object` as it was read; one that is gone needs nothing.
pub async fn remove<K>(object: &K, ctx: &Context, finalizer: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned,
{
    let others = object.finalizers().iter().filter(|own| *own != finalizer);
    set(object, ctx, others.cloned().collect()).await
}

async fn set<K>(object: &K, ctx: &Context, finalizers: Vec<String>) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned,
{
    let namespace = convert::namespace(object)?;
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let patch = json!({"metadata": {
        "resourceVersion": object.resource_version(),
        "finalizers": finalizers,
    }});
    match api
        .patch(
            &object.name_any(),
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => {
            let what = convert::describe(object);
            Err(Error::api(format!("set the finalizers of {what}"))(error))
        }
    }
}
