//! Where a mover's pod runs and as whom: what the namespace tells, asked of the API server itself
//! once a run is about to start, and what follows from it.

mod pods;

use k8s_openapi::api::core::v1::{
    Namespace, PersistentVolumeClaim, Pod, SELinuxOptions, Toleration,
};
use kube::{Api, ResourceExt};
use tidelock_api::{MoverSpec, Privilege, SecurityContextStatus};
use tidelock_core::identity::{self, IdentityFacts, Ids, PodIdentity};
use tidelock_core::placement::{self as core_placement, Access, ClaimUse, Pin};
use tidelock_core::run::Readiness;

use crate::context::Context;
use crate::error::Error;
use crate::telemetry::reasons;
use crate::volume;

/// Label with the Pod Security Standard that a namespace enforces.
const ENFORCE_LABEL: &str = "pod-security.kubernetes.io/enforce";

/// User of a mover that mounts no volume, where it cannot be root.
const NOBODYS_USER: i64 = 65_532;

/// Where a mover's pod runs and as whom.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placement {
    /// The one node that can have its volumes.
    pub pin: Option<Pin>,
    /// What the pods on that node tolerate.
    pub tolerations: Vec<Toleration>,
    /// Nodes that have as many movers as they may. A pod that no volume binds to a node is kept
    /// off them by preference; where one does, the queue holds it back.
    pub exclude_nodes: Vec<String>,
    /// As whom it runs.
    pub security: PodIdentity,
    /// The SELinux context that the pods set which use its volumes: another one would take the
    /// files away from them.
    pub se_linux: Option<SELinuxOptions>,
}

/// A claim that a mover mounts.
#[derive(Debug, Clone, Copy)]
pub struct Volume<'a> {
    /// Its name.
    pub name: &'a str,
    /// The claim as it is; none where it is yet to be made.
    pub claim: Option<&'a PersistentVolumeClaim>,
}

impl<'a> Volume<'a> {
    /// `claim` under the name it has, or will have.
    pub fn of(name: &'a str, claim: Option<&'a PersistentVolumeClaim>) -> Self {
        Self { name, claim }
    }
}

/// What a mover is to be placed for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The volumes it mounts.
    pub volumes: &'a [Volume<'a>],
    /// The volume that is written over, unless it may be in use.
    pub unused: Option<&'a str>,
    /// What the user says of the pod.
    pub mover: &'a MoverSpec,
    /// The claim whose data is moved, for messages.
    pub data: &'a str,
    /// Who tells the user that owns the data, the closest first.
    pub owners: &'a [DataOwner<'a>],
}

