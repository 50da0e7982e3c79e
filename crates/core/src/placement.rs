//! Where a mover's pod runs, by the pods that use its volumes.

use std::collections::BTreeSet;

use crate::run::{Blocker, Readiness, Refusal};

/// How often a claim can be mounted at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// On any number of nodes: ReadWriteMany, or ReadOnlyMany alone.
    Many,
    /// On one node: ReadWriteOnce.
    OneNode,
    /// By one pod: ReadWriteOncePod.
    OnePod,
}

/// A pod that has a claim mounted, or is about to on the node it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodUse {
    /// Its name.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// Whether it is being deleted.
    pub leaving: bool,
    /// Whether it is a mover, which ends by itself.
    pub mover: bool,
}

/// A claim that a mover needs, with the pods that use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimUse {
    /// Its name.
    pub claim: String,
    /// How often it can be mounted.
    pub access: Access,
    /// The pods that use it.
    pub pods: Vec<PodUse>,
}

/// The node that a mover has to run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Its name.
    pub node: String,
    /// The pods that hold the volumes there.
    pub pods: Vec<String>,
    /// Why, as half a sentence.
    pub why: String,
}

/// The one node on which a pod can mount all of `claims`; none where the scheduler is free to
/// choose. A pod that is on its way out pins nothing: its volume is free before long, and its node
/// may be gone for good.
///
/// # Errors
/// A claim for one pod that another has, or claims held on different nodes; both pass when pods
/// end.
pub fn pin(claims: &[ClaimUse]) -> Result<Option<Pin>, Blocker> {
    if let Some(blocker) = claims.iter().find_map(held_by_one_pod) {
        return Err(blocker);
    }
    let held: Vec<(&ClaimUse, BTreeSet<&str>)> = claims
        .iter()
        .filter(|claim| claim.access == Access::OneNode)
        .map(|claim| (claim, staying(claim).map(|used| &*used.node).collect()))
        .filter(|(_, nodes): &(_, BTreeSet<&str>)| !nodes.is_empty())
        .collect();
    let Some((_, first)) = held.first() else {
        return Ok(None);
    };
    let in_all = |node: &&&str| held.iter().all(|(_, nodes)| nodes.contains(**node));
    // A volume in use on several nodes can evidently be mounted on each of them.
    let Some(node) = first.iter().find(in_all) else {
        let claims: Vec<&ClaimUse> = held.iter().map(|(claim, _)| *claim).collect();
        return Err(apart(&claims));
    };
    let there = |claim| staying(claim).filter(|used| used.node == **node);
    let pods: BTreeSet<&str> = held
        .iter()
        .flat_map(|(claim, _)| there(claim))
        .map(|used| &*used.pod)
        .collect();
    let names: Vec<&str> = held.iter().map(|(claim, _)| &*claim.claim).collect();
    let pods: Vec<String> = pods.into_iter().map(str::to_owned).collect();
    Ok(Some(Pin {
        node: (**node).to_owned(),
        why: format!(
            "PersistentVolumeClaim {} is in use there by pod {}",
            names.join(" and "),
            few(&pods)
        ),
        pods,
    }))
}

/// The first of `uses`, which may be hundreds, and how many more there are.
fn few(uses: &[String]) -> String {
    let shown = uses.iter().take(3).map(String::as_str);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if uses.len() > 3 {
        text.push_str(&format!(" and {} more", uses.len() - 3));
    }
    text
}

fn staying(claim: &ClaimUse) -> impl Iterator<Item = &PodUse> {
    claim.pods.iter().filter(|used| !used.leaving)
}

/// The scheduler itself counts a pod that is leaving.
fn held_by_one_pod(claim: &ClaimUse) -> Option<Blocker> {
    let used = claim.pods.first()?;
    (claim.access == Access::OnePod).then(|| Blocker {
        reason: "VolumeInUse",
        message: format!(
            "PersistentVolumeClaim {} is in use by pod {} on node {}, and its access mode ReadWriteOncePod lets only one pod have it; this starts when the pod has ended. Stop it, or use access mode ReadWriteOnce.",
            claim.claim, used.pod, used.node
        ),
    })
}

fn apart(claims: &[&ClaimUse]) -> Blocker {
    let held: Vec<String> = claims
        .iter()
        .map(|claim| {
            let uses: Vec<String> = staying(claim)
                .map(|used| format!("{} by pod {}", used.node, used.pod))
                .collect();
            format!(
                "PersistentVolumeClaim {} is in use on node {}",
                claim.claim,
                few(&uses)
            )
        })
        .collect();
    Blocker {
        reason: "VolumesApart",
        message: format!(
            "{}; each of them can be mounted on one node at a time (ReadWriteOnce), so no pod can have them all. This starts when one of these pods has ended or moved; backup storage with access mode ReadWriteMany is not bound to a node.",
            held.join(", ")
        ),
    }
}

