//! What the pods of a namespace tell of the claims they use.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, SELinuxOptions, Toleration};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tidelock_api::RUN_KIND_LABEL;
use tidelock_core::identity::Ids;
use tidelock_core::placement::PodUse;

use crate::context::Context;
use crate::error::Error;
use crate::job::{MANAGED_BY, MANAGED_BY_LABEL, RunKind};
use crate::run::observe::is_live;

/// Pods in one answer of the API server; bounds what is held of a namespace at a time.
const PAGE: u32 = 250;

/// The pods of a namespace that name one of `claims`, whatever became of them, as the API server
/// knows them now; the live ones first.
pub async fn using(ctx: &Context, namespace: &str, claims: &[&str]) -> Result<Vec<Pod>, Error> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let mut params = ListParams::default().limit(PAGE);
    let mut using = Vec::new();
    loop {
        let page = api
            .list(&params)
            .await
            .map_err(Error::api(format!("list the pods of {namespace}")))?;
        let names_one = |pod: &Pod| claims.iter().any(|claim| volume_of(pod, claim).is_some());
        using.extend(page.items.into_iter().filter(names_one));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    using.sort_by_key(|pod| (Reverse(is_bound(pod) && is_live(pod)), pod.name_any()));
    Ok(using)
}

/// The volume of `pod` that is `claim`, by name; also one that the pod made for itself.
fn volume_of<'a>(pod: &'a Pod, claim: &str) -> Option<&'a str> {
    let volumes = pod.spec.as_ref()?.volumes.as_ref()?;
    let volume = volumes.iter().find(|volume| {
        let named = volume.persistent_volume_claim.as_ref();
        named.is_some_and(|source| source.claim_name == claim)
            || (volume.ephemeral.is_some()
                && format!("{}-{}", pod.name_any(), volume.name) == claim)
    });
    volume.map(|volume| volume.name.as_str())
}

fn is_bound(pod: &Pod) -> bool {
    node_of(pod).is_some()
}

fn node_of(pod: &Pod) -> Option<&String> {
    let node = pod.spec.as_ref()?.node_name.as_ref();
    node.filter(|node| !node.is_empty())
}

/// The pods that have `claim` on a node.
pub fn uses_of(pods: &[Pod], claim: &str) -> Vec<PodUse> {
    let users = pods
        .iter()
        .filter(|pod| is_live(pod) && volume_of(pod, claim).is_some());
    users
        .filter_map(|pod| {
            Some(PodUse {
                pod: pod.name_any(),
                node: node_of(pod)?.clone(),
                leaving: pod.metadata.deletion_timestamp.is_some(),
                mover: is_mover(pod),
            })
        })
        .collect()
}

/// As whom the workloads run that name `claim`; movers tell nothing of their own.
pub fn ids_of(pods: &[Pod], claim: &str) -> Vec<Ids> {
    let workloads = pods.iter().filter(|pod| !is_mover(pod));
    workloads
        .filter_map(|pod| {
            let volume = volume_of(pod, claim)?;
            Some(ids(pod.spec.as_ref()?, volume))
        })
        .collect()
}

fn is_mover(pod: &Pod) -> bool {
    let manager = pod.labels().get(MANAGED_BY_LABEL);
    manager.is_some_and(|manager| manager == MANAGED_BY)
}

/// The pod of a Restore that is at work and has `claim`.
pub fn restorer(pods: &[Pod], claim: &str) -> Option<String> {
    let restore = |pod: &&Pod| {
        let kind = pod.labels().get(RUN_KIND_LABEL);
        is_mover(pod) && kind.is_some_and(|kind| kind == RunKind::Restore.as_str())
    };
    let mut at_work = pods.iter().filter(|pod| is_live(pod)).filter(restore);
    at_work
        .find(|pod| volume_of(pod, claim).is_some())
        .map(ResourceExt::name_any)
}

/// As whom the container runs that mounts `volume`: what the container says goes before what its
/// pod says. Of several, the first that tells a user.
fn ids(pod: &PodSpec, volume: &str) -> Ids {
    let security = pod.security_context.clone().unwrap_or_default();
    let containers = containers(pod, volume).map(|container| {
        let own = container.security_context.clone().unwrap_or_default();
        (
            own.run_as_user.or(security.run_as_user),
            own.run_as_group.or(security.run_as_group),
        )
    });
    let mut containers = containers.collect::<Vec<_>>();
    containers.sort_by_key(|(user, _)| user.is_none());
    let (user, group) = containers
        .first()
        .copied()
        .unwrap_or((security.run_as_user, security.run_as_group));
    Ids {
        user,
        group,
        fs_group: security.fs_group,
        supplemental: security.supplemental_groups.unwrap_or_default(),
    }
}

