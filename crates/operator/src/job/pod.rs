//! The pod of a mover's Job. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, NodeAffinity,
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimVolumeSource,
    PodSpec, PreferredSchedulingTerm, ResourceRequirements, SecretVolumeSource, Toleration, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tidelock_api::MoverResources;
use tidelock_protocol::{REQUEST_ENV, TERMINATION_LOG};

use crate::job::{CONTAINER, JobPlan, Mount, Mounted, security};
use crate::placement::Placement;

type Quantities = BTreeMap<String, Quantity>;

/// A mover may be any user, and is alone in its pod.
const SECRET_MODE: i32 = 0o444;
/// How long a mover stays on a node that does not answer, before it is made anew elsewhere. What
/// Kubernetes gives pods that say nothing; a workload may say more of itself.
const LOST_NODE_SECONDS: i64 = 300;

/// The pod of `plan`.
pub fn pod(plan: &JobPlan<'_>) -> PodSpec {
    let mounts = mounts(plan);
    let volumes = mounts.iter().enumerate();
    let volumes = volumes.map(|(index, mount)| volume(index, mount.what));
    let scratch = Volume {
        name: "tmp".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity("64Mi".to_owned())),
            ..Default::default()
        }),
        ..Default::default()
    };
    let placement = plan.placement;
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(security::of_pod(
            &placement.security,
            placement.se_linux.as_ref(),
        )),
        containers: vec![container(plan, &mounts)],
        volumes: Some(volumes.chain([scratch]).collect()),
        affinity: affinity(placement),
        node_selector: Some(plan.mover.node_selector.clone()).filter(|map| !map.is_empty()),
        tolerations: Some(tolerations(&plan.mover.tolerations, &placement.tolerations)),
        priority_class_name: plan.mover.priority_class_name.clone(),
        termination_grace_period_seconds: Some(30),
        ..Default::default()
    }
}

/// What the pod mounts, the storage last.
fn mounts<'a>(plan: &JobPlan<'a>) -> Vec<Mount<'a>> {
    let store = plan.store.map(|(store, wanted)| store.mounts(wanted));
    let own = plan.mounts.iter().cloned();
    own.chain(store.into_iter().flatten()).collect()
}

fn volume(index: usize, what: Mounted<'_>) -> Volume {
    let name = volume_name(index);
    match what {
        Mounted::Claim { name: claim, .. } => Volume {
            name,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.to_owned(),
                read_only: None,
            }),
            ..Default::default()
        },
        Mounted::Secret(secret) => Volume {
            name,
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.to_owned()),
                default_mode: Some(SECRET_MODE),
                ..Default::default()
            }),
            ..Default::default()
        },
        Mounted::ConfigMap(config_map) => Volume {
            name,
            config_map: Some(ConfigMapVolumeSource {
                name: config_map.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        },
    }
}

fn container(plan: &JobPlan<'_>, mounts: &[Mount<'_>]) -> Container {
    let mounts = mounts.iter().enumerate();
    let mounts = mounts.map(|(index, mount)| VolumeMount {
        name: volume_name(index),
        mount_path: mount.path.to_owned(),
        read_only: Some(mount.read_only),
        sub_path: match mount.what {
            Mounted::Claim { sub_path, .. } => sub_path.map(str::to_owned),
            Mounted::Secret(_) | Mounted::ConfigMap(_) => None,
        },
        ..Default::default()
    });
    let scratch = VolumeMount {
        name: "tmp".to_owned(),
        mount_path: "/tmp".to_owned(),
        ..Default::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(plan.image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["/usr/local/bin/tidelock-mover".to_owned()]),
        env: Some(vec![EnvVar {
            name: REQUEST_ENV.to_owned(),
            value: Some(escape_expansion(&plan.request)),
            value_from: None,
        }]),
        resources: Some(resources(plan.mover.resources.as_ref())),
        security_context: Some(security::of_container(&plan.placement.security, plan.kind)),
        termination_message_path: Some(TERMINATION_LOG.to_owned()),
        termination_message_policy: Some("File".to_owned()),
        volume_mounts: Some(mounts.chain([scratch]).collect()),
        ..Default::default()
    }
}

/// `text` so that the kubelet hands it on as it is: `$(NAME)` would be expanded, `$$` is one `$`.
fn escape_expansion(text: &str) -> String {
    text.replace('$', "$$")
}

fn volume_name(index: usize) -> String {
    format!("volume-{index}")
}

/// By affinity and not by `nodeName`, which would pass the scheduler over: taints, room and the
/// volumes' own topology still count, and its words say what is in the way.
fn affinity(placement: &Placement) -> Option<Affinity> {
    let by_name = |operator: &str, node: &str| NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: operator.to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = |fields| NodeSelectorTerm {
        match_fields: Some(fields),
        match_expressions: None,
    };
    let node_affinity = if let Some(pin) = &placement.pin {
        NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term(vec![by_name("In", &pin.node)])],
            }),
            ..Default::default()
        }
    } else if placement.exclude_nodes.is_empty() {
        return None;
    } else {
        // A wish: a Job cannot be changed, and one that may go nowhere would wait for ever.
        let full = placement.exclude_nodes.iter();
        let fields = full.map(|node| by_name("NotIn", node)).collect();
        NodeAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                PreferredSchedulingTerm {
                    weight: 100,
                    preference: term(fields),
                },
            ]),
            ..Default::default()
        }
    };
    Some(Affinity {
        node_affinity: Some(node_affinity),
        ..Default::default()
    })
}