/// Who tells the user that owns the data.
#[derive(Debug, Clone, Copy)]
pub enum DataOwner<'a> {
    /// The pods that use this claim.
    PodsOf(&'a str),
    /// An earlier mover of the same data.
    Recorded(&'a Ids),
}

/// Where and as whom a mover runs, by the pods and the namespace as they are now.
///
/// # Errors
/// The inner error says what keeps it from running anywhere.
///
/// # Assumptions
/// Pods that come after this look are not seen; the scheduler still keeps two pods from one
/// ReadWriteOncePod volume, and the kubelet two nodes from one ReadWriteOnce volume.
pub async fn place(
    ctx: &Context,
    wanted: &Wanted<'_>,
) -> Result<Result<Placement, Readiness>, Error> {
    let mounted = wanted.volumes.iter().map(|volume| volume.name);
    let owned = wanted.owners.iter().filter_map(|owner| match owner {
        DataOwner::PodsOf(claim) => Some(*claim),
        DataOwner::Recorded(_) => None,
    });
    let claims: Vec<&str> = mounted.chain(owned).collect();
    let pods = pods::using(ctx, wanted.namespace, &claims).await?;
    let restricted = match wanted.mover.privilege {
        Privilege::Unprivileged => false,
        Privilege::Auto | Privilege::Root => enforces_restricted(ctx, wanted.namespace).await?,
    };
    Ok(decide(wanted, &pods, restricted))
}

/// Takes what was found into a plan; whether the plan is ready with it.
pub fn settle(plan: &mut Placement, placed: Result<Placement, Readiness>) -> Readiness {
    match placed {
        Ok(placement) => {
            *plan = placement;
            Readiness::Ready
        }
        Err(not_ready) => not_ready,
    }
}

/// User and groups of an ordinary user, as the status keeps them.
pub fn to_status(identity: &PodIdentity) -> Option<SecurityContextStatus> {
    match identity {
        PodIdentity::Root => None,
        PodIdentity::User {
            user,
            group,
            fs_group,
            supplemental,
        } => Some(SecurityContextStatus {
            run_as_user: *user,
            run_as_group: *group,
            fs_group: *fs_group,
            supplemental_groups: supplemental.clone(),
        }),
    }
}

/// User and groups that a status keeps.
pub fn recorded(status: &SecurityContextStatus) -> Ids {
    Ids {
        user: Some(status.run_as_user),
        group: status.run_as_group,
        fs_group: status.fs_group,
        supplemental: status.supplemental_groups.clone(),
    }
}

async fn enforces_restricted(ctx: &Context, namespace: &str) -> Result<bool, Error> {
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let metadata = api
        .get_metadata(namespace)
        .await
        .map_err(Error::api(format!("read Namespace {namespace}")))?;
    let level = metadata.labels().get(ENFORCE_LABEL);
    Ok(level.is_some_and(|level| level == "restricted"))
}

fn decide(wanted: &Wanted<'_>, pods: &[Pod], restricted: bool) -> Result<Placement, Readiness> {
    let uses: Vec<ClaimUse> = wanted
        .volumes
        .iter()
        .map(|volume| ClaimUse {
            claim: volume.name.to_owned(),
            access: access(volume.claim),
            pods: pods::uses_of(pods, volume.name),
        })
        .collect();
    if let Some(target) = uses.iter().find(|used| wanted.unused == Some(&*used.claim)) {
        match core_placement::target_use(target) {
            Readiness::Ready => {}
            not_yet => return Err(not_yet),
        }
    }
    let moved = uses.iter().any(|used| used.claim == wanted.data);
    if let Some(pod) = pods::restorer(pods, wanted.data).filter(|_| moved) {
        return Err(being_restored(wanted.data, &pod));
    }
    let pin = core_placement::pin(&uses).map_err(Readiness::Blocked)?;
    let names = pin.as_ref().map(|pin| &pin.pods[..]).unwrap_or_default();
    let named: Vec<&str> = wanted.volumes.iter().map(|volume| volume.name).collect();
    Ok(Placement {
        tolerations: pods::tolerations(pods, names),
        exclude_nodes: Vec::new(),
        security: who(wanted, pods, restricted)?,
        se_linux: pods::se_linux(pods, &named),
        pin,
    })
}

/// What is half restored is neither to be saved nor to be written over.
fn being_restored(claim: &str, pod: &str) -> Readiness {
    volume::blocked(
        reasons::VOLUME_IN_USE,
        format!(
            "PersistentVolumeClaim {claim} is being restored by pod {pod}; this starts when that has ended."
        ),
    )
}

fn who(wanted: &Wanted<'_>, pods: &[Pod], restricted: bool) -> Result<PodIdentity, Readiness> {
    let mover = wanted.mover;
    let owners = wanted.owners.iter().flat_map(|owner| match owner {
        DataOwner::PodsOf(claim) => pods::ids_of(pods, claim),
        DataOwner::Recorded(ids) => vec![(*ids).clone()],
    });
    let mut users: Vec<Ids> = owners.collect();
    if wanted.volumes.is_empty() {
        // Where there is no file, no file's owner matters.
        users.push(Ids {
            user: Some(NOBODYS_USER),
            group: Some(NOBODYS_USER),
            ..Ids::default()
        });
    }
    identity::identity(&IdentityFacts {
        privilege: match mover.privilege {
            Privilege::Auto => identity::Privilege::Auto,
            Privilege::Root => identity::Privilege::Root,
            Privilege::Unprivileged => identity::Privilege::Unprivileged,
        },
        namespace: wanted.namespace,
        restricted,
        wanted: &Ids {
            user: mover.run_as_user,
            group: mover.run_as_group,
            fs_group: mover.fs_group,
            supplemental: mover.supplemental_groups.clone(),
        },
        users: &users,
        claim: wanted.data,
    })
}

/// How often a claim can be mounted, by what its volume can do rather than by what was asked for.
/// One that is yet to be bound holds nobody.
fn access(claim: Option<&PersistentVolumeClaim>) -> Access {
    let asked = claim
        .and_then(|claim| claim.spec.as_ref())
        .and_then(|spec| spec.access_modes.as_ref());
    let bound = claim
        .and_then(|claim| claim.status.as_ref())
        .and_then(|status| status.access_modes.as_ref())
        .filter(|modes| !modes.is_empty());
    let modes = bound.or(asked).map(Vec::as_slice).unwrap_or_default();
    let has = |mode: &str| modes.iter().any(|own| own == mode);
    if has("ReadWriteOncePod") {
        Access::OnePod
    } else if has("ReadWriteOnce") && !has("ReadWriteMany") {
        Access::OneNode
    } else {
        Access::Many
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(spec: &[&str], status: &[&str]) -> PersistentVolumeClaim {
        let claim = json!({"spec": {"accessModes": spec}, "status": {"accessModes": status}});
        serde_json::from_value(claim).unwrap()
    }

    #[test]
    fn what_the_volume_can_goes_before_what_was_asked_for() {
        let of = |spec: &[&str], status: &[&str]| access(Some(&claim(spec, status)));
        assert_eq!(of(&["ReadWriteOnce"], &[]), Access::OneNode);
        assert_eq!(
            of(&["ReadWriteOnce"], &["ReadWriteOnce", "ReadWriteMany"]),
            Access::Many
        );
        assert_eq!(of(&["ReadWriteOnce", "ReadOnlyMany"], &[]), Access::OneNode);
        assert_eq!(of(&["ReadOnlyMany"], &[]), Access::Many);
        assert_eq!(of(&["ReadWriteOncePod"], &[]), Access::OnePod);
        assert_eq!(access(None), Access::Many);
    }

    #[test]
    fn a_volume_that_is_being_restored_is_not_saved() {
        let mover = |kind: &str, phase: &str| -> Pod {
            let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
            serde_json::from_value(json!({
                "metadata": {"name": "back", "labels": {
                    "app.kubernetes.io/managed-by": "tidelock", "tidelock.dev/run-kind": kind,
                }},
                "spec": {"nodeName": "a", "containers": [], "volumes": [volume]},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        let of = |pod: Pod, claim: &str| {
            let wanted = Wanted {
                namespace: "shop",
                volumes: &[Volume::of(claim, None)],
                unused: None,
                mover: &MoverSpec::default(),
                data: "data",
                owners: &[],
            };
            decide(&wanted, &[pod], false)
        };
        let Err(Readiness::Blocked(blocker)) = of(mover("Restore", "Running"), "data") else {
            panic!("saves half a restore")
        };
        assert!(blocker.message.contains("being restored by pod back"));
        assert!(of(mover("Restore", "Succeeded"), "data").is_ok());
        assert!(of(mover("Backup", "Running"), "data").is_ok());
        assert!(of(mover("Restore", "Running"), "storage").is_ok());
    }

    #[test]
    fn a_recorded_user_counts_between_the_pods_of_the_target_and_those_of_the_source() {
        let pod = |claim: &str, user: i64| -> Pod {
            let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}});
            serde_json::from_value(json!({
                "metadata": {"name": format!("app-of-{claim}")},
                "spec": {
                    "containers": [],
                    "securityContext": {"runAsUser": user},
                    "volumes": [volume],
                },
            }))
            .unwrap()
        };
        let recorded = Ids {
            user: Some(7),
            ..Ids::default()
        };
        let user = |pods: &[Pod], recorded: Option<&Ids>| {
            let mut owners = vec![DataOwner::PodsOf("target")];
            owners.extend(recorded.map(DataOwner::Recorded));
            owners.push(DataOwner::PodsOf("source"));
            let wanted = Wanted {
                namespace: "shop",
                volumes: &[Volume::of("target", None)],
                unused: None,
                mover: &MoverSpec::default(),
                data: "target",
                owners: &owners,
            };
            match who(&wanted, pods, true) {
                Ok(PodIdentity::User { user, .. }) => Some(user),
                _ => None,
            }
        };
        let both = [pod("source", 3), pod("target", 4)];
        assert_eq!(user(&both, Some(&recorded)), Some(4));
        assert_eq!(user(&both[..1], Some(&recorded)), Some(7));
        assert_eq!(user(&both[..1], None), Some(3));
        assert_eq!(user(&[], None), None);
    }

    #[test]
    fn a_mover_without_a_volume_needs_no_owner_of_one() {
        let wanted = Wanted {
            namespace: "shop",
            volumes: &[],
            unused: None,
            mover: &MoverSpec::default(),
            data: "",
            owners: &[],
        };
        let restricted = who(&wanted, &[], true).unwrap();
        assert!(matches!(
            restricted,
            PodIdentity::User {
                user: NOBODYS_USER,
                ..
            }
        ));
        assert_eq!(who(&wanted, &[], false).unwrap(), PodIdentity::Root);
    }
}