/// Whether a restore may write into `target`, which pods may have open.
pub fn target_use(target: &ClaimUse) -> Readiness {
    if let Some(used) = staying(target).find(|used| !used.mover) {
        return Readiness::Refused(Refusal {
            reason: "TargetInUse",
            message: format!(
                "PersistentVolumeClaim {} is in use by pod {} on node {}; what is restored under a running program may be overwritten or misread. Stop the pod and make a new Restore, restore into another claim, or set allowInUse: true.",
                target.claim, used.pod, used.node
            ),
        });
    }
    match target.pods.first() {
        Some(used) => Readiness::Blocked(Blocker {
            reason: "TargetInUse",
            message: format!(
                "PersistentVolumeClaim {} is still in use by pod {} on node {}, which is on its way out; the restore starts when it has ended.",
                target.claim, used.pod, used.node
            ),
        }),
        None => Readiness::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(pod: &str, node: &str) -> PodUse {
        PodUse {
            pod: pod.to_owned(),
            node: node.to_owned(),
            leaving: false,
            mover: false,
        }
    }

    fn leaving(pod: &str, node: &str) -> PodUse {
        PodUse {
            leaving: true,
            ..used(pod, node)
        }
    }

    fn claim(name: &str, access: Access, pods: &[PodUse]) -> ClaimUse {
        ClaimUse {
            claim: name.to_owned(),
            access,
            pods: pods.to_vec(),
        }
    }

    fn node(claims: &[ClaimUse]) -> Option<String> {
        pin(claims).unwrap().map(|pin| pin.node)
    }

    #[test]
    fn a_mover_goes_where_its_volume_is_in_use() {
        let data = claim("data", Access::OneNode, &[used("app", "b")]);
        let storage = claim("storage", Access::OneNode, &[]);
        let pin = pin(&[data, storage]).unwrap().unwrap();
        assert_eq!(pin.node, "b");
        assert_eq!(pin.pods, ["app"]);
        assert_eq!(
            pin.why,
            "PersistentVolumeClaim data is in use there by pod app"
        );
    }

    #[test]
    fn unused_and_shared_volumes_pin_nothing() {
        let shared = claim("data", Access::Many, &[used("app", "a")]);
        let idle = claim("storage", Access::OneNode, &[]);
        assert_eq!(node(&[shared, idle]), None);
    }

    #[test]
    fn a_pod_that_is_leaving_pins_nothing_and_holds_nobody_apart() {
        let data = claim("data", Access::OneNode, &[leaving("old", "a")]);
        let storage = claim("storage", Access::OneNode, &[used("other", "b")]);
        assert_eq!(node(std::slice::from_ref(&data)), None);
        assert_eq!(node(&[data, storage]).as_deref(), Some("b"));
    }

    #[test]
    fn of_several_nodes_the_one_that_has_all_volumes_is_taken() {
        let data = claim("data", Access::OneNode, &[used("x", "a"), used("y", "c")]);
        let storage = claim("storage", Access::OneNode, &[used("z", "c")]);
        assert_eq!(node(&[data, storage]).as_deref(), Some("c"));
    }

    #[test]
    fn volumes_in_use_on_different_nodes_are_named_with_pods_and_nodes() {
        let data = claim("data", Access::OneNode, &[used("app-0", "node-1")]);
        let storage = claim("backup-storage", Access::OneNode, &[used("peer", "node-2")]);
        let blocker = pin(&[data, storage]).unwrap_err();
        assert_eq!(blocker.reason, "VolumesApart");
        for word in [
            "data",
            "app-0",
            "node-1",
            "backup-storage",
            "peer",
            "node-2",
            "ReadWriteMany",
        ] {
            assert!(blocker.message.contains(word), "{}", blocker.message);
        }
    }

    #[test]
    fn of_many_pods_a_few_are_named() {
        let pods: Vec<PodUse> = (0..500)
            .map(|n| used(&format!("app-{n:03}"), "a"))
            .collect();
        let pin = pin(&[claim("data", Access::OneNode, &pods)])
            .unwrap()
            .unwrap();
        assert!(pin.why.ends_with("app-000, app-001, app-002 and 497 more"));
        assert_eq!(pin.pods.len(), 500);
    }

    #[test]
    fn a_volume_for_one_pod_is_waited_for_also_while_that_is_leaving() {
        for pod in [used("app", "a"), leaving("app", "a")] {
            let blocker = pin(&[claim("data", Access::OnePod, &[pod])]).unwrap_err();
            assert_eq!(blocker.reason, "VolumeInUse");
            assert!(blocker.message.contains("pod app on node a"));
        }
        assert_eq!(node(&[claim("data", Access::OnePod, &[])]), None);
    }

    #[test]
    fn a_target_in_use_is_refused_and_one_that_is_free_before_long_is_waited_for() {
        let target = |pods: &[PodUse]| target_use(&claim("data", Access::Many, pods));
        assert_eq!(target(&[]), Readiness::Ready);
        assert!(
            matches!(target(&[leaving("old", "a"), used("app", "a")]), Readiness::Refused(why) if why.message.contains("pod app "))
        );
        let mover = PodUse {
            mover: true,
            ..used("nightly", "a")
        };
        for pod in [leaving("old", "a"), mover] {
            assert!(
                matches!(target(&[pod]), Readiness::Blocked(why) if why.reason == "TargetInUse")
            );
        }
    }
}