/// What the user says, then what the workload beside it tolerates. The first that fits a taint
/// counts, so a workload that clings to a lost node does not make its mover do so.
fn tolerations(own: &[tidelock_api::Toleration], copied: &[Toleration]) -> Vec<Toleration> {
    let mut all: Vec<Toleration> = own.iter().map(toleration).collect();
    if copied.is_empty() {
        return all;
    }
    let lost = [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ];
    all.extend(lost.map(|key| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: Some(LOST_NODE_SECONDS),
        value: None,
    }));
    let further = |copy: &&Toleration| !lost.iter().any(|key| copy.key.as_deref() == Some(key));
    all.extend(copied.iter().filter(further).cloned());
    all
}

fn toleration(wanted: &tidelock_api::Toleration) -> Toleration {
    Toleration {
        key: wanted.key.clone(),
        operator: Some(format!("{:?}", wanted.operator)),
        value: wanted.value.clone(),
        effect: wanted.effect.map(|effect| format!("{effect:?}")),
        toleration_seconds: None,
    }
}

/// What the user says, over a small default; the memory limit keeps a mover from harming its node.
/// Where the user sets one of request and limit, the other has no default: it could contradict.
fn resources(wanted: Option<&MoverResources>) -> ResourceRequirements {
    let (requests, limits) = wanted
        .map(|wanted| (wanted.requests.clone(), wanted.limits.clone()))
        .unwrap_or_default();
    let with_defaults = |own: &Quantities, other: &Quantities, defaults: &[(&str, &str)]| {
        let mut all = own.clone();
        for (name, amount) in defaults {
            if !own.contains_key(*name) && !other.contains_key(*name) {
                all.insert((*name).to_owned(), Quantity((*amount).to_owned()));
            }
        }
        Some(all)
    };
    ResourceRequirements {
        requests: with_defaults(&requests, &limits, &[("cpu", "50m"), ("memory", "64Mi")]),
        limits: with_defaults(&limits, &requests, &[("memory", "256Mi")]),
        claims: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_never_contradicts_what_the_user_sets() {
        let one = |name: &str, amount: &str| {
            BTreeMap::from([(name.to_owned(), Quantity(amount.to_owned()))])
        };
        let small = MoverResources {
            limits: one("memory", "32Mi"),
            requests: BTreeMap::new(),
        };
        let made = resources(Some(&small));
        assert_eq!(made.limits, Some(one("memory", "32Mi")));
        assert_eq!(made.requests, Some(one("cpu", "50m")));
        let large = MoverResources {
            limits: BTreeMap::new(),
            requests: one("memory", "1Gi"),
        };
        assert_eq!(resources(Some(&large)).limits, Some(BTreeMap::new()));
    }

    #[test]
    fn a_workload_that_tolerates_all_for_ever_does_not_keep_its_mover_on_a_lost_node() {
        let wildcard = Toleration {
            operator: Some("Exists".to_owned()),
            ..Default::default()
        };
        let made = tolerations(&[], std::slice::from_ref(&wildcard));
        let unreachable = |one: &&Toleration| {
            one.key.is_none() || one.key.as_deref() == Some("node.kubernetes.io/unreachable")
        };
        let first = made.iter().find(unreachable).unwrap();
        assert_eq!(first.toleration_seconds, Some(LOST_NODE_SECONDS));
        assert_eq!(made.last(), Some(&wildcard));
        assert_eq!(tolerations(&[], &[]), []);
    }

    #[test]
    fn full_nodes_are_avoided_where_that_is_possible_and_a_pin_stands_alone() {
        let told = |term: &NodeSelectorTerm| -> Vec<String> {
            let fields = term.match_fields.clone().unwrap();
            let told = fields.into_iter().map(|field| {
                // The API server takes one value for each of these, and no more.
                let [value] = &field.values.unwrap()[..] else {
                    panic!("not one value")
                };
                format!("{} {} {value}", field.key, field.operator)
            });
            told.collect()
        };
        let mut placement = Placement::default();
        assert_eq!(affinity(&placement), None);
        placement.exclude_nodes = vec!["a".into(), "b".into()];
        let node = affinity(&placement).unwrap().node_affinity.unwrap();
        assert_eq!(
            node.required_during_scheduling_ignored_during_execution,
            None
        );
        let wishes = node
            .preferred_during_scheduling_ignored_during_execution
            .unwrap();
        assert_eq!(
            told(&wishes[0].preference),
            ["metadata.name NotIn a", "metadata.name NotIn b"]
        );
        placement.pin = Some(tidelock_core::placement::Pin {
            node: "c".into(),
            pods: vec![],
            why: String::new(),
        });
        let node = affinity(&placement).unwrap().node_affinity.unwrap();
        let required = node
            .required_during_scheduling_ignored_during_execution
            .unwrap();
        assert_eq!(
            told(&required.node_selector_terms[0]),
            ["metadata.name In c"]
        );
    }
}