/// The containers that mount `volume`, those of the workload before those that prepare it.
fn containers<'a>(pod: &'a PodSpec, volume: &'a str) -> impl Iterator<Item = &'a Container> {
    let all = pod
        .containers
        .iter()
        .chain(pod.init_containers.iter().flatten());
    all.filter(move |container| {
        let mounts = container.volume_mounts.iter().flatten();
        mounts.into_iter().any(|mount| mount.name == volume)
    })
}

/// What the pods of these names tolerate, each once.
pub fn tolerations(pods: &[Pod], names: &[String]) -> Vec<Toleration> {
    let named = pods.iter().filter(|pod| names.contains(&pod.name_any()));
    let mut all: Vec<Toleration> = Vec::new();
    for toleration in named.filter_map(|pod| pod.spec.as_ref()?.tolerations.as_ref()) {
        for one in toleration {
            if !all.contains(one) {
                all.push(one.clone());
            }
        }
    }
    all
}

/// The SELinux context of the first live pod that has one of `claims` and sets one.
pub fn se_linux(pods: &[Pod], claims: &[&str]) -> Option<SELinuxOptions> {
    let live = pods.iter().filter(|pod| is_live(pod) && is_bound(pod));
    live.into_iter().find_map(|pod| {
        let volume = claims.iter().find_map(|claim| volume_of(pod, claim))?;
        let spec = pod.spec.as_ref()?;
        let of_container = containers(spec, volume).find_map(|container| {
            container
                .security_context
                .as_ref()?
                .se_linux_options
                .clone()
        });
        let of_pod = || spec.security_context.as_ref()?.se_linux_options.clone();
        of_container.or_else(of_pod)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    fn app(phase: &str, node: Option<&str>) -> Pod {
        pod(json!({
            "metadata": {"name": "app"},
            "spec": {
                "nodeName": node,
                "securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3},
                "initContainers": [{
                    "name": "prepare",
                    "securityContext": {"runAsUser": 0},
                    "volumeMounts": [{"name": "v", "mountPath": "/data"}],
                }],
                "containers": [
                    {"name": "other", "securityContext": {"runAsUser": 9}},
                    {
                        "name": "main",
                        "securityContext": {"runAsUser": 5},
                        "volumeMounts": [{"name": "v", "mountPath": "/data"}],
                    },
                ],
                "volumes": [
                    {"name": "v", "persistentVolumeClaim": {"claimName": "data"}},
                    {"name": "own", "ephemeral": {}},
                ],
            },
            "status": {"phase": phase},
        }))
    }

    #[test]
    fn a_claim_is_used_by_the_pods_that_have_it_on_a_node() {
        let used = |pod: Pod, claim: &str| uses_of(&[pod], claim).len();
        assert_eq!(used(app("Running", Some("a")), "data"), 1);
        assert_eq!(used(app("Pending", Some("a")), "data"), 1);
        assert_eq!(used(app("Running", Some("a")), "app-own"), 1);
        assert_eq!(used(app("Pending", None), "data"), 0);
        assert_eq!(used(app("Succeeded", Some("a")), "data"), 0);
        assert_eq!(used(app("Running", Some("a")), "other"), 0);
    }

    #[test]
    fn the_container_that_mounts_the_volume_tells_the_user_also_after_its_end() {
        for phase in ["Running", "Succeeded"] {
            let ids = ids_of(&[app(phase, Some("a"))], "data");
            let [ids] = &ids[..] else { panic!("not one") };
            assert_eq!(
                (ids.user, ids.group, ids.fs_group),
                (Some(5), Some(2), Some(3))
            );
        }
    }

    #[test]
    fn a_mover_tells_no_user_and_is_known_as_one() {
        let mut mover = app("Running", Some("a"));
        let label = (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
        mover.metadata.labels = Some([label].into());
        let pods = [mover];
        assert_eq!(ids_of(&pods, "data"), []);
        assert!(uses_of(&pods, "data")[0].mover);
    }

    #[test]
    fn only_the_pods_beside_the_mover_lend_it_their_tolerations_each_once() {
        let tolerant = |name: &str, key: &str| {
            pod(json!({
                "metadata": {"name": name},
                "spec": {"containers": [], "tolerations": [{"key": key, "operator": "Exists"}]},
            }))
        };
        let pods = [
            tolerant("x", "one"),
            tolerant("y", "one"),
            tolerant("z", "two"),
        ];
        let lent = tolerations(&pods, &["x".to_owned(), "y".to_owned()]);
        assert_eq!(lent.len(), 1);
        assert_eq!(lent[0].key.as_deref(), Some("one"));
    }
}
